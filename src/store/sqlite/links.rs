//! Rows of links.

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::columns::{self, LINK, micros, text, time};
use crate::connection::{ConnectionKey, Role};
use crate::ids::{AccountId, LinkId};
use crate::store::rows::{Cas, LinkRow, LinkWrite};

pub(in crate::store) fn insert(tx: &Transaction<'_>, row: &LinkRow) -> rusqlite::Result<()> {
    tx.prepare_cached(&format!("INSERT INTO links ({LINK}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"))?
        .execute(params![
            row.id.as_str(),
            row.key.account.as_str(),
            row.key.role.to_string(),
            row.state_hash,
            row.version,
            row.open,
            micros(row.expires_at),
            row.sealed
        ])
        .map(drop)
}

pub(in crate::store) fn load(tx: &Transaction<'_>, id: &LinkId) -> rusqlite::Result<Option<LinkRow>> {
    let row = tx
        .prepare_cached(&format!("SELECT {LINK} FROM links WHERE id = ?1"))?
        .query_row([id.as_str()], read)
        .optional()?;
    Ok(row.flatten())
}

pub(in crate::store) fn load_by_state(
    tx: &Transaction<'_>,
    state_hash: &str,
) -> rusqlite::Result<Option<LinkRow>> {
    let row = tx
        .prepare_cached(&format!("SELECT {LINK} FROM links WHERE state_hash = ?1"))?
        .query_row([state_hash], read)
        .optional()?;
    Ok(row.flatten())
}

pub(in crate::store) fn list_open(
    tx: &Transaction<'_>,
    account: &AccountId,
    role: Option<&Role>,
) -> rusqlite::Result<Vec<LinkRow>> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {LINK} FROM links WHERE open = 1 AND account = ?1 AND (?2 IS NULL OR role = ?2) ORDER BY role, id"
    ))?;
    let rows = statement.query_map(params![account.as_str(), role.map(ToString::to_string)], read)?;
    rows.filter_map(Result::transpose).collect()
}

pub(in crate::store) fn list_expired(
    tx: &Transaction<'_>,
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<LinkRow>> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {LINK} FROM links WHERE open = 1 AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2"
    ))?;
    let rows = statement.query_map(params![micros(now), columns::limit(limit)], read)?;
    rows.filter_map(Result::transpose).collect()
}

/// A link never changes its key: the row of another connection is no match.
pub(in crate::store) fn replace(
    tx: &Transaction<'_>,
    expected_version: i64,
    row: &LinkRow,
) -> rusqlite::Result<Cas> {
    let changed = tx
        .prepare_cached(
            "UPDATE links SET state_hash = ?4, version = ?5, open = ?6, expires_at = ?7, sealed = ?8
             WHERE id = ?1 AND account = ?2 AND role = ?3 AND version = ?9",
        )?
        .execute(params![
            row.id.as_str(),
            row.key.account.as_str(),
            row.key.role.to_string(),
            row.state_hash,
            row.version,
            row.open,
            micros(row.expires_at),
            row.sealed,
            expected_version
        ])?;
    Ok(Cas::of_changed_rows(changed))
}

pub(in crate::store) fn replace_all(tx: &Transaction<'_>, writes: &[LinkWrite]) -> rusqlite::Result<Cas> {
    writes.iter().try_fold(Cas::Won, |before, (expected, row)| Ok(before.and(replace(tx, *expected, row)?)))
}

pub(in crate::store) fn delete(
    tx: &Transaction<'_>,
    expired_before: Timestamp,
    limit: usize,
) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "DELETE FROM links WHERE rowid IN (
             SELECT rowid FROM links WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)",
    )?
    .execute(params![micros(expired_before), columns::limit(limit)])
}

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Option<LinkRow>> {
    let (id, account, role) = (text(row, 0)?, text(row, 1)?, text(row, 2)?);
    let parsed = (id.map(str::parse), account.map(str::parse), role.and_then(Role::parse));
    let (Some(Ok(id)), Some(Ok(account)), Some(role)) = parsed else {
        tracing::warn!("a row of the store names no link and is ignored");
        return Ok(None);
    };
    Ok(Some(LinkRow {
        id,
        key: ConnectionKey { account, role },
        // One that is no text matches no state, and its record does not agree with it.
        state_hash: text(row, 3)?.unwrap_or_default().to_owned(),
        version: row.get(4)?,
        open: row.get(5)?,
        expires_at: time(row.get(6)?),
        sealed: row.get(7)?,
    }))
}
