//! The lines of an import, read in batches of one account.

use std::io::{BufRead, Read as _};

use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::CliError;
use crate::pb;

/// Reads lines; no more of them than one batch is held at a time.
pub(super) struct Lines<R> {
    from: R,
    number: usize,
    default_account: Option<String>,
    /// The first item of the next batch: of another account, or too much for this one.
    next: Option<(String, pb::ImportItem)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    account_id: Option<String>,
    role: RoleWord,
    developer_id: Option<String>,
    refresh_token: String,
    expected_object_id: Option<String>,
    last_used_at: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RoleWord {
    ServiceUser,
    Developer,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(from: R, default_account: Option<String>) -> Self {
        Self { from, number: 0, default_account, next: None }
    }

    /// The next items of one account, as many as fit one request.
    pub(super) fn next_batch(&mut self) -> Result<Option<(String, Vec<pb::ImportItem>)>, CliError> {
        let Some((account, first)) = self.next_item()? else { return Ok(None) };
        let mut size = first.refresh_token.len();
        let mut items = vec![first];
        while items.len() < ITEMS_MAX {
            let Some((of, item)) = self.next_item()? else { break };
            let is_twice = items.iter().any(|one| one.connection == item.connection);
            size += item.refresh_token.len();
            if of != account || is_twice || BATCH_BYTES_MAX < size {
                self.next = Some((of, item));
                break;
            }
            items.push(item);
        }
        Ok(Some((account, items)))
    }

    fn next_item(&mut self) -> Result<Option<(String, pb::ImportItem)>, CliError> {
        if let Some(item) = self.next.take() {
            return Ok(Some(item));
        }
        loop {
            let mut text = Zeroizing::new(String::new());
            let read = (&mut self.from).take(LINE_LEN_MAX).read_line(&mut text);
            self.number += 1;
            match read {
                Ok(0) => return Ok(None),
                Ok(_) if text.trim().is_empty() => {}
                Ok(_) => return self.item(&text).map(Some),
                Err(_) => return Err(self.wrong("cannot be read as text")),
            }
        }
    }

    fn item(&self, text: &str) -> Result<(String, pb::ImportItem), CliError> {
        // The parser's own words may quote the line.
        let line: Line = serde_json::from_str(text)
            .map_err(|_| self.wrong("is not the JSON object that `import --help` shows"))?;
        let account = line.account_id.or_else(|| self.default_account.clone());
        let account = account.ok_or_else(|| self.wrong("has no account_id; add it, or --account"))?;
        let (role, developer_id) = match (line.role, line.developer_id) {
            (RoleWord::ServiceUser, None) => (pb::Role::ServiceUser, String::new()),
            (RoleWord::Developer, Some(developer)) => (pb::Role::Developer, developer),
            (RoleWord::ServiceUser, Some(_)) => {
                return Err(self.wrong("names a developer for a service user"));
            }
            (RoleWord::Developer, None) => return Err(self.wrong("names no developer_id")),
        };
        let used =
            |at: Timestamp| prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() };
        let item = pb::ImportItem {
            connection: Some(pb::ConnectionName { role: role.into(), developer_id }),
            refresh_token: line.refresh_token,
            expected_object_id: line.expected_object_id.unwrap_or_default(),
            last_used_at: line.last_used_at.map(used),
        };
        Ok((account, item))
    }

    fn wrong(&self, what: &str) -> CliError {
        CliError::Usage(format!("line {} {what}", self.number))
    }
}

/// The contract's limit of a request's items.
const ITEMS_MAX: usize = 20;
/// Leaves room within the contract's 64 KiB for names; one grant alone is at most 16 KiB.
const BATCH_BYTES_MAX: usize = 40 * 1024;
const LINE_LEN_MAX: u64 = 64 * 1024;
