//! Leases: who may refresh a connection now, and the verdict of whoever did.

use std::time::Duration;

use super::Postgres;
use super::lent::Parameters;
use super::rows::{self, CONNECTION, connection, micros, plain, time};
use crate::clock::later;
use crate::connection::{Change, ConnectionKey};
use crate::store::error::StoreError;
use crate::store::rows::{Cas, Claim, Claimed, Verdict};

impl Postgres {
    pub(in crate::store) async fn claim(
        &self,
        key: &ConnectionKey,
        lease: Duration,
    ) -> Result<Claim, StoreError> {
        let lent = self.lend("claim a connection").await?;
        let (account, role) = (key.account.as_str(), key.role.to_string());
        lent.batch("BEGIN").await?;
        let sql = format!(
            "SELECT {CONNECTION} FROM azdo_broker.connections WHERE account = $1 AND role = $2 FOR UPDATE"
        );
        let row = lent.row(&sql, &[&account, &role]).await?.as_ref().and_then(connection);
        // After the lock was had: what was waited for is over.
        let now = lent.clock().await?;
        let claim = match row {
            Some(row) if row.live => row,
            tombstone => {
                lent.batch("ROLLBACK").await?;
                lent.done();
                return Ok(Claim::Absent(tombstone.map(Box::new)));
            }
        };
        let mut row = claim;
        let refused = if let Some(until) = row.lease_until.filter(|until| now < *until) {
            Some(Claim::Leased { until })
        } else {
            let until = row.retry_at.filter(|until| now < *until);
            until.map(|until| Claim::Paused { until, failure: row.failure.clone() })
        };
        if let Some(refused) = refused {
            lent.batch("ROLLBACK").await?;
            lent.done();
            return Ok(refused);
        }
        let until = micros(later(now, lease));
        let sql = "UPDATE azdo_broker.connections SET lease_holder = $3, lease_until = $4, fence = fence + 1
                   WHERE account = $1 AND role = $2 RETURNING fence";
        let won = lent.row(sql, &[&account, &role, &self.0.holder, &until]).await?;
        lent.batch("COMMIT").await?;
        lent.done();
        row.fence = won.expect("the row is locked").get(0);
        row.lease_until = Some(time(until));
        Ok(Claim::Won(Box::new(Claimed { row, store_now: now })))
    }

    pub(in crate::store) async fn claim_due(
        &self,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Claimed>, StoreError> {
        let lent = self.lend("claim due connections").await?;
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        let rows = lent.rows(&claim_due_sql(), &[&rows::limit(limit), &self.0.holder, &lease]).await?;
        lent.done();
        let claimed =
            |row: &tokio_postgres::Row| Some(Claimed { row: connection(row)?, store_now: time(row.get(10)) });
        let mut claimed: Vec<Claimed> = rows.iter().filter_map(claimed).collect();
        // RETURNING promises no order.
        claimed.sort_by_key(|claimed| claimed.row.refresh_at);
        Ok(claimed)
    }

    pub(in crate::store) async fn record_failure(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        let set = "failure = $5, retry_at = $6, lease_holder = NULL, lease_until = NULL";
        self.write_verdict("record a failure", &verdict, set).await
    }

    pub(in crate::store) async fn put_off(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        let set = r#"failure = CASE WHEN strpos(failure, '"lost":true') > 0 THEN $5 ELSE failure END,
                     retry_at = CASE WHEN strpos(failure, '"lost":true') > 0 THEN $6 ELSE retry_at END,
                     refresh_at = CASE WHEN refresh_at < $6 THEN $6 ELSE refresh_at END,
                     lease_holder = NULL, lease_until = NULL"#;
        self.write_verdict("put off a refresh", &verdict, set).await
    }

    pub(in crate::store) async fn foresee_failure(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        self.write_verdict("foresee a failure", &verdict, "failure = $5, retry_at = $6").await
    }

    pub(in crate::store) async fn release_lease(
        &self,
        key: &ConnectionKey,
        fence: i64,
    ) -> Result<(), StoreError> {
        let lent = self.lend("release a lease").await?;
        let sql = "UPDATE azdo_broker.connections SET lease_holder = NULL, lease_until = NULL
                   WHERE account = $1 AND role = $2 AND fence = $3";
        lent.execute(sql, &[&key.account.as_str(), &key.role.to_string(), &fence]).await?;
        lent.done();
        Ok(())
    }

    async fn write_verdict(
        &self,
        doing: &'static str,
        verdict: &Verdict,
        set: &str,
    ) -> Result<Cas, StoreError> {
        let lent = self.lend(doing).await?;
        let failure = verdict.failure.as_ref().map(plain);
        let (account, role) = (verdict.key.account.as_str(), verdict.key.role.to_string());
        let (generation, retry_at) = (verdict.generation.0, micros(verdict.retry_at));
        let change = verdict.change.map(Change::as_str);
        let sql = format!(
            "WITH written AS (
               UPDATE azdo_broker.connections SET {set}
               WHERE account = $1 AND role = $2 AND generation = $3 AND fence = $4 AND live
               RETURNING account, role, generation),
             changed AS (
               INSERT INTO azdo_broker.outbox (account, role, generation, change, happened_at)
               SELECT account, role, generation, $7::text, azdo_broker.store_now() FROM written
               WHERE $7 IS NOT NULL)
             SELECT CASE WHEN $7 IS NOT NULL
               THEN pg_notify('azdo_broker', account || '/' || role || ' ' || generation) END FROM written"
        );
        let parameters: Parameters<'_> =
            &[&account, &role, &generation, &verdict.fence, &failure, &retry_at, &change];
        let written = lent.rows(&sql, parameters).await?;
        lent.done();
        Ok(Cas::of_changed_rows(written.len()))
    }
}

/// A fence edited to its end is passed over: one more would be no integer, and fail the whole claim. What
/// another replica claims at this moment is skipped, not waited for. The clock is asked once, so that what it
/// says bounds the look into the index: compared with each row, nothing due costs a look at every row.
pub(in crate::store) fn claim_due_sql() -> String {
    format!(
        "WITH clock AS MATERIALIZED (SELECT azdo_broker.store_now() AS now),
         due AS (
           SELECT account AS due_account, role AS due_role FROM azdo_broker.connections
           WHERE live AND due_at <= (SELECT now FROM clock) AND fence < {MAX}
           ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
         UPDATE azdo_broker.connections
         SET lease_holder = $2, lease_until = now + $3, fence = fence + 1
         FROM due, clock WHERE account = due_account AND role = due_role
         RETURNING {CONNECTION}, now",
        MAX = i64::MAX
    )
}
