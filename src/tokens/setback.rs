//! What a failed refresh means: what to tell callers, what to remember, when to try again.
//!
//! # Invariants
//!
//! 1. A verdict on a client credential falls on that credential; one on the grant needs confirmation
//!    unless it is unmistakable (design.md 6.7, 6.8).
//! 2. What fails between the two refusals of a grant makes nobody forget the first one.
//! 3. Nothing here ends a connection: the grant stays until a person acts (P4).

use std::time::Duration;

use super::Refresh;
use super::refresh::{RETRY_STORE, SLOW, TELL_MAX};
use super::strict::problem_of_loss;
use crate::backoff::Backoff;
use crate::budgets::Urgency;
use crate::clock::between;
use crate::connection::{ConnectionKey, Failure};
use crate::entra::{EntraError, Verdict};
use crate::ids::CredentialId;
use crate::reason::{Problem, Reason};
use crate::secret::make_luck;
use crate::vault::{Hold, NEVER};

/// Why a refresh brought nothing: what to tell callers, what to remember, when to try again.
pub(super) struct Setback {
    pub(super) problem: Problem,
    /// `None`: nothing failed, for nothing was asked. The row remembers what it did before.
    pub(super) failure: Option<Failure>,
    pub(super) pause: Duration,
    /// The pause is a guess of ours and no wish of Entra's.
    pub(super) is_guess: bool,
    /// How long callers are told, at most, before the row is asked again; `None`: nobody is told, for whoever
    /// demands it now goes before what was due.
    pub(super) told: Option<Duration>,
    /// The credential that Entra took, to be noted once all else is.
    pub(super) accepted: Option<CredentialId>,
}

impl Setback {
    pub(super) fn new(problem: Problem, failure: Option<Failure>, pause: Duration) -> Self {
        Self { problem, failure, pause, is_guess: false, told: Some(TELL_MAX), accepted: None }
    }

    /// Entra took the grant and gave another one: that the old one was refused before says nothing of it (P4).
    pub(super) fn of_a_new_grant(mut self) -> Self {
        if let Some(failure) = &mut self.failure {
            failure.refused_at = None;
        }
        self
    }

    /// While the token lives that is to be replaced, it is tried ever more often: an outage that ends in time
    /// costs no read (P6), not even until the next look.
    pub(super) fn while_left(mut self, left: Duration) -> Self {
        if self.is_guess && !left.is_zero() {
            self.pause = self.pause.min((left / TRIES_LEFT).max(BACKOFF.min));
            self.problem = self.problem.retry_after(self.pause);
        }
        self
    }
}

impl Refresh {
    /// Turns Entra's refusal into what is told, remembered and waited for.
    pub(super) fn judged(&self, hold: &Hold, error: &EntraError) -> Setback {
        let reason = error.verdict.reason();
        match error.verdict {
            Verdict::Relink { unmistakable } => self.relink(hold, error, unmistakable),
            Verdict::Admin | Verdict::AppConfig | Verdict::ClientCredential | Verdict::Consent => {
                let problem = Problem::new(reason, refused(hold)).entra_code(error.code);
                self.setback(hold, problem, error.code, SLOW)
            }
            Verdict::Throttled | Verdict::Transient | Verdict::Unknown => {
                let problem = Problem::new(reason, UNAVAILABLE);
                let failure = self.failure(hold, &problem, error.code);
                let backoff = BACKOFF.wait(failure.count, make_luck());
                let pause = error.retry_after.map_or(backoff, |asked| asked.max(backoff));
                let problem = problem.retry_after(pause).entra_code(error.code);
                let is_guess = error.retry_after.is_none() && error.verdict != Verdict::Throttled;
                Setback { is_guess, ..Setback::new(problem, Some(failure), pause) }
            }
        }
    }

    /// A refused grant needs confirmation, minutes apart, unless the code is unmistakable: throttling
    /// and mistakes of Entra's look alike (design.md 6.7).
    fn relink(&self, hold: &Hold, error: &EntraError, unmistakable: bool) -> Setback {
        let problem = Problem::new(Reason::RelinkRequired, refused(hold)).entra_code(error.code);
        let mut failure = self.failure(hold, &problem, error.code);
        let now = self.store_now(hold);
        let confirmed = failure.refused_at.is_some_and(|first| CONFIRM_AFTER <= between(first, now));
        failure.refused_at = failure.refused_at.or(Some(now));
        failure.needs_person = unmistakable || confirmed;
        if failure.needs_person {
            return Setback::new(problem, Some(failure), NEVER);
        }
        let detail = "Entra refused the grant once; it is asked again before anybody must act";
        let problem = Problem::new(Reason::UpstreamUnavailable, detail).retry_after(CONFIRM_AFTER);
        let problem = Problem { remedy: None, ..problem.entra_code(error.code) };
        Setback::new(problem, Some(failure), CONFIRM_AFTER)
    }

    /// Others come first, or the tenant asked to be left alone: nothing was sent.
    pub(super) fn no_turn(wait: Duration, is_silent: bool, urgency: Urgency) -> Setback {
        let problem = if is_silent {
            Problem::new(Reason::UpstreamUnavailable, UNAVAILABLE)
        } else {
            Problem::new(Reason::UpstreamThrottled, PACED)
        };
        // Spread, so that those who were sent away together do not come back together.
        let pause = wait + (wait / 2).min(SPREAD_MAX).mul_f64(make_luck());
        // A silence is over as soon as something answers.
        let told_max = if is_silent { RETRY_STORE } else { TELL_MAX };
        let told = (urgency == Urgency::Demanded).then_some(wait.min(told_max));
        Setback { is_guess: is_silent, told, ..Setback::new(problem.retry_after(pause), None, pause) }
    }

    /// So much time went by since the lease was had that another replica could have it before Entra answers.
    pub(super) fn out_of_time() -> Setback {
        let detail = "what comes before a refresh took too long; it begins anew";
        let problem = Problem::new(Reason::UpstreamUnavailable, detail).retry_after(ANEW);
        Setback::new(problem, None, ANEW)
    }

    pub(super) fn setback(
        &self,
        hold: &Hold,
        problem: Problem,
        code: Option<u32>,
        pause: Duration,
    ) -> Setback {
        let failure = Some(self.failure(hold, &problem, code));
        Setback::new(problem, failure, pause)
    }

    fn failure(&self, hold: &Hold, problem: &Problem, code: Option<u32>) -> Failure {
        let (reason, case) = (problem.reason, problem.case);
        let (since, count) = match &hold.failure {
            Some(before) if before.reason == reason => (before.since, before.count.saturating_add(1)),
            _ => (self.store_now(hold), 1),
        };
        // Says nothing of the grant, or says it again: what is known of it is kept.
        let refused_at = hold.failure.as_ref().and_then(|before| before.refused_at);
        Failure { code, count, refused_at, case, ..Failure::new(reason, since) }
    }

    /// The row says "not before": told as what the row remembers.
    pub(super) fn tell_pause(&self, key: &ConnectionKey, left: Duration, failure: Option<&Failure>) {
        let problem = match failure {
            Some(failure) if failure.lost => problem_of_loss(key.role.kind()),
            Some(failure) if failure.reason.is_transient() => {
                Problem::new(failure.reason, UNAVAILABLE).retry_after(left)
            }
            Some(failure) if failure.reason == Reason::RelinkRequired && !failure.needs_person => {
                Problem::new(
                    Reason::UpstreamUnavailable,
                    "Entra refused the grant once; it is asked again soon",
                )
                .retry_after(left)
            }
            Some(failure) => Problem::new(failure.reason, WAITING),
            None => Problem::new(Reason::UpstreamUnavailable, PUT_OFF).retry_after(left),
        };
        let code = failure.and_then(|failure| failure.code);
        let case = failure.and_then(|failure| failure.case);
        self.tell(key, problem.entra_code(code).case(case), left.min(TELL_MAX));
    }
}

fn refused(hold: &Hold) -> String {
    format!("Entra refuses to refresh the account's {}", hold.key.role.kind())
}

const UNAVAILABLE: &str = "Entra does not issue a token now; the connection is kept and refreshed later";
const PACED: &str = "token requests of this tenant are paced; this one's turn comes later";
/// The row does not say by what.
const PUT_OFF: &str = "this connection's refresh was put off, by the pace of its tenant or because nothing answers; its turn comes later";
const WAITING: &str =
    "the connection cannot be refreshed before somebody acts; it is tried again now and then";
/// How far apart two refusals must be to be believed.
const CONFIRM_AFTER: Duration = Duration::from_mins(5);
/// Whoever was sent away comes back so much later, at most.
const SPREAD_MAX: Duration = Duration::from_secs(10);
const ANEW: Duration = Duration::from_secs(1);
/// How many more times it is tried, at least, in what is left of a token's life.
const TRIES_LEFT: u32 = 8;
const BACKOFF: Backoff = Backoff { min: Duration::from_secs(2), max: Duration::from_mins(5) };
