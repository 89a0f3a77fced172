//! Many repositories of one project, by a rule instead of one by one.
//!
//! Nothing is kept of them: a repository follows from its number, and is made on disk when
//! git first asks for it. Of each twenty, one is disabled, one is in maintenance, one is denied
//! to those named, and one is empty; a test can compute the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::world::{Repository, same};

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Generated {
    pub count: u32,
    /// Repository 7 is called `{prefix}00007`.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// UPNs which may not read those whose number is 11 modulo 20.
    #[serde(default)]
    pub denied_read: Vec<String>,
}

impl Generated {
    /// The repository with this number, counted from 0.
    pub fn repository(&self, project_id: &str, n: u32) -> Repository {
        let place = n % ROUND;
        let name = format!("{}{n:05}", self.prefix);
        let readme = (place != EMPTY).then(|| ("README.md".to_owned(), format!("# {name}\n")));
        Repository {
            id: format!("{n:08x}-{}", id_tail(project_id)),
            name,
            default_branch: None,
            disabled: place == DISABLED,
            maintenance: place == MAINTENANCE,
            size: None,
            files: readme.into_iter().collect::<BTreeMap<_, _>>(),
            denied_read: if place == DENIED { self.denied_read.clone() } else { Vec::new() },
            contribute: Vec::new(),
        }
    }

    /// By id or name.
    pub(crate) fn find(&self, project_id: &str, name: &str) -> Option<Repository> {
        let by_name = || {
            let head = name.get(..self.prefix.len()).filter(|head| same(head, &self.prefix))?;
            name[head.len()..].parse().ok()
        };
        let by_id = || u32::from_str_radix(name.get(..8)?, 16).ok();
        let number = |n: Option<u32>| n.filter(|n| *n < self.count).map(|n| self.repository(project_id, n));
        number(by_name())
            .filter(|repository| same(&repository.name, name))
            .or_else(|| number(by_id()).filter(|repository| same(&repository.id, name)))
    }
}

/// What ids of one project have in common: all but the first part.
fn id_tail(project_id: &str) -> String {
    let guid = crate::random::derive_guid(project_id);
    guid.split_once('-').map_or_else(String::new, |(_, tail)| tail.to_owned())
}

fn prefix() -> String {
    "repo-".to_owned()
}

const ROUND: u32 = 20;
const DISABLED: u32 = 3;
const MAINTENANCE: u32 = 7;
const DENIED: u32 = 11;
const EMPTY: u32 = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_repository_is_found_by_name_and_by_id() {
        let generated = Generated { count: 20, prefix: prefix(), denied_read: vec!["a".to_owned()] };
        let denied = generated.repository("project", 11);

        assert_eq!(denied.name, "repo-00011");
        assert!(!denied.is_readable_by("a"));
        assert_eq!(generated.find("project", "REPO-00011"), Some(denied.clone()));
        assert_eq!(generated.find("project", &denied.id.to_uppercase()), Some(denied));
        for other in ["repo-11", "repo-00020", "repo-", "é", "0000000b-x"] {
            assert_eq!(generated.find("project", other), None);
        }
    }
}
