//! What was seen of links and disconnects, to notice when the store goes back behind it (design.md 6.13).
//!
//! # Invariants
//!
//! 1. A row that is older than a link or disconnect that was seen does not open: not what was disconnected
//!    comes back, and not an identity that was replaced (P9).
//! 2. Where an end was seen, a row that is not there is none that came back: its tombstone was erased, or is of a
//!    time before it was ever linked.
//! 3. Anything written later lifts that: a new link, or an operator's word that the restore was meant
//!    ([`Vault::accept_restore`]). Both get a generation above all that was seen, so that other replicas need
//!    not be told.
//!
//! What was seen is what this process made or learned, and what its audit says at start. A store that goes
//! back while no replica runs, with an audit that went back too, is not noticed by anybody.

use std::collections::HashMap;
use std::sync::RwLock;

use super::connection::{Connection, Ended};
use super::{Vault, VaultError};
use crate::connection::{Change, ConnectionKey, Seen};
use crate::ids::{AccountId, Generation, StoreId};
use crate::reason::Reason;
use crate::store::{Cas, ConnectionWrite};

/// The newest link or disconnect that was seen of each connection.
#[derive(Debug, Default)]
pub(super) struct Marks(RwLock<HashMap<ConnectionKey, Seen>>);

/// A connection whose row is older than what was seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rollback {
    pub key: ConnectionKey,
    /// What the store holds; none where it holds nothing.
    pub found: Option<Generation>,
    pub seen: Seen,
}

impl Marks {
    pub(super) fn note(&self, key: &ConnectionKey, seen: Seen) {
        let mut marks = self.0.write().expect("no panic while held");
        if MARKS_MAX <= marks.len() && !marks.contains_key(key) {
            // Any will do: its audit still has it.
            let some = marks.keys().next().cloned();
            some.and_then(|key| marks.remove(&key));
        }
        let mark = marks.entry(key.clone()).or_default();
        *mark = seen.max(*mark);
    }

    /// Whether this row, or its absence, is older than what was seen.
    pub(super) fn check(&self, key: &ConnectionKey, found: Option<Generation>) -> Result<(), VaultError> {
        let marks = self.0.read().expect("no panic while held");
        match marks.get(key) {
            Some(seen) if is_behind(found, *seen) => {
                Err(VaultError::RolledBack(Rollback { key: key.clone(), found, seen: *seen }))
            }
            _ => Ok(()),
        }
    }

    fn forget(&self, key: &ConnectionKey) {
        self.0.write().expect("no panic while held").remove(key);
    }

    fn all(&self) -> Vec<(ConnectionKey, Seen)> {
        let marks = self.0.read().expect("no panic while held");
        let mut all: Vec<_> = marks.iter().map(|(key, seen)| (key.clone(), *seen)).collect();
        all.sort();
        all
    }
}

impl Vault {
    /// The store whose generations these are.
    pub fn store_id(&self) -> &StoreId {
        self.store.store_id()
    }

    /// Remembers that a link or a disconnect was seen.
    pub fn note_seen(&self, key: &ConnectionKey, seen: Seen) {
        self.marks.note(key, seen);
    }

    /// Compares what was seen with the store. What the store is not behind of is forgotten.
    pub async fn rollbacks(&self) -> Result<Vec<Rollback>, VaultError> {
        let mut behind = Vec::new();
        for marks in self.marks.all().chunks(COMPARED_AT_ONCE) {
            let keys = marks.iter().map(|(key, _)| key.clone()).collect();
            let found: HashMap<_, _> = self.store.generations(keys).await?.into_iter().collect();
            for (key, seen) in marks {
                match found.get(key).copied() {
                    found if is_behind(found, *seen) => {
                        behind.push(Rollback { key: key.clone(), found, seen: *seen });
                    }
                    _ => {}
                }
            }
        }
        Ok(behind)
    }

    /// Takes the older state for good: it is written again, above all that was seen. What the store does not
    /// hold at all becomes a tombstone.
    pub async fn accept_restore(&self, rollback: &Rollback) -> Result<(), VaultError> {
        let loaded = self.store.connection(&rollback.key).await?;
        self.marks.forget(&rollback.key);
        let accepted = async {
            let connection = match loaded.row {
                Some(row) => self.open(row, loaded.store_now)?.connection,
                None => Connection::Ended(Ended {
                    at: loaded.store_now,
                    identity: None,
                    because: None,
                    origin: None,
                }),
            };
            let seen = rollback.seen.generation;
            let before = rollback.found.map_or(seen, |found| found.max(seen));
            let (from, refresh_at) = ((rollback.found, loaded.store_now, before), Some(loaded.store_now));
            let change = Some(if connection.is_open() { Change::Connected } else { Change::Disconnected });
            let write = self.write_above(&rollback.key, from, &(&connection).into(), refresh_at);
            match self.store.commit(ConnectionWrite { change, ..write }).await? {
                Cas::Won => {
                    self.wake_watchers();
                    Ok(())
                }
                Cas::Lost => Err(VaultError::Changed(rollback.key.to_string())),
            }
        };
        let accepted = accepted.await;
        if accepted.is_err() {
            self.marks.note(&rollback.key, rollback.seen);
        }
        accepted
    }

    /// Lets what waited for an operator's word go on.
    pub async fn resume_restored(&self, account: &AccountId) -> Result<(), VaultError> {
        self.lift_pauses(account, Reason::RollbackSuspected).await
    }
}

fn is_behind(found: Option<Generation>, seen: Seen) -> bool {
    match found {
        Some(found) => found < seen.generation,
        None => !seen.is_end,
    }
}

/// Some hundred bytes each. Links and disconnects are people's acts, a few a second at the most.
const MARKS_MAX: usize = 200_000;
const COMPARED_AT_ONCE: usize = 2_000;
