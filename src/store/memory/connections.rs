//! Rows of connections: read, list, compare-and-swap.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;

use super::{Act, MemoryHandle, Planted, Work};
use crate::clock::earlier;
use crate::connection::{Change, ConnectionKey};
use crate::ids::{AccountId, Generation};
use crate::reason::Reason;
use crate::store::error::StoreError;
use crate::store::rows::{Cas, Compared, ConnectionRow, ConnectionWrite, LinkRow, LinkWrite, Loaded, News};

impl MemoryHandle {
    pub(in crate::store) async fn connection(
        &self,
        key: &ConnectionKey,
    ) -> Result<Loaded<Option<ConnectionRow>>, StoreError> {
        let load =
            |at: &mut Work<'_>| Loaded { row: at.state.connections.get(key).cloned(), store_now: at.now };
        self.work("read a connection", load).await
    }

    pub(in crate::store) async fn connections(
        &self,
        account: &AccountId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Loaded<Vec<ConnectionRow>>, StoreError> {
        let list = |at: &mut Work<'_>| {
            let of_account = at.state.connections.values().filter(|row| row.key.account == *account);
            let mut rows: Vec<(String, &ConnectionRow)> =
                of_account.map(|row| (row.key.role.to_string(), row)).collect();
            rows.sort_by(|(one, _), (other, _)| one.cmp(other));
            let behind = rows.into_iter().filter(|(role, _)| after.is_none_or(|after| after < role.as_str()));
            let row = behind.take(limit).map(|(_, row)| row.clone()).collect();
            Loaded { row, store_now: at.now }
        };
        self.work("list connections", list).await
    }

    pub(in crate::store) async fn commit(&self, write: ConnectionWrite) -> Result<Cas, StoreError> {
        let commit = |at: &mut Work<'_>| {
            if at.has(Planted::CommitForgotten) {
                return Cas::Won;
            }
            if may_commit(at, &write) {
                commit(at, Act::Commit, &write);
                return Cas::Won;
            }
            // Whether it lost against itself: it was committed before, and the answer was lost.
            let standing = at.state.connections.get(&write.key);
            let is_repeated =
                standing.is_some_and(|row| row.generation == write.generation && row.sealed == write.sealed);
            if is_repeated { Cas::Won } else { Cas::Lost }
        };
        self.work("write a connection", commit).await
    }

    pub(in crate::store) async fn clear_pause(
        &self,
        account: &AccountId,
        reason: Reason,
    ) -> Result<(), StoreError> {
        let clear = |at: &mut Work<'_>| {
            let failed = |row: &&ConnectionRow| {
                row.live
                    && row.key.account == *account
                    && row.failure.as_ref().is_some_and(|failure| failure.reason == reason)
            };
            let rows: Vec<ConnectionRow> = at.state.connections.values().filter(failed).cloned().collect();
            for row in rows {
                let key = row.key.clone();
                let generation = row.generation;
                at.write(Act::ClearPause, &key, Some(ConnectionRow { retry_at: None, failure: None, ..row }));
                at.append(&key, generation, Some(Change::Recovered));
            }
        };
        self.work("resume connections", clear).await
    }

    pub(in crate::store) async fn pull_refresh(
        &self,
        pulls: Vec<(ConnectionKey, Generation, Timestamp)>,
    ) -> Result<(), StoreError> {
        let pull = |at: &mut Work<'_>| {
            for (key, generation, refresh_at) in pulls {
                let Some(row) = at.state.connections.get(&key).cloned() else { continue };
                let is_later = row.refresh_at.is_none_or(|standing| refresh_at < standing);
                if row.live && row.generation == generation && is_later {
                    at.write(Act::Pull, &key, Some(ConnectionRow { refresh_at: Some(refresh_at), ..row }));
                }
            }
        };
        self.work("schedule refreshes", pull).await
    }

    pub(in crate::store) async fn disconnect(
        &self,
        write: ConnectionWrite,
        ended: Vec<LinkWrite>,
    ) -> Result<Cas, StoreError> {
        let disconnect = |at: &mut Work<'_>| {
            if !may_commit(at, &write) || !ended.iter().all(|(version, row)| at.may_replace(*version, row)) {
                return Cas::Lost;
            }
            if at.has(Planted::DisconnectDeletes) {
                at.write(Act::Disconnect, &write.key, None);
            } else {
                commit(at, Act::Disconnect, &write);
            }
            for (_, row) in ended {
                at.replace(row);
            }
            Cas::Won
        };
        self.work("disconnect", disconnect).await
    }

    pub(in crate::store) async fn erase_ended(
        &self,
        kept: Duration,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let erase = |at: &mut Work<'_>| {
            let before = Generation(earlier(at.now, kept).as_microsecond());
            let is_old = |row: &&ConnectionRow| !row.live && row.generation < before;
            let mut old: Vec<_> = at.state.connections.values().filter(is_old).cloned().collect();
            old.sort_by_key(|row| row.generation);
            old.truncate(limit);
            for row in &old {
                at.write(Act::Erase, &row.key, None);
            }
            old.len()
        };
        self.work("erase what ended", erase).await
    }

    pub(in crate::store) async fn connect(
        &self,
        expected_version: i64,
        row: LinkRow,
        write: ConnectionWrite,
    ) -> Result<Cas, StoreError> {
        let connect = |at: &mut Work<'_>| {
            if !may_commit(at, &write) || !at.may_replace(expected_version, &row) {
                return Cas::Lost;
            }
            commit(at, Act::Connect, &write);
            at.replace(row);
            Cas::Won
        };
        self.work("connect a link", connect).await
    }

    pub(in crate::store) async fn expiring_grants(
        &self,
        dies: Range<Timestamp>,
        limit: usize,
    ) -> Result<Vec<(ConnectionKey, Timestamp)>, StoreError> {
        let list = |at: &mut Work<'_>| {
            let waits =
                |row: &ConnectionRow| row.failure.as_ref().is_some_and(|failure| failure.needs_person);
            let lives = |row: &ConnectionRow| row.live && !waits(row);
            let counts = |key: &ConnectionKey| at.state.connections.get(key).is_some_and(lives);
            let grants = at.state.grants_until.iter().map(|(key, until)| (key.clone(), *until));
            let mut soon: Vec<_> =
                grants.filter(|(key, until)| dies.contains(until) && counts(key)).collect();
            soon.sort_by_key(|(_, until)| *until);
            soon.truncate(limit);
            soon
        };
        self.work("list grants that expire", list).await
    }

    pub(in crate::store) async fn connections_of(
        &self,
        keys: Vec<ConnectionKey>,
    ) -> Result<Loaded<Vec<ConnectionRow>>, StoreError> {
        let load = |at: &mut Work<'_>| {
            let row = keys.iter().filter_map(|key| at.state.connections.get(key).cloned()).collect();
            Loaded { row, store_now: at.now }
        };
        self.work("read connections", load).await
    }

    pub(in crate::store) async fn generations(
        &self,
        keys: Vec<ConnectionKey>,
    ) -> Result<Vec<Compared>, StoreError> {
        let compare = |at: &mut Work<'_>| {
            let compared = |key| {
                let row = at.state.connections.get(&key)?;
                Some(Compared { key, generation: row.generation })
            };
            let mut found: Vec<_> = keys.into_iter().filter_map(compared).collect();
            // Whoever asks may ask in any order; what comes of it is always the same.
            found.sort();
            found
        };
        self.work("compare connections", compare).await
    }
}

fn may_commit(at: &Work<'_>, write: &ConnectionWrite) -> bool {
    let standing = at.state.connections.get(&write.key).map(|row| row.generation);
    standing == write.expected || at.has(Planted::CommitWithoutSwap)
}

fn commit(at: &mut Work<'_>, act: Act, write: &ConnectionWrite) {
    let before = at.state.connections.get(&write.key);
    let fence = before.map_or(0, |row| row.fence);
    let lost =
        before.filter(|row| write.keeps_loss && row.failure.as_ref().is_some_and(|failure| failure.lost));
    let (failure, retry_at) = match lost {
        Some(row) => (row.failure.clone(), row.retry_at),
        None => write.paused.clone().unzip(),
    };
    let row = ConnectionRow {
        key: write.key.clone(),
        generation: write.generation,
        sealed: write.sealed.clone(),
        live: write.live,
        refresh_at: write.refresh_at,
        retry_at,
        failure,
        lease_until: None,
        fence,
    };
    match write.grant_until {
        Some(until) => at.state.grants_until.insert(write.key.clone(), until),
        None => at.state.grants_until.remove(&write.key),
    };
    at.write(act, &write.key, Some(row));
    at.append(&write.key, write.generation, write.change);
    at.tell(&News::Connection(write.key.clone(), write.generation));
}
