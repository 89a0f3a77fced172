//! How long to wait before the next attempt: doubling, capped, jittered.

use std::time::Duration;

/// The bounds of a backoff.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub min: Duration,
    pub max: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row. `luck` in 0..=1 spreads it over the upper half,
    /// so that many connections which failed together do not come back together.
    pub fn wait(&self, failures: u32, luck: f64) -> Duration {
        let doubled = self.min.saturating_mul(1_u32 << failures.saturating_sub(1).min(DOUBLINGS_MAX));
        let capped = doubled.min(self.max);
        capped.mul_f64(0.5 + luck.clamp(0.0, 1.0) / 2.0)
    }
}

/// Beyond this any cap in use has long been reached.
const DOUBLINGS_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_cap_and_is_never_less_than_half() {
        let backoff = Backoff { min: Duration::from_secs(2), max: Duration::from_mins(1) };
        assert_eq!(backoff.wait(1, 1.0), Duration::from_secs(2));
        assert_eq!(backoff.wait(3, 1.0), Duration::from_secs(8));
        assert_eq!(backoff.wait(3, 0.0), Duration::from_secs(4));
        assert_eq!(backoff.wait(99, 1.0), Duration::from_mins(1));
    }
}
