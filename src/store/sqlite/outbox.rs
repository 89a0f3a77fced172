//! Changes of connections for those who watch. There is one writer, so the order of ids is that of commits.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Row, params};

use super::columns::{limit as sql_limit, micros, text, time};
use super::{At, Sqlite, leases};
use crate::clock::earlier;
use crate::connection::{Change, ConnectionKey, Role};
use crate::ids::Generation;
use crate::store::error::StoreError;
use crate::store::outbox::{ChangePage, ChangeRow, Position};
use crate::store::rows::Loaded;

impl Sqlite {
    pub(in crate::store) async fn outbox_end(&self) -> Result<Loaded<Position>, StoreError> {
        self.read("look where the outbox ends", |at| {
            let ends = ends(at)?;
            Ok(Loaded { row: Position { outbox: ends.outbox, xact: 0, id: ends.last }, store_now: at.now })
        })
        .await
    }

    pub(in crate::store) async fn changes_after(
        &self,
        position: &Position,
        limit: usize,
    ) -> Result<Option<ChangePage>, StoreError> {
        let position = position.clone();
        self.read("read the outbox", move |at| changes_after(at, &position, limit)).await
    }

    pub(in crate::store) async fn tell_losses(&self, limit: usize) -> Result<usize, StoreError> {
        self.write("tell losses", move |at| {
            let lost = leases::end_lost(at, limit)?;
            for (key, generation) in &lost {
                append(at, key, *generation, Some(Change::NeedsRelink))?;
            }
            Ok(lost.len())
        })
        .await
    }

    pub(in crate::store) async fn prune_outbox(
        &self,
        keep_for: Duration,
        keep: u64,
        limit: usize,
    ) -> Result<usize, StoreError> {
        self.write("prune the outbox", move |at| prune(at, keep_for, keep, limit)).await
    }
}

pub(super) fn append(
    at: &At<'_>,
    key: &ConnectionKey,
    generation: Generation,
    change: Option<Change>,
) -> rusqlite::Result<()> {
    let Some(change) = change else { return Ok(()) };
    at.tx
        .prepare_cached(
            "INSERT INTO outbox (account, role, generation, change, happened_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            key.account.as_str(),
            key.role.to_string(),
            generation.0,
            change.as_str(),
            micros(at.now)
        ])
        .map(drop)
}

struct Ends {
    outbox: String,
    /// The last one that was deleted.
    gone: i64,
    /// The last one that was written.
    last: i64,
}

fn ends(at: &At<'_>) -> rusqlite::Result<Ends> {
    at.tx
        .prepare_cached(
            "SELECT name, gone, max(gone, coalesce((SELECT max(id) FROM outbox), 0)) FROM outbox_state",
        )?
        .query_row([], |row| Ok(Ends { outbox: row.get(0)?, gone: row.get(1)?, last: row.get(2)? }))
}

fn changes_after(at: &At<'_>, position: &Position, limit: usize) -> rusqlite::Result<Option<ChangePage>> {
    let ends = ends(at)?;
    // One behind the end is of a file that was put back since.
    if ends.outbox != position.outbox || position.id < ends.gone || ends.last < position.id {
        return Ok(None);
    }
    let mut statement = at.tx.prepare_cached(
        "SELECT account, role, generation, change, happened_at, id FROM outbox WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut found = statement.query(params![position.id, sql_limit(limit)])?;
    let (mut rows, mut count, mut next) = (Vec::new(), 0, position.clone());
    while let Some(row) = found.next()? {
        count += 1;
        next.id = row.get(5)?;
        rows.extend(read(row, &next)?);
    }
    let is_last = count < limit;
    Ok(Some(ChangePage { rows, next, is_last, is_more_coming: false, store_now: at.now }))
}

/// `None` for a row that names no change of a connection: it cannot be one of ours.
fn read(row: &Row<'_>, position: &Position) -> rusqlite::Result<Option<ChangeRow>> {
    let (account, role) = (text(row, 0)?.map(str::parse), text(row, 1)?.and_then(Role::parse));
    let change = text(row, 3)?.and_then(Change::parse);
    let (Some(Ok(account)), Some(role), Some(change)) = (account, role, change) else {
        tracing::warn!("a row of the outbox names no change of a connection and is ignored");
        return Ok(None);
    };
    Ok(Some(ChangeRow {
        key: ConnectionKey { account, role },
        generation: Generation(row.get(2)?),
        change,
        happened_at: time(row.get(4)?),
        position: position.clone(),
    }))
}

fn prune(at: &At<'_>, keep_for: Duration, keep: u64, limit: usize) -> rusqlite::Result<usize> {
    let (old, ends) = (earlier(at.now, keep_for), ends(at)?);
    let surplus = ends.last.saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
    let mut statement = at.tx.prepare_cached("SELECT id, happened_at FROM outbox ORDER BY id LIMIT ?1")?;
    let first = statement.query_map([sql_limit(limit)], |row| Ok((row.get(0)?, time(row.get(1)?))))?;
    let first: Vec<(i64, Timestamp)> = first.collect::<rusqlite::Result<_>>()?;
    // Always a beginning of it, so that one number says what is gone.
    let goes = first.iter().take_while(|(id, happened_at)| *happened_at <= old || *id <= surplus);
    let Some((gone, _)) = goes.last() else { return Ok(0) };
    at.tx.prepare_cached("UPDATE outbox_state SET gone = ?1")?.execute([gone])?;
    at.tx.prepare_cached("DELETE FROM outbox WHERE id <= ?1")?.execute([gone])
}
