//! Who was linked in each place, from when until when: by what the steps did, not by a broker's word.
//!
//! # Invariants
//!
//! 1. A place that nobody was linked in has no owner, and a token that came from it is of a stranger.
//! 2. Whoever returns is somebody new: a token of the time before is an old one.
//!
//! It does not know what a broker answered; [`ledger`](crate::ledger) does.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::emulator::TokenRequest;
use crate::ledger::Released;

/// Design 6.3: so long after it was acknowledged, a disconnect or a new link is in force on every replica.
pub(crate) const IN_FORCE: SignedDuration = SignedDuration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Owners(BTreeMap<usize, Vec<Tenure>>);

#[derive(Debug)]
struct Tenure {
    upn: String,
    since: Timestamp,
    /// Nothing that is asked for later may be answered with a token of this one.
    until: Option<Timestamp>,
}

/// Whether a token was its place's when it was released.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Belongs {
    Now,
    /// To somebody, or to a time, that had ended.
    NoMore,
    /// To somebody who was not linked there when it was issued.
    Never,
}

impl Owners {
    /// Somebody was linked, in place of whoever was: asked for at `sent`.
    pub(crate) fn linked(&mut self, place: usize, upn: String, sent: Timestamp, acknowledged: Timestamp) {
        self.ended(place, acknowledged);
        self.0.entry(place).or_default().push(Tenure { upn, since: sent, until: None });
    }

    /// Whoever was linked is not any more.
    pub(crate) fn ended(&mut self, place: usize, acknowledged: Timestamp) {
        let open = self.0.entry(place).or_default().iter_mut().filter(|tenure| tenure.until.is_none());
        open.for_each(|tenure| tenure.until = Some(acknowledged + IN_FORCE));
    }

    pub(crate) fn judge(&self, it: &Released, issued: &TokenRequest) -> Belongs {
        let whose = issued.user_upn.as_deref().unwrap_or_default();
        let mut own = self.tenures(it.connection).filter(|tenure| tenure.upn == whose);
        // The last one that had begun when it was issued: an earlier one had ended before that.
        match own.rfind(|tenure| tenure.since <= issued.time) {
            Some(tenure) if tenure.until.is_none_or(|until| it.sent <= until) => Belongs::Now,
            Some(_) => Belongs::NoMore,
            None => Belongs::Never,
        }
    }

    /// Whether somebody's time in this place had ended when it was asked for a token.
    pub(crate) fn has_ended_before(&self, it: &Released) -> bool {
        self.tenures(it.connection).any(|tenure| tenure.until.is_some_and(|until| until < it.sent))
    }

    fn tenures(&self, place: usize) -> impl DoubleEndedIterator<Item = &Tenure> {
        self.0.get(&place).into_iter().flatten()
    }
}
