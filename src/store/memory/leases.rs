//! Leases: who may refresh a connection now, and the verdict of whoever did.

use std::time::Duration;

use super::{Act, MemoryHandle, Planted, Work};
use crate::clock::later;
use crate::connection::ConnectionKey;
use crate::store::error::StoreError;
use crate::store::rows::{Cas, Claim, Claimed, ConnectionRow, Verdict};

impl MemoryHandle {
    pub(in crate::store) async fn claim(
        &self,
        key: &ConnectionKey,
        lease: Duration,
    ) -> Result<Claim, StoreError> {
        let claim = |at: &mut Work<'_>| {
            let row = match at.state.connections.get(key).cloned() {
                Some(row) if row.live => row,
                tombstone => return Claim::Absent(tombstone.map(Box::new)),
            };
            let is_free = at.has(Planted::ClaimWithoutLease);
            if let Some(until) = row.lease_until.filter(|until| at.now < *until && !is_free) {
                return Claim::Leased { until };
            }
            if let Some(until) = row.retry_at.filter(|until| at.now < *until) {
                return Claim::Paused { until, failure: row.failure };
            }
            Claim::Won(Box::new(take(at, row, lease)))
        };
        self.work("claim a connection", claim).await
    }

    pub(in crate::store) async fn claim_due(
        &self,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Claimed>, StoreError> {
        let claim = |at: &mut Work<'_>| {
            let now = at.now;
            let is_due = |row: &&ConnectionRow| {
                let is_leased = row.lease_until.is_some_and(|until| now < until);
                let is_paused = row.retry_at.is_some_and(|until| now < until);
                row.live
                    && row.refresh_at.is_some_and(|due| due <= now)
                    && !is_leased
                    && !is_paused
                    && row.fence < i64::MAX
            };
            let mut due: Vec<ConnectionRow> = at.state.connections.values().filter(is_due).cloned().collect();
            due.sort_by_key(|row| row.refresh_at);
            due.truncate(limit);
            due.into_iter().map(|row| take(at, row, lease)).collect()
        };
        self.work("claim due connections", claim).await
    }

    pub(in crate::store) async fn record_failure(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        let record = |at: &mut Work<'_>| {
            let (failure, retry_at) = (verdict.failure.clone(), Some(verdict.retry_at));
            write_verdict(at, verdict, |row| ConnectionRow { retry_at, failure, lease_until: None, ..row })
        };
        self.work("record a failure", record).await
    }

    pub(in crate::store) async fn put_off(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        let put_off = |at: &mut Work<'_>| {
            let Some(stands) = at.state.connections.get(&verdict.key).cloned() else { return Cas::Lost };
            let is_lost = stands.failure.as_ref().is_some_and(|failure| failure.lost);
            let until = verdict.retry_at;
            let (failure, retry_at) = if is_lost {
                (verdict.failure.clone(), Some(until))
            } else {
                (stands.failure, stands.retry_at)
            };
            let refresh_at = stands.refresh_at.map(|at| at.max(until));
            write_verdict(at, verdict, |row| ConnectionRow {
                refresh_at,
                retry_at,
                failure,
                lease_until: None,
                ..row
            })
        };
        self.work("put off a refresh", put_off).await
    }

    pub(in crate::store) async fn foresee_failure(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        let foresee = |at: &mut Work<'_>| {
            let (failure, retry_at) = (verdict.failure.clone(), Some(verdict.retry_at));
            write_verdict(at, verdict, |row| ConnectionRow { retry_at, failure, ..row })
        };
        self.work("foresee a failure", foresee).await
    }

    pub(in crate::store) async fn release_lease(
        &self,
        key: &ConnectionKey,
        fence: i64,
    ) -> Result<(), StoreError> {
        let release = |at: &mut Work<'_>| {
            let row = at.state.connections.get(key).filter(|row| row.fence == fence).cloned();
            if let Some(row) = row {
                at.write(Act::Release, key, Some(ConnectionRow { lease_until: None, ..row }));
            }
        };
        self.work("release a lease", release).await
    }
}

fn take(at: &mut Work<'_>, row: ConnectionRow, lease: Duration) -> Claimed {
    let row = ConnectionRow { fence: row.fence + 1, lease_until: Some(later(at.now, lease)), ..row };
    at.write(Act::Claim, &row.key, Some(row.clone()));
    Claimed { row, store_now: at.now }
}

fn write_verdict(
    at: &mut Work<'_>,
    verdict: Verdict,
    write: impl FnOnce(ConnectionRow) -> ConnectionRow,
) -> Cas {
    let Verdict { key, generation, fence, change, .. } = verdict;
    let any = at.has(Planted::VerdictWithoutFence);
    let is_meant =
        |row: &&ConnectionRow| row.live && ((row.generation == generation && row.fence == fence) || any);
    let Some(row) = at.state.connections.get(&key).filter(is_meant).cloned() else {
        return Cas::Lost;
    };
    at.write(Act::Verdict { fence, generation }, &key, Some(write(row)));
    at.append(&key, generation, change);
    Cas::Won
}
