//! What an audit says of links and disconnects: read once, at start (design.md 6.13).
//!
//! Only the end of a long audit is read. What is no line of ours is passed over: this finds what went back, and
//! proves nothing about the audit itself.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::Path;

use crate::connection::{ConnectionKey, Role, Seen};
use crate::ids::{AccountId, Generation, StoreId};

/// The acts that say it.
pub const LINK_SEEN: &str = "connection.linked";
pub const END_SEEN: &str = "connection.ended";

#[derive(serde::Deserialize)]
struct Line {
    act: String,
    account: Option<AccountId>,
    role: Option<String>,
    generation: Option<Generation>,
    store: Option<StoreId>,
}

/// Every link and disconnect of this store that the audit holds, the latest last. Nothing if there is no audit
/// yet, or if it is a pipe.
pub fn seen_in(path: &Path, store: &StoreId) -> io::Result<Vec<(ConnectionKey, Seen)>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Vec::new());
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(READ_MAX)))?;
    let mut seen = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        seen.extend(parse(&line?, store));
    }
    Ok(seen)
}

fn parse(line: &[u8], store: &StoreId) -> Option<(ConnectionKey, Seen)> {
    // Most lines are releases: not worth parsing.
    if !line.windows(ACTS.len()).any(|window| window == ACTS.as_bytes()) {
        return None;
    }
    let line: Line = serde_json::from_slice(line).ok()?;
    let is_end = match line.act.as_str() {
        LINK_SEEN => false,
        END_SEEN => true,
        _ => return None,
    };
    if line.store.as_ref() != Some(store) {
        return None;
    }
    let key = ConnectionKey { account: line.account?, role: Role::parse(&line.role?)? };
    Some((key, Seen { generation: line.generation?, is_end }))
}

/// How both acts begin.
const ACTS: &str = "\"connection.";
/// A few seconds of reading; links of years, but for very busy releases.
const READ_MAX: u64 = 512 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_seen_of_this_store_counts_and_broken_lines_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let store: StoreId = "one".parse().unwrap();
        assert!(seen_in(&path, &store).unwrap().is_empty());
        let line = |act: &str, store: &str| {
            format!(
                "{{\"act\":\"{act}\",\"account\":\"acme\",\"role\":\"service_user\",\"generation\":7,\"store\":\"{store}\"}}\n"
            )
        };
        let text = [
            line(LINK_SEEN, "one"),
            line(END_SEEN, "two"),
            line("Disconnect", "one"),
            "{\"act\":\"connection.linked".into(),
        ];
        std::fs::write(&path, text.concat()).unwrap();
        let seen = seen_in(&path, &store).unwrap();
        let seen: Vec<_> =
            seen.iter().map(|(key, seen)| (key.to_string(), seen.generation.0, seen.is_end)).collect();
        assert_eq!(seen, [("acme/service_user".to_owned(), 7, false)]);
    }
}
