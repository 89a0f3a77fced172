//! The repositories of an organization (azure.md 3.5).
//!
//! A list whose count and length differ, that breaks off, or that holds an item nobody understands
//! is an error as a whole: a shortened list is never presented as complete (P7). Read as it arrives,
//! so that tens of megabytes of JSON become a few of names: what many repositories share is kept once.
//!
//! Disabled repositories are listed and flagged; what to do with them is not decided here. URLs are
//! not kept: they follow from the names, and those of old organizations name the old host.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::mpsc;

use super::DevopsError;

/// One repository as Azure DevOps describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Repository {
    pub id: Box<str>,
    pub name: Box<str>,
    pub project: Arc<Project>,
    /// `refs/heads/main`; none while the repository is empty.
    pub default_branch: Option<Arc<str>>,
    /// In bytes.
    pub size: u64,
    pub is_disabled: bool,
    pub is_in_maintenance: bool,
}

#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq)]
pub struct Project {
    pub id: String,
    pub name: String,
}

/// A body, read by whoever parses it while it is still arriving.
pub(super) struct Body {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    is_begun: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: Box<str>,
    name: Box<str>,
    project: Project,
    default_branch: Option<String>,
    size: Option<Value>,
    is_disabled: Option<bool>,
    is_in_maintenance: Option<bool>,
}

/// The whole answer, if it is one.
struct List(Vec<Repository>);

struct ListVisitor;

/// Takes item after item, and keeps shared texts once.
#[derive(Default)]
struct Items {
    repos: Vec<Repository>,
    projects: HashMap<Project, Arc<Project>>,
    branches: HashMap<String, Arc<str>>,
}

impl Repository {
    /// Nobody can clone it now, whatever the permission says (azure.md 3.5).
    pub fn is_closed(&self) -> bool {
        self.is_disabled || self.is_in_maintenance
    }

    /// About what it takes in memory, its share of projects and branches apart.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.id.len() + self.name.len()
    }
}

impl Body {
    pub(super) fn new(pieces: mpsc::Receiver<Vec<u8>>) -> Self {
        Self { pieces, piece: Vec::new(), at: 0, is_begun: false }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let Some(piece) = self.pieces.blocking_recv() else { return Ok(0) };
            let mark = if self.is_begun { 0 } else { byte_order_mark(&piece) };
            (self.piece, self.at, self.is_begun) = (piece, mark, true);
        }
        let len = buffer.len().min(self.piece.len() - self.at);
        buffer[..len].copy_from_slice(&self.piece[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

/// Blocks while the body arrives.
pub(super) fn parse(body: impl Read) -> Result<Vec<Repository>, DevopsError> {
    let List(repos) = serde_json::from_reader(BufReader::new(body)).map_err(|_| DevopsError::Unparseable)?;
    Ok(repos)
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ListVisitor)
    }
}

impl<'de> Visitor<'de> for ListVisitor {
    type Value = List;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a count and as many repositories")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List, A::Error> {
        let (mut count, mut repos) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "count" => count = Some(map.next_value::<usize>()?),
                "value" if repos.is_some() => return Err(A::Error::duplicate_field("value")),
                "value" => repos = Some(map.next_value_seed(Items::default())?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let repos = repos.ok_or_else(|| A::Error::missing_field("value"))?;
        if count == Some(repos.len()) {
            Ok(List(repos))
        } else {
            Err(A::Error::custom("the list is not whole"))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<Repository>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<Repository>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("repositories")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self::Value, A::Error> {
        while let Some(item) = list.next_element::<Item>()? {
            self.take(item);
        }
        Ok(self.repos)
    }
}

impl Items {
    fn take(&mut self, item: Item) {
        let project =
            self.projects.entry(item.project).or_insert_with_key(|project| Arc::new(project.clone()));
        let branch = item.default_branch.filter(|branch| !branch.is_empty()).map(|branch| {
            self.branches.entry(branch).or_insert_with_key(|branch| branch.as_str().into()).clone()
        });
        self.repos.push(Repository {
            id: item.id,
            name: item.name,
            project: project.clone(),
            default_branch: branch,
            // For people to see: a number nobody understands costs nobody the list.
            size: item.size.as_ref().and_then(Value::as_u64).unwrap_or_default(),
            is_disabled: item.is_disabled.unwrap_or_default(),
            is_in_maintenance: item.is_in_maintenance.unwrap_or_default(),
        });
    }
}

fn byte_order_mark(piece: &[u8]) -> usize {
    if piece.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{"id":"R1","name":"analytics","url":"https://x","project":{"id":"P1","name":"Data Platform","state":"wellFormed"},
        "defaultBranch":"refs/heads/main","size":10437,"remoteUrl":"https://contoso@dev.azure.com/contoso/Data%20Platform/_git/analytics",
        "sshUrl":"git@ssh.dev.azure.com:v3/contoso/Data%20Platform/analytics","webUrl":"https://dev.azure.com/w","isDisabled":true,"isInMaintenance":false}"#;
    const BARE: &str = r#"{"id":"R2","name":"empty","project":{"id":"P1","name":"Data Platform"}}"#;
    const ODD: &str = r#"{"id":"R3","name":"odd","defaultBranch":null,"size":-1.5,"isDisabled":null,"isInMaintenance":true,
        "project":{"id":"P1","name":"Data Platform","visibility":"organization","state":7,"lastUpdateTime":null},"isFork":[{}]}"#;

    fn parse_text(text: &str) -> Result<Vec<Repository>, DevopsError> {
        parse(text.as_bytes())
    }

    #[test]
    fn a_list_is_read_with_all_and_with_few_fields() {
        let repos = parse_text(&format!(r#"{{"count":2,"value":[{FULL},{BARE}]}}"#)).unwrap();
        assert_eq!(repos[0].project.name, "Data Platform");
        assert_eq!(repos[0].default_branch.as_deref(), Some("refs/heads/main"));
        assert_eq!((repos[0].size, repos[0].is_disabled), (10_437, true));
        assert_eq!(
            (repos[1].default_branch.as_deref(), repos[1].size, repos[1].is_disabled),
            (None, 0, false)
        );
        assert!(Arc::ptr_eq(&repos[0].project, &repos[1].project), "what is shared is kept once");
        assert!(parse_text(r#"{"value":[],"count":0}"#).unwrap().is_empty());
    }

    #[test]
    fn odd_data_costs_nobody_the_list() {
        let repos = parse_text(&format!(r#"{{"value":[{ODD}],"count":1,"x":{{}}}}"#)).unwrap();
        let odd = &repos[0];
        assert_eq!((odd.default_branch.as_deref(), odd.size), (None, 0));
        assert!(odd.is_closed() && !odd.is_disabled);
    }

    #[test]
    fn a28_a_list_that_is_not_whole_is_an_error() {
        for body in [
            format!(r#"{{"count":3,"value":[{FULL},{BARE}]}}"#),
            format!(r#"{{"count":1,"value":[{FULL},{BARE}]}}"#),
            format!(r#"{{"count":2,"value":[{FULL},"#),
            format!(r#"{{"count":2,"value":[{FULL},{BARE}]"#),
            format!(r#"{{"count":2,"value":[{FULL},{{"id":"R3"}}]}}"#),
            format!(r#"{{"count":2,"value":[{FULL},{{"id":"R3","name":"x","project":{{"id":"P1"}}}}]}}"#),
            format!(r#"{{"count":1,"value":[{FULL}],"value":[{BARE}]}}"#),
            format!(r#"{{"count":1,"value":[{FULL}]}} {{"count":0,"value":[]}}"#),
            format!(r#"{{"value":[{FULL}]}}"#),
            r#"{"count":0}"#.to_owned(),
            String::new(),
        ] {
            assert!(matches!(parse_text(&body), Err(DevopsError::Unparseable)), "{body}");
        }
    }

    #[test]
    fn a_body_is_one_however_it_arrives() {
        let text = format!("\u{feff}{{\"count\":2,\"value\":[{FULL},{BARE}]}}");
        for len in [3, 7, 1000, 10_000] {
            let (pieces, arriving) = mpsc::channel(text.len());
            for piece in text.as_bytes().chunks(len) {
                pieces.blocking_send(piece.to_vec()).unwrap();
            }
            drop(pieces);
            assert_eq!(parse(Body::new(arriving)).unwrap().len(), 2, "in pieces of {len}");
        }
    }
}
