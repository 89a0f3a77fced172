//! Where connections, links and integrations rest, and the queue of refreshes that are due.
//!
//! # Contract
//!
//! Every store passes the suite in [`contract`]. In words:
//!
//! 1. A write that returned `Ok` survives a crash of the process and of the machine. A write that
//!    failed left the old row, or (if the disk lied) is found whole when the row is read again.
//! 2. Of two writers that saw the same generation or version, exactly one wins ([`Cas`]).
//! 3. A lease is one holder's right, for a while, to refresh one connection. Success needs only the
//!    generation, so that a grant is never lost to a lease that ran out; a failure needs lease and
//!    generation, so that a stale holder cannot condemn a connection (design.md 6.1).
//! 4. Generations only grow, and a row is not deleted while its key may return: a disconnected
//!    connection is a tombstone, which keeps its generation and is never claimed (design.md 6.2).
//! 5. A claim may come before `refresh_at` if somebody waits for it, never before `retry_at`.
//! 6. What belongs together (a link, its connection, the links it ends) is written in one transaction.
//! 7. "Not there" is `None`, never an error.
//!
//! Times are of the store's clock; a load returns what that clock said. A store keeps *sealed* bytes
//! and cannot open them: the columns beside them are an index, and whoever opens a record compares.
//! It knows no policy, no keyring and no Entra. A row whose columns name nothing is left out of
//! lists and claims, so that it fails alone.

#[cfg(any(test, feature = "testing"))]
pub mod contract;
mod error;
mod rows;
mod sqlite;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use error::StoreError;
pub use rows::{
    Cas, Claim, Claimed, ConnectionRow, ConnectionWrite, IntegrationRow, LinkRow, LinkWrite, Loaded, Verdict,
};

use crate::clock::Clock;
use crate::connection::{ConnectionKey, Role};
use crate::ids::{AccountId, Generation, LinkId, StoreId};
use crate::reason::Reason;
use sqlite::{Sqlite, connections, integrations, leases, links};

/// The store of this process. Clones share it.
#[derive(Clone)]
pub struct Store {
    sqlite: Sqlite,
}

impl Store {
    /// Makes a new store; refuses where anything exists already.
    pub fn create(path: &Path, store_id: &StoreId, wrapped_keyring: &[u8]) -> Result<(), StoreError> {
        sqlite::create(path, store_id, wrapped_keyring)
    }

    /// Opens a store that exists, for this process alone. Leases of processes before it are void.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>, holder: &str) -> Result<Self, StoreError> {
        let sqlite = Sqlite::open(path.to_owned(), clock, holder.to_owned()).await?;
        Ok(Self { sqlite })
    }

    pub fn store_id(&self) -> &StoreId {
        self.sqlite.store_id()
    }

    pub async fn wrapped_keyring(&self) -> Result<Vec<u8>, StoreError> {
        self.sqlite.read("read the keyring", |at| sqlite::wrapped_keyring(at.tx)).await
    }

    /// Proves by a write that the store can be written.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.sqlite.write("write to the store", sqlite::probe).await
    }

    /// Moves everything out of the write-ahead log, so that no replaced record stays in it.
    pub async fn compact(&self) -> Result<(), StoreError> {
        self.sqlite.compact().await
    }
}

/// Connections.
impl Store {
    /// The row of this key, tombstones included.
    pub async fn connection(&self, key: &ConnectionKey) -> Result<Loaded<Option<ConnectionRow>>, StoreError> {
        let key = key.clone();
        self.sqlite
            .read("read a connection", move |at| {
                Ok(Loaded { row: connections::load(at.tx, &key)?, store_now: at.now })
            })
            .await
    }

    /// The account's rows in the order of their role's text, from behind `after`, tombstones included.
    pub async fn connections(
        &self,
        account: &AccountId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Loaded<Vec<ConnectionRow>>, StoreError> {
        let (account, after) = (account.clone(), after.unwrap_or_default().to_owned());
        self.sqlite
            .read("list connections", move |at| {
                Ok(Loaded { row: connections::list(at.tx, &account, &after, limit)?, store_now: at.now })
            })
            .await
    }

    /// Writes if the row still has the expected generation; lease, pause and failure end with it.
    pub async fn commit(&self, write: ConnectionWrite) -> Result<Cas, StoreError> {
        write.assert_grows();
        self.sqlite.swap("write a connection", move |at| connections::commit(at.tx, &write)).await
    }

    /// Forgets pause and failure of the account's live connections that failed for this reason: what
    /// stood in their way is mended.
    pub async fn clear_pause(&self, account: &AccountId, reason: Reason) -> Result<(), StoreError> {
        let account = account.clone();
        self.sqlite
            .write("resume connections", move |at| connections::clear_pause(at.tx, &account, reason))
            .await
    }

    /// Makes refreshes due earlier, never later, where the generation is still the one seen.
    pub async fn pull_refresh(
        &self,
        pulls: Vec<(ConnectionKey, Generation, Timestamp)>,
    ) -> Result<(), StoreError> {
        self.sqlite
            .write("schedule refreshes", move |at| {
                pulls.iter().try_for_each(|(key, generation, refresh_at)| {
                    connections::pull_refresh(at.tx, key, *generation, *refresh_at)
                })
            })
            .await
    }

    /// A tombstone, and the links that end with the connection.
    pub async fn disconnect(&self, write: ConnectionWrite, ended: Vec<LinkWrite>) -> Result<Cas, StoreError> {
        assert!(!write.live, "a disconnect leaves a tombstone");
        write.assert_grows();
        self.sqlite
            .swap("disconnect", move |at| {
                Ok(connections::commit(at.tx, &write)?.and(links::replace_all(at.tx, &ended)?))
            })
            .await
    }

    /// A confirmed link and its connection: both or none.
    pub async fn connect(
        &self,
        expected_version: i64,
        link: LinkRow,
        write: ConnectionWrite,
    ) -> Result<Cas, StoreError> {
        assert!(write.live, "a connected link makes a live connection");
        write.assert_grows();
        self.sqlite
            .swap("connect a link", move |at| {
                let linked = links::replace(at.tx, expected_version, &link)?;
                Ok(linked.and(connections::commit(at.tx, &write)?))
            })
            .await
    }
}

/// Leases.
impl Store {
    /// Takes the lease of one connection because somebody waits for its token.
    pub async fn claim(&self, key: &ConnectionKey, lease: Duration) -> Result<Claim, StoreError> {
        let key = key.clone();
        self.sqlite.write("claim a connection", move |at| leases::claim(at, &key, lease)).await
    }

    /// Takes the leases of connections that are due, the longest due first.
    pub async fn claim_due(&self, limit: usize, lease: Duration) -> Result<Vec<Claimed>, StoreError> {
        self.sqlite.write("claim due connections", move |at| leases::claim_due(at, limit, lease)).await
    }

    /// The verdict of whoever holds the lease; gives the lease back.
    pub async fn record_failure(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        self.sqlite.swap("record a failure", move |at| leases::record_failure(at.tx, &verdict)).await
    }

    /// Writes a verdict that holds unless the holder of the lease writes another one; keeps the lease.
    pub async fn foresee_failure(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        self.sqlite.swap("foresee a failure", move |at| leases::foresee_failure(at.tx, &verdict)).await
    }

    /// Gives the lease back without a verdict. Nothing happens if another holds it meanwhile.
    pub async fn release_lease(&self, key: &ConnectionKey, fence: i64) -> Result<(), StoreError> {
        let key = key.clone();
        self.sqlite.write("release a lease", move |at| leases::release(at.tx, &key, fence)).await
    }
}

/// Links.
impl Store {
    pub async fn insert_link(&self, row: LinkRow) -> Result<(), StoreError> {
        self.sqlite.write("write a link", move |at| links::insert(at.tx, &row)).await
    }

    pub async fn link(&self, id: &LinkId) -> Result<Loaded<Option<LinkRow>>, StoreError> {
        let id = id.clone();
        self.sqlite
            .read("read a link", move |at| Ok(Loaded { row: links::load(at.tx, &id)?, store_now: at.now }))
            .await
    }

    pub async fn link_by_state(&self, state_hash: &str) -> Result<Loaded<Option<LinkRow>>, StoreError> {
        let state_hash = state_hash.to_owned();
        self.sqlite
            .read("read a link", move |at| {
                Ok(Loaded { row: links::load_by_state(at.tx, &state_hash)?, store_now: at.now })
            })
            .await
    }

    /// Replaces the link of this id and key if its version is still the expected one.
    pub async fn replace_link(&self, expected_version: i64, row: LinkRow) -> Result<Cas, StoreError> {
        self.sqlite.swap("write a link", move |at| links::replace(at.tx, expected_version, &row)).await
    }

    /// The account's links (of one role, or all) that neither connected nor ended yet.
    pub async fn open_links(
        &self,
        account: &AccountId,
        role: Option<&Role>,
    ) -> Result<Vec<LinkRow>, StoreError> {
        let (account, role) = (account.clone(), role.cloned());
        self.sqlite.read("list links", move |at| links::list_open(at.tx, &account, role.as_ref())).await
    }

    /// Links that ran out without having ended, at most `limit`: their secrets are to be wiped.
    pub async fn expired_links(&self, limit: usize) -> Result<Vec<LinkRow>, StoreError> {
        self.sqlite.read("list expired links", move |at| links::list_expired(at.tx, at.now, limit)).await
    }

    /// Deletes links, open ones too, and tells how many.
    pub async fn delete_links(&self, expired_before: Timestamp) -> Result<usize, StoreError> {
        self.sqlite.write("delete old links", move |at| links::delete(at.tx, expired_before)).await
    }
}

/// Integrations.
impl Store {
    pub async fn integration(&self, account: &AccountId) -> Result<Option<IntegrationRow>, StoreError> {
        let account = account.clone();
        self.sqlite.read("read an integration", move |at| integrations::load(at.tx, &account)).await
    }

    /// Writes if the row still has the expected version; `None` expects no row.
    pub async fn put_integration(
        &self,
        expected: Option<i64>,
        row: IntegrationRow,
    ) -> Result<Cas, StoreError> {
        self.sqlite.swap("write an integration", move |at| integrations::put(at.tx, expected, &row)).await
    }

    /// Deletes if the row still has the expected version.
    pub async fn delete_integration(&self, account: &AccountId, expected: i64) -> Result<Cas, StoreError> {
        let account = account.clone();
        self.sqlite
            .swap("delete an integration", move |at| integrations::delete(at.tx, &account, expected))
            .await
    }

    /// Integrations in the order of their accounts, from behind `after`.
    pub async fn integrations(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Vec<IntegrationRow>, StoreError> {
        let after = after.map_or_else(String::new, ToString::to_string);
        self.sqlite.read("list integrations", move |at| integrations::list(at.tx, &after, limit)).await
    }
}
