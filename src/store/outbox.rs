//! What happened to connections, in the order in which it came to be: for those who watch.
//!
//! # Invariants
//!
//! 1. A change is there if and only if the write it tells of is.
//! 2. Rows are not sealed: they say that something happened and to whom, the connection's own record says how
//!    it is. Who edits them can make a watcher look, and hide or invent a kind, but show it nothing (P9).
//! 3. It is bounded (P8): what is older than it is kept, or more than are kept, is deleted from its beginning, and
//!    who had not read that far is told so. A move to another place leaves it behind.

use std::time::Duration;

use jiff::Timestamp;

use super::rows::Loaded;
use super::{Backend, Store, StoreError};
use crate::connection::{Change, ConnectionKey};
use crate::ids::Generation;

/// A place in an outbox: everything up to it has been read.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Position {
    /// Names the outbox: one that was made anew, or whose database went on from an older state, is another.
    pub(super) outbox: String,
    /// The transaction, where several write at once.
    pub(super) xact: i64,
    pub(super) id: i64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChangeRow {
    pub key: ConnectionKey,
    /// That the connection had then.
    pub generation: Generation,
    pub change: Change,
    pub happened_at: Timestamp,
    pub position: Position,
}

/// What came after a position.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChangePage {
    /// Those that name a connection and a change.
    pub rows: Vec<ChangeRow>,
    /// Where to read on.
    pub next: Position,
    /// There was nothing more to be read.
    pub is_last: bool,
    /// Others are written, but what may still come before them is not decided: look again soon.
    pub is_more_coming: bool,
    pub store_now: Timestamp,
}

impl Store {
    /// Where the outbox ends now: what is read from here on comes later.
    pub async fn outbox_end(&self) -> Result<Loaded<Position>, StoreError> {
        ask!(self.outbox_end())
    }

    /// What came after the position, at most `limit`; `None` if some of it is gone.
    pub async fn changes_after(
        &self,
        position: &Position,
        limit: usize,
    ) -> Result<Option<ChangePage>, StoreError> {
        ask!(self.changes_after(position, limit))
    }

    /// Ends leases that ran out on a loss that was foreseen, at most `limit` of them, and tells each as a change:
    /// nobody is left who would. Returns how many.
    pub async fn tell_losses(&self, limit: usize) -> Result<usize, StoreError> {
        ask!(self.tell_losses(limit))
    }

    /// Deletes from the outbox's beginning what is older than `keep_for` or beyond the last `keep` changes, at
    /// most `limit` of them, and tells how many.
    pub async fn prune_outbox(
        &self,
        keep_for: Duration,
        keep: u64,
        limit: usize,
    ) -> Result<usize, StoreError> {
        ask!(self.prune_outbox(keep_for, keep, limit))
    }
}
