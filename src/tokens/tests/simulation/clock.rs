//! Clocks of replicas: all follow the one of the runtime, and each can be wrong in its own way.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::Notify;

use crate::clock::{Clock, Moment};
use crate::testing::RuntimeClock;

/// Stands in the way of whoever belongs to a replica that is paused.
#[derive(Default)]
pub(super) struct Gate {
    is_closed: AtomicBool,
    opened: Notify,
}

/// What one replica takes for the time.
pub(super) struct ReplicaClock {
    truth: std::sync::Arc<RuntimeClock>,
    gate: std::sync::Arc<Gate>,
    wall_ahead_s: AtomicI64,
    /// How long the machine slept: its monotonic clock stood still.
    suspended_us: AtomicU64,
}

impl Gate {
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn open(&self) {
        self.is_closed.store(false, Ordering::Relaxed);
        self.opened.notify_waiters();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Woken in the order of waiting.
    pub(super) async fn pass(&self) {
        loop {
            let opened = self.opened.notified();
            if !self.is_closed() {
                return;
            }
            opened.await;
        }
    }
}

impl ReplicaClock {
    pub(super) fn new(truth: std::sync::Arc<RuntimeClock>, gate: std::sync::Arc<Gate>) -> Self {
        Self { truth, gate, wall_ahead_s: AtomicI64::new(0), suspended_us: AtomicU64::new(0) }
    }

    /// The wall clock is set to be this much ahead of the truth.
    pub(super) fn set_wall_ahead(&self, seconds: i64) {
        self.wall_ahead_s.store(seconds, Ordering::Relaxed);
    }

    pub(super) fn wall_ahead(&self) -> i64 {
        self.wall_ahead_s.load(Ordering::Relaxed)
    }

    /// The machine has slept for so long.
    pub(super) fn was_suspended(&self, slept: Duration) {
        let slept = u64::try_from(slept.as_micros()).expect("is short");
        self.suspended_us.fetch_add(slept, Ordering::Relaxed);
    }
}

impl Clock for ReplicaClock {
    fn now(&self) -> Moment {
        let truth = self.truth.now();
        let suspended = Duration::from_micros(self.suspended_us.load(Ordering::Relaxed));
        Moment {
            wall: truth.wall + SignedDuration::from_secs(self.wall_ahead()),
            monotonic: truth.monotonic.saturating_sub(suspended),
        }
    }

    fn sleep(&self, wait: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            self.gate.pass().await;
        })
    }
}
