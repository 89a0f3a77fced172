//! What the store is asked, each as one transaction of blocking work.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;

use super::{Sqlite, connections, integrations, leases, links};
use crate::clock::earlier;
use crate::connection::{ConnectionKey, Role};
use crate::ids::{AccountId, Generation, LinkId};
use crate::reason::Reason;
use crate::store::error::StoreError;
use crate::store::rows::{
    Cas, Claim, Claimed, Compared, ConnectionRow, ConnectionWrite, IntegrationRow, LinkRow, LinkWrite,
    Loaded, Verdict,
};

/// Connections.
impl Sqlite {
    pub(in crate::store) async fn connection(
        &self,
        key: &ConnectionKey,
    ) -> Result<Loaded<Option<ConnectionRow>>, StoreError> {
        let key = key.clone();
        self.read("read a connection", move |at| {
            Ok(Loaded { row: connections::load(at.tx, &key)?, store_now: at.now })
        })
        .await
    }

    pub(in crate::store) async fn connections(
        &self,
        account: &AccountId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Loaded<Vec<ConnectionRow>>, StoreError> {
        let (account, after) = (account.clone(), after.unwrap_or_default().to_owned());
        self.read("list connections", move |at| {
            Ok(Loaded { row: connections::list(at.tx, &account, &after, limit)?, store_now: at.now })
        })
        .await
    }

    pub(in crate::store) async fn commit(&self, write: ConnectionWrite) -> Result<Cas, StoreError> {
        self.swap("write a connection", move |at| connections::commit(at, &write)).await
    }

    pub(in crate::store) async fn clear_pause(
        &self,
        account: &AccountId,
        reason: Reason,
    ) -> Result<(), StoreError> {
        let account = account.clone();
        self.write("resume connections", move |at| connections::clear_pause(at, &account, reason)).await
    }

    pub(in crate::store) async fn pull_refresh(
        &self,
        pulls: Vec<(ConnectionKey, Generation, Timestamp)>,
    ) -> Result<(), StoreError> {
        self.write("schedule refreshes", move |at| {
            pulls.iter().try_for_each(|(key, generation, refresh_at)| {
                connections::pull_refresh(at.tx, key, *generation, *refresh_at)
            })
        })
        .await
    }

    pub(in crate::store) async fn disconnect(
        &self,
        write: ConnectionWrite,
        ended: Vec<LinkWrite>,
    ) -> Result<Cas, StoreError> {
        self.swap("disconnect", move |at| {
            Ok(connections::commit(at, &write)?.and(links::replace_all(at.tx, &ended)?))
        })
        .await
    }

    pub(in crate::store) async fn connect(
        &self,
        expected_version: i64,
        link: LinkRow,
        write: ConnectionWrite,
    ) -> Result<Cas, StoreError> {
        self.swap("connect a link", move |at| {
            let linked = links::replace(at.tx, expected_version, &link)?;
            Ok(linked.and(connections::commit(at, &write)?))
        })
        .await
    }
}

/// Leases.
impl Sqlite {
    pub(in crate::store) async fn claim(
        &self,
        key: &ConnectionKey,
        lease: Duration,
    ) -> Result<Claim, StoreError> {
        let key = key.clone();
        self.write("claim a connection", move |at| leases::claim(at, &key, lease)).await
    }

    pub(in crate::store) async fn claim_due(
        &self,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Claimed>, StoreError> {
        self.write("claim due connections", move |at| leases::claim_due(at, limit, lease)).await
    }

    pub(in crate::store) async fn record_failure(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        self.swap("record a failure", move |at| leases::record_failure(at, &verdict)).await
    }

    pub(in crate::store) async fn put_off(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        self.swap("put off a refresh", move |at| leases::put_off(at, &verdict)).await
    }

    pub(in crate::store) async fn foresee_failure(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        self.swap("foresee a failure", move |at| leases::foresee_failure(at, &verdict)).await
    }

    pub(in crate::store) async fn release_lease(
        &self,
        key: &ConnectionKey,
        fence: i64,
    ) -> Result<(), StoreError> {
        let key = key.clone();
        self.write("release a lease", move |at| leases::release(at.tx, &key, fence)).await
    }
}

/// Links.
impl Sqlite {
    pub(in crate::store) async fn insert_link(&self, row: LinkRow) -> Result<(), StoreError> {
        self.write("write a link", move |at| links::insert(at.tx, &row)).await
    }

    pub(in crate::store) async fn link(&self, id: &LinkId) -> Result<Loaded<Option<LinkRow>>, StoreError> {
        let id = id.clone();
        self.read("read a link", move |at| Ok(Loaded { row: links::load(at.tx, &id)?, store_now: at.now }))
            .await
    }

    pub(in crate::store) async fn link_by_state(
        &self,
        state_hash: &str,
    ) -> Result<Loaded<Option<LinkRow>>, StoreError> {
        let state_hash = state_hash.to_owned();
        self.read("read a link", move |at| {
            Ok(Loaded { row: links::load_by_state(at.tx, &state_hash)?, store_now: at.now })
        })
        .await
    }

    pub(in crate::store) async fn replace_link(
        &self,
        expected_version: i64,
        row: LinkRow,
    ) -> Result<Cas, StoreError> {
        self.swap("write a link", move |at| links::replace(at.tx, expected_version, &row)).await
    }

    pub(in crate::store) async fn open_links(
        &self,
        account: &AccountId,
        role: Option<&Role>,
    ) -> Result<Vec<LinkRow>, StoreError> {
        let (account, role) = (account.clone(), role.cloned());
        self.read("list links", move |at| links::list_open(at.tx, &account, role.as_ref())).await
    }

    pub(in crate::store) async fn expired_links(&self, limit: usize) -> Result<Vec<LinkRow>, StoreError> {
        self.read("list expired links", move |at| links::list_expired(at.tx, at.now, limit)).await
    }

    pub(in crate::store) async fn delete_links(
        &self,
        expired_before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        self.write("delete old links", move |at| links::delete(at.tx, expired_before, limit)).await
    }
}

/// Integrations.
impl Sqlite {
    pub(in crate::store) async fn integration(
        &self,
        account: &AccountId,
    ) -> Result<Option<IntegrationRow>, StoreError> {
        let account = account.clone();
        self.read("read an integration", move |at| integrations::load(at.tx, &account)).await
    }

    pub(in crate::store) async fn put_integration(
        &self,
        expected: Option<i64>,
        row: IntegrationRow,
    ) -> Result<Cas, StoreError> {
        self.swap("write an integration", move |at| integrations::put(at.tx, expected, &row)).await
    }

    pub(in crate::store) async fn delete_integration(
        &self,
        account: &AccountId,
        expected: i64,
    ) -> Result<Cas, StoreError> {
        let account = account.clone();
        self.swap("delete an integration", move |at| integrations::delete(at.tx, &account, expected)).await
    }

    pub(in crate::store) async fn integrations(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Vec<IntegrationRow>, StoreError> {
        let after = after.map_or_else(String::new, ToString::to_string);
        self.read("list integrations", move |at| integrations::list(at.tx, &after, limit)).await
    }
}

impl Sqlite {
    pub(in crate::store) async fn connections_of(
        &self,
        keys: Vec<ConnectionKey>,
    ) -> Result<Loaded<Vec<ConnectionRow>>, StoreError> {
        self.read("read connections", move |at| {
            let rows = keys.iter().map(|key| connections::load(at.tx, key)).filter_map(Result::transpose);
            Ok(Loaded { row: rows.collect::<Result<_, _>>()?, store_now: at.now })
        })
        .await
    }

    pub(in crate::store) async fn generations(
        &self,
        keys: Vec<ConnectionKey>,
    ) -> Result<Vec<Compared>, StoreError> {
        self.read("compare connections", move |at| connections::generations(at.tx, keys)).await
    }

    pub(in crate::store) async fn erase_ended(
        &self,
        kept: Duration,
        limit: usize,
    ) -> Result<usize, StoreError> {
        self.write("erase what ended", move |at| {
            connections::erase_ended(at.tx, earlier(at.now, kept), limit)
        })
        .await
    }

    pub(in crate::store) async fn expiring_grants(
        &self,
        dies: Range<Timestamp>,
        limit: usize,
    ) -> Result<Vec<(ConnectionKey, Timestamp)>, StoreError> {
        self.read("look which grants expire", move |at| connections::expiring_grants(at.tx, &dies, limit))
            .await
    }

    pub(in crate::store) async fn integration_versions(
        &self,
        accounts: Vec<AccountId>,
    ) -> Result<Vec<(AccountId, i64)>, StoreError> {
        self.read("compare integrations", move |at| integrations::versions(at.tx, accounts)).await
    }
}
