//! What the columns of both databases have in common: their order in what is read, and how values lie in them.
//!
//! Reading never fails for an odd number: columns are not trusted, and an edited one may cost time but not a row.
//! How a row becomes one of ours is each database's own.

use jiff::Timestamp;

use crate::connection::Failure;

/// In the order in which both databases read a row of `connections`.
pub(super) const CONNECTION: &str =
    "account, role, generation, sealed, live, refresh_at, retry_at, failure, lease_until, fence";
/// The same of `links`.
pub(super) const LINK: &str = "id, account, role, state_hash, version, open, expires_at, sealed";
/// The same of `integrations`.
pub(super) const INTEGRATION: &str = "account, version, sealed";

pub(super) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

pub(super) fn time(micros: i64) -> Timestamp {
    let nearest = if micros < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_microsecond(micros).unwrap_or(nearest)
}

pub(super) fn plain(failure: &Failure) -> String {
    serde_json::to_string(failure).expect("a failure is plain data")
}

pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_time_is_read_as_the_nearest_possible() {
        assert_eq!(time(i64::MAX), Timestamp::MAX);
        assert_eq!(time(i64::MIN), Timestamp::MIN);
        assert_eq!(micros(time(1_234_567)), 1_234_567);
    }
}
