//! Rows of links.

use jiff::Timestamp;

use super::Postgres;
use super::lent::{Lent, Parameters};
use super::rows::{self, LINK, link, micros, time};
use crate::connection::Role;
use crate::ids::{AccountId, LinkId};
use crate::store::error::StoreError;
use crate::store::rows::{Cas, LinkRow, Loaded};

impl Postgres {
    pub(in crate::store) async fn insert_link(&self, row: LinkRow) -> Result<(), StoreError> {
        let lent = self.lend("write a link").await?;
        insert(&lent, &row).await?;
        lent.done();
        Ok(())
    }

    pub(in crate::store) async fn link(&self, id: &LinkId) -> Result<Loaded<Option<LinkRow>>, StoreError> {
        self.load_link("l.id = $1", id.as_str()).await
    }

    pub(in crate::store) async fn link_by_state(
        &self,
        state_hash: &str,
    ) -> Result<Loaded<Option<LinkRow>>, StoreError> {
        self.load_link("l.state_hash = $1", state_hash).await
    }

    pub(in crate::store) async fn replace_link(
        &self,
        expected_version: i64,
        row: LinkRow,
    ) -> Result<Cas, StoreError> {
        let lent = self.lend("write a link").await?;
        let cas = replace(&lent, expected_version, &row).await?;
        lent.done();
        Ok(cas)
    }

    pub(in crate::store) async fn open_links(
        &self,
        account: &AccountId,
        role: Option<&Role>,
    ) -> Result<Vec<LinkRow>, StoreError> {
        let role = role.map(ToString::to_string);
        let sql = format!(
            "SELECT {LINK} FROM azdo_broker.links
             WHERE open AND account = $1 AND ($2::text IS NULL OR role = $2) ORDER BY role, id"
        );
        self.list_links("list links", &sql, &[&account.as_str(), &role]).await
    }

    pub(in crate::store) async fn expired_links(&self, limit: usize) -> Result<Vec<LinkRow>, StoreError> {
        let sql = format!(
            "SELECT {LINK} FROM azdo_broker.links
             WHERE open AND expires_at <= (SELECT azdo_broker.store_now()) ORDER BY expires_at LIMIT $1"
        );
        self.list_links("list expired links", &sql, &[&rows::limit(limit)]).await
    }

    pub(in crate::store) async fn delete_links(
        &self,
        expired_before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let lent = self.lend("delete old links").await?;
        // What another replica deletes or changes at this moment is skipped, not waited for.
        let sql = "DELETE FROM azdo_broker.links WHERE id = ANY (ARRAY (
                       SELECT id FROM azdo_broker.links WHERE expires_at < $1
                       ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))";
        let deleted = lent.execute(sql, &[&micros(expired_before), &rows::limit(limit)]).await?;
        lent.done();
        Ok(usize::try_from(deleted).unwrap_or(usize::MAX))
    }

    async fn load_link(
        &self,
        condition: &'static str,
        value: &str,
    ) -> Result<Loaded<Option<LinkRow>>, StoreError> {
        let lent = self.lend("read a link").await?;
        let sql = format!(
            "SELECT {LINK}, now
             FROM azdo_broker.store_now() AS now LEFT JOIN azdo_broker.links l ON {condition}"
        );
        let row = lent.row(&sql, &[&value]).await?.expect("the clock always answers");
        lent.done();
        let is_there = row.get::<_, Option<&str>>(0).is_some();
        Ok(Loaded { row: if is_there { link(&row) } else { None }, store_now: time(row.get(8)) })
    }

    async fn list_links(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<LinkRow>, StoreError> {
        let lent = self.lend(doing).await?;
        let rows = lent.rows(sql, parameters).await?;
        lent.done();
        Ok(rows.iter().filter_map(link).collect())
    }
}

/// A link never changes its key: the row of another connection is no match.
pub(super) async fn replace(lent: &Lent, expected_version: i64, row: &LinkRow) -> Result<Cas, StoreError> {
    let sql = "UPDATE azdo_broker.links
               SET state_hash = $4, version = $5, open = $6, expires_at = $7, sealed = $8
               WHERE id = $1 AND account = $2 AND role = $3 AND version = $9";
    let (account, role) = (row.key.account.as_str(), row.key.role.to_string());
    let expires_at = micros(row.expires_at);
    let parameters: Parameters<'_> = &[
        &row.id.as_str(),
        &account,
        &role,
        &row.state_hash,
        &row.version,
        &row.open,
        &expires_at,
        &row.sealed,
        &expected_version,
    ];
    let changed = lent.execute(sql, parameters).await?;
    Ok(Cas::of_changed_rows(usize::try_from(changed).unwrap_or(usize::MAX)))
}

pub(super) async fn insert(lent: &Lent, row: &LinkRow) -> Result<(), StoreError> {
    let sql = format!("INSERT INTO azdo_broker.links ({LINK}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)");
    let (account, role) = (row.key.account.as_str(), row.key.role.to_string());
    let expires_at = micros(row.expires_at);
    let parameters: Parameters<'_> = &[
        &row.id.as_str(),
        &account,
        &role,
        &row.state_hash,
        &row.version,
        &row.open,
        &expires_at,
        &row.sealed,
    ];
    lent.execute(&sql, parameters).await.map(drop)
}
