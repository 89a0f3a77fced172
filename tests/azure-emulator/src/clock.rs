//! The time the emulator lives in: the system's clock or a fixed start, plus what was advanced.
//!
//! It drives codes, tokens and secrets. It does not move timers: nothing here sleeps.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

#[derive(Debug)]
pub(crate) struct Clock {
    fixed: Option<Timestamp>,
    advanced: Mutex<SignedDuration>,
}

impl Clock {
    /// A clock which stands still at `fixed`, or one which follows the system's.
    pub(crate) fn new(fixed: Option<Timestamp>) -> Self {
        Self { fixed, advanced: Mutex::new(SignedDuration::ZERO) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let advanced = *self.advanced.lock().unwrap_or_else(PoisonError::into_inner);
        let base = self.fixed.unwrap_or_else(system_now);
        base.saturating_add(advanced).unwrap_or(base)
    }

    pub(crate) fn advance(&self, by: Duration) {
        let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
        let mut advanced = self.advanced.lock().unwrap_or_else(PoisonError::into_inner);
        *advanced = advanced.saturating_add(by);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place which reads the system's clock")]
fn system_now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_moves_only_when_advanced() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::new(Some(start));

        clock.advance(Duration::from_secs(90));

        assert_eq!(clock.now(), start + SignedDuration::from_secs(90));
    }
}
