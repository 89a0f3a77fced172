//! Rows of a store that went back: found, refused by every replica, accepted by an operator (design.md 6.13).
//!
//! # Invariants
//!
//! 1. Who is to release or refresh one, or looks for them, writes that into it, sealed and as the next generation:
//!    replicas that saw nothing hear of it and refuse it too, and a refresh of it that is under way loses.
//! 2. Only a row that is behind at that moment is written, and as it is: what was accepted or linked anew meanwhile is
//!    left alone, and a grant that may be used up stays so.
//!
//! What was seen is told in [`marks`](super::marks).

use std::collections::HashMap;

use jiff::Timestamp;

use super::connection::{Connection, Ended};
use super::leases::{NEVER, Watched};
use super::marks::{Began, Rollback};
use super::record::ConnectionRecord;
use super::{Vault, VaultError};
use crate::clock::later;
use crate::connection::{Change, ConnectionKey, Failure};
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

    /// Compares what was seen with a store that was away, and has what is older refused.
    pub async fn suspect_rollbacks(&self) -> Result<(), VaultError> {
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
        Ok(())
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

    /// The row that says of a row that it went back; none if it did not, or says so.
    fn suspicion(&self, row: ConnectionRow, store_now: Timestamp, began: Began) -> Option<ConnectionWrite> {
        let (key, found, refresh_at, watched) =
            (row.key.clone(), row.generation, row.refresh_at, Watched::of(&row));
        let opened = self.open_sealed(row, store_now).ok()?;
        let Err(VaultError::RolledBack(Rollback { seen, .. })) = self.marks.check(&opened, began) else {
            return None;
        };
        // A tombstone releases nothing.
        if opened.behind == Some(seen) || !opened.connection.is_open() {
            return None;
        }
        let failure = Failure::new(Reason::RollbackSuspected, store_now);
        let next = (refresh_at, watched.change_by(&failure));
        let at = (Some(found), found.max(self.marks.generation(&key)).next(store_now));
        let form = (&opened.connection).into();
        let record = ConnectionRecord { since: Some(opened.since), behind: Some(seen), form };
        let write = self.write_at(&key, at, record, next);
        // No refresh mends it: whoever does writes the row.
        Some(ConnectionWrite { paused: Some((failure, later(store_now, NEVER))), keeps_loss: true, ..write })
    }

    /// Takes the older state for good: it is written again, above all that was seen. What the store does not
    /// hold at all becomes a tombstone.
    pub async fn accept_restore(&self, Rollback { key, seen, .. }: &Rollback) -> Result<(), VaultError> {
        for _ in 0..RACES_MAX {
            let Loaded { row, store_now } = self.store.connection(key).await?;
            let is_lost =
                row.as_ref().and_then(|row| row.failure.as_ref()).is_some_and(|failure| failure.lost);
            let opened = row.map(|row| self.open_sealed(row, store_now)).transpose()?;
            if opened.as_ref().is_some_and(|opened| seen.generation <= opened.since) {
                break; // Linked or disconnected meanwhile: that is newer than what was restored.
            }
            let found = opened.as_ref().map(|opened| opened.generation);
            let nobody = || Ended { at: store_now, identity: None, because: None, origin: None };
            let connection = opened.map_or_else(|| Connection::Ended(nobody()), |opened| opened.connection);
            let change = match connection.is_open() {
                true if is_lost => Change::NeedsRelink,
                true => Change::Connected,
                false => Change::Disconnected,
            };
            let next = (Some(store_now), Some(change));
            let write = self.write(key, (found, store_now), (&connection).into(), next);
            match self.commit(ConnectionWrite { keeps_loss: true, ..write }).await {
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

/// A page of rows in memory, some kilobytes each.
const ROWS_AT_ONCE: usize = 500;
/// Somebody writes the row at the same moment at most so often in a row.
const RACES_MAX: usize = 5;
