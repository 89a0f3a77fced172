//! Assertions of other issuers, from files that somebody else keeps fresh (workload identity federation).
//!
//! # Invariants
//!
//! 1. A file is read at each use, since its assertion lives for minutes; nothing of it is kept.
//! 2. Which files exist is the operator's word alone: an integration names a source, never a path.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::files::read_secret;
use crate::ids::SourceName;
use crate::secret::ClientAssertion;

/// The sources that the configuration names.
#[derive(Clone, Debug, Default)]
pub struct Sources(HashMap<SourceName, PathBuf>);

impl Sources {
    /// Adds a source; false if one of this name is there already.
    pub fn add(&mut self, name: SourceName, file: PathBuf) -> bool {
        self.0.insert(name, file).is_none()
    }

    pub fn has(&self, name: &SourceName) -> bool {
        self.0.contains_key(name)
    }

    /// The assertion that stands in the source's file now; `None` if none does, which the log explains.
    pub(super) async fn read(&self, name: &SourceName) -> Option<ClientAssertion> {
        let Some(path) = self.0.get(name).cloned() else {
            tracing::error!(source.name = %name, "no [[entra.federated_source]] has this name any more");
            return None;
        };
        let read = tokio::task::spawn_blocking(move || read_secret(&path, ASSERTION_LEN_MAX)).await.ok()?;
        let content = match read {
            Ok(content) => content,
            Err(error) => {
                tracing::error!(
                    source.name = %name, error = &error as &dyn std::error::Error,
                    "the file of a federated source cannot be used"
                );
                return None;
            }
        };
        let assertion = parse(&content);
        if assertion.is_none() {
            tracing::error!(source.name = %name, "the file of a federated source holds no assertion (JWT)");
        }
        assertion
    }
}

/// Three parts of base64url; a line break may follow.
fn parse(content: &[u8]) -> Option<ClientAssertion> {
    let text = std::str::from_utf8(content).ok()?.trim();
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'='))
    };
    (text.split('.').count() == 3 && text.split('.').all(part)).then(|| ClientAssertion::new(text.to_owned()))
}

/// Kubernetes' are 1 to 2 KiB.
const ASSERTION_LEN_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_has_three_parts_and_nothing_else_is_sent_to_entra() {
        assert!(parse(b"e30.e30.c2ln\n").is_some());
        for odd in
            [&b""[..], b"\n", b"e30.e30", b"e30.e30.", b"a.b.c.d", b"a b.c.d", b"<html>.x.y", b"\xff.a.b"]
        {
            assert!(parse(odd).is_none(), "{odd:?}");
        }
    }
}
