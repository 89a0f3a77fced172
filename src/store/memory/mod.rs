//! A store in memory, for tests of several replicas: each has a handle, and all handles share what is kept.
//!
//! Nothing here is left to chance: rows are kept in order, the clock is the one that is given, and what goes
//! wrong is what a test sets on the handle's [`MemoryLine`]. Work on the rows is one step, so that a
//! transaction is whole by itself; waiting is the line's.
//!
//! [`Memory::plant`] makes it break its contract, to prove that who checks it would see that.

mod connections;
mod leases;
mod line;
mod links;
mod news;
mod outbox;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

pub use self::line::{Fault, MemoryLine};
use self::news::Ear;
pub(super) use self::news::MemoryNews;
use super::error::StoreError;
use super::rows::{Cas, ConnectionRow, Count, Cursor, IntegrationRow, LinkRow, News, Page, Relocation};
use super::{Backend, Store};
use crate::clock::Clock;
use crate::connection::ConnectionKey;
use crate::ids::{AccountId, Generation, LinkId, StoreId};

/// What the handles share. Clones are the same memory.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

/// One replica's handle.
#[derive(Clone)]
pub(super) struct MemoryHandle {
    memory: Memory,
    line: MemoryLine,
    holder: Arc<str>,
}

/// A contract that this store breaks if it is told to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Planted {
    /// A lease keeps nobody out for whom somebody waits.
    ClaimWithoutLease,
    /// Writes whatever generation stands there.
    CommitWithoutSwap,
    /// Confirms a commit that it did not write.
    CommitForgotten,
    /// Leaves no tombstone.
    DisconnectDeletes,
    /// Whoever held a lease once may condemn the connection.
    VerdictWithoutFence,
}

/// Something that changed a connection's row.
#[derive(Clone, Debug)]
pub struct Written {
    pub act: Act,
    pub holder: Arc<str>,
    pub key: ConnectionKey,
    pub before: Option<ConnectionRow>,
    pub after: Option<ConnectionRow>,
}

/// What changed it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Act {
    Claim,
    ClearPause,
    Commit,
    Connect,
    Disconnect,
    Erase,
    Pull,
    Release,
    /// With what its writer takes for the row's fence and generation.
    Verdict {
        fence: i64,
        generation: Generation,
    },
}

type Watcher = Box<dyn Fn(Written) + Send + Sync>;

struct Shared {
    clock: Arc<dyn Clock>,
    store_id: StoreId,
    keyring: Vec<u8>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: BTreeMap<ConnectionKey, ConnectionRow>,
    /// When a connection's grant dies of idleness.
    grants_until: BTreeMap<ConnectionKey, Timestamp>,
    links: BTreeMap<LinkId, LinkRow>,
    integrations: BTreeMap<AccountId, IntegrationRow>,
    outbox: outbox::Outbox,
    ears: Vec<Arc<Ear>>,
    watcher: Option<Watcher>,
    planted: Option<Planted>,
}

/// The state while one handle works on it.
struct Work<'a> {
    state: MutexGuard<'a, State>,
    holder: &'a Arc<str>,
    now: Timestamp,
}

impl Memory {
    pub fn new(clock: Arc<dyn Clock>, store_id: StoreId, keyring: Vec<u8>) -> Self {
        Self(Arc::new(Shared { clock, store_id, keyring, state: Mutex::default() }))
    }

    /// A handle of a replica, and the line it has to the memory.
    pub fn open(&self, holder: &str) -> (Store, MemoryLine) {
        let line = MemoryLine::default();
        let handle = MemoryHandle { memory: self.clone(), line: line.clone(), holder: holder.into() };
        (Store { backend: Backend::Memory(handle) }, line)
    }

    /// Tells each change of a connection's row, in order, before anybody hears of it.
    pub fn watch(&self, watcher: impl Fn(Written) + Send + Sync + 'static) {
        self.state().watcher = Some(Box::new(watcher));
    }

    pub fn plant(&self, planted: Planted) {
        self.state().planted = Some(planted);
    }

    /// The row as it is now.
    pub fn row(&self, key: &ConnectionKey) -> Option<ConnectionRow> {
        self.state().connections.get(key).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryHandle {
    pub(super) fn store_id(&self) -> &StoreId {
        &self.memory.0.store_id
    }

    pub(super) fn news(&self) -> MemoryNews {
        MemoryNews::new(self.line.clone(), self.memory.listen(&self.holder))
    }

    pub(super) async fn wrapped_keyring(&self) -> Result<Vec<u8>, StoreError> {
        let keyring = self.memory.0.keyring.clone();
        self.work("read the keyring", |_| keyring).await
    }

    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        self.work("write to the store", |_| ()).await
    }

    pub(super) async fn compact(&self) -> Result<(), StoreError> {
        self.work("compact the store", |_| ()).await
    }

    /// There and back by the line; in between the work is done at once, or never.
    async fn work<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Work<'_>) -> T,
    ) -> Result<T, StoreError> {
        let fault = self.line.go(doing).await?;
        let done = {
            let state = self.memory.state();
            let now = self.memory.0.clock.now().wall;
            work(&mut Work { state, holder: &self.holder, now })
        };
        self.line.come_back(doing, fault).await?;
        Ok(done)
    }
}

/// Nobody moves it.
#[expect(clippy::unused_async, reason = "as the other stores answer")]
impl MemoryHandle {
    pub(super) async fn relocation(&self) -> Result<Relocation, StoreError> {
        Ok(Relocation::Home)
    }

    pub(super) async fn set_relocation(&self, _: Relocation, _: Relocation) -> Result<Cas, StoreError> {
        unreachable!("a store in memory stays where it is")
    }

    pub(super) async fn page(&self, _: Cursor, _: usize) -> Result<Page, StoreError> {
        unreachable!("a store in memory stays where it is")
    }

    pub(super) async fn fill(&self, _: Page) -> Result<Cas, StoreError> {
        unreachable!("a store in memory stays where it is")
    }

    pub(super) async fn count(&self) -> Result<Count, StoreError> {
        unreachable!("a store in memory stays where it is")
    }
}

impl Work<'_> {
    fn has(&self, planted: Planted) -> bool {
        self.state.planted == Some(planted)
    }

    /// Replaces a connection's row; whoever watches is told.
    fn write(&mut self, act: Act, key: &ConnectionKey, after: Option<ConnectionRow>) {
        let before = match after.clone() {
            Some(row) => self.state.connections.insert(key.clone(), row),
            None => self.state.connections.remove(key),
        };
        if let Some(watcher) = &self.state.watcher {
            watcher(Written { act, holder: self.holder.clone(), key: key.clone(), before, after });
        }
    }

    fn tell(&mut self, news: &News) {
        // Who listens no more is forgotten.
        self.state.ears.retain(|ear| 1 < Arc::strong_count(ear));
        for ear in self.state.ears.iter().filter(|ear| !ear.is_of(self.holder)) {
            ear.tell(news.clone());
        }
    }
}
