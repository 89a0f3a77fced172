//! What each identity used in the last five minutes, while a switch sets a limit: near it answers say so in
//! headers, beyond it they are refused.
//!
//! Every request costs one unit, REST or git. Real costs differ from request to request and nobody outside knows
//! them.

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::errors;
use crate::call::{Answer, with_header};
use crate::fault::Fault;
use crate::state::Shared;

/// When each identity's requests that count were made.
pub(crate) type Usage = HashMap<String, VecDeque<Timestamp>>;

/// What is left to an identity after a request.
pub(super) struct Left {
    limit: usize,
    remaining: usize,
    /// When nothing will count any more.
    reset: Timestamp,
}

/// Counts a request, if there is a limit; refused beyond it.
pub(super) fn count(shared: &Shared, oid: &str) -> Result<Option<Left>, Box<Answer>> {
    let now = shared.clock.now();
    let mut state = shared.state();
    let limit = match state.faults.find(|fault| matches!(fault, Fault::DevopsLimit { .. })) {
        Some(Fault::DevopsLimit { limit }) => *limit,
        _ => return Ok(None),
    };
    let used = state.usage.entry(oid.to_owned()).or_default();
    while used.front().is_some_and(|first| *first + WINDOW <= now) {
        used.pop_front();
    }
    if limit <= used.len() {
        let wait = used.front().map_or(WINDOW, |first| now.duration_until(*first + WINDOW));
        let seconds = u64::try_from(wait.as_secs()).unwrap_or_default() + 1;
        return Err(Box::new(errors::slow_down(errors::throttled(), Some(seconds))));
    }
    used.push_back(now);
    Ok(Some(Left { limit, remaining: limit - used.len(), reset: now + WINDOW }))
}

/// Says what is left, once more than half is used.
pub(super) fn say(left: Option<Left>, answer: Answer) -> Answer {
    let Some(Left { limit, remaining, reset }) = left.filter(|left| left.remaining * 2 < left.limit) else {
        return answer;
    };
    let answer = with_header(answer, "x-ratelimit-resource", "Core");
    let answer = with_header(answer, "x-ratelimit-limit", &limit.to_string());
    let answer = with_header(answer, "x-ratelimit-remaining", &remaining.to_string());
    with_header(answer, "x-ratelimit-reset", &reset.as_second().to_string())
}

const WINDOW: SignedDuration = SignedDuration::from_mins(5);
