//! Leases: who may refresh a connection now, and what a refresh that failed leaves behind.

use std::time::Duration;

use jiff::Timestamp;

use super::connection::{Connection, Imported, Live, Opened};
use super::marks::Began;
use super::{Vault, VaultError};
use crate::clock::{Clock, Moment, StoreClock, later};
use crate::connection::{Change, ConnectionKey, Failure, Seen};
use crate::ids::Generation;
use crate::reason::Reason;
use crate::store::{Cas, Claim, ConnectionRow, Verdict};

/// The right to refresh one connection for a while, with what is needed to do it.
#[derive(Debug)]
pub struct Lease {
    pub hold: Hold,
    pub live: Live,
}

/// The same for an imported connection, which is to be proven.
#[derive(Debug)]
pub struct ImportLease {
    pub hold: Hold,
    pub imported: Imported,
}

/// A lease of what is to be refreshed or proven.
#[derive(Debug)]
pub enum Leased {
    Live(Box<Lease>),
    Imported(Box<ImportLease>),
}

/// What a lease is known by when its outcome is written.
#[derive(Debug)]
pub struct Hold {
    pub key: ConnectionKey,
    pub generation: Generation,
    /// As [`Opened::since`].
    pub since: Generation,
    pub failure: Option<Failure>,
    pub store_now: Timestamp,
    pub store_clock: StoreClock,
    fence: i64,
    /// What its watchers know of it.
    seen: Watched,
}

/// How a connection stands with those who watch it, as long as a lease of it lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    is_import: bool,
    /// Why it fails, and whether a person must act.
    failing: Option<(Reason, bool)>,
    /// They learn nothing of a commit in its place.
    is_untold: bool,
}

/// What came of asking for a lease.
#[derive(Debug)]
pub enum Claimed {
    Won(Leased),
    /// Never linked, or disconnected since.
    Absent,
    /// Another replica refreshes it, or a look of ours at what is due has it for a moment.
    Leased,
    /// Not before `until`, for the reason the failure tells.
    Paused {
        until: Timestamp,
        failure: Option<Failure>,
    },
}

impl Leased {
    pub fn hold(&self) -> &Hold {
        match self {
            Self::Live(lease) => &lease.hold,
            Self::Imported(lease) => &lease.hold,
        }
    }
}

impl Hold {
    /// The same of the row as it is after a commit of ours, which took its failure and the lease away.
    #[must_use]
    pub fn at(self, generation: Generation) -> Self {
        Self { generation, failure: None, ..self }
    }

    /// The same, for a commit that keeps a new grant of a refresh that failed: the failure is what is told.
    #[must_use]
    pub fn untold(self) -> Self {
        Self { seen: Watched { is_untold: true, ..self.seen }, ..self }
    }

    /// What a commit in its place is to those who watch. An import is nothing new to them until it is proven.
    pub(super) fn change_by(&self, refreshed: &Connection) -> Option<Change> {
        match refreshed {
            Connection::Ended(_) => Some(Change::Disconnected),
            Connection::Imported(_) => None,
            Connection::Live(_) if self.seen.is_untold => None,
            Connection::Live(_) if self.seen.is_import => Some(Change::Connected),
            Connection::Live(_) if self.seen.failing.is_some() => Some(Change::Recovered),
            Connection::Live(_) => Some(Change::Refreshed),
        }
    }

    /// The link of what is leased.
    pub fn link(&self) -> Seen {
        Seen::link(self.since)
    }

    /// How long nobody else can have the lease, or a little less.
    pub fn left(&self, now: Moment) -> Duration {
        self.store_clock.validity(later(self.store_now, LEASE)).left(now)
    }

    /// The one that the next commit of this lease gives the row.
    pub fn next_generation(&self) -> Generation {
        self.generation.next(self.store_now)
    }

    fn verdict(&self, failure: &Failure, retry_at: Timestamp) -> Verdict {
        let change = self.seen.change_by(failure);
        Verdict { failure: Some(failure.clone()), change, ..self.no_verdict(retry_at) }
    }

    /// What the row said before.
    fn no_verdict(&self, retry_at: Timestamp) -> Verdict {
        Verdict {
            key: self.key.clone(),
            generation: self.generation,
            fence: self.fence,
            failure: self.failure.clone(),
            retry_at,
            change: None,
        }
    }
}

impl Watched {
    pub(super) fn of(row: &ConnectionRow) -> Self {
        let failing = row.failure.as_ref().map(|failure| (failure.reason, failure.needs_person));
        Self { is_import: false, failing, is_untold: false }
    }

    /// A failure that goes on is no news.
    pub(super) fn change_by(self, failure: &Failure) -> Option<Change> {
        let is_new = self.failing != Some((failure.reason, failure.needs_person));
        is_new.then_some(if failure.needs_person { Change::NeedsRelink } else { Change::Failing })
    }
}

impl Vault {
    /// Asks for the lease of one connection.
    pub async fn claim(&self, key: &ConnectionKey, clock: &dyn Clock) -> Result<Claimed, VaultError> {
        let (asked, began) = (clock.now(), self.marks.began());
        Ok(match self.store.claim(key, LEASE).await? {
            Claim::Won(claimed) => {
                let told = StoreClock::new(claimed.store_now, asked, clock.now());
                let lease = self.lease(claimed.row, claimed.store_now, (told, began)).await?;
                lease.map_or(Claimed::Absent, Claimed::Won)
            }
            Claim::Absent(_) => Claimed::Absent,
            Claim::Leased { .. } => Claimed::Leased,
            Claim::Paused { until, failure } => Claimed::Paused { until, failure },
        })
    }

    /// Takes the leases of connections that are due. A damaged one is put aside, so that it does not
    /// come due again and again.
    pub async fn claim_due(&self, limit: usize, clock: &dyn Clock) -> Result<Vec<Leased>, VaultError> {
        let mut leases = Vec::new();
        let (asked, began) = (clock.now(), self.marks.began());
        for claimed in self.store.claim_due(limit, LEASE).await? {
            let told = StoreClock::new(claimed.store_now, asked, clock.now());
            let key = claimed.row.key.clone();
            match self.lease(claimed.row, claimed.store_now, (told, began)).await {
                Ok(lease) => leases.extend(lease),
                Err(error) => {
                    tracing::error!(connection.key = %key, error = &error as &dyn std::error::Error, "put aside");
                }
            }
        }
        Ok(leases)
    }

    /// Writes a verdict and gives the lease back. False: a stale holder changes nothing, which is right.
    pub async fn fail(
        &self,
        hold: &Hold,
        failure: &Failure,
        retry_at: Timestamp,
    ) -> Result<bool, VaultError> {
        let verdict = hold.verdict(failure, retry_at);
        let is_written = self.store.record_failure(verdict).await? == Cas::Won;
        if is_written {
            self.wake_watchers();
        }
        Ok(is_written)
    }

    /// Writes a verdict that holds if this process writes no other one; the lease goes on. False: the
    /// lease, or the row, is another's by now.
    pub async fn foresee(
        &self,
        hold: &Hold,
        failure: &Failure,
        retry_at: Timestamp,
    ) -> Result<bool, VaultError> {
        // None of its watchers' business as long as somebody is on it.
        let verdict = Verdict { change: None, ..hold.verdict(failure, retry_at) };
        Ok(self.store.foresee_failure(verdict).await? == Cas::Won)
    }

    /// Writes again what the row said before a verdict was foreseen; the lease goes on.
    pub async fn take_back(&self, hold: &Hold) -> Result<(), VaultError> {
        // Lost: the row is another's by now, and says what that one wrote.
        let _ = self.store.foresee_failure(hold.no_verdict(hold.store_now)).await?;
        Ok(())
    }

    /// Gives a lease back unspent, not to be due again before `until`; whoever demands it need not wait. What the
    /// row remembers stays. False: the row is another's by now.
    pub async fn put_off(&self, hold: &Hold, until: Timestamp) -> Result<bool, VaultError> {
        Ok(self.store.put_off(hold.no_verdict(until)).await? == Cas::Won)
    }

    /// Gives a lease back unspent.
    pub async fn release(&self, hold: &Hold) -> Result<(), VaultError> {
        Ok(self.store.release_lease(&hold.key, hold.fence).await?)
    }

    async fn lease(
        &self,
        row: ConnectionRow,
        store_now: Timestamp,
        (store_clock, began): (StoreClock, Began),
    ) -> Result<Option<Leased>, VaultError> {
        let (key, generation, fence) = (row.key.clone(), row.generation, row.fence);
        let (seen, before) = (Watched::of(&row), row.failure.clone());
        match self.open(row, store_now, began) {
            Ok(Opened { connection: Connection::Live(live), since, failure, .. }) => {
                let hold = Hold { key, generation, since, failure, store_now, store_clock, fence, seen };
                Ok(Some(Leased::Live(Box::new(Lease { hold, live }))))
            }
            Ok(Opened { connection: Connection::Imported(imported), since, failure, .. }) => {
                let seen = Watched { is_import: true, ..seen };
                let hold = Hold { key, generation, since, failure, store_now, store_clock, fence, seen };
                Ok(Some(Leased::Imported(Box::new(ImportLease { hold, imported }))))
            }
            Ok(Opened { connection: Connection::Ended(_), .. }) => Ok(None),
            Err(error) => {
                let failure = Failure::new(error.problem().reason, store_now);
                let change = seen.change_by(&failure);
                let retry_at = later(store_now, DAMAGED_PAUSE);
                let verdict =
                    Verdict { key: key.clone(), generation, fence, failure: Some(failure), retry_at, change };
                // Lost: somebody wrote the row meanwhile, and it comes due again by itself.
                let _ = if matches!(error, VaultError::RolledBack(_)) {
                    self.suspect(&key).await?;
                    // Where it said so already, and somebody edited its pause, it is the same row still.
                    self.store.put_off(Verdict { failure: before, change: None, ..verdict }).await?
                } else {
                    self.store.record_failure(verdict).await?
                };
                self.wake_watchers();
                Err(error)
            }
        }
    }
}

/// Longer than Entra's total deadline of 10 s, so that a living holder never loses it (design.md 6.1).
const LEASE: Duration = Duration::from_secs(15);
/// A confirmed revocation is never retried; a person's link lifts it.
pub const NEVER: Duration = Duration::from_hours(24 * 365 * 100);
/// A damaged record does not mend itself; looked at again in case an operator restored it.
const DAMAGED_PAUSE: Duration = Duration::from_hours(1);
