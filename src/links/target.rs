//! Where our last page sends a person back to: places on the platform that an operator named.
//!
//! A caller names a target, never a URL: a link must not become a redirect to anywhere.

use std::collections::HashMap;

use url::Url;

use super::below;

/// The return targets of the configuration, by name.
#[derive(Clone, Debug, Default)]
pub struct ReturnTargets(HashMap<String, Target>);

#[derive(Clone, Debug)]
enum Target {
    /// The same place for every account.
    Fixed(Url),
    /// A path below the account's own public URL.
    Path(String),
}

impl ReturnTargets {
    /// Adds `https://host/path`, or `/path` below each account's public URL.
    pub fn add(&mut self, name: String, to: &str) -> Result<(), &'static str> {
        let target = if to.starts_with('/') && !to.starts_with("//") {
            let is_plain = !to.contains(['?', '#', '\\']) && !to.chars().any(char::is_control);
            is_plain.then(|| Target::Path(to[1..].to_owned())).ok_or("must be a path without query")?
        } else {
            let url =
                Url::parse(to).map_err(|_| "must be https://host/path, or /path below the public URL")?;
            let local = url.scheme() == "http" && url.host_str() == Some("localhost");
            if url.scheme() != "https" && !local {
                return Err("must be https, or http://localhost");
            }
            if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
                return Err("must have no query, fragment or user");
            }
            Target::Fixed(url)
        };
        match self.0.insert(name, target) {
            None => Ok(()),
            Some(_) => Err("is the name of two return targets"),
        }
    }

    /// The origins of those that are the same for every account.
    pub(super) fn origins(&self) -> impl Iterator<Item = String> {
        self.0.values().filter_map(|target| match target {
            Target::Fixed(url) => Some(url.origin().ascii_serialization()),
            Target::Path(_) => None,
        })
    }

    /// The target for an account, if there is one of that name.
    pub(super) fn url(&self, name: &str, public_url: &Url) -> Option<Url> {
        self.0.get(name).map(|target| match target {
            Target::Fixed(url) => url.clone(),
            Target::Path(path) => below(public_url, path),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_fixed_or_below_the_accounts_own_url() {
        let mut targets = ReturnTargets::default();
        targets.add("ide".into(), "https://ide.example/back").unwrap();
        targets.add("settings".into(), "/settings/azure").unwrap();
        let of_acme = Url::parse("https://acme.example").unwrap();
        assert_eq!(targets.url("ide", &of_acme).unwrap().as_str(), "https://ide.example/back");
        assert_eq!(
            targets.url("settings", &of_acme).unwrap().as_str(),
            "https://acme.example/settings/azure"
        );
        assert_eq!(targets.url("other", &of_acme), None);
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_target() {
        for to in
            ["//evil.example/x", "http://evil.example/", "https://a.example/?next=", "/a?b", "/a\\b", "x"]
        {
            assert!(ReturnTargets::default().add("t".into(), to).is_err(), "{to}");
        }
        let mut twice = ReturnTargets::default();
        twice.add("t".into(), "/a").unwrap();
        assert!(twice.add("t".into(), "/b").is_err());
    }
}
