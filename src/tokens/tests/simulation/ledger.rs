//! What really happened, in order: noted where it happens, judged by [`Checks`](super::checks::Checks).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock as _;
use crate::store::memory::Written;
use crate::testing::RuntimeClock;

/// Something that no part of the broker can be wrong about.
#[derive(Debug)]
pub(super) enum Event {
    /// A row of a connection changed.
    Written(Box<Written>),
    /// A replica sent a token request with the grant of this hash.
    Asked { request: u64, replica: Arc<str>, grant: String },
    /// The replica that sent it has the answer, and by that knows whether the grant may be used up.
    Answered { request: u64, ok: bool, may_be_used: bool },
    /// Where each grant works once.
    SpentTwice,
}

pub(super) struct Ledger {
    truth: Arc<RuntimeClock>,
    events: Mutex<Vec<(Duration, Event)>>,
    requests: AtomicU64,
}

impl Ledger {
    pub(super) fn new(truth: Arc<RuntimeClock>) -> Self {
        Self { truth, events: Mutex::default(), requests: AtomicU64::new(0) }
    }

    pub(super) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// How many requests there were.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, event: Event) {
        let at = self.truth.now().monotonic;
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push((at, event));
    }

    pub(super) fn take(&self) -> Vec<(Duration, Event)> {
        std::mem::take(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
