//! One replica: a bundle of actors over its own line to the store and to Entra, with its own clock.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::{Refresh, RefreshConfig, RefreshParts, Tokens, tokens};
use super::clock::{Gate, ReplicaClock};
use super::entra::{EntraLine, SimEntra};
use super::schedule::Schedule;
use crate::accounts::{Accounts, Sources};
use crate::budgets::{TokenBudget, TokenRates};
use crate::ids::StoreId;
use crate::seal::{Keyring, Sealer};
use crate::store::Store;
use crate::store::memory::{Memory, MemoryLine};
use crate::testing::RuntimeClock;
use crate::vault::Vault;

/// What all replicas have in common.
pub(super) struct World {
    pub(super) truth: Arc<RuntimeClock>,
    pub(super) memory: Memory,
    pub(super) entra: SimEntra,
    /// Only imports are recorded by refreshes, and there is none here.
    pub(super) gate: crate::gate::Gate,
    pub(super) keyring: zeroize::Zeroizing<Vec<u8>>,
}

pub(super) struct Replica {
    /// Of this process: another one in its place has another name.
    pub(super) name: Arc<str>,
    pub(super) clock: Arc<ReplicaClock>,
    pub(super) line: MemoryLine,
    pub(super) vault: Arc<Vault>,
    pub(super) tokens: Tokens,
    gate: Arc<Gate>,
    stop: CancellationToken,
    actors: RefCell<JoinSet<()>>,
    is_dead: Cell<bool>,
}

impl World {
    pub(super) fn vault(&self, store: Store) -> Vault {
        let keyring = Keyring::from_bytes(&self.keyring).expect("was a keyring");
        Vault::new(store, Sealer::new(store_id(), keyring), Duration::from_hours(30 * 24))
    }

    /// Starts a process, with all the actors that a replica has.
    pub(super) fn start(&self, name: &str, schedule: &Schedule, place: usize) -> Replica {
        let (store, line) = self.memory.open(name);
        line.set_delays(schedule.store_delays[place].iter().copied());
        let name: Arc<str> = name.into();
        let gate = Arc::new(Gate::default());
        let clock = Arc::new(ReplicaClock::new(self.truth.clone(), gate.clone()));
        let vault = Arc::new(self.vault(store));
        let entra = EntraLine { entra: self.entra.clone(), replica: name.clone(), gate: gate.clone() };
        let entra = Arc::new(entra);
        let accounts = Arc::new(Accounts::new(vault.clone(), clock.clone(), Sources::default()));
        let rates = TokenRates { overall: PACE, per_tenant: PACE };
        let refresh = Refresh::new(RefreshParts {
            vault: vault.clone(),
            accounts,
            entra: entra.clone(),
            identifier: entra,
            budget: TokenBudget::new(rates, clock.clone()),
            gate: self.gate.clone(),
            clock: clock.clone(),
        });
        let config = RefreshConfig { concurrency: 4, tick: schedule.tick };
        let (tokens, refresher, follower) = tokens(refresh, clock.clone(), config);
        let stop = CancellationToken::new();
        let mut actors = JoinSet::new();
        actors.spawn(refresher.run(stop.clone()));
        actors.spawn(follower.run(stop.clone()));
        let (actors, is_dead) = (RefCell::new(actors), Cell::new(false));
        Replica { name, clock, line, vault, tokens, gate, stop, actors, is_dead }
    }
}

impl Replica {
    pub(super) fn pause(&self) {
        self.gate.close();
        self.line.set_paused(true);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.gate.is_closed()
    }

    /// The dead stay where they are.
    pub(super) fn resume(&self) {
        if !self.is_dead.get() {
            self.line.set_paused(false);
            self.gate.open();
        }
    }

    /// Lets running work land.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Gone, with its memory and whatever it was at.
    pub(super) fn crash(&self) {
        self.is_dead.set(true);
        self.pause();
        self.actors.borrow_mut().abort_all();
    }

    /// Whether all that belongs to it runs as it should.
    pub(super) fn is_well(&self) -> bool {
        let mut actors = self.actors.borrow_mut();
        while let Some(ended) = actors.try_join_next() {
            if ended.is_err() && !self.is_dead.get() {
                return false;
            }
        }
        !actors.is_empty() || self.stop.is_cancelled() || self.is_dead.get()
    }
}

/// As many as anybody wants: nothing here is about the pace.
const PACE: NonZeroU32 = NonZeroU32::MAX;

pub(super) fn store_id() -> StoreId {
    "store".parse().expect("a valid constant")
}
