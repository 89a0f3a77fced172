//! The only source of time for validity and schedules (design.md 6.18).
//!
//! Two clocks, because each lies in its own way: the wall clock may step back, the monotonic one
//! stops while the machine is suspended. A token is valid only if both say so. Deadlines of IO are
//! `tokio::time`'s business and not asked here.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;

/// Tells time, and waits for it on behalf of schedules.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Moment;

    /// Waits on this clock, so that a test which moves it moves schedules too.
    fn sleep(&self, wait: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    pub wall: Timestamp,
    /// Time since the process began, by the clock that never steps.
    pub monotonic: Duration,
}

/// Until when something is valid, on both clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    pub expires_at: Timestamp,
    expires_monotonic: Duration,
}

impl Validity {
    /// Valid for `lifetime` from `obtained`.
    pub fn for_lifetime(obtained: Moment, lifetime: Duration) -> Self {
        Self {
            expires_at: later(obtained.wall, lifetime),
            expires_monotonic: obtained.monotonic.saturating_add(lifetime),
        }
    }

    /// How long it stays valid: what the more cautious clock says.
    pub fn left(&self, now: Moment) -> Duration {
        between(now.wall, self.expires_at).min(self.expires_monotonic.saturating_sub(now.monotonic))
    }
}

/// What the store's clock said, at some moment between `asked` and `told` here.
///
/// Rows carry that clock's times, because replicas' clocks differ: whoever writes one, or reads one, goes by
/// what that clock is, and by the time that passed here since.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StoreClock {
    said: Timestamp,
    asked: Moment,
    told: Moment,
}

impl StoreClock {
    pub fn new(said: Timestamp, asked: Moment, told: Moment) -> Self {
        Self { said, asked, told }
    }

    /// What it says at `moment`, or a little less: nothing is dated later than it is.
    pub fn at(&self, moment: Moment) -> Timestamp {
        match moment.monotonic.checked_sub(self.told.monotonic) {
            Some(since) => later(self.said, since),
            None => earlier(self.said, self.told.monotonic - moment.monotonic),
        }
    }

    /// Until when here that is valid which is so until `until` there, or a little less.
    pub fn validity(&self, until: Timestamp) -> Validity {
        Validity::for_lifetime(self.asked, between(self.said, until))
    }
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    began: tokio::time::Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { began: tokio::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock everybody else asks")]
    fn now(&self) -> Moment {
        Moment { wall: Timestamp::now(), monotonic: self.began.elapsed() }
    }

    fn sleep(&self, wait: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(wait))
    }
}

/// `from + by`, or the end of time where that does not fit.
pub fn later(from: Timestamp, by: Duration) -> Timestamp {
    from.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// `from - by`, or the beginning of time where that does not fit.
pub fn earlier(from: Timestamp, by: Duration) -> Timestamp {
    from.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// The time from `from` to `to`, zero if it has passed.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(from.duration_until(to)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(wall: i64, monotonic: u64) -> Moment {
        Moment { wall: Timestamp::from_second(wall).unwrap(), monotonic: Duration::from_secs(monotonic) }
    }

    /// F19: neither a wall clock that stepped back nor a monotonic one that slept extends a token.
    #[test]
    fn f19_the_more_cautious_clock_decides() {
        let validity = Validity::for_lifetime(moment(1000, 10), Duration::from_secs(100));
        assert_eq!(validity.left(moment(1050, 60)), Duration::from_secs(50));
        assert_eq!(validity.left(moment(900, 100)), Duration::from_secs(10));
        assert_eq!(validity.left(moment(1099, 20)), Duration::from_secs(1));
        assert_eq!(validity.left(moment(5000, 20)), Duration::ZERO);
    }

    /// F19: what another replica wrote is not valid longer because a clock is wrong, here or there.
    #[test]
    fn f19_times_of_the_store_are_read_and_written_by_its_clock() {
        let (asked, told) = (moment(90_000, 10), moment(90_002, 12));
        let store = StoreClock::new(Timestamp::from_second(1000).unwrap(), asked, told);
        assert_eq!(store.at(moment(5, 15)), Timestamp::from_second(1003).unwrap());
        assert_eq!(store.at(moment(5, 11)), Timestamp::from_second(999).unwrap());
        let validity = store.validity(Timestamp::from_second(1100).unwrap());
        assert_eq!(validity.left(told), Duration::from_secs(98));
        assert_eq!(validity.left(moment(90_000, 110)), Duration::ZERO);
        assert_eq!(store.validity(Timestamp::from_second(900).unwrap()).left(asked), Duration::ZERO);
    }
}
