//! How much may be asked of others in a while.
//!
//! Here: token requests, per tenant and over all (design.md 6.9). Whoever may ask now is told by a limiter of
//! the `governor` crate over our own [`Clock`].
//!
//! # Invariants
//!
//! 1. Nobody waits longer than they say they can ([`TokenBudget::turn`]).
//! 2. While somebody waits for a token, what is merely due stands back: of the same tenant, and of all while the
//!    pace over all is what is waited for. One tenant's storm is the others' business only there.
//! 3. A request takes a turn of its tenant and one of all, or none.
//! 4. While nothing answers for a tenant, one request at a time finds out whether it does again; the others do
//!    not wait for it (threat T33).
//! 5. A tenant that asked to be left alone is, until its time is over: by all refreshes. Links and proofs of
//!    credentials, which a person waits for, ask on their own.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::ids::TenantId;
use crate::secret::make_luck;

/// Token requests a second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TokenRates {
    pub overall: NonZeroU32,
    pub per_tenant: NonZeroU32,
}

/// Why somebody asks for a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Urgency {
    /// Somebody waits for it.
    Demanded,
    /// It is time.
    Due,
}

/// Gives everybody their turn.
pub struct TokenBudget {
    clock: Arc<dyn Clock>,
    overall: RateLimiter<NotKeyed, InMemoryState, Ticking, NoOpMiddleware<Nanos>>,
    tenants: RateLimiter<TenantId, DashMapStateStore<TenantId>, Ticking, NoOpMiddleware<Nanos>>,
    /// Until when a tenant is left alone, by the monotonic clock.
    paused: Mutex<HashMap<TenantId, Duration>>,
    lines: Mutex<HashMap<TenantId, Arc<Line>>>,
    /// How many of those who are waited for have a turn of their tenant, and wait for one of all.
    waiting: watch::Sender<usize>,
    turns: AtomicU32,
}

/// Those of one tenant.
#[derive(Default)]
struct Line {
    /// How many of those who are waited for wait for a turn of the tenant.
    waiting: watch::Sender<usize>,
    /// Turns that were given back, for whoever comes next; no more than may ask at once.
    unused: AtomicUsize,
    silence: Mutex<Silence>,
}

/// That nothing answers.
#[derive(Default)]
struct Silence {
    /// Requests that nothing answered, since the last one that something did.
    in_a_row: u32,
    /// Until then the tenant is left alone.
    until: Duration,
    /// One that finds out is under way, until then at most.
    asks_until: Duration,
}

/// A turn of a tenant, given back unless a request is sent with it.
#[must_use]
pub struct Turn {
    line: Arc<Line>,
    /// It is the one that finds out whether anything answers.
    asks: bool,
    is_used: bool,
}

/// Our clock, as the limiter reads it.
#[derive(Clone)]
struct Ticking(Arc<dyn Clock>);

/// Counts one who waits, until dropped.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl TokenBudget {
    pub fn new(rates: TokenRates, clock: Arc<dyn Clock>) -> Self {
        let ticking = || Ticking(clock.clone());
        Self {
            overall: RateLimiter::direct_with_clock(quota(rates.overall), ticking()),
            tenants: RateLimiter::dashmap_with_clock(quota(rates.per_tenant), ticking()),
            clock,
            paused: Mutex::default(),
            lines: Mutex::default(),
            waiting: watch::Sender::new(0),
            turns: AtomicU32::new(0),
        }
    }

    /// Waits for the turn of one request. Its urgency may change meanwhile.
    ///
    /// # Errors
    ///
    /// How long it would take, where that is more than `within`: come back then.
    pub async fn turn(
        &self,
        tenant: &TenantId,
        urgency: &watch::Receiver<Urgency>,
        within: Duration,
    ) -> Result<Turn, Duration> {
        if self.turns.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            self.tenants.retain_recent();
            self.lines
                .lock()
                .expect("no panic while held")
                .retain(|_, line| 1 < Arc::strong_count(line) || line.is_silent());
        }
        let until = self.clock.now().monotonic.saturating_add(within);
        let line = self.line(tenant);
        let asks = self.wait(&line.waiting, urgency, until, || self.check_tenant(tenant, &line)).await?;
        let turn = Turn { line, asks, is_used: false };
        let check_overall = || {
            // It may have fallen silent, or asked to be left alone, while others waited.
            self.check_wish(tenant)?;
            if !turn.asks {
                turn.line.check_silence(self.clock.now().monotonic)?;
            }
            self.overall.check().map_err(|not| not.wait_time_from(self.nanos()))
        };
        self.wait(&self.waiting, urgency, until, check_overall).await?;
        Ok(turn)
    }

    /// Leaves a tenant alone for a while: it said so.
    pub fn pause(&self, tenant: &TenantId, wait: Duration) {
        let now = self.clock.now().monotonic;
        let until = now.saturating_add(wait.min(PAUSE_MAX));
        let mut paused = self.paused.lock().expect("no panic while held");
        paused.retain(|_, until| now < *until);
        let longest = paused.entry(tenant.clone()).or_insert(until);
        *longest = until.max(*longest);
    }

    fn pause_left(&self, tenant: &TenantId) -> Option<Duration> {
        let until = *self.paused.lock().expect("no panic while held").get(tenant)?;
        let left = until.saturating_sub(self.clock.now().monotonic);
        (!left.is_zero()).then_some(left)
    }

    /// Something answered a request of the tenant, whatever it said.
    pub fn answered(&self, tenant: &TenantId) {
        *self.line(tenant).silence.lock().expect("no panic while held") = Silence::default();
    }

    /// Nothing answered one that was sent at `asked`, by the monotonic clock. So many in a row, and the tenant is
    /// left alone, longer each time. What was on its way when that began tells nothing more, however late it ends:
    /// one moment may have swallowed them all.
    pub fn unanswered(&self, tenant: &TenantId, asked: Duration) {
        let now = self.clock.now().monotonic;
        let line = self.line(tenant);
        let mut silence = line.silence.lock().expect("no panic while held");
        if asked < silence.until {
            return;
        }
        let in_a_row = silence.in_a_row.saturating_add(1);
        if in_a_row == SILENT_AFTER {
            tracing::warn!(tenant = %tenant, "nothing answers token requests; one at a time finds out when that ends");
        }
        let pause = in_a_row.checked_sub(SILENT_AFTER).map(|more| SILENCE.wait(more + 1, make_luck()));
        let until = pause.map_or(Duration::ZERO, |pause| now.saturating_add(pause));
        *silence = Silence { in_a_row, until, asks_until: Duration::ZERO };
    }

    /// Whether nothing answers for the tenant, and it did not ask to be left alone.
    pub fn is_silent(&self, tenant: &TenantId) -> bool {
        self.check_wish(tenant).is_ok() && self.line(tenant).is_silent()
    }

    /// Whether asking is pointless for longer than anybody waits for a turn: how long, at least, and whether that is
    /// because nothing answers.
    pub fn check(&self, tenant: &TenantId) -> Result<(), (Duration, bool)> {
        if let Some(left) = self.pause_left(tenant).filter(|left| LOOK_AGAIN <= *left) {
            return Err((left, false));
        }
        let now = self.clock.now().monotonic;
        self.line(tenant).check_question(now).map_err(|wait| (wait, true))
    }

    fn check_wish(&self, tenant: &TenantId) -> Result<(), Duration> {
        self.pause_left(tenant).map_or(Ok(()), Err)
    }

    fn line(&self, tenant: &TenantId) -> Arc<Line> {
        let mut lines = self.lines.lock().expect("no panic while held");
        lines.entry(tenant.clone()).or_default().clone()
    }

    /// Takes a turn of the tenant. True: it finds out whether anything answers.
    fn check_tenant(&self, tenant: &TenantId, line: &Line) -> Result<bool, Duration> {
        self.check_wish(tenant)?;
        let asks = line.may_ask(self.clock.now().monotonic)?;
        let fewer = |unused: usize| unused.checked_sub(1);
        if line.unused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok() {
            return Ok(asks);
        }
        let taken = self.tenants.check_key(tenant).map_err(|not| not.wait_time_from(self.nanos()));
        if asks && taken.is_err() {
            line.asks_no_more();
        }
        taken.map(|()| asks)
    }

    /// Lets those go first who are waited for, until it is one of them.
    async fn stand_back(
        &self,
        waiting: &watch::Sender<usize>,
        urgency: &mut watch::Receiver<Urgency>,
        until: Duration,
    ) -> Result<(), Duration> {
        let mut waiting = waiting.subscribe();
        let left = until.saturating_sub(self.clock.now().monotonic);
        tokio::select! {
            biased;
            Ok(_) = urgency.wait_for(|urgency| *urgency == Urgency::Demanded) => Ok(()),
            _ = waiting.wait_for(|waiting| *waiting == 0) => Ok(()),
            () = self.clock.sleep(left) => Err(STAND_BACK),
        }
    }

    async fn wait<T>(
        &self,
        waiting: &watch::Sender<usize>,
        urgency: &watch::Receiver<Urgency>,
        until: Duration,
        check: impl Fn() -> Result<T, Duration>,
    ) -> Result<T, Duration> {
        let mut urgency = urgency.clone();
        let mut counted = None;
        loop {
            if *urgency.borrow() == Urgency::Due {
                self.stand_back(waiting, &mut urgency, until).await?;
            }
            if *urgency.borrow() == Urgency::Demanded {
                counted.get_or_insert_with(|| Waiting::new(waiting));
            }
            let wait = match check() {
                Ok(taken) => return Ok(taken),
                Err(wait) => wait,
            };
            if until < self.clock.now().monotonic.saturating_add(wait) {
                return Err(wait);
            }
            self.clock.sleep(wait).await;
        }
    }

    fn nanos(&self) -> Nanos {
        Nanos::new(0) + Nanos::from(self.clock.now().monotonic)
    }
}

impl GovernorClock for Ticking {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.now().monotonic)
    }
}

impl Line {
    fn is_silent(&self) -> bool {
        SILENT_AFTER <= self.silence.lock().expect("no panic while held").in_a_row
    }

    /// Where nothing answers, one at a time. True: that one.
    fn may_ask(&self, now: Duration) -> Result<bool, Duration> {
        let mut silence = self.silence.lock().expect("no panic while held");
        if silence.in_a_row < SILENT_AFTER {
            return Ok(false);
        }
        silence.check(now)?;
        silence.asks_until = now + ASKS_MAX;
        Ok(true)
    }

    /// Whether one could find out now.
    fn check_question(&self, now: Duration) -> Result<(), Duration> {
        self.silence.lock().expect("no panic while held").check(now)
    }

    fn check_silence(&self, now: Duration) -> Result<(), Duration> {
        let silence = self.silence.lock().expect("no panic while held");
        if silence.in_a_row < SILENT_AFTER {
            return Ok(());
        }
        Err(silence.until.saturating_sub(now).max(LOOK_AGAIN))
    }

    /// Whoever was to find out does not.
    fn asks_no_more(&self) {
        self.silence.lock().expect("no panic while held").asks_until = Duration::ZERO;
    }
}

impl Silence {
    /// Until when nobody asks, or that somebody does.
    fn check(&self, now: Duration) -> Result<(), Duration> {
        if now < self.until {
            return Err(self.until.saturating_sub(now));
        }
        if now < self.asks_until {
            return Err(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl<'a> Waiting<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Turn {
    /// A request is sent.
    pub fn spend(mut self) {
        self.is_used = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_used {
            self.line.unused.fetch_add(1, Ordering::Relaxed);
            if self.asks {
                self.line.asks_no_more();
            }
        }
    }
}

/// So many a second, and no more than a tenth of a second's at once.
fn quota(per_second: NonZeroU32) -> Quota {
    let burst = NonZeroU32::new(per_second.get() / 10).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(per_second).allow_burst(burst)
}

/// Turns between two looks at which tenants need not be remembered.
const FORGET_EVERY: u32 = 1024;
/// An upstream that asks for more is asked again after this (azure.md 1.10).
const PAUSE_MAX: Duration = Duration::from_mins(10);
const STAND_BACK: Duration = Duration::from_secs(1);
/// Requests that nothing answered, one after the other, until the others wait no more.
const SILENT_AFTER: u32 = 5;
/// How long a tenant is left alone that nothing answers for.
const SILENCE: Backoff = Backoff { min: Duration::from_secs(2), max: Duration::from_secs(30) };
/// Longer than a turn and a request take.
const ASKS_MAX: Duration = Duration::from_secs(20);
/// Whoever may not ask looks again after this. Longer than whoever waits for a turn waits.
const LOOK_AGAIN: Duration = Duration::from_secs(4);
