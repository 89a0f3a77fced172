//! Rows of connections: read, list, compare-and-swap.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;

use super::lent::{Lent, Parameters};
use super::rows::{self, CONNECTION, connection, key, micros, plain, time};
use super::{Postgres, links};
use crate::connection::{Change, ConnectionKey};
use crate::ids::{AccountId, Generation};
use crate::reason::Reason;
use crate::store::error::StoreError;
use crate::store::rows::{Cas, Compared, ConnectionRow, ConnectionWrite, LinkRow, LinkWrite, Loaded};

impl Postgres {
    pub(in crate::store) async fn connection(
        &self,
        key: &ConnectionKey,
    ) -> Result<Loaded<Option<ConnectionRow>>, StoreError> {
        let lent = self.lend("read a connection").await?;
        let (account, role) = (key.account.as_str(), key.role.to_string());
        // The clock's row is there even if the connection's is not.
        let sql = format!(
            "SELECT {CONNECTION}, now
             FROM azdo_broker.store_now() AS now
             LEFT JOIN azdo_broker.connections c ON c.account = $1 AND c.role = $2"
        );
        let row = lent.row(&sql, &[&account, &role]).await?.expect("the clock always answers");
        lent.done();
        let is_there = row.get::<_, Option<&str>>(0).is_some();
        Ok(Loaded { row: if is_there { connection(&row) } else { None }, store_now: time(row.get(10)) })
    }

    pub(in crate::store) async fn connections(
        &self,
        account: &AccountId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Loaded<Vec<ConnectionRow>>, StoreError> {
        let lent = self.lend("list connections").await?;
        let now = lent.clock().await?;
        let mut after = after.unwrap_or_default().to_owned();
        let mut listed: Vec<ConnectionRow> = Vec::new();
        // The limit counts what is returned, so that an ignored row does not look like the list's end.
        while listed.len() < limit {
            let wanted = limit - listed.len();
            let sql = format!(
                "SELECT {CONNECTION} FROM azdo_broker.connections
                 WHERE account = $1 AND role > $2 ORDER BY role LIMIT $3"
            );
            let rows = lent.rows(&sql, &[&account.as_str(), &after, &rows::limit(wanted)]).await?;
            listed.extend(rows.iter().filter_map(connection));
            match rows.last() {
                Some(last) if rows.len() == wanted => after = last.get(1),
                _ => break,
            }
        }
        lent.done();
        Ok(Loaded { row: listed, store_now: now })
    }

    pub(in crate::store) async fn commit(&self, write: ConnectionWrite) -> Result<Cas, StoreError> {
        let lent = self.lend("write a connection").await?;
        let cas = match commit(&lent, &write).await? {
            Cas::Won => Cas::Won,
            Cas::Lost => repeated(&lent, &write).await?,
        };
        lent.done();
        Ok(cas)
    }

    pub(in crate::store) async fn clear_pause(
        &self,
        account: &AccountId,
        reason: Reason,
    ) -> Result<(), StoreError> {
        let lent = self.lend("resume connections").await?;
        let sql = "WITH mended AS (
                     UPDATE azdo_broker.connections SET retry_at = NULL, failure = NULL
                     WHERE account = $1 AND live AND starts_with(failure, $2)
                     RETURNING account, role, generation),
                   told AS (
                     INSERT INTO azdo_broker.outbox (account, role, generation, change, happened_at)
                     SELECT account, role, generation, $3, azdo_broker.store_now() FROM mended)
                   SELECT pg_notify('azdo_broker', $1) WHERE EXISTS (SELECT 1 FROM mended)";
        lent.rows(sql, &[&account.as_str(), &begins(reason), &Change::Recovered.as_str()]).await?;
        lent.done();
        Ok(())
    }

    pub(in crate::store) async fn pull_refresh(
        &self,
        pulls: Vec<(ConnectionKey, Generation, Timestamp)>,
    ) -> Result<(), StoreError> {
        let lent = self.lend("schedule refreshes").await?;
        let accounts: Vec<&str> = pulls.iter().map(|(key, ..)| key.account.as_str()).collect();
        let roles: Vec<String> = pulls.iter().map(|(key, ..)| key.role.to_string()).collect();
        let generations: Vec<i64> = pulls.iter().map(|(_, generation, _)| generation.0).collect();
        let times: Vec<i64> = pulls.iter().map(|(.., at)| micros(*at)).collect();
        // What another replica writes now gets a generation that these are not about.
        let sql = "WITH pulled AS (
                     SELECT c.account, c.role, p.refresh_at FROM azdo_broker.connections c
                     JOIN unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
                       AS p (account, role, generation, refresh_at)
                       ON c.account = p.account AND c.role = p.role AND c.generation = p.generation
                     WHERE c.live AND (c.refresh_at IS NULL OR c.refresh_at > p.refresh_at)
                     FOR UPDATE OF c SKIP LOCKED)
                   UPDATE azdo_broker.connections c SET refresh_at = pulled.refresh_at FROM pulled
                   WHERE c.account = pulled.account AND c.role = pulled.role";
        lent.execute(sql, &[&accounts, &roles, &generations, &times]).await?;
        lent.done();
        Ok(())
    }

    pub(in crate::store) async fn disconnect(
        &self,
        write: ConnectionWrite,
        ended: Vec<LinkWrite>,
    ) -> Result<Cas, StoreError> {
        self.write_both("disconnect", &write, &ended).await
    }

    pub(in crate::store) async fn connect(
        &self,
        expected_version: i64,
        link: LinkRow,
        write: ConnectionWrite,
    ) -> Result<Cas, StoreError> {
        self.write_both("connect a link", &write, &[(expected_version, link)]).await
    }

    /// What another replica erases at this moment, or somebody links again, is skipped.
    pub(in crate::store) async fn erase_ended(
        &self,
        kept: Duration,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let lent = self.lend("erase what ended").await?;
        let kept = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
        let sql = "DELETE FROM azdo_broker.connections c USING (
                       SELECT account, role FROM azdo_broker.connections
                       WHERE NOT live AND generation < (SELECT azdo_broker.store_now() - $1)
                       ORDER BY generation LIMIT $2 FOR UPDATE SKIP LOCKED) AS old
                   WHERE c.account = old.account AND c.role = old.role";
        let erased = lent.execute(sql, &[&kept, &rows::limit(limit)]).await?;
        lent.done();
        Ok(usize::try_from(erased).unwrap_or(usize::MAX))
    }

    pub(in crate::store) async fn connections_of(
        &self,
        keys: Vec<ConnectionKey>,
    ) -> Result<Loaded<Vec<ConnectionRow>>, StoreError> {
        let lent = self.lend("read connections").await?;
        let store_now = lent.clock().await?;
        let (accounts, roles) = names(&keys);
        let sql = format!(
            "SELECT {CONNECTION} FROM azdo_broker.connections
             WHERE (account, role) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
        );
        let rows = lent.rows(&sql, &[&accounts, &roles]).await?;
        lent.done();
        Ok(Loaded { row: rows.iter().filter_map(connection).collect(), store_now })
    }

    pub(in crate::store) async fn generations(
        &self,
        keys: Vec<ConnectionKey>,
    ) -> Result<Vec<Compared>, StoreError> {
        let lent = self.lend("compare connections").await?;
        let (accounts, roles) = names(&keys);
        let sql = "SELECT c.account, c.role, c.generation
                   FROM unnest($1::text[], $2::text[]) AS k (account, role)
                   JOIN azdo_broker.connections c ON c.account = k.account AND c.role = k.role";
        let rows = lent.rows(sql, &[&accounts, &roles]).await?;
        lent.done();
        let compared = |row: &tokio_postgres::Row| {
            let generation = Generation(row.get(2));
            Some(Compared { key: key(row, 0)?, generation })
        };
        Ok(rows.iter().filter_map(compared).collect())
    }

    pub(in crate::store) async fn expiring_grants(
        &self,
        dies: Range<Timestamp>,
        limit: usize,
    ) -> Result<Vec<(ConnectionKey, Timestamp)>, StoreError> {
        let lent = self.lend("look which grants expire").await?;
        let sql = r#"SELECT account, role, grant_until FROM azdo_broker.connections
                     WHERE live AND grant_until IS NOT NULL AND $1 <= grant_until AND grant_until < $2
                       AND strpos(coalesce(failure, ''), '"needs_person":true') = 0
                     ORDER BY grant_until LIMIT $3"#;
        let rows = lent.rows(sql, &[&micros(dies.start), &micros(dies.end), &rows::limit(limit)]).await?;
        lent.done();
        Ok(rows.iter().filter_map(|row| Some((key(row, 0)?, time(row.get(2))))).collect())
    }

    /// A connection and its links: both or none. Always in this order, so that two of them wait for each
    /// other in one direction only.
    async fn write_both(
        &self,
        doing: &'static str,
        write: &ConnectionWrite,
        links: &[LinkWrite],
    ) -> Result<Cas, StoreError> {
        let lent = self.lend(doing).await?;
        lent.batch("BEGIN").await?;
        let mut cas = commit(&lent, write).await?;
        for (expected, row) in links {
            cas = cas.and(links::replace(&lent, *expected, row).await?);
        }
        lent.batch(if cas == Cas::Won { "COMMIT" } else { "ROLLBACK" }).await?;
        lent.done();
        Ok(cas)
    }
}

async fn commit(lent: &Lent, write: &ConnectionWrite) -> Result<Cas, StoreError> {
    let (account, role) = (write.key.account.as_str(), write.key.role.to_string());
    let (refresh_at, grant_until) = (write.refresh_at.map(micros), write.grant_until.map(micros));
    let generation = write.generation.0;
    let change = write.change.map(Change::as_str);
    let told = match write.expected {
        None => {
            let sql = "WITH written AS (
                         INSERT INTO azdo_broker.connections (account, role, generation, sealed, live, refresh_at, grant_until)
                         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (account, role) DO NOTHING
                         RETURNING account, role, generation),
                       changed AS (
                         INSERT INTO azdo_broker.outbox (account, role, generation, change, happened_at)
                         SELECT account, role, generation, $8::text, azdo_broker.store_now() FROM written
                         WHERE $8 IS NOT NULL)
                       SELECT pg_notify('azdo_broker', account || '/' || role || ' ' || generation) FROM written";
            let parameters: Parameters<'_> = &[
                &account,
                &role,
                &generation,
                &write.sealed,
                &write.live,
                &refresh_at,
                &grant_until,
                &change,
            ];
            lent.rows(sql, parameters).await?
        }
        Some(Generation(expected)) => {
            let (failure, retry_at) =
                write.paused.as_ref().map(|(why, until)| (plain(why), micros(*until))).unzip();
            let sql = r#"WITH written AS (
                         UPDATE azdo_broker.connections
                         SET generation = $3, sealed = $4, live = $5, refresh_at = $6, grant_until = $8,
                             retry_at = CASE WHEN $12 AND strpos(failure, '"lost":true') > 0 THEN retry_at ELSE $10 END,
                             failure = CASE WHEN $12 AND strpos(failure, '"lost":true') > 0 THEN failure ELSE $11 END,
                             lease_holder = NULL, lease_until = NULL
                         WHERE account = $1 AND role = $2 AND generation = $7
                         RETURNING account, role, generation),
                       changed AS (
                         INSERT INTO azdo_broker.outbox (account, role, generation, change, happened_at)
                         SELECT account, role, generation, $9::text, azdo_broker.store_now() FROM written
                         WHERE $9 IS NOT NULL)
                       SELECT pg_notify('azdo_broker', account || '/' || role || ' ' || generation) FROM written"#;
            let parameters: Parameters<'_> = &[
                &account,
                &role,
                &generation,
                &write.sealed,
                &write.live,
                &refresh_at,
                &expected,
                &grant_until,
                &change,
                &retry_at,
                &failure,
                &write.keeps_loss,
            ];
            lent.rows(sql, parameters).await?
        }
    };
    Ok(Cas::of_changed_rows(told.len()))
}

/// Whether it lost against itself: it was committed before, and the answer did not arrive.
async fn repeated(lent: &Lent, write: &ConnectionWrite) -> Result<Cas, StoreError> {
    let (account, role) = (write.key.account.as_str(), write.key.role.to_string());
    let sql = "SELECT 1 FROM azdo_broker.connections
               WHERE account = $1 AND role = $2 AND generation = $3 AND sealed = $4";
    let same = lent.row(sql, &[&account, &role, &write.generation.0, &write.sealed]).await?;
    Ok(Cas::of_changed_rows(usize::from(same.is_some())))
}

fn names(keys: &[ConnectionKey]) -> (Vec<&str>, Vec<String>) {
    keys.iter().map(|key| (key.account.as_str(), key.role.to_string())).unzip()
}

/// How a failure of this reason begins in its column, where what somebody else wrote may be no JSON.
fn begins(reason: Reason) -> String {
    format!("{{\"reason\":\"{}\",", reason.as_str())
}
