//! What is known of one connection's token, published to everyone who waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::Token;
use crate::clock::{Moment, StoreClock};
use crate::connection::{ConnectionKey, Seen};
use crate::ids::{AccountId, Generation};
use crate::reason::{Problem, Reason};
use crate::secret::Fingerprint;
use crate::vault::{Compared, Live};

/// All slots of this process.
#[derive(Default)]
pub(super) struct Slots {
    by_key: RwLock<HashMap<ConnectionKey, Arc<Slot>>>,
    /// Grows with each time that any is asked for.
    asked: AtomicU64,
}

pub(super) struct Slot {
    state: watch::Sender<State>,
    /// The generation whose first release was told to the refresher.
    used: AtomicI64,
    forced: Mutex<Option<Duration>>,
    /// The row that a comparison looked at last, and what was known then.
    looked_at: Mutex<Option<(Compared, Generation)>>,
    /// When it was last asked for, as [`Slots::asked`] counts.
    asked: AtomicU64,
    /// Tells whoever waits for somebody's lease that it may be free again.
    returned: Notify,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Grows with each thing that ended: a read of the row, a refresh, whatever its outcome.
    attempts: u64,
    generation: Generation,
    /// The link or disconnect that made what is known; none: nothing is.
    seen: Option<Seen>,
    token: Option<Arc<Token>>,
    problem: Option<Obstacle>,
}

/// What was learned last of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) generation: Generation,
    pub(super) seen: Option<Seen>,
}

/// Why there is no new token, and how long asking again is pointless.
#[derive(Clone, Debug)]
struct Obstacle {
    problem: Problem,
    until: Duration,
    /// Which attempt met it.
    attempt: u64,
}

/// What a slot says to somebody who wants a token.
pub(super) enum Answer {
    Token(Arc<Token>),
    Problem(Problem),
    Ask,
}

impl Slots {
    pub(super) fn slot(&self, key: &ConnectionKey) -> Arc<Slot> {
        let slot = self.find(key).unwrap_or_else(|| {
            let mut by_key = self.by_key.write().expect("no panic while held");
            if SLOTS_MAX <= by_key.len() {
                forget_some(&mut by_key);
            }
            by_key.entry(key.clone()).or_default().clone()
        });
        slot.asked.store(self.asked.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        slot
    }

    /// The slot, if anybody asked for this connection before.
    pub(super) fn find(&self, key: &ConnectionKey) -> Option<Arc<Slot>> {
        self.by_key.read().expect("no panic while held").get(key).cloned()
    }

    /// Everything that somebody asked for.
    pub(super) fn keys(&self) -> Vec<ConnectionKey> {
        self.by_key.read().expect("no panic while held").keys().cloned().collect()
    }

    /// As a restart does.
    #[cfg(test)]
    pub(super) fn forget_all(&self) {
        self.by_key.write().expect("no panic while held").clear();
    }

    pub(super) fn forgive(&self, account: &AccountId) {
        let by_key = self.by_key.read().expect("no panic while held");
        for (_, slot) in by_key.iter().filter(|(key, _)| key.account == *account) {
            slot.state.send_modify(|state| state.problem = None);
        }
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            state: watch::Sender::default(),
            used: AtomicI64::new(i64::MIN),
            forced: Mutex::default(),
            looked_at: Mutex::default(),
            asked: AtomicU64::new(0),
            returned: Notify::new(),
        }
    }
}

impl Slot {
    pub(super) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn attempts(&self) -> u64 {
        self.state.borrow().attempts
    }

    pub(super) fn is_waited_for(&self) -> bool {
        0 < self.state.receiver_count()
    }

    pub(super) fn has_token(&self) -> bool {
        self.state.borrow().token.is_some()
    }

    pub(super) fn known(&self) -> Known {
        let state = self.state.borrow();
        Known { generation: state.generation, seen: state.seen }
    }

    pub(super) fn answer(&self, min_ttl: Duration, now: Moment) -> Answer {
        let state = self.state.borrow();
        if let Some(answer) = state.token_for(min_ttl, now) {
            return answer;
        }
        match &state.problem {
            Some(obstacle) if now.monotonic < obstacle.until => Answer::Problem(obstacle.problem.clone()),
            _ => Answer::Ask,
        }
    }

    /// The answer for somebody who waited past attempt `seen`: a problem counts however short-lived.
    pub(super) fn answer_after(&self, seen: u64, min_ttl: Duration, now: Moment) -> Answer {
        let state = self.state.borrow();
        if let Some(answer) = state.token_for(min_ttl, now) {
            return answer;
        }
        match &state.problem {
            Some(obstacle) if seen < obstacle.attempt => Answer::Problem(obstacle.problem.clone()),
            _ => Answer::Ask,
        }
    }

    /// Whether what is held answers the wish: by a token, or because no token could.
    pub(super) fn answers(&self, min_ttl: Duration, now: Moment) -> bool {
        self.state.borrow().answers(min_ttl, now)
    }

    /// What an attempt met that ended after attempt `seen`.
    pub(super) fn obstacle_after(&self, seen: u64) -> Option<Problem> {
        let state = self.state.borrow();
        state
            .problem
            .as_ref()
            .filter(|obstacle| seen < obstacle.attempt)
            .map(|obstacle| obstacle.problem.clone())
    }

    pub(super) fn obstacle(&self) -> Option<Problem> {
        self.state.borrow().problem.as_ref().map(|obstacle| obstacle.problem.clone())
    }

    pub(super) fn holds(&self, fingerprint: &Fingerprint) -> bool {
        self.state.borrow().holds(fingerprint)
    }

    /// Takes what a row says, if it is newer than what is known (invariant 3 of [`super`]) and not of somebody
    /// before. Wakes nobody: a look at the row may be only the first half of an answer.
    pub(super) fn learn(&self, generation: Generation, seen: Seen, token: Option<Token>) {
        self.state.send_modify(|state| {
            if state.generation < generation && state.seen <= Some(seen) {
                state.generation = generation;
                state.seen = Some(seen);
                state.token = token.map(Arc::new);
                state.problem = None;
            }
        });
    }

    /// Takes a token that could not be committed yet, in the place of the one of this generation. Anything that
    /// was committed later ousts it, because the generation stays (design.md 6.6). False: something was.
    pub(super) fn lend(&self, generation: Generation, seen: Seen, token: Token) -> bool {
        self.state.send_if_modified(|state| {
            let is_current = state.generation <= generation && state.seen <= Some(seen);
            if is_current {
                state.generation = generation;
                state.seen = Some(seen);
                state.token = Some(Arc::new(token));
                state.problem = None;
            }
            is_current
        })
    }

    /// Releases nothing more of this generation: the row does not say so any longer.
    pub(super) fn withhold(&self, generation: Generation) {
        self.state.send_modify(|state| {
            if state.generation == generation {
                state.token = None;
            }
        });
    }

    /// Somebody was linked or disconnected since what is held: nothing of before is learned or released again.
    pub(super) fn outdate(&self, seen: Seen) {
        self.state.send_modify(|state| {
            if state.seen < Some(seen) {
                state.seen = Some(seen);
                state.token = None;
            }
        });
    }

    /// What is known now is the answer: wakes who waits.
    pub(super) fn settle(&self) {
        self.state.send_modify(|state| state.attempts += 1);
    }

    /// Publishes why there is no newer token; a valid one stays (invariant 4).
    pub(super) fn fail(&self, problem: Problem, until: Duration) {
        self.state.send_modify(|state| {
            state.attempts += 1;
            state.problem = Some(Obstacle { problem, until, attempt: state.attempts });
        });
    }

    pub(super) fn return_lease(&self) {
        self.returned.notify_one();
    }

    pub(super) async fn lease_returned(&self) {
        self.returned.notified().await;
    }

    /// Whether a forced refresh may be asked for now; if so, notes that it was.
    pub(super) fn may_force(&self, now: Moment, every: Duration) -> bool {
        let mut forced = self.forced.lock().expect("no panic while held");
        let may = forced.is_none_or(|last| every <= now.monotonic.saturating_sub(last));
        if may {
            *forced = Some(now.monotonic);
        }
        may
    }

    pub(super) fn unmark_force(&self) {
        *self.forced.lock().expect("no panic while held") = None;
    }

    /// Whether a comparison looked at this row already, and nothing was learned since: it would say the same again.
    pub(super) fn was_looked_at(&self, compared: &Compared) -> bool {
        let looked_at = self.looked_at.lock().expect("no panic while held");
        let known = self.known().generation;
        looked_at.as_ref().is_some_and(|(row, then)| row == compared && *then == known)
    }

    pub(super) fn note_look(&self, compared: Compared) {
        let known = self.known().generation;
        *self.looked_at.lock().expect("no panic while held") = Some((compared, known));
    }

    pub(super) fn is_first_use(&self, generation: Generation) -> bool {
        self.used.swap(generation.0, Ordering::Relaxed) != generation.0
    }

    pub(super) fn unmark_use(&self) {
        self.used.store(i64::MIN, Ordering::Relaxed);
    }
}

impl State {
    pub(super) fn attempts(&self) -> u64 {
        self.attempts
    }

    pub(super) fn holds(&self, fingerprint: &Fingerprint) -> bool {
        self.token.as_ref().is_some_and(|token| token.fingerprint == *fingerprint)
    }

    pub(super) fn answers(&self, min_ttl: Duration, now: Moment) -> bool {
        self.token_for(min_ttl, now).is_some()
    }

    fn token_for(&self, min_ttl: Duration, now: Moment) -> Option<Answer> {
        let token = self.token.as_ref()?;
        if token.lifetime <= min_ttl {
            return Some(Answer::Problem(too_long(token.lifetime)));
        }
        // Equal counts as too short: no answer has less life than was asked for (P7).
        (min_ttl < token.validity.left(now)).then(|| Answer::Token(token.clone()))
    }
}

/// Makes room for many, so that the next ones need not look. Forgetting is safe: the row knows the generation,
/// and the next demand reads it. What holds nothing goes first, then what nobody asked for the longest, so that
/// an outage of the store costs hardly a token at hand that is in use (P6).
fn forget_some(by_key: &mut HashMap<ConnectionKey, Arc<Slot>>) {
    let is_waited_for = |slot: &Arc<Slot>| 1 < Arc::strong_count(slot);
    let worth = |slot: &Slot| (slot.state.borrow().token.is_some(), slot.asked.load(Ordering::Relaxed));
    let mut worths: Vec<_> =
        by_key.values().filter(|slot| !is_waited_for(slot)).map(|slot| worth(slot)).collect();
    let Some(last) = worths.len().min(SLOTS_FORGOTTEN).checked_sub(1) else { return };
    let (_, &mut enough, _) = worths.select_nth_unstable(last);
    by_key.retain(|_, slot| is_waited_for(slot) || enough < worth(slot));
}

/// The releasable token of an opened connection, if it is still worth anything.
pub(super) fn token_of(live: &Live, generation: Generation, store: &StoreClock) -> Option<Token> {
    let stored = live.token.as_ref()?;
    Some(Token::new(stored, live, generation, store.validity(stored.expires_at)))
}

fn too_long(longest: Duration) -> Problem {
    let detail = format!("tokens of this connection live {} s when issued", longest.as_secs());
    Problem::new(Reason::MinTtlTooLong, detail).fact("longest_ttl_s", longest.as_secs().saturating_sub(1))
}

/// About 4 kB each with its token. Beyond this, slots nobody waits on are forgotten.
pub(super) const SLOTS_MAX: usize = 50_000;
/// So many at once: a look at all of them takes a few milliseconds.
const SLOTS_FORGOTTEN: usize = SLOTS_MAX / 8;
