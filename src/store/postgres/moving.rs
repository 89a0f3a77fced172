//! Everything a store keeps, page by page, out of one and into another.
//!
//! # Invariants
//!
//! 1. From the moment a store is marked as leaving, the database itself refuses every write of connections,
//!    links and integrations, whoever asks: a replica that nobody saw, because it was cut off or started a
//!    moment ago, cannot commit into rows that were copied already (P4).
//! 2. A store is filled only as long as it is marked as arriving.

use jiff::Timestamp;
use tokio_postgres::Row;

use super::Postgres;
use super::lent::{Lent, Parameters};
use super::rows::{CONNECTION, connection, integration, link, micros, plain, time};
use crate::store::error::StoreError;
use crate::store::rows::{Cas, ConnectionRow, Count, Cursor, IntegrationRow, LinkRow, Page, Relocation};

impl Postgres {
    pub(in crate::store) async fn relocation(&self) -> Result<Relocation, StoreError> {
        let lent = self.lend("look where the store stands").await?;
        let row = lent.row("SELECT relocation FROM azdo_broker.store", &[]).await?;
        lent.done();
        Ok(Relocation::parse(row.and_then(|row| row.get::<_, Option<String>>(0)).as_deref()))
    }

    /// Leaving is refused while a refresh is under way: what it gets from Entra could not be written.
    pub(in crate::store) async fn set_relocation(
        &self,
        expected: Relocation,
        next: Relocation,
    ) -> Result<Cas, StoreError> {
        let lent = self.lend("note where the store stands").await?;
        let is_leaving = matches!(next, Relocation::Leaving(_));
        // What is asked after the lock was had sees what was waited for.
        lent.batch("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        if is_leaving {
            lent.batch(REFUSE_WRITES).await?;
        }
        let sql = "UPDATE azdo_broker.store SET relocation = $2 WHERE relocation IS NOT DISTINCT FROM $1
                   AND NOT ($3 AND EXISTS (SELECT 1 FROM azdo_broker.connections
                                           WHERE live AND lease_until > azdo_broker.store_now()))";
        let changed = lent.execute(sql, &[&expected.text(), &next.text(), &is_leaving]).await?;
        lent.batch(if changed == 0 { "ROLLBACK" } else { "COMMIT" }).await?;
        lent.done();
        Ok(Cas::of_changed_rows(usize::try_from(changed).unwrap_or(usize::MAX)))
    }

    /// How many others are connected to this store: replicas that would write while it is copied.
    pub(in crate::store) async fn others(&self) -> Result<i64, StoreError> {
        let lent = self.lend("look who uses the store").await?;
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'azdo-broker'
                     AND pid <> pg_backend_pid()";
        let row = lent.row(sql, &[]).await?;
        lent.done();
        Ok(row.map_or(0, |row| row.get(0)))
    }

    pub(in crate::store) async fn page(&self, from: Cursor, rows: usize) -> Result<Page, StoreError> {
        let lent = self.lend("read the store").await?;
        let limit = i64::try_from(rows).unwrap_or(i64::MAX);
        let mut page = Page::default();
        match from {
            Cursor::Start => page = connections(&lent, "", "", limit).await?,
            Cursor::Connection(account, role) => page = connections(&lent, &account, &role, limit).await?,
            Cursor::Link(after) => {
                let sql = "SELECT id, account, role, state_hash, version, open, expires_at, sealed
                           FROM azdo_broker.links WHERE id > $1 ORDER BY id LIMIT $2";
                let found = lent.rows(sql, &[&after, &limit]).await?;
                page.links = found.iter().filter_map(link).collect();
                let last = found.last().filter(|_| found.len() == rows);
                page.next = Some(match last {
                    Some(last) => Cursor::Link(last.get(0)),
                    None => Cursor::Integration(String::new()),
                });
            }
            Cursor::Integration(after) => {
                let sql = "SELECT account, version, sealed FROM azdo_broker.integrations
                           WHERE account > $1 ORDER BY account LIMIT $2";
                let found = lent.rows(sql, &[&after, &limit]).await?;
                page.integrations = found.iter().filter_map(integration).collect();
                let last = found.last().filter(|_| found.len() == rows);
                page.next = last.map(|last| Cursor::Integration(last.get(0)));
            }
        }
        lent.done();
        Ok(page)
    }

    pub(in crate::store) async fn fill(&self, page: Page) -> Result<Cas, StoreError> {
        let lent = self.lend("fill the store").await?;
        lent.batch("BEGIN").await?;
        // Another copy ends its work only after this page: what is served then is not filled with what is old.
        let arriving = "SELECT 1 FROM azdo_broker.store WHERE relocation = $1 FOR SHARE";
        if lent.row(arriving, &[&Relocation::Arriving.text()]).await?.is_none() {
            lent.batch("ROLLBACK").await?;
            lent.done();
            return Ok(Cas::Lost);
        }
        for (row, grant_until) in &page.connections {
            put_connection(&lent, row, *grant_until).await?;
        }
        for row in &page.links {
            put_link(&lent, row).await?;
        }
        for row in &page.integrations {
            put_integration(&lent, row).await?;
        }
        lent.batch("COMMIT").await?;
        lent.done();
        Ok(Cas::Won)
    }

    pub(in crate::store) async fn count(&self) -> Result<Count, StoreError> {
        let lent = self.lend("count the store's rows").await?;
        let sql = "SELECT (SELECT count(*) FROM azdo_broker.connections),
                          (SELECT count(*) FROM azdo_broker.links),
                          (SELECT count(*) FROM azdo_broker.integrations)";
        let row = lent.row(sql, &[]).await?.expect("counts are always there");
        lent.done();
        let count = |at| row.get::<_, i64>(at).unsigned_abs();
        Ok(Count { connections: count(0), links: count(1), integrations: count(2) })
    }
}

async fn connections(lent: &Lent, account: &str, role: &str, limit: i64) -> Result<Page, StoreError> {
    let sql = format!(
        "SELECT {CONNECTION}, grant_until FROM azdo_broker.connections
         WHERE (account, role) > ($1, $2) ORDER BY account, role LIMIT $3"
    );
    let found = lent.rows(&sql, &[&account, &role, &limit]).await?;
    let last = found.last().filter(|_| i64::try_from(found.len()) == Ok(limit));
    let next = Some(match last {
        Some(last) => Cursor::Connection(last.get(0), last.get(1)),
        None => Cursor::Link(String::new()),
    });
    let with_end = |row: &Row| Some((connection(row)?, row.get::<_, Option<i64>>(10).map(time)));
    Ok(Page { connections: found.iter().filter_map(with_end).collect(), next, ..Page::default() })
}

/// Over an older one of the same key, never over a newer one: a copy that was broken off goes on.
async fn put_connection(
    lent: &Lent,
    row: &ConnectionRow,
    grant_until: Option<Timestamp>,
) -> Result<(), StoreError> {
    let failure = row.failure.as_ref().map(plain);
    let (account, role) = (row.key.account.as_str(), row.key.role.to_string());
    let (refresh_at, retry_at) = (row.refresh_at.map(micros), row.retry_at.map(micros));
    let sql = "INSERT INTO azdo_broker.connections
                 (account, role, generation, sealed, live, refresh_at, retry_at, failure, fence, grant_until)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
               ON CONFLICT (account, role) DO UPDATE
               SET generation = $3, sealed = $4, live = $5, refresh_at = $6, retry_at = $7, failure = $8, fence = $9,
                   grant_until = $10
               WHERE connections.generation < $3";
    let parameters: Parameters<'_> = &[
        &account,
        &role,
        &row.generation.0,
        &row.sealed,
        &row.live,
        &refresh_at,
        &retry_at,
        &failure,
        &row.fence,
        &grant_until.map(micros),
    ];
    lent.execute(sql, parameters).await.map(drop)
}

async fn put_link(lent: &Lent, row: &LinkRow) -> Result<(), StoreError> {
    lent.execute("DELETE FROM azdo_broker.links WHERE id = $1", &[&row.id.as_str()]).await?;
    super::links::insert(lent, row).await
}

async fn put_integration(lent: &Lent, row: &IntegrationRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO azdo_broker.integrations (account, version, sealed) VALUES ($1, $2, $3)
               ON CONFLICT (account) DO UPDATE SET version = $2, sealed = $3";
    lent.execute(sql, &[&row.account.as_str(), &row.version, &row.sealed]).await.map(drop)
}

/// A trigger takes a lock on its table that waits for every write that has begun, and whoever waits for that
/// lock meets the trigger: when this is committed, no write is under way and none begins. The code is
/// what [`explain`](super::lent::explain) knows, the message where the store stands. A probe is refused too, so that a replica
/// which goes on learns of it without being asked for anything.
const REFUSE_WRITES: &str = "
CREATE OR REPLACE FUNCTION azdo_broker.refuse_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'AZ001',
        MESSAGE = coalesce((SELECT relocation FROM azdo_broker.store), 'leaving');
END $$;
CREATE TRIGGER refuse_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON azdo_broker.connections
    FOR EACH STATEMENT EXECUTE FUNCTION azdo_broker.refuse_write();
CREATE TRIGGER refuse_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON azdo_broker.links
    FOR EACH STATEMENT EXECUTE FUNCTION azdo_broker.refuse_write();
CREATE TRIGGER refuse_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON azdo_broker.integrations
    FOR EACH STATEMENT EXECUTE FUNCTION azdo_broker.refuse_write();
CREATE TRIGGER refuse_write BEFORE UPDATE OF probed_at ON azdo_broker.store
    FOR EACH STATEMENT EXECUTE FUNCTION azdo_broker.refuse_write()";
