//! Clocks that tests move.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::{Clock, Moment, later};

/// A clock that follows the (pausable) clock of the tokio runtime, so that one sleep moves timers
/// and expiries alike. Only where there is no real IO.
pub struct RuntimeClock {
    began: Instant,
}

/// A clock that stands until a test advances it; sleepers wake when it has passed their time.
/// For tests with real IO, where pausing tokio would fire IO deadlines at once.
pub struct ManualClock {
    passed: watch::Sender<Duration>,
    began_at: Timestamp,
}

/// When both test clocks begin: 2026-01-01T00:00:00Z.
const BEGAN_AT: Timestamp = Timestamp::constant(1_767_225_600, 0);

impl Default for RuntimeClock {
    fn default() -> Self {
        Self { began: Instant::now() }
    }
}

impl RuntimeClock {
    /// What its wall clock says when it begins.
    pub fn began_at() -> Timestamp {
        BEGAN_AT
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Moment {
        let monotonic = self.began.elapsed();
        Moment { wall: later(BEGAN_AT, monotonic), monotonic }
    }

    fn sleep(&self, wait: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(wait))
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::at(BEGAN_AT)
    }
}

impl ManualClock {
    pub fn at(began_at: Timestamp) -> Self {
        Self { passed: watch::Sender::default(), began_at }
    }

    pub fn advance(&self, by: Duration) {
        self.passed.send_modify(|passed| *passed += by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        let monotonic = *self.passed.borrow();
        Moment { wall: later(self.began_at, monotonic), monotonic }
    }

    fn sleep(&self, wait: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut passed = self.passed.subscribe();
        let until = *passed.borrow() + wait;
        Box::pin(async move {
            if passed.wait_for(|passed| until <= *passed).await.is_err() {
                // The clock lives as long as this borrow of it.
                std::future::pending::<()>().await;
            }
        })
    }
}
