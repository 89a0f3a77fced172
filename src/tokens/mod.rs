//! Access tokens of connections: from memory while fresh, by one shared refresh when not.
//!
//! ```text
//!  release ──token()──▶ Tokens ──reads──▶ Slot (watch)
//!                         │ demand            ▲ learn, fail
//!                         ▼                   │
//!                     Refresher ──spawns──▶ Refresh ──▶ vault, accounts, budgets, entra
//!                     Follower ───────────▶    │  what other replicas wrote
//! ```
//!
//! # Invariants
//!
//! 1. Only [`refresh`] spends a grant. Per connection one refresh runs in this process; the lease in
//!    the store extends that across replicas (P5).
//! 2. A refresh that was sent is finished by a task of ours: a caller that goes away drops a wait,
//!    never an answer (P4).
//! 3. A slot accepts only a higher generation than it knows, tombstones included; a token whose
//!    compare-and-swap was lost is dropped (P7, design.md 6.2).
//! 4. A failed refresh takes no valid token away, and nobody waits while one is at hand (P6).
//!
//! It decides nothing about callers: [`Allowed`] is proof that somebody did.

mod follow;
mod land;
mod metrics;
mod prove;
mod read;
mod refresh;
mod refresher;
mod setback;
mod slot;
mod spend;
mod strict;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

pub use self::follow::Follower;
pub use self::metrics::Metrics;
pub use self::refresh::{Refresh, RefreshParts};
pub use self::refresher::{RefreshConfig, Refresher};
use self::slot::{Answer, Slot, Slots, token_of};
use crate::clock::{Clock, StoreClock, Validity, earlier};
use crate::connection::{ConnectionKey, Identity, Seen};
use crate::ids::Generation;
use crate::policy::Allowed;
use crate::reason::{Problem, Reason};
use crate::secret::{AccessToken, Fingerprint, make_luck};
use crate::vault::{Live, Opened};

/// Hands out tokens. Cheap to clone; all clones share the slots.
#[derive(Clone)]
pub struct Tokens {
    clock: Arc<dyn Clock>,
    demands: mpsc::Sender<Demand>,
    used: mpsc::Sender<Used>,
    slots: Arc<Slots>,
}

/// A token as it may be released.
#[derive(Debug)]
pub struct Token {
    pub access: AccessToken,
    pub fingerprint: Fingerprint,
    pub validity: Validity,
    /// The same by the store's clock, for what is scheduled there.
    stored_until: Timestamp,
    /// How long it was valid when issued: no asked-for time beyond this can be had.
    pub lifetime: Duration,
    pub scopes: Vec<String>,
    pub identity: Identity,
    /// When the connection was made: tells it from an earlier one of the same identity.
    pub linked_at: Timestamp,
    pub generation: Generation,
}

/// What reporting a token as rejected came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reported {
    /// A refresh is on its way; the token is replaced when it answers.
    Replacing,
    /// Not the token we would release: nothing to do.
    Unknown,
    /// Asked for a moment ago.
    TooSoon,
}

/// Asks for a token that lasts `min_ttl`, unless a refresh ended since the asker looked.
#[derive(Debug)]
struct Demand {
    key: ConnectionKey,
    min_ttl: Duration,
    seen: u64,
    /// Refresh even though the held token looks valid: its holder was refused with it.
    rejected: Option<Fingerprint>,
}

/// The first release of a generation: its next refresh comes at half life, not in a week.
#[derive(Debug)]
struct Used {
    key: ConnectionKey,
    generation: Generation,
    refresh_at: Timestamp,
}

impl Tokens {
    /// A token of `key` that stays valid for at least `min_ttl`.
    ///
    /// # Errors
    ///
    /// Why there is none: at once where that is known, after the refresh this call waited for
    /// otherwise, and after [`WAIT`] at the latest.
    pub async fn token(
        &self,
        allowed: &Allowed,
        key: &ConnectionKey,
        min_ttl: Duration,
    ) -> Result<Arc<Token>, Problem> {
        assert_eq!(allowed.account(), &key.account, "BUG: a decision about one account used for another");
        let slot = self.slots.slot(key);
        let token = match slot.answer(min_ttl, self.clock.now()) {
            Answer::Token(token) => token,
            Answer::Problem(problem) => return Err(problem),
            Answer::Ask => tokio::time::timeout(WAIT, self.ask(&slot, key, min_ttl))
                .await
                .unwrap_or_else(|_| Err(timed_out()))?,
        };
        self.note_use(&slot, key, &token);
        Ok(token)
    }

    /// Publishes a connection that a test just made.
    #[cfg(test)]
    pub(crate) fn adopt(&self, key: &ConnectionKey, generation: Generation, live: &Live, store: &StoreClock) {
        self.publish_as(key, generation, Seen::link(generation), token_of(live, generation, store));
    }

    /// Publishes a disconnect: nothing of this or an older generation is released again.
    pub fn end(&self, key: &ConnectionKey, generation: Generation) {
        self.publish_as(key, generation, Seen::end(generation), None);
    }

    /// Publishes an import: nothing of who stood there is released again, nor of who came until it is proven.
    pub fn hold_back(&self, key: &ConnectionKey, generation: Generation) {
        self.publish_as(key, generation, Seen::link(generation), None);
    }

    /// Publishes what a row says that was just read.
    pub fn publish(&self, opened: &Opened, store: &StoreClock) {
        let token = opened.connection.live().and_then(|live| token_of(live, opened.generation, store));
        self.publish_as(&opened.key, opened.generation, opened.seen(), token);
    }

    fn publish_as(&self, key: &ConnectionKey, generation: Generation, seen: Seen, token: Option<Token>) {
        let slot = self.slots.slot(key);
        slot.learn(generation, seen, token);
        slot.settle();
    }

    /// Why the last refresh failed, if none succeeded since.
    pub fn obstacle(&self, key: &ConnectionKey) -> Option<Problem> {
        self.slots.find(key)?.obstacle()
    }

    /// Forgets why refreshes of an account failed: its client credential is new.
    pub fn forgive(&self, account: &crate::ids::AccountId) {
        self.slots.forgive(account);
    }

    /// Takes a holder's word that a token was refused, if it is the one we would release.
    pub fn report(&self, allowed: &Allowed, key: &ConnectionKey, fingerprint: &Fingerprint) -> Reported {
        assert_eq!(allowed.account(), &key.account, "BUG: a decision about one account used for another");
        // Looked up, not made: whoever reports may name connections that nobody asked for.
        let Some(slot) = self.slots.find(key).filter(|slot| slot.holds(fingerprint)) else {
            return Reported::Unknown;
        };
        let now = self.clock.now();
        if !slot.may_force(now, FORCE_EVERY) {
            return Reported::TooSoon;
        }
        let demand = Demand {
            key: key.clone(),
            min_ttl: Duration::ZERO,
            seen: slot.attempts(),
            rejected: Some(fingerprint.clone()),
        };
        // A full queue means that refreshes are slow; the next report comes through.
        if self.demands.try_send(demand).is_err() {
            slot.unmark_force();
            return Reported::TooSoon;
        }
        Reported::Replacing
    }

    /// A token that replaced the reported one, for a holder who waits for it.
    pub async fn token_other_than(
        &self,
        allowed: &Allowed,
        key: &ConnectionKey,
        fingerprint: &Fingerprint,
    ) -> Result<Arc<Token>, Problem> {
        assert_eq!(allowed.account(), &key.account, "BUG: a decision about one account used for another");
        let slot = self.slots.slot(key);
        let mut watch = slot.subscribe();
        let seen = watch.borrow_and_update().attempts();
        // Only what the closure is given may be looked at: the watch is locked meanwhile.
        let replaced = watch.wait_for(|state| !state.holds(fingerprint) || seen < state.attempts());
        let waited = tokio::time::timeout(WAIT, replaced).await.map_err(|_| timed_out())?;
        drop(waited.map_err(|_| shutting_down())?);
        if slot.holds(fingerprint) {
            return Err(slot.obstacle_after(seen).unwrap_or_else(timed_out));
        }
        self.token(allowed, key, Duration::ZERO).await
    }

    /// Asks until the slot has an answer. More than one round is rare: the refresh we joined was made
    /// for somebody who needed less time.
    async fn ask(&self, slot: &Slot, key: &ConnectionKey, min_ttl: Duration) -> Result<Arc<Token>, Problem> {
        let mut watch = slot.subscribe();
        loop {
            let seen = watch.borrow_and_update().attempts();
            let demand = Demand { key: key.clone(), min_ttl, seen, rejected: None };
            self.demands.send(demand).await.map_err(|_| shutting_down())?;
            tokio::select! {
                biased;
                // Waits for a value, not for a change: what ended meanwhile counts. And what is learned on the
                // way, for somebody who wants more, may be enough (P6).
                waited = watch.wait_for(|state| {
                    seen < state.attempts() || state.answers(min_ttl, self.clock.now())
                }) => {
                    waited.map_err(|_| shutting_down())?;
                }
                () = self.demands.closed() => return Err(shutting_down()),
            }
            match slot.answer_after(seen, min_ttl, self.clock.now()) {
                Answer::Token(token) => return Ok(token),
                Answer::Problem(problem) => return Err(problem),
                Answer::Ask => {}
            }
        }
    }

    fn note_use(&self, slot: &Slot, key: &ConnectionKey, token: &Token) {
        if !slot.is_first_use(token.generation) {
            return;
        }
        let share = USED_REFRESH_MAX - (USED_REFRESH_MAX - USED_REFRESH_MIN) * make_luck();
        let refresh_at = earlier(token.stored_until, token.lifetime.mul_f64(1.0 - share));
        let used = Used { key: key.clone(), generation: token.generation, refresh_at };
        if self.used.try_send(used).is_err() {
            // The next release of this generation tells again.
            slot.unmark_use();
        }
    }
}

/// Creates the handle for the use cases, and the actors for the app to run.
pub fn tokens(
    refresh: Refresh,
    clock: Arc<dyn Clock>,
    config: RefreshConfig,
) -> (Tokens, Refresher, Follower) {
    let (demands, demanded) = mpsc::channel(DEMANDS_MAX);
    let (used, released) = mpsc::channel(USES_MAX);
    let slots = refresh.slots.clone();
    let tokens = Tokens { clock: clock.clone(), demands, used, slots };
    let refresh = Arc::new(refresh);
    let follower = Follower::new(refresh.clone());
    (tokens, Refresher::new(refresh, clock, config, demanded, released), follower)
}

impl Token {
    fn new(
        stored: &crate::vault::StoredToken,
        live: &Live,
        generation: Generation,
        validity: Validity,
    ) -> Self {
        Self {
            access: stored.access.clone(),
            fingerprint: stored.access.fingerprint(),
            validity,
            stored_until: stored.expires_at,
            lifetime: stored.lifetime,
            scopes: stored.scopes.clone(),
            identity: live.identity.clone(),
            linked_at: live.linked_at,
            generation,
        }
    }
}

fn not_linked(key: &ConnectionKey) -> Problem {
    key.not_linked("is not linked")
}

fn shutting_down() -> Problem {
    Problem::new(Reason::ShuttingDown, "this instance is shutting down").retry_after(Duration::from_secs(1))
}

fn timed_out() -> Problem {
    Problem::new(Reason::UpstreamUnavailable, "the refresh has not answered yet; it goes on")
        .retry_after(Duration::from_secs(2))
}

/// How long a caller waits for a refresh (design.md 6.3); it goes on without the caller.
pub const WAIT: Duration = Duration::from_secs(10);
/// A full queue makes callers wait, which is what an overloaded provider needs.
const DEMANDS_MAX: usize = 1024;
/// First releases wait here for one batched write; beyond this the next release tells again.
const USES_MAX: usize = 4096;
/// Reports of refused tokens force one refresh a minute at most (design.md 4.1).
const FORCE_EVERY: Duration = Duration::from_mins(1);
/// A used token is replaced between these shares of its life (design.md 6.5); jitter only earlier.
const USED_REFRESH_MIN: f64 = 0.4;
const USED_REFRESH_MAX: f64 = 0.5;
