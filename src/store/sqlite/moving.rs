//! Everything a store keeps, page by page, out of one and into another.

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::columns::{CONNECTION, limit, micros, plain, time};
use super::{Sqlite, connections, integrations, links};
use crate::store::error::StoreError;
use crate::store::rows::{Cas, ConnectionRow, Count, Cursor, IntegrationRow, LinkRow, Page, Relocation};

impl Sqlite {
    pub(in crate::store) async fn relocation(&self) -> Result<Relocation, StoreError> {
        self.read("look where the store stands", |at| {
            let text: Option<String> =
                at.tx.query_row("SELECT relocation FROM store", [], |row| row.get(0))?;
            Ok(Relocation::parse(text.as_deref()))
        })
        .await
    }

    /// Nobody else writes: the lock of this process keeps them out.
    pub(in crate::store) async fn set_relocation(
        &self,
        expected: Relocation,
        next: Relocation,
    ) -> Result<Cas, StoreError> {
        self.swap("note where the store stands", move |at| {
            let sql = "UPDATE store SET relocation = ?2 WHERE relocation IS ?1";
            at.tx.execute(sql, [expected.text(), next.text()]).map(Cas::of_changed_rows)
        })
        .await
    }

    pub(in crate::store) async fn page(&self, from: Cursor, rows: usize) -> Result<Page, StoreError> {
        self.read("read the store", move |at| page(at.tx, &from, rows)).await
    }

    pub(in crate::store) async fn fill(&self, page: Page) -> Result<Cas, StoreError> {
        self.swap("fill the store", move |at| {
            page.connections
                .iter()
                .try_for_each(|(row, grant_until)| put_connection(at.tx, row, *grant_until))?;
            page.links.iter().try_for_each(|row| put_link(at.tx, row))?;
            page.integrations.iter().try_for_each(|row| put_integration(at.tx, row))?;
            Ok(Cas::Won)
        })
        .await
    }

    pub(in crate::store) async fn count(&self) -> Result<Count, StoreError> {
        self.read("count the store's rows", |at| {
            let count = |table: &str| -> rusqlite::Result<u64> {
                let sql = format!("SELECT count(*) FROM {table}");
                at.tx.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
            };
            Ok(Count {
                connections: count("connections")?,
                links: count("links")?,
                integrations: count("integrations")?,
            })
        })
        .await
    }
}

fn page(tx: &Transaction<'_>, from: &Cursor, rows: usize) -> rusqlite::Result<Page> {
    let mut page = Page::default();
    match from {
        Cursor::Start | Cursor::Connection(..) => {
            let (account, role) = match from {
                Cursor::Connection(account, role) => (account.as_str(), role.as_str()),
                _ => ("", ""),
            };
            let mut statement = tx.prepare_cached(&format!(
                "SELECT {CONNECTION}, grant_until
                 FROM connections WHERE (account, role) > (?1, ?2) ORDER BY account, role LIMIT ?3"
            ))?;
            let mut found = statement.query(params![account, role, limit(rows)])?;
            page.next = Some(Cursor::Link(String::new()));
            let mut count = 0;
            while let Some(row) = found.next()? {
                count += 1;
                if count == rows {
                    page.next = Some(Cursor::Connection(row.get(0)?, row.get(1)?));
                }
                let grant_until = row.get::<_, Option<i64>>(10)?.map(time);
                page.connections.extend(connections::read(row)?.map(|row| (row, grant_until)));
            }
        }
        Cursor::Link(after) => {
            let mut statement = tx.prepare_cached(
                "SELECT id, account, role, state_hash, version, open, expires_at, sealed
                 FROM links WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?;
            let mut found = statement.query(params![after, limit(rows)])?;
            page.next = Some(Cursor::Integration(String::new()));
            let mut count = 0;
            while let Some(row) = found.next()? {
                count += 1;
                if count == rows {
                    page.next = Some(Cursor::Link(row.get(0)?));
                }
                page.links.extend(links::read(row)?);
            }
        }
        Cursor::Integration(after) => {
            page.integrations = integrations::list(tx, after, rows)?;
            let is_full = page.integrations.len() == rows;
            let last = page.integrations.last().filter(|_| is_full);
            page.next = last.map(|last| Cursor::Integration(last.account.to_string()));
        }
    }
    Ok(page)
}

/// Over an older one of the same key, never over a newer one: a copy that was broken off goes on.
fn put_connection(
    tx: &Transaction<'_>,
    row: &ConnectionRow,
    grant_until: Option<Timestamp>,
) -> rusqlite::Result<()> {
    let failure = row.failure.as_ref().map(plain);
    tx.prepare_cached(
        "INSERT INTO connections (account, role, generation, sealed, live, refresh_at, retry_at, failure, fence, grant_until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (account, role) DO UPDATE
         SET generation = ?3, sealed = ?4, live = ?5, refresh_at = ?6, retry_at = ?7, failure = ?8, fence = ?9,
             grant_until = ?10
         WHERE generation < ?3",
    )?
    .execute(params![
        row.key.account.as_str(),
        row.key.role.to_string(),
        row.generation.0,
        row.sealed,
        row.live,
        row.refresh_at.map(micros),
        row.retry_at.map(micros),
        failure,
        row.fence,
        grant_until.map(micros)
    ])
    .map(drop)
}

fn put_link(tx: &Transaction<'_>, row: &LinkRow) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM links WHERE id = ?1")?.execute([row.id.as_str()])?;
    links::insert(tx, row)
}

fn put_integration(tx: &Transaction<'_>, row: &IntegrationRow) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO integrations (account, version, sealed) VALUES (?1, ?2, ?3)")?
        .execute(params![row.account.as_str(), row.version, row.sealed])
        .map(drop)
}
