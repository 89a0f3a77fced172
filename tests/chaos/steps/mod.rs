//! The steps, each a story of its own with an emulator, brokers and one kind of harm.

pub(crate) mod callers;
pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod fenced;
pub(crate) mod kill_link;
pub(crate) mod kill_refresh;
pub(crate) mod limits;
pub(crate) mod network;
pub(crate) mod outage;
pub(crate) mod replicas;
pub(crate) mod storm;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::random::Random;

/// What a step has to work with.
pub(crate) struct Stage {
    /// A folder of its own, empty.
    pub(crate) dir: PathBuf,
    /// The long run; otherwise smaller numbers.
    pub(crate) is_full: bool,
    pub(crate) random: Random,
}

impl Stage {
    /// The first in the full run, the second in the quick one.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.is_full { full } else { quick }
    }
}

/// Waits for microseconds. A timer would round them up to a millisecond.
async fn spin(wait: Duration) {
    let at = Instant::now() + wait;
    while Instant::now() < at {
        tokio::task::yield_now().await;
    }
}
