//! How much may be asked of others in a while.
//!
//! Here: token requests, per tenant and over all (design.md 6.9). Whoever may ask now is told by a limiter of
//! the `governor` crate over our own [`Clock`].
//!
//! # Invariants
//!
//! 1. Nobody waits longer than they say they can ([`TokenBudget::turn`]).
//! 2. While somebody waits for a token, what is merely due stands back.
//! 3. A tenant that asked to be left alone is: for everybody, until its time is over.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::ids::TenantId;

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
    /// How many of those who are waited for wait for their turn.
    waiting: watch::Sender<usize>,
    turns: AtomicU32,
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
            waiting: watch::Sender::new(0),
            turns: AtomicU32::new(0),
        }
    }

    /// Waits for the turn of one request.
    ///
    /// # Errors
    ///
    /// How long it would take, where that is more than `within`: come back then.
    pub async fn turn(&self, tenant: &TenantId, urgency: Urgency, within: Duration) -> Result<(), Duration> {
        if let Some(left) = self.pause_left(tenant) {
            return Err(left);
        }
        if self.turns.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            self.tenants.retain_recent();
        }
        let until = self.clock.now().monotonic.saturating_add(within);
        let _waiting = (urgency == Urgency::Demanded).then(|| Waiting::new(&self.waiting));
        if urgency == Urgency::Due {
            self.stand_back(until).await?;
        }
        self.wait(until, || self.tenants.check_key(tenant).map_err(|not| not.wait_time_from(self.nanos())))
            .await?;
        self.wait(until, || self.overall.check().map_err(|not| not.wait_time_from(self.nanos()))).await
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

    /// Lets those go first who are waited for.
    async fn stand_back(&self, until: Duration) -> Result<(), Duration> {
        let mut waiting = self.waiting.subscribe();
        let left = until.saturating_sub(self.clock.now().monotonic);
        tokio::select! {
            biased;
            _ = waiting.wait_for(|waiting| *waiting == 0) => Ok(()),
            () = self.clock.sleep(left) => Err(STAND_BACK),
        }
    }

    async fn wait(&self, until: Duration, check: impl Fn() -> Result<(), Duration>) -> Result<(), Duration> {
        while let Err(wait) = check() {
            if until < self.clock.now().monotonic.saturating_add(wait) {
                return Err(wait);
            }
            self.clock.sleep(wait).await;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::RuntimeClock;

    fn budget(overall: u32, per_tenant: u32) -> (TokenBudget, Arc<RuntimeClock>) {
        let clock = Arc::new(RuntimeClock::default());
        let rates =
            TokenRates { overall: overall.try_into().unwrap(), per_tenant: per_tenant.try_into().unwrap() };
        (TokenBudget::new(rates, clock.clone()), clock)
    }

    fn tenant(digit: char) -> TenantId {
        "00000000-0000-4000-a000-000000000000".replace('0', &digit.to_string()).parse().unwrap()
    }

    const LONG: Duration = Duration::from_hours(1);

    /// F21: whoever comes, no more are let through than the rate says, and hardly fewer.
    #[tokio::test(start_paused = true)]
    async fn f21_a_storm_is_let_through_at_the_rate() {
        let (budget, clock) = budget(100, 50);
        let (one, other, third) = (tenant('1'), tenant('2'), tenant('3'));
        let turns = |count: usize, tenant| {
            let budget = &budget;
            async move {
                for _ in 0..count {
                    budget.turn(tenant, Urgency::Due, LONG).await.unwrap();
                }
            }
        };
        tokio::join!(turns(1000, &one), turns(1000, &other), turns(1000, &third));
        let took = clock.now().monotonic.as_secs_f64();
        assert!((29.0..33.0).contains(&took), "3000 at 100/s took {took} s");
        turns(500, &one).await;
        let more = clock.now().monotonic.as_secs_f64() - took;
        assert!((9.0..11.0).contains(&more), "500 of one tenant at 50/s took {more} s");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_waited_for_goes_before_what_is_due() {
        let (budget, _clock) = budget(1, 1);
        let tenant = tenant('1');
        budget.turn(&tenant, Urgency::Due, LONG).await.unwrap();
        let order = Mutex::new(Vec::new());
        let ask = |name, urgency| {
            let (budget, order, tenant) = (&budget, &order, &tenant);
            async move {
                budget.turn(tenant, urgency, LONG).await.unwrap();
                order.lock().unwrap().push(name);
            }
        };
        tokio::join!(
            ask("demanded", Urgency::Demanded),
            ask("demanded", Urgency::Demanded),
            ask("due", Urgency::Due),
        );
        assert_eq!(*order.lock().unwrap(), ["demanded", "demanded", "due"]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_they_can() {
        let (budget, clock) = budget(1, 1);
        let tenant = tenant('1');
        budget.turn(&tenant, Urgency::Demanded, LONG).await.unwrap();
        let refused = budget.turn(&tenant, Urgency::Demanded, Duration::from_millis(500)).await;
        assert_eq!((refused, clock.now().monotonic), (Err(Duration::from_secs(1)), Duration::ZERO));
    }

    /// F08: a tenant's wish holds for everybody, and for that tenant alone.
    #[tokio::test(start_paused = true)]
    async fn f08_a_tenant_that_asked_for_it_is_left_alone() {
        let (budget, clock) = budget(100, 100);
        let (one, other) = (tenant('1'), tenant('2'));
        budget.pause(&one, Duration::from_mins(1));
        budget.pause(&one, Duration::from_secs(1));
        assert_eq!(budget.turn(&one, Urgency::Demanded, LONG).await, Err(Duration::from_mins(1)));
        assert_eq!(budget.turn(&other, Urgency::Demanded, LONG).await, Ok(()));
        clock.sleep(Duration::from_mins(1)).await;
        assert_eq!(budget.turn(&one, Urgency::Demanded, LONG).await, Ok(()));
        budget.pause(&one, Duration::from_secs(1_000_000_000));
        assert_eq!(budget.turn(&one, Urgency::Due, LONG).await, Err(PAUSE_MAX));
    }
}
