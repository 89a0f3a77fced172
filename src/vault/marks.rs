//! What was seen of links and disconnects, to notice when the store goes back behind it (design.md 6.13).
//!
//! # Invariants
//!
//! 1. A row of before a link or disconnect that was seen does not open: not what was disconnected comes back, and
//!    not an identity that was replaced (P9). When who stands there came is sealed in the row, and a refresh does
//!    not change it: neither is it younger for one that landed since, nor older for one that was lost.
//! 2. Where an end was seen, a row that is not there is none that came back: its tombstone was erased, or is of a
//!    time before it was ever linked. Nor is one that was linked so long ago that it may have ended, and its
//!    tombstone been erased, unseen.
//! 3. Anything written later lifts that: a new link, or an operator's word that the restore was meant
//!    ([`Vault::accept_restore`]). Both get a generation above all that was seen, so that other replicas need
//!    not be told.
//!
//! What was seen is what this process made or learned, and what its audit says at start. A store that goes
//! back while no replica runs, with an audit that went back too, is not noticed by anybody. A mark costs some
//! hundred bytes; beyond [`MARKS_MAX`] any one is dropped, which only the audit still knows.

use std::collections::HashMap;
use std::sync::RwLock;
use std::time::Duration;

use jiff::Timestamp;

use super::connection::{Opened, Standing};
use super::{Vault, VaultError};
use crate::clock::earlier;
use crate::connection::{ConnectionKey, Seen};
use crate::ids::{Generation, StoreId};

/// The newest link or disconnect that was seen of each connection.
#[derive(Debug)]
pub(super) struct Marks {
    noted: RwLock<Noted>,
    /// How long tombstones stay in this store.
    pub(super) ended_kept: Duration,
}

#[derive(Debug, Default)]
struct Noted {
    marks: HashMap<ConnectionKey, Mark>,
    /// Grows with each mark.
    count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    seen: Seen,
    noted: Began,
}

/// Before a read began: what was noted only since then tells nothing about what it brings.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Began(u64);

/// A connection whose row is older than what was seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rollback {
    pub key: ConnectionKey,
    /// What the store holds; none where it holds nothing.
    pub found: Option<Generation>,
    pub seen: Seen,
}

impl Marks {
    pub(super) fn new(ended_kept: Duration) -> Self {
        Self { noted: RwLock::default(), ended_kept }
    }

    pub(super) fn began(&self) -> Began {
        Began(self.noted.read().expect("no panic while held").count)
    }

    /// Whether that is newer than what was known.
    pub(super) fn note(&self, key: &ConnectionKey, seen: Seen) -> bool {
        let mut noted = self.noted.write().expect("no panic while held");
        let before = noted.marks.get(key).copied();
        if before.is_some_and(|mark| seen <= mark.seen) {
            return false;
        }
        if MARKS_MAX <= noted.marks.len() && before.is_none() {
            let some = noted.marks.keys().next().cloned();
            some.and_then(|key| noted.marks.remove(&key));
        }
        noted.count += 1;
        let mark = Mark { seen, noted: Began(noted.count) };
        noted.marks.insert(key.clone(), mark);
        true
    }

    /// Whether a row that was read since `began` is of before what was seen: here, or by who wrote that into it.
    pub(super) fn check(&self, row: &Opened, began: Began) -> Result<(), VaultError> {
        let seen = row.behind.max(self.seen_before(&row.key, began));
        rolled_back(&row.key, Some(row.generation), seen.filter(|seen| row.is_before(*seen)))
    }

    /// Whether a row is missed that should have been there at `store_now`.
    pub(super) fn check_absent(
        &self,
        key: &ConnectionKey,
        store_now: Timestamp,
        began: Began,
    ) -> Result<(), VaultError> {
        let seen = self.seen_before(key, began);
        rolled_back(key, None, seen.filter(|seen| self.is_missed(*seen, store_now)))
    }

    /// Whether a row should be there: nothing that was linked so lately can have been disconnected and erased.
    pub(super) fn is_missed(&self, seen: Seen, store_now: Timestamp) -> bool {
        !seen.is_end && earlier(store_now, self.ended_kept).as_microsecond() < seen.generation.0
    }

    /// Whether a link was seen that is newer than what stands there, or missing.
    pub(super) fn is_behind(&self, key: &ConnectionKey, standing: &Standing) -> bool {
        let missing = self.check_absent(key, standing.store_now, self.began()).is_err();
        match standing.generation {
            None => missing,
            Some(found) => {
                self.mark(key).is_some_and(|mark| !mark.seen.is_end && found < mark.seen.generation)
            }
        }
    }

    /// The newest generation that was seen of it.
    pub(super) fn generation(&self, key: &ConnectionKey) -> Generation {
        self.mark(key).map(|mark| mark.seen.generation).unwrap_or_default()
    }

    fn seen_before(&self, key: &ConnectionKey, began: Began) -> Option<Seen> {
        self.mark(key).filter(|mark| mark.noted <= began).map(|mark| mark.seen)
    }

    fn mark(&self, key: &ConnectionKey) -> Option<Mark> {
        self.noted.read().expect("no panic while held").marks.get(key).copied()
    }

    pub(super) fn all(&self) -> Vec<(ConnectionKey, Seen)> {
        let noted = self.noted.read().expect("no panic while held");
        let mut all: Vec<_> = noted.marks.iter().map(|(key, mark)| (key.clone(), mark.seen)).collect();
        all.sort();
        all
    }
}

fn rolled_back(key: &ConnectionKey, found: Option<Generation>, seen: Option<Seen>) -> Result<(), VaultError> {
    seen.map_or(Ok(()), |seen| Err(VaultError::RolledBack(Rollback { key: key.clone(), found, seen })))
}

impl Vault {
    /// The store whose generations these are.
    pub fn store_id(&self) -> &StoreId {
        self.store.store_id()
    }

    /// Remembers that a link or a disconnect was seen. False: it was known.
    pub fn note_seen(&self, key: &ConnectionKey, seen: Seen) -> bool {
        self.marks.note(key, seen)
    }
}

/// Links and disconnects are people's acts, a few a second at the most.
const MARKS_MAX: usize = 200_000;
