//! Rows of links and integrations.

use jiff::Timestamp;

use super::{MemoryHandle, Work};
use crate::connection::Role;
use crate::ids::{AccountId, LinkId};
use crate::store::error::StoreError;
use crate::store::rows::{Cas, IntegrationRow, LinkRow, Loaded, News};

impl MemoryHandle {
    pub(in crate::store) async fn insert_link(&self, row: LinkRow) -> Result<(), StoreError> {
        let insert = |at: &mut Work<'_>| {
            let is_known = |known: &LinkRow| known.id == row.id || known.state_hash == row.state_hash;
            if at.state.links.values().any(is_known) {
                let what = "a link of this id or state is there already".to_owned();
                return Err(StoreError::Damaged { place: "the memory of the test".to_owned(), what });
            }
            at.replace(row);
            Ok(())
        };
        self.work("write a link", insert).await?
    }

    pub(in crate::store) async fn link(&self, id: &LinkId) -> Result<Loaded<Option<LinkRow>>, StoreError> {
        let load = |at: &mut Work<'_>| Loaded { row: at.state.links.get(id).cloned(), store_now: at.now };
        self.work("read a link", load).await
    }

    pub(in crate::store) async fn link_by_state(
        &self,
        state_hash: &str,
    ) -> Result<Loaded<Option<LinkRow>>, StoreError> {
        let load = |at: &mut Work<'_>| {
            let row = at.state.links.values().find(|row| row.state_hash == state_hash).cloned();
            Loaded { row, store_now: at.now }
        };
        self.work("read a link", load).await
    }

    pub(in crate::store) async fn replace_link(
        &self,
        expected_version: i64,
        row: LinkRow,
    ) -> Result<Cas, StoreError> {
        let replace = |at: &mut Work<'_>| {
            if !at.may_replace(expected_version, &row) {
                return Cas::Lost;
            }
            at.replace(row);
            Cas::Won
        };
        self.work("write a link", replace).await
    }

    pub(in crate::store) async fn open_links(
        &self,
        account: &AccountId,
        role: Option<&Role>,
    ) -> Result<Vec<LinkRow>, StoreError> {
        let list = |at: &mut Work<'_>| {
            let is_meant = |row: &&LinkRow| {
                row.open && row.key.account == *account && role.is_none_or(|role| row.key.role == *role)
            };
            let mut rows: Vec<LinkRow> = at.state.links.values().filter(is_meant).cloned().collect();
            rows.sort_by_key(|row| row.key.role.to_string());
            rows
        };
        self.work("list links", list).await
    }

    pub(in crate::store) async fn expired_links(&self, limit: usize) -> Result<Vec<LinkRow>, StoreError> {
        let list = |at: &mut Work<'_>| {
            let has_expired = |row: &&LinkRow| row.open && row.expires_at <= at.now;
            let mut rows: Vec<LinkRow> = at.state.links.values().filter(has_expired).cloned().collect();
            rows.sort_by_key(|row| row.expires_at);
            rows.truncate(limit);
            rows
        };
        self.work("list expired links", list).await
    }

    pub(in crate::store) async fn delete_links(
        &self,
        expired_before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let delete = |at: &mut Work<'_>| {
            let old = at.state.links.values().filter(|row| row.expires_at < expired_before);
            let mut old: Vec<_> = old.map(|row| (row.expires_at, row.id.clone())).collect();
            old.sort();
            old.truncate(limit);
            for (_, id) in &old {
                at.state.links.remove(id);
            }
            old.len()
        };
        self.work("delete old links", delete).await
    }

    pub(in crate::store) async fn integration(
        &self,
        account: &AccountId,
    ) -> Result<Option<IntegrationRow>, StoreError> {
        let load = |at: &mut Work<'_>| at.state.integrations.get(account).cloned();
        self.work("read an integration", load).await
    }

    pub(in crate::store) async fn put_integration(
        &self,
        expected: Option<i64>,
        row: IntegrationRow,
    ) -> Result<Cas, StoreError> {
        let put = |at: &mut Work<'_>| {
            if at.version(&row.account) != expected {
                return Cas::Lost;
            }
            let account = row.account.clone();
            at.state.integrations.insert(account.clone(), row);
            at.tell(&News::Integration(account));
            Cas::Won
        };
        self.work("write an integration", put).await
    }

    pub(in crate::store) async fn delete_integration(
        &self,
        account: &AccountId,
        expected: i64,
    ) -> Result<Cas, StoreError> {
        let delete = |at: &mut Work<'_>| {
            if at.version(account) != Some(expected) {
                return Cas::Lost;
            }
            at.state.integrations.remove(account);
            at.tell(&News::Integration(account.clone()));
            Cas::Won
        };
        self.work("delete an integration", delete).await
    }

    pub(in crate::store) async fn integrations(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Vec<IntegrationRow>, StoreError> {
        let list = |at: &mut Work<'_>| {
            let behind = |row: &&IntegrationRow| after.is_none_or(|after| *after < row.account);
            at.state.integrations.values().filter(behind).take(limit).cloned().collect()
        };
        self.work("list integrations", list).await
    }

    pub(in crate::store) async fn integration_versions(
        &self,
        accounts: Vec<AccountId>,
    ) -> Result<Vec<(AccountId, i64)>, StoreError> {
        let compare = |at: &mut Work<'_>| {
            let version = |account| at.version(&account).map(|version| (account, version));
            accounts.into_iter().filter_map(version).collect()
        };
        self.work("compare integrations", compare).await
    }
}

impl Work<'_> {
    /// A link never changes its key: the row of another connection is no match.
    pub(super) fn may_replace(&self, expected_version: i64, row: &LinkRow) -> bool {
        let standing = self.state.links.get(&row.id);
        standing.is_some_and(|known| known.key == row.key && known.version == expected_version)
    }

    pub(super) fn replace(&mut self, row: LinkRow) {
        self.state.links.insert(row.id.clone(), row);
    }

    fn version(&self, account: &AccountId) -> Option<i64> {
        self.state.integrations.get(account).map(|row| row.version)
    }
}
