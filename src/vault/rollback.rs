//! Rows of a store that went back: found, refused by every replica, accepted by an operator (design.md 6.13).
//!
//! # Invariants
//!
//! 1. Who finds one writes that into it, as the next generation: replicas that saw nothing hear of it and refuse it
//!    too, and a refresh of it that is under way loses.
//! 2. Only a row that is behind at that moment is written, and as it is: what was accepted or linked anew meanwhile is
//!    left alone, and a grant that may be used up stays so.
//!
//! What was seen is told in [`marks`](super::marks).

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::connection::{Connection, Ended};
use super::leases::{NEVER, Watched};
use super::marks::{Began, Rollback, believed};
use super::{Vault, VaultError};
use crate::clock::later;
use crate::connection::{Change, ConnectionKey, Failure, Seen};
use crate::ids::AccountId;
use crate::reason::Reason;
use crate::store::{ConnectionRow, ConnectionWrite, Loaded};

impl Vault {
    /// Compares what was seen with what the store holds.
    pub async fn rollbacks(&self) -> Result<Vec<Rollback>, VaultError> {
        let mut behind = Vec::new();
        for marks in self.marks.all().chunks(ROWS_AT_ONCE) {
            let began = self.marks.began();
            let keys = marks.iter().map(|(key, _)| key.clone()).collect();
            let Loaded { row: rows, store_now } = self.store.connections_of(keys).await?;
            let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
            for (key, seen) in marks {
                let Some(row) = rows.remove(key) else {
                    if self.marks.is_missed(*seen, store_now) {
                        behind.push(Rollback { key: key.clone(), found: None, seen: *seen });
                    }
                    continue;
                };
                let found = row.generation;
                match self.open(row, store_now, began) {
                    Err(VaultError::RolledBack(rollback)) => behind.push(rollback),
                    // Whatever is in it, it is older.
                    Err(_) if found < seen.generation => {
                        behind.push(Rollback { key: key.clone(), found: Some(found), seen: *seen });
                    }
                    _ => {}
                }
            }
        }
        Ok(behind)
    }

    /// Compares what was seen with a store that was away, and has what is older refused. Tells how many there are.
    pub async fn suspect_rollbacks(&self) -> Result<usize, VaultError> {
        let rollbacks = self.rollbacks().await?;
        if let Some(first) = rollbacks.first() {
            tracing::error!(
                count = rollbacks.len(), first = %first.key,
                "the store is older than what was seen: these connections are refused until the restore is accepted by `azdo-broker connections accept-restore --yes`"
            );
        }
        for Rollback { key, .. } in rollbacks.iter().filter(|rollback| rollback.found.is_some()) {
            match self.suspect(key).await {
                Err(error @ VaultError::Store(_)) => return Err(error),
                Err(error) => tracing::error!(
                    connection.key = %key, error = &error as &dyn std::error::Error,
                    "other replicas are not told that a connection went back"
                ),
                Ok(()) => {}
            }
        }
        Ok(rollbacks.len())
    }

    /// Writes into a row that it is older than what was seen, if it is and does not say so.
    pub async fn suspect(&self, key: &ConnectionKey) -> Result<(), VaultError> {
        for _ in 0..RACES_MAX {
            let began = self.marks.began();
            let Loaded { row, store_now } = self.store.connection(key).await?;
            let Some(write) = row.and_then(|row| self.suspicion(row, store_now, began)) else {
                return Ok(());
            };
            match self.commit(write).await {
                Err(VaultError::Changed(_)) => {}
                written => return written.map(drop),
            }
        }
        Err(VaultError::Changed(key.to_string()))
    }

    fn suspicion(&self, row: ConnectionRow, store_now: Timestamp, began: Began) -> Option<ConnectionWrite> {
        let (key, found, refresh_at, watched) =
            (row.key.clone(), row.generation, row.refresh_at, Watched::of(&row));
        let before = row.failure.clone();
        // A tombstone releases nothing.
        if !row.live {
            return None;
        }
        let Err(VaultError::RolledBack(Rollback { seen, .. })) = self.open(row.clone(), store_now, began)
        else {
            return None;
        };
        if believed(before.as_ref().and_then(|failure| failure.behind), store_now) == Some(seen) {
            return None;
        }
        let opened = self.open_sealed(row, store_now).ok()?;
        let failure = refused(seen, before.as_ref(), store_now);
        let next = (refresh_at, watched.change_by(&failure));
        let at = (found, found.max(self.marks.generation(&key)).next(store_now));
        let write = self.write_on(&key, at, (opened.since, (&opened.connection).into()), next);
        Some(ConnectionWrite { paused: Some((failure, later(store_now, REFUSED_PAUSE))), ..write })
    }

    /// Takes the older state for good: it is written again, above all that was seen. What the store does not
    /// hold at all becomes a tombstone.
    pub async fn accept_restore(&self, Rollback { key, seen, .. }: &Rollback) -> Result<(), VaultError> {
        self.marks.note(key, *seen);
        for _ in 0..RACES_MAX {
            let Loaded { row, store_now } = self.store.connection(key).await?;
            let before = row.as_ref().and_then(|row| row.failure.clone());
            let opened = row.map(|row| self.open_sealed(row, store_now)).transpose()?;
            if opened.as_ref().is_some_and(|opened| seen.generation <= opened.since) {
                break; // Linked or disconnected meanwhile: that is newer than what was restored.
            }
            let found = opened.as_ref().map(|opened| opened.generation);
            let nobody = || Ended { at: store_now, identity: None, because: None, origin: None };
            let connection = opened.map_or_else(|| Connection::Ended(nobody()), |opened| opened.connection);
            let change = if connection.is_open() { Change::Connected } else { Change::Disconnected };
            let next = (Some(store_now), Some(change));
            let write = self.write(key, (found, store_now), (&connection).into(), next);
            let lost = before
                .filter(|failure| failure.lost)
                .map(|_| (Failure::lost(store_now), later(store_now, NEVER)));
            match self.commit(ConnectionWrite { paused: lost, ..write }).await {
                // Somebody else found it, or a refresh of it landed.
                Err(VaultError::Changed(_)) => {}
                committed => return committed.map(drop),
            }
        }
        Err(VaultError::Changed(key.to_string()))
    }

    /// All rows of an account that went back, also by what other replicas wrote into them.
    pub async fn suspected(&self, account: &AccountId) -> Result<Vec<Rollback>, VaultError> {
        let (mut suspected, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = self.connections(account, after.as_deref(), ROWS_AT_ONCE).await?;
            let Some((last, _)) = page.last() else { return Ok(suspected) };
            after = Some(last.role.to_string());
            suspected.extend(page.into_iter().filter_map(|(_, opened)| match opened {
                Err(VaultError::RolledBack(rollback)) => Some(rollback),
                _ => None,
            }));
        }
    }
}

/// What a row that went back says. That its grant may be used up is not forgotten.
pub(super) fn refused(seen: Seen, before: Option<&Failure>, store_now: Timestamp) -> Failure {
    let lost = before.is_some_and(|failure| failure.lost);
    Failure { behind: Some(seen), lost, ..Failure::new(Reason::RollbackSuspected, store_now) }
}

/// A page of rows in memory, some kilobytes each.
const ROWS_AT_ONCE: usize = 500;
/// Somebody writes the row at the same moment at most so often in a row.
const RACES_MAX: usize = 5;
/// Nobody is waited for by what no refresh mends; looked at again in case it was mended unheard.
const REFUSED_PAUSE: Duration = Duration::from_hours(1);
