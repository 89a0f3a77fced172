//! What an answer says of the pace at which its identity may go on (azure.md 3.10).
//!
//! Azure DevOps counts what an identity uses in the last five minutes. Near the limit it holds requests up and
//! says so in headers, beyond it refuses. The headers may stand on any answer, and most of them on none.
//!
//! What is done about it is the business of the [pace](super::Pace).

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::between;
use crate::outgoing::Answer;

/// How long the identity should wait, counted from the answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Told {
    /// Before anything else.
    pub slow_down: Option<Duration>,
    /// Before the next list: until then what is left is kept for others, git among them, which uses the same
    /// identity and asks nobody here.
    pub keep_free: Option<Duration>,
}

impl Told {
    pub(super) fn of(answer: &Answer) -> Self {
        let held_up = number(answer, "x-ratelimit-delay").filter(|seconds| 0.0 < *seconds);
        let held_up = held_up.map(|seconds| Duration::from_secs_f64(seconds.min(WINDOW.as_secs_f64())));
        Self { slow_down: answer.retry_after.max(held_up), keep_free: keep_free(answer) }
    }
}

/// Once too little is left: until half is free. What was used becomes free evenly, as far as anybody outside can
/// tell; if it was used all at once, half leaves room for the mistake.
fn keep_free(answer: &Answer) -> Option<Duration> {
    let limit = number(answer, "x-ratelimit-limit").filter(|limit| 0.0 < *limit)?;
    let left = number(answer, "x-ratelimit-remaining")?.clamp(0.0, limit);
    if limit * KEPT_FREE <= left {
        return None;
    }
    let until_all = resets_in(answer).unwrap_or(WINDOW).min(WINDOW);
    Some(until_all.mul_f64((limit / 2.0 - left) / (limit - left)))
}

/// By the clock of whoever says it.
fn resets_in(answer: &Answer) -> Option<Duration> {
    let resets_at: i64 = answer.header("x-ratelimit-reset")?.trim().parse().ok()?;
    Some(between(answer.date?, Timestamp::from_second(resets_at).ok()?))
}

fn number(answer: &Answer, name: &'static str) -> Option<f64> {
    answer.header(name)?.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// What an identity used longer ago than this no longer counts.
const WINDOW: Duration = Duration::from_mins(5);
/// The share of the limit that lists leave to others.
const KEPT_FREE: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(headers: &[(&'static str, &str)]) -> Told {
        let date = ("date", "Sat, 28 Nov 2026 12:00:00 GMT");
        Told::of(&Answer::made(200, &[&[date], headers].concat(), ""))
    }

    fn kept_free(limit: &str, remaining: &str, reset: &str) -> Option<Duration> {
        let told = told(&[
            ("x-ratelimit-limit", limit),
            ("x-ratelimit-remaining", remaining),
            ("x-ratelimit-reset", reset),
        ]);
        told.keep_free
    }

    /// 12:04:00 of the date above.
    const IN_FOUR_MINUTES: &str = "1795867440";

    #[test]
    fn most_answers_say_nothing() {
        assert_eq!(told(&[]), Told::default());
    }

    #[test]
    fn the_longer_of_the_wishes_to_slow_down_counts() {
        let slow_down = |headers| told(headers).slow_down;
        assert_eq!(slow_down(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(slow_down(&[("x-ratelimit-delay", "2.5")]), Some(Duration::from_millis(2500)));
        let both: [(&'static str, &str); 2] = [("retry-after", "7"), ("x-ratelimit-delay", "30.000")];
        assert_eq!(slow_down(&both), Some(Duration::from_secs(30)));
        assert_eq!(slow_down(&[("x-ratelimit-delay", "0")]), None);
    }

    #[test]
    fn lists_wait_for_half_once_less_than_a_quarter_is_left() {
        assert_eq!(kept_free("200", "60", IN_FOUR_MINUTES), None);
        assert_eq!(kept_free("200", "50", IN_FOUR_MINUTES), None);
        assert_eq!(kept_free("200", "40", IN_FOUR_MINUTES), Some(Duration::from_secs(90)));
        assert_eq!(kept_free("100", "0", IN_FOUR_MINUTES), Some(Duration::from_mins(2)));
        let far = "99999999999";
        assert_eq!(kept_free("200", "0", far), Some(WINDOW / 2), "as if of five minutes at most");
    }

    #[test]
    fn nonsense_says_nothing() {
        for (name, value) in
            [("x-ratelimit-delay", "NaN"), ("x-ratelimit-delay", "-1"), ("retry-after", "soon")]
        {
            assert_eq!(told(&[(name, value)]), Told::default(), "{name}: {value}");
        }
        assert_eq!(told(&[("x-ratelimit-delay", "1e300")]).slow_down, Some(WINDOW));
        assert_eq!(kept_free("0", "0", IN_FOUR_MINUTES), None);
        assert_eq!(kept_free("200", "many", IN_FOUR_MINUTES), None);
        assert_eq!(kept_free("200", "-5", "then"), Some(WINDOW / 2));
        assert_eq!(kept_free("200", "0", "0"), Some(Duration::ZERO), "it is over already");
    }
}
