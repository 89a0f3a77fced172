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
//! 4. Generations only grow: a disconnected connection is a tombstone, which keeps its generation and is never
//!    claimed (design.md 6.2). Erased is it only when nothing of before can be under way any more; whoever comes
//!    then has a generation above it, because that is not below the store's clock.
//! 5. A claim may come before `refresh_at` if somebody waits for it, never before `retry_at`.
//! 6. What belongs together (a link, its connection, the links it ends) is written in one transaction.
//! 7. "Not there" is `None`, never an error.
//! 8. [`Store::commit`] repeated wins again: whoever did not hear the answer asks once more, with the same
//!    write, and does not take its own success for somebody else's.
//! 9. What other replicas change is told as [`News`], within a second where the store can be reached. A store
//!    of one process has none.
//! 10. A write that carries a [`Change`](crate::connection::Change) leaves it in the [`outbox`] in the same
//!     transaction, and repeated leaves none again. Who reads on from a [`Position`] misses none and meets those
//!     of one connection in the order of its generations, or is told that some are gone.
//!
//! Times are of the store's clock; a load returns what that clock said. A store keeps *sealed* bytes
//! and cannot open them: the columns beside them are an index, and whoever opens a record compares.
//! It knows no policy, no keyring and no Entra. A row whose columns name nothing is left out of
//! lists and claims, so that it fails alone.

mod columns;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod news;
mod place;
mod postgres;
mod rows;
mod sqlite;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use copy::{Copied, CopyError, copy};
pub use error::StoreError;
pub use news::StoreNews;
pub use outbox::{ChangePage, ChangeRow, Position};
pub use place::StorePlace;
pub use postgres::{InvalidPlace, PostgresPlace};
use rows::Relocation;
pub use rows::{
    Cas, Claim, Claimed, Compared, ConnectionRow, ConnectionWrite, Count, IntegrationRow, LinkRow, LinkWrite,
    Loaded, News, Verdict,
};

use crate::clock::Clock;
use crate::connection::{ConnectionKey, Role};
use crate::ids::{AccountId, Generation, LinkId, StoreId};
use crate::reason::Reason;
#[cfg(any(test, feature = "testing"))]
use memory::MemoryHandle;
use postgres::Postgres;
use sqlite::Sqlite;

/// The store of this process. Clones share it.
#[derive(Clone)]
pub struct Store {
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    Sqlite(Sqlite),
    Postgres(Postgres),
    #[cfg(any(test, feature = "testing"))]
    Memory(MemoryHandle),
}

/// The same question to whichever store this is.
macro_rules! ask {
    ($store:ident.$question:ident($($argument:expr),*)) => {
        match &$store.backend {
            Backend::Sqlite(sqlite) => sqlite.$question($($argument),*).await,
            Backend::Postgres(postgres) => postgres.$question($($argument),*).await,
            #[cfg(any(test, feature = "testing"))]
            Backend::Memory(memory) => memory.$question($($argument),*).await,
        }
    };
}

// Behind what they ask by.
mod copy;
mod outbox;

impl Store {
    /// Makes a new store; refuses where anything exists already.
    pub async fn create(place: &StorePlace, store_id: &StoreId, keyring: &[u8]) -> Result<(), StoreError> {
        Self::create_as(place, store_id, keyring, &Relocation::Home).await
    }

    async fn create_as(
        place: &StorePlace,
        store_id: &StoreId,
        keyring: &[u8],
        relocation: &Relocation,
    ) -> Result<(), StoreError> {
        match place {
            StorePlace::File(path) => sqlite::create(path, store_id, keyring, relocation),
            StorePlace::Postgres(place) => postgres::create(place, store_id, keyring, relocation).await,
        }
    }

    /// Opens a store that exists, and is not on its way to another place. One in a file is this process's
    /// alone: leases of processes before it are void.
    pub async fn open(place: &StorePlace, clock: Arc<dyn Clock>, holder: &str) -> Result<Self, StoreError> {
        let store = Self::open_wherever(place, clock, holder).await?;
        let place = place.to_string();
        match ask!(store.relocation())? {
            Relocation::Home => Ok(store),
            Relocation::Arriving => Err(StoreError::Arriving { place }),
            Relocation::Leaving(to) => Err(StoreError::Leaving { place, to }),
            Relocation::Moved(to) => Err(StoreError::Moved { place, to }),
        }
    }

    async fn open_wherever(
        place: &StorePlace,
        clock: Arc<dyn Clock>,
        holder: &str,
    ) -> Result<Self, StoreError> {
        let holder = holder.to_owned();
        let backend = match place {
            StorePlace::File(path) => Backend::Sqlite(Sqlite::open(path.clone(), clock, holder).await?),
            StorePlace::Postgres(place) => Backend::Postgres(Postgres::open(place, holder).await?),
        };
        Ok(Self { backend })
    }

    pub fn store_id(&self) -> &StoreId {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.store_id(),
            Backend::Postgres(postgres) => postgres.store_id(),
            #[cfg(any(test, feature = "testing"))]
            Backend::Memory(memory) => memory.store_id(),
        }
    }

    pub async fn wrapped_keyring(&self) -> Result<Vec<u8>, StoreError> {
        ask!(self.wrapped_keyring())
    }

    /// Proves by a write that the store can be written.
    pub async fn probe(&self) -> Result<(), StoreError> {
        ask!(self.probe())
    }

    /// Moves everything out of the write-ahead log, so that no replaced record stays in it.
    pub async fn compact(&self) -> Result<(), StoreError> {
        ask!(self.compact())
    }
}

/// Connections.
impl Store {
    /// The row of this key, tombstones included.
    pub async fn connection(&self, key: &ConnectionKey) -> Result<Loaded<Option<ConnectionRow>>, StoreError> {
        ask!(self.connection(key))
    }

    /// The account's rows in the order of their role's text, from behind `after`, tombstones included.
    pub async fn connections(
        &self,
        account: &AccountId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Loaded<Vec<ConnectionRow>>, StoreError> {
        ask!(self.connections(account, after, limit))
    }

    /// Writes if the row still has the expected generation; lease, pause and failure end with it.
    pub async fn commit(&self, write: ConnectionWrite) -> Result<Cas, StoreError> {
        write.assert_grows();
        ask!(self.commit(write))
    }

    /// Forgets pause and failure of the account's live connections that failed for this reason: what
    /// stood in their way is mended, and each is told as recovered.
    pub async fn clear_pause(&self, account: &AccountId, reason: Reason) -> Result<(), StoreError> {
        ask!(self.clear_pause(account, reason))
    }

    /// Makes refreshes due earlier, never later, where the generation is still the one seen.
    pub async fn pull_refresh(
        &self,
        pulls: Vec<(ConnectionKey, Generation, Timestamp)>,
    ) -> Result<(), StoreError> {
        ask!(self.pull_refresh(pulls))
    }

    /// A tombstone, and the links that end with the connection.
    pub async fn disconnect(&self, write: ConnectionWrite, ended: Vec<LinkWrite>) -> Result<Cas, StoreError> {
        assert!(!write.live, "a disconnect leaves a tombstone");
        write.assert_grows();
        ask!(self.disconnect(write, ended))
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
        ask!(self.connect(expected_version, link, write))
    }
}

/// Forgetting.
impl Store {
    /// Deletes tombstones of connections that ended longer ago than `kept`, at most `limit` of them, the oldest
    /// first, and tells how many. A tombstone's generation says when it ended (design.md 6.2).
    pub async fn erase_ended(&self, kept: Duration, limit: usize) -> Result<usize, StoreError> {
        ask!(self.erase_ended(kept, limit))
    }
}

/// Leases.
impl Store {
    /// Takes the lease of one connection because somebody waits for its token.
    pub async fn claim(&self, key: &ConnectionKey, lease: Duration) -> Result<Claim, StoreError> {
        ask!(self.claim(key, lease))
    }

    /// Takes the leases of connections that are due, the longest due first.
    pub async fn claim_due(&self, limit: usize, lease: Duration) -> Result<Vec<Claimed>, StoreError> {
        ask!(self.claim_due(limit, lease))
    }

    /// The verdict of whoever holds the lease; gives the lease back.
    pub async fn record_failure(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        ask!(self.record_failure(verdict))
    }

    /// Gives the lease back, not to be due again before `retry_at`; who asks may have it. What is remembered of
    /// failures is left alone, but that a loss that was foreseen is replaced by the verdict's failure and pause.
    pub async fn put_off(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        ask!(self.put_off(verdict))
    }

    /// Writes a verdict that holds unless the holder of the lease writes another one; keeps the lease.
    pub async fn foresee_failure(&self, verdict: Verdict) -> Result<Cas, StoreError> {
        ask!(self.foresee_failure(verdict))
    }

    /// Gives the lease back without a verdict. Nothing happens if another holds it meanwhile.
    pub async fn release_lease(&self, key: &ConnectionKey, fence: i64) -> Result<(), StoreError> {
        ask!(self.release_lease(key, fence))
    }
}

/// Links.
impl Store {
    pub async fn insert_link(&self, row: LinkRow) -> Result<(), StoreError> {
        ask!(self.insert_link(row))
    }

    pub async fn link(&self, id: &LinkId) -> Result<Loaded<Option<LinkRow>>, StoreError> {
        ask!(self.link(id))
    }

    pub async fn link_by_state(&self, state_hash: &str) -> Result<Loaded<Option<LinkRow>>, StoreError> {
        ask!(self.link_by_state(state_hash))
    }

    /// Replaces the link of this id and key if its version is still the expected one.
    pub async fn replace_link(&self, expected_version: i64, row: LinkRow) -> Result<Cas, StoreError> {
        ask!(self.replace_link(expected_version, row))
    }

    /// The account's links (of one role, or all) that neither connected nor ended yet.
    pub async fn open_links(
        &self,
        account: &AccountId,
        role: Option<&Role>,
    ) -> Result<Vec<LinkRow>, StoreError> {
        ask!(self.open_links(account, role))
    }

    /// Links that ran out without having ended, at most `limit`: their secrets are to be wiped.
    pub async fn expired_links(&self, limit: usize) -> Result<Vec<LinkRow>, StoreError> {
        ask!(self.expired_links(limit))
    }

    /// Deletes links, open ones too, the oldest first, and tells how many: a bounded number, so that nobody waits
    /// long for the rows or the one writer of a file. Asked again it goes on.
    pub async fn delete_links(&self, expired_before: Timestamp) -> Result<usize, StoreError> {
        self.delete_some_links(expired_before, LINKS_DELETED_AT_ONCE).await
    }

    async fn delete_some_links(&self, expired_before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        ask!(self.delete_links(expired_before, limit))
    }
}

/// Integrations.
impl Store {
    pub async fn integration(&self, account: &AccountId) -> Result<Option<IntegrationRow>, StoreError> {
        ask!(self.integration(account))
    }

    /// Writes if the row still has the expected version; `None` expects no row.
    pub async fn put_integration(
        &self,
        expected: Option<i64>,
        row: IntegrationRow,
    ) -> Result<Cas, StoreError> {
        ask!(self.put_integration(expected, row))
    }

    /// Deletes if the row still has the expected version.
    pub async fn delete_integration(&self, account: &AccountId, expected: i64) -> Result<Cas, StoreError> {
        ask!(self.delete_integration(account, expected))
    }

    /// Integrations in the order of their accounts, from behind `after`.
    pub async fn integrations(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Vec<IntegrationRow>, StoreError> {
        ask!(self.integrations(after, limit))
    }
}

/// What replicas compare with what they hold.
impl Store {
    /// These connections, in any order; those that have a row.
    pub async fn connections_of(
        &self,
        keys: Vec<ConnectionKey>,
    ) -> Result<Loaded<Vec<ConnectionRow>>, StoreError> {
        ask!(self.connections_of(keys))
    }

    /// The generations of these connections, in any order; of those that have a row.
    pub async fn generations(&self, keys: Vec<ConnectionKey>) -> Result<Vec<Compared>, StoreError> {
        ask!(self.generations(keys))
    }

    /// Live connections that wait for nobody and whose grant dies of idleness within that time, the first to die
    /// first.
    pub async fn expiring_grants(
        &self,
        dies: Range<Timestamp>,
        limit: usize,
    ) -> Result<Vec<(ConnectionKey, Timestamp)>, StoreError> {
        ask!(self.expiring_grants(dies, limit))
    }

    /// The versions of these accounts' integrations, in any order; of those that have one.
    pub async fn integration_versions(
        &self,
        accounts: Vec<AccountId>,
    ) -> Result<Vec<(AccountId, i64)>, StoreError> {
        ask!(self.integration_versions(accounts))
    }
}

/// What one statement deletes in well below a second.
const LINKS_DELETED_AT_ONCE: usize = 1_000;
