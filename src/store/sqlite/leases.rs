//! Leases: who may refresh a connection now, and the verdict of whoever did.

use std::time::Duration;

use rusqlite::{Transaction, params};

use super::At;
use super::columns::{CONNECTION, limit, micros, plain, time};
use super::connections::{load, read};
use super::outbox;
use crate::clock::later;
use crate::connection::ConnectionKey;
use crate::ids::Generation;
use crate::store::rows::{Cas, Claim, Claimed, ConnectionRow, Verdict};

pub(in crate::store) fn claim(at: &At<'_>, key: &ConnectionKey, lease: Duration) -> rusqlite::Result<Claim> {
    let mut row = match load(at.tx, key)? {
        Some(row) if row.live => row,
        tombstone => return Ok(Claim::Absent(tombstone.map(Box::new))),
    };
    if let Some(until) = row.lease_until.filter(|until| at.now < *until) {
        return Ok(Claim::Leased { until });
    }
    if let Some(until) = row.retry_at.filter(|until| at.now < *until) {
        return Ok(Claim::Paused { until, failure: row.failure });
    }
    let until = later(at.now, lease);
    row.fence = at
        .tx
        .prepare_cached(
            "UPDATE connections SET lease_holder = ?3, lease_until = ?4, fence = fence + 1
             WHERE account = ?1 AND role = ?2 RETURNING fence",
        )?
        .query_row(params![key.account.as_str(), key.role.to_string(), at.holder, micros(until)], |row| {
            row.get(0)
        })?;
    row.lease_until = Some(time(micros(until)));
    Ok(Claim::Won(Box::new(Claimed { row, store_now: at.now })))
}

pub(in crate::store) fn claim_due(
    at: &At<'_>,
    rows: usize,
    lease: Duration,
) -> rusqlite::Result<Vec<Claimed>> {
    let mut statement = at.tx.prepare_cached(&claim_due_sql())?;
    let until = micros(later(at.now, lease));
    let rows = statement.query_map(params![micros(at.now), limit(rows), at.holder, until], read)?;
    let mut rows: Vec<ConnectionRow> = rows.filter_map(Result::transpose).collect::<rusqlite::Result<_>>()?;
    // RETURNING promises no order.
    rows.sort_by_key(|row| row.refresh_at);
    Ok(rows.into_iter().map(|row| Claimed { row, store_now: at.now }).collect())
}

pub(in crate::store) fn record_failure(at: &At<'_>, verdict: &Verdict) -> rusqlite::Result<Cas> {
    write_verdict(
        at,
        verdict,
        "UPDATE connections
         SET failure = ?5, retry_at = ?6, lease_holder = NULL, lease_until = NULL
         WHERE account = ?1 AND role = ?2 AND generation = ?3 AND fence = ?4 AND live = 1",
    )
}

pub(in crate::store) fn put_off(at: &At<'_>, verdict: &Verdict) -> rusqlite::Result<Cas> {
    write_verdict(
        at,
        verdict,
        r#"UPDATE connections
           SET failure = CASE WHEN instr(failure, '"lost":true') > 0 THEN ?5 ELSE failure END,
             retry_at = CASE WHEN instr(failure, '"lost":true') > 0 THEN ?6 ELSE retry_at END,
             refresh_at = max(refresh_at, ?6),
             lease_holder = NULL, lease_until = NULL
           WHERE account = ?1 AND role = ?2 AND generation = ?3 AND fence = ?4 AND live = 1"#,
    )
}

pub(in crate::store) fn foresee_failure(at: &At<'_>, verdict: &Verdict) -> rusqlite::Result<Cas> {
    write_verdict(
        at,
        verdict,
        "UPDATE connections SET failure = ?5, retry_at = ?6
         WHERE account = ?1 AND role = ?2 AND generation = ?3 AND fence = ?4 AND live = 1",
    )
}

fn write_verdict(at: &At<'_>, verdict: &Verdict, sql: &str) -> rusqlite::Result<Cas> {
    let failure = verdict.failure.as_ref().map(plain);
    let changed = at.tx.prepare_cached(sql)?.execute(params![
        verdict.key.account.as_str(),
        verdict.key.role.to_string(),
        verdict.generation.0,
        verdict.fence,
        failure,
        micros(verdict.retry_at)
    ])?;
    if changed != 0 {
        outbox::append(at, &verdict.key, verdict.generation, verdict.change)?;
    }
    Ok(Cas::of_changed_rows(changed))
}

pub(in crate::store) fn release(
    tx: &Transaction<'_>,
    key: &ConnectionKey,
    fence: i64,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE connections SET lease_holder = NULL, lease_until = NULL
         WHERE account = ?1 AND role = ?2 AND fence = ?3",
    )?
    .execute(params![key.account.as_str(), key.role.to_string(), fence])
    .map(drop)
}

/// Voids all leases: this process is the only one, so their holders are dead. One on a loss that was foreseen has
/// run out, so that it is told.
pub(super) fn clear(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute(
        r#"UPDATE connections
           SET lease_holder = NULL, lease_until = CASE WHEN instr(failure, '"lost":true') > 0 THEN 0 END
           WHERE lease_until IS NOT NULL"#,
        [],
    )
    .map(drop)
}

/// Ends leases that ran out on a loss that was foreseen.
pub(super) fn end_lost(at: &At<'_>, rows: usize) -> rusqlite::Result<Vec<(ConnectionKey, Generation)>> {
    let mut statement = at.tx.prepare_cached(&format!(
        r#"UPDATE connections SET lease_holder = NULL, lease_until = NULL
           WHERE rowid IN (SELECT rowid FROM connections
             WHERE live = 1 AND lease_until <= ?1 AND instr(failure, '"lost":true') > 0 LIMIT ?2)
           RETURNING {CONNECTION}"#,
    ))?;
    let ended = statement.query_map(params![micros(at.now), limit(rows)], read)?;
    ended.filter_map(Result::transpose).map(|row| row.map(|row| (row.key, row.generation))).collect()
}

/// A fence edited to its end is passed over: one more would be no integer, and fail the whole claim.
/// `due_at` is the latest of refresh, pause and lease, so that what may not run yet is not even seen.
pub(in crate::store) fn claim_due_sql() -> String {
    format!(
        "UPDATE connections SET lease_holder = ?3, lease_until = ?4, fence = fence + 1
         WHERE rowid IN (
           SELECT rowid FROM connections WHERE live = 1 AND due_at <= ?1 AND fence < {MAX}
           ORDER BY due_at LIMIT ?2)
         RETURNING {CONNECTION}",
        MAX = i64::MAX
    )
}
