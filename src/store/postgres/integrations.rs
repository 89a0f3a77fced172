//! Rows of integrations.

use super::Postgres;
use super::rows::{self, INTEGRATION, integration};
use crate::ids::AccountId;
use crate::store::error::StoreError;
use crate::store::rows::{Cas, IntegrationRow};

impl Postgres {
    pub(in crate::store) async fn integration(
        &self,
        account: &AccountId,
    ) -> Result<Option<IntegrationRow>, StoreError> {
        let lent = self.lend("read an integration").await?;
        let sql = format!("SELECT {INTEGRATION} FROM azdo_broker.integrations WHERE account = $1");
        let row = lent.row(&sql, &[&account.as_str()]).await?;
        lent.done();
        Ok(row.as_ref().and_then(integration))
    }

    pub(in crate::store) async fn put_integration(
        &self,
        expected: Option<i64>,
        row: IntegrationRow,
    ) -> Result<Cas, StoreError> {
        let lent = self.lend("write an integration").await?;
        let account = row.account.as_str();
        let told = match expected {
            None => {
                let sql = "WITH written AS (
                             INSERT INTO azdo_broker.integrations (account, version, sealed)
                             VALUES ($1, $2, $3) ON CONFLICT (account) DO NOTHING RETURNING account)
                           SELECT pg_notify('azdo_broker', account) FROM written";
                lent.rows(sql, &[&account, &row.version, &row.sealed]).await?
            }
            Some(expected) => {
                let sql = "WITH written AS (
                             UPDATE azdo_broker.integrations SET version = $2, sealed = $3
                             WHERE account = $1 AND version = $4 RETURNING account)
                           SELECT pg_notify('azdo_broker', account) FROM written";
                lent.rows(sql, &[&account, &row.version, &row.sealed, &expected]).await?
            }
        };
        lent.done();
        Ok(Cas::of_changed_rows(told.len()))
    }

    pub(in crate::store) async fn delete_integration(
        &self,
        account: &AccountId,
        expected: i64,
    ) -> Result<Cas, StoreError> {
        let lent = self.lend("delete an integration").await?;
        let sql = "WITH deleted AS (
                     DELETE FROM azdo_broker.integrations WHERE account = $1 AND version = $2
                     RETURNING account)
                   SELECT pg_notify('azdo_broker', account) FROM deleted";
        let told = lent.rows(sql, &[&account.as_str(), &expected]).await?;
        lent.done();
        Ok(Cas::of_changed_rows(told.len()))
    }

    pub(in crate::store) async fn integrations(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Vec<IntegrationRow>, StoreError> {
        let lent = self.lend("list integrations").await?;
        let mut after = after.map_or_else(String::new, ToString::to_string);
        let mut listed = Vec::new();
        // The limit counts what is returned, so that an ignored row does not look like the list's end.
        while listed.len() < limit {
            let wanted = limit - listed.len();
            let sql = format!(
                "SELECT {INTEGRATION} FROM azdo_broker.integrations WHERE account > $1 ORDER BY account LIMIT $2"
            );
            let rows = lent.rows(&sql, &[&after, &rows::limit(wanted)]).await?;
            listed.extend(rows.iter().filter_map(integration));
            match rows.last() {
                Some(last) if rows.len() == wanted => after = last.get(0),
                _ => break,
            }
        }
        lent.done();
        Ok(listed)
    }

    pub(in crate::store) async fn integration_versions(
        &self,
        accounts: Vec<AccountId>,
    ) -> Result<Vec<(AccountId, i64)>, StoreError> {
        let lent = self.lend("compare integrations").await?;
        let accounts: Vec<&str> = accounts.iter().map(AccountId::as_str).collect();
        let sql = "SELECT account, version FROM azdo_broker.integrations WHERE account = ANY($1)";
        let rows = lent.rows(sql, &[&accounts]).await?;
        lent.done();
        let version = |row: &tokio_postgres::Row| Some((row.get::<_, &str>(0).parse().ok()?, row.get(1)));
        Ok(rows.iter().filter_map(version).collect())
    }
}
