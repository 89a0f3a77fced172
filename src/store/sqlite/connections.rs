//! Rows of connections: read, list, compare-and-swap.

use std::ops::Range;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::At;
use super::columns::{self, CONNECTION, micros, plain, text, time};
use super::outbox;
use crate::connection::{Change, ConnectionKey, Role};
use crate::ids::{AccountId, Generation};
use crate::reason::Reason;
use crate::store::rows::{Cas, Compared, ConnectionRow, ConnectionWrite};

pub(in crate::store) fn load(
    tx: &Transaction<'_>,
    key: &ConnectionKey,
) -> rusqlite::Result<Option<ConnectionRow>> {
    let row = tx
        .prepare_cached(&format!("SELECT {CONNECTION} FROM connections WHERE account = ?1 AND role = ?2"))?
        .query_row(params![key.account.as_str(), key.role.to_string()], read)
        .optional()?;
    Ok(row.flatten())
}

pub(in crate::store) fn list(
    tx: &Transaction<'_>,
    account: &AccountId,
    after: &str,
    limit: usize,
) -> rusqlite::Result<Vec<ConnectionRow>> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {CONNECTION} FROM connections WHERE account = ?1 AND role > ?2 ORDER BY role"
    ))?;
    let rows = statement.query_map([account.as_str(), after], read)?;
    // The limit counts what is returned, so that an ignored row does not look like the list's end.
    rows.filter_map(Result::transpose).take(limit).collect()
}

pub(in crate::store) fn commit(at: &At<'_>, write: &ConnectionWrite) -> rusqlite::Result<Cas> {
    let tx = at.tx;
    let role = write.key.role.to_string();
    let (account, refresh_at) = (write.key.account.as_str(), write.refresh_at.map(micros));
    let grant_until = write.grant_until.map(micros);
    let changed = match write.expected {
        None => tx
            .prepare_cached(
                "INSERT INTO connections (account, role, generation, sealed, live, refresh_at, grant_until)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (account, role) DO NOTHING",
            )?
            .execute(params![
                account,
                role,
                write.generation.0,
                write.sealed,
                write.live,
                refresh_at,
                grant_until
            ])?,
        Some(expected) => {
            let (failure, retry_at) =
                write.paused.as_ref().map(|(why, until)| (plain(why), micros(*until))).unzip();
            tx.prepare_cached(
                r#"UPDATE connections
                 SET generation = ?3, sealed = ?4, live = ?5, refresh_at = ?6, grant_until = ?8,
                     retry_at = CASE WHEN ?11 AND instr(failure, '"lost":true') > 0 THEN retry_at ELSE ?9 END,
                     failure = CASE WHEN ?11 AND instr(failure, '"lost":true') > 0 THEN failure ELSE ?10 END,
                     lease_holder = NULL, lease_until = NULL
                 WHERE account = ?1 AND role = ?2 AND generation = ?7"#,
            )?
            .execute(params![
                account,
                role,
                write.generation.0,
                write.sealed,
                write.live,
                refresh_at,
                expected.0,
                grant_until,
                retry_at,
                failure,
                write.keeps_loss
            ])?
        }
    };
    if changed == 0 {
        return repeated(tx, write);
    }
    outbox::append(at, &write.key, write.generation, write.change)?;
    Ok(Cas::Won)
}

/// Whether it lost against itself: it was committed before, and the answer was an error.
fn repeated(tx: &Transaction<'_>, write: &ConnectionWrite) -> rusqlite::Result<Cas> {
    let (account, role) = (write.key.account.as_str(), write.key.role.to_string());
    let same = tx
        .prepare_cached(
            "SELECT 1 FROM connections WHERE account = ?1 AND role = ?2 AND generation = ?3 AND sealed = ?4",
        )?
        .exists(params![account, role, write.generation.0, write.sealed])?;
    Ok(Cas::of_changed_rows(usize::from(same)))
}

/// Of those that have a row.
pub(in crate::store) fn generations(
    tx: &Transaction<'_>,
    keys: Vec<ConnectionKey>,
) -> rusqlite::Result<Vec<Compared>> {
    let mut statement =
        tx.prepare_cached("SELECT generation FROM connections WHERE account = ?1 AND role = ?2")?;
    let mut found = Vec::new();
    for key in keys {
        let names = params![key.account.as_str(), key.role.to_string()];
        let row = statement.query_row(names, |row| Ok(Generation(row.get(0)?))).optional()?;
        found.extend(row.map(|generation| Compared { key, generation }));
    }
    Ok(found)
}

/// The first to die first.
pub(in crate::store) fn expiring_grants(
    tx: &Transaction<'_>,
    dies: &Range<Timestamp>,
    limit: usize,
) -> rusqlite::Result<Vec<(ConnectionKey, Timestamp)>> {
    let mut statement = tx.prepare_cached(
        r#"SELECT account, role, grant_until FROM connections
           WHERE live = 1 AND grant_until IS NOT NULL AND ?1 <= grant_until AND grant_until < ?2
             AND instr(coalesce(failure, ''), '"needs_person":true') = 0
           ORDER BY grant_until LIMIT ?3"#,
    )?;
    let within = params![micros(dies.start), micros(dies.end), columns::limit(limit)];
    let rows = statement.query_map(within, |row| {
        let (account, role) = (text(row, 0)?, text(row, 1)?);
        let (Some(Ok(account)), Some(role)) = (account.map(str::parse), role.and_then(Role::parse)) else {
            return Ok(None);
        };
        Ok(Some((ConnectionKey { account, role }, time(row.get(2)?))))
    })?;
    rows.filter_map(Result::transpose).collect()
}

/// Only while it is one: whoever is linked again has a row that lives.
pub(in crate::store) fn erase_ended(
    tx: &Transaction<'_>,
    before: Timestamp,
    limit: usize,
) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "DELETE FROM connections WHERE rowid IN (
             SELECT rowid FROM connections WHERE live = 0 AND generation < ?1 ORDER BY generation LIMIT ?2)",
    )?
    .execute(params![micros(before), columns::limit(limit)])
}

pub(in crate::store) fn clear_pause(
    at: &At<'_>,
    account: &AccountId,
    reason: Reason,
) -> rusqlite::Result<()> {
    // What somebody else wrote there may be no JSON.
    let mut statement = at.tx.prepare_cached(
        "UPDATE connections SET retry_at = NULL, failure = NULL WHERE account = ?1 AND live = 1
         AND CASE WHEN json_valid(failure) THEN failure ->> '$.reason' = ?2 END
         RETURNING role, generation",
    )?;
    let mut found = statement.query([account.as_str(), reason.as_str()])?;
    let mut mended = Vec::new();
    while let Some(row) = found.next()? {
        mended.extend(text(row, 0)?.and_then(Role::parse).map(|role| (role, row.get(1))));
    }
    drop(found);
    for (role, generation) in mended {
        let key = ConnectionKey { account: account.clone(), role };
        outbox::append(at, &key, Generation(generation?), Some(Change::Recovered))?;
    }
    Ok(())
}

pub(in crate::store) fn pull_refresh(
    tx: &Transaction<'_>,
    key: &ConnectionKey,
    generation: Generation,
    refresh_at: Timestamp,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE connections SET refresh_at = ?4
         WHERE account = ?1 AND role = ?2 AND generation = ?3 AND live = 1
           AND (refresh_at IS NULL OR refresh_at > ?4)",
    )?
    .execute(params![key.account.as_str(), key.role.to_string(), generation.0, micros(refresh_at)])
    .map(drop)
}

/// `None` for a row that names no connection: it cannot be one of ours.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Option<ConnectionRow>> {
    let (account, role) = (text(row, 0)?, text(row, 1)?);
    let (Some(Ok(account)), Some(role)) = (account.map(str::parse), role.and_then(Role::parse)) else {
        tracing::warn!("a row of the store names no connection and is ignored");
        return Ok(None);
    };
    let failure = text(row, 7)?;
    Ok(Some(ConnectionRow {
        key: ConnectionKey { account, role },
        generation: Generation(row.get(2)?),
        sealed: row.get(3)?,
        live: row.get(4)?,
        refresh_at: row.get::<_, Option<i64>>(5)?.map(time),
        retry_at: row.get::<_, Option<i64>>(6)?.map(time),
        // For people only. An unreadable one is as good as none.
        failure: failure.and_then(|failure| serde_json::from_str(failure).ok()),
        lease_until: row.get::<_, Option<i64>>(8)?.map(time),
        fence: row.get(9)?,
    }))
}
