//! Rows of integrations.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::columns::{INTEGRATION, text};
use crate::ids::AccountId;
use crate::store::rows::{Cas, IntegrationRow};

pub(in crate::store) fn load(
    tx: &Transaction<'_>,
    account: &AccountId,
) -> rusqlite::Result<Option<IntegrationRow>> {
    let row = tx
        .prepare_cached(&format!("SELECT {INTEGRATION} FROM integrations WHERE account = ?1"))?
        .query_row([account.as_str()], read)
        .optional()?;
    Ok(row.flatten())
}

pub(in crate::store) fn put(
    tx: &Transaction<'_>,
    expected: Option<i64>,
    row: &IntegrationRow,
) -> rusqlite::Result<Cas> {
    let changed = match expected {
        None => tx
            .prepare_cached(
                "INSERT INTO integrations (account, version, sealed) VALUES (?1, ?2, ?3)
                 ON CONFLICT (account) DO NOTHING",
            )?
            .execute(params![row.account.as_str(), row.version, row.sealed])?,
        Some(expected) => tx
            .prepare_cached(
                "UPDATE integrations SET version = ?2, sealed = ?3 WHERE account = ?1 AND version = ?4",
            )?
            .execute(params![row.account.as_str(), row.version, row.sealed, expected])?,
    };
    Ok(Cas::of_changed_rows(changed))
}

pub(in crate::store) fn delete(
    tx: &Transaction<'_>,
    account: &AccountId,
    expected: i64,
) -> rusqlite::Result<Cas> {
    let deleted = tx
        .prepare_cached("DELETE FROM integrations WHERE account = ?1 AND version = ?2")?
        .execute(params![account.as_str(), expected])?;
    Ok(Cas::of_changed_rows(deleted))
}

pub(in crate::store) fn list(
    tx: &Transaction<'_>,
    after: &str,
    limit: usize,
) -> rusqlite::Result<Vec<IntegrationRow>> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {INTEGRATION} FROM integrations WHERE account > ?1 ORDER BY account"
    ))?;
    let rows = statement.query_map([after], read)?;
    // The limit counts what is returned, so that an ignored row does not look like the list's end.
    rows.filter_map(Result::transpose).take(limit).collect()
}

/// Of those that have a row.
pub(in crate::store) fn versions(
    tx: &Transaction<'_>,
    accounts: Vec<AccountId>,
) -> rusqlite::Result<Vec<(AccountId, i64)>> {
    let mut statement = tx.prepare_cached("SELECT version FROM integrations WHERE account = ?1")?;
    let mut found = Vec::new();
    for account in accounts {
        let row = statement.query_row([account.as_str()], |row| row.get(0)).optional()?;
        found.extend(row.map(|version| (account, version)));
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<IntegrationRow>> {
    let Some(Ok(account)) = text(row, 0)?.map(str::parse) else {
        tracing::warn!("a row of the store names no account and is ignored");
        return Ok(None);
    };
    Ok(Some(IntegrationRow { account, version: row.get(1)?, sealed: row.get(2)? }))
}
