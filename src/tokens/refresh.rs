//! One refresh of one connection: lease, open, spend, seal, commit, publish.
//!
//! Background and on-demand refreshes end here (S23). Runs only in the [`Refresher`](super::Refresher)'s
//! tasks and must run to its end once Entra was asked: the answer may hold the only grant that works.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::land::{Landing, RETRY_COMMIT};
use super::metrics::Outcome;
use super::setback::Setback;
use super::slot::{Slots, token_of};
use super::spend::Unspent;
use super::{Metrics, Used, not_linked};
use crate::accounts::Accounts;
use crate::budgets::{TokenBudget, Urgency};
use crate::clock::{Clock, StoreClock, between, later};
use crate::connection::ConnectionKey;
use crate::entra::{TokenEndpoint, unverified_object_id};
use crate::gate::Gate;
use crate::identify::Identify;
use crate::reason::{Problem, Reason};
use crate::remedy::Case;
use crate::secret::{AccessToken, Fingerprint, make_luck};
use crate::vault::{Claimed, Connection, Hold, Lease, Leased, Live, Vault, VaultError, make_keep_alive_at};

/// What a refresh needs.
pub struct Refresh {
    pub(super) slots: Arc<Slots>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) vault: Arc<Vault>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) entra: Arc<dyn TokenEndpoint>,
    pub(super) identifier: Arc<dyn Identify>,
    pub(super) gate: Gate,
    pub(super) budget: TokenBudget,
}

/// What it is made of.
pub struct RefreshParts {
    pub vault: Arc<Vault>,
    pub accounts: Arc<Accounts>,
    pub entra: Arc<dyn TokenEndpoint>,
    pub identifier: Arc<dyn Identify>,
    pub budget: TokenBudget,
    pub gate: Gate,
    pub clock: Arc<dyn Clock>,
}

/// What a demand wants of it.
pub(super) struct Want {
    pub(super) min_ttl: Duration,
    pub(super) rejected: Option<Fingerprint>,
}

impl Refresh {
    pub fn new(parts: RefreshParts) -> Self {
        let RefreshParts { vault, accounts, entra, identifier, budget, gate, clock } = parts;
        let (slots, metrics) = (Arc::default(), Metrics::default());
        Self { slots, clock, metrics, vault, accounts, entra, identifier, gate, budget }
    }

    /// The counters, to be registered where metrics are served.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Answers a demand: from the row if it has what is wanted, else by a refresh, ours or another
    /// replica's.
    pub(super) async fn on_demand(&self, key: &ConnectionKey, want: Want) {
        // Held, so that the slot is not forgotten meanwhile: what it knows of newer generations is what
        // keeps an older row from being published.
        let slot = self.slots.slot(key);
        let until = self.clock.now().monotonic.saturating_add(FOLLOWED_MAX);
        loop {
            let (store, is_failing) = match self.look(key, &want).await {
                Ok(Some(looked)) => looked,
                Ok(None) => return,
                Err(error) => return self.tell(key, error.problem(), RETRY_STORE),
            };
            // One that fails may be told by its row what stands in its way.
            if !is_failing && let Err(setback) = self.check_budget(key).await {
                self.metrics.count(Outcome::PutOff);
                return self.tell(key, setback.problem, setback.told.unwrap_or_default());
            }
            match self.vault.claim(key, &*self.clock).await {
                Ok(Claimed::Won(Leased::Live(lease))) if self.is_answered_by(&lease, &want).await => return,
                Ok(Claimed::Won(leased)) => {
                    return self.leased(leased, &watch::channel(Urgency::Demanded).1).await;
                }
                Ok(Claimed::Absent) => return self.tell(key, not_linked(key), Duration::ZERO),
                Ok(Claimed::Paused { until, failure }) => {
                    let left = between(store.at(self.clock.now()), until);
                    return self.tell_pause(key, left, failure.as_ref());
                }
                Ok(Claimed::Leased) if until < self.clock.now().monotonic => {
                    let detail =
                        "another replica refreshes the connection, or died over it; it is asked again soon";
                    let problem = Problem::new(Reason::UpstreamUnavailable, detail).retry_after(RETRY_STORE);
                    return self.tell(key, problem, RETRY_STORE);
                }
                // Another replica refreshes: its commit is what we look for.
                // Or a look of ours at what is due, which gives the lease back.
                Ok(Claimed::Leased) => tokio::select! {
                    biased;
                    () = self.clock.sleep(POLL) => {}
                    () = slot.lease_returned() => {}
                },
                Err(error) => return self.tell(key, error.problem(), RETRY_STORE),
            }
        }
    }

    /// Where the tenant is left alone for longer than anybody waits, the store is not troubled for it.
    async fn check_budget(&self, key: &ConnectionKey) -> Result<(), Setback> {
        let Ok(Some(integration)) = self.accounts.integration(&key.account).await else { return Ok(()) };
        let checked = self.budget.check(&integration.tenant);
        checked.map_err(|(wait, is_silent)| Self::no_turn(wait, is_silent, Urgency::Demanded))
    }

    /// Takes due connections. A store that fails is asked again at the next tick.
    pub(super) async fn claim_due(&self, limit: usize) -> Vec<Leased> {
        self.vault.claim_due(limit, &*self.clock).await.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot ask the store what is due");
            Vec::new()
        })
    }

    /// Spends the lease: asks Entra and lands what it says.
    pub(super) async fn leased(&self, leased: Leased, urgency: &watch::Receiver<Urgency>) {
        let slot = self.slots.slot(&leased.hold().key);
        if self.is_outdated(leased.hold()) {
            self.give_back(leased.hold()).await;
            return match self.read(&leased.hold().key).await {
                Ok(_) => slot.settle(),
                Err(error) => self.tell(&leased.hold().key, error.problem(), RETRY_STORE),
            };
        }
        let lease = match leased {
            Leased::Live(lease) => *lease,
            Leased::Imported(lease) => return self.prove(*lease, urgency).await,
        };
        match self.ask_entra(&lease, urgency).await {
            Ok(landing) => self.land(lease, landing).await,
            Err(setback) => {
                let expires_at = lease.live.token.as_ref().map(|token| token.expires_at);
                let left = expires_at.map_or(Duration::ZERO, |at| between(self.store_now(&lease.hold), at));
                self.set_back(&lease.hold, setback.while_left(left)).await;
            }
        }
    }

    /// Brings the refreshes of used connections forward. What was not written is told again by the next use;
    /// until then the weekly date stands.
    pub(super) async fn pull(&self, uses: Vec<Used>) {
        let pulls = uses.iter().map(|used| (used.key.clone(), used.generation, used.refresh_at)).collect();
        if let Err(error) = self.vault.pull_refresh(pulls).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "refreshes were not brought forward");
            for slot in uses.iter().filter_map(|used| self.slots.find(&used.key)) {
                slot.unmark_use();
            }
        }
    }

    /// Reads the row and publishes it. What the store's clock says, and whether the row has more to tell than the
    /// budget, unless that answered the demand.
    async fn look(&self, key: &ConnectionKey, want: &Want) -> Result<Option<(StoreClock, bool)>, VaultError> {
        let Some((opened, store)) = self.read(key).await? else {
            self.tell(key, not_linked(key), Duration::ZERO);
            return Ok(None);
        };
        let looked = (store, opened.failure.is_some());
        match &opened.connection {
            Connection::Ended(_) => {
                self.tell(key, not_linked(key), Duration::ZERO);
                Ok(None)
            }
            Connection::Live(_) => Ok((!self.settle_if_answered(key, want)).then_some(looked)),
            // It may be proven without a request.
            Connection::Imported(_) => Ok(Some((store, true))),
        }
    }

    /// What the store's clock says now, or a little less.
    pub(super) fn store_now(&self, hold: &Hold) -> Timestamp {
        hold.store_clock.at(self.clock.now())
    }

    /// Another refresh may have landed between our look and our claim: the row of the lease decides, or
    /// one expiry would cost two requests (P5).
    async fn is_answered_by(&self, lease: &Lease, want: &Want) -> bool {
        let Lease { hold, live } = lease;
        let token = token_of(live, hold.generation, &hold.store_clock);
        self.slots.slot(&hold.key).learn(hold.generation, hold.link(), token);
        if !self.settle_if_answered(&hold.key, want) {
            return false;
        }
        self.give_back(hold).await;
        true
    }

    /// Gives a lease back unspent, so that the next one need not wait for its end.
    pub(super) async fn give_back(&self, hold: &Hold) {
        if let Err(error) = self.vault.release(hold).await {
            tracing::warn!(
                connection.key = %hold.key, error = &error as &dyn std::error::Error,
                "a lease was not given back; it runs out by itself"
            );
        }
        self.slots.slot(&hold.key).return_lease();
    }

    /// Wakes who waits if what is known now is what is wanted.
    fn settle_if_answered(&self, key: &ConnectionKey, want: &Want) -> bool {
        let slot = self.slots.slot(key);
        let refused = want.rejected.as_ref().is_some_and(|fingerprint| slot.holds(fingerprint));
        let is_answered = !refused && slot.answers(want.min_ttl, self.clock.now());
        if is_answered {
            slot.settle();
        }
        is_answered
    }

    /// Chooses the credential, spends the grant, judges the answer.
    async fn ask_entra(&self, lease: &Lease, urgency: &watch::Receiver<Urgency>) -> Result<Landing, Setback> {
        let hold = &lease.hold;
        let integration = self.integration(hold).await?;
        let grant = lease.live.grant.as_ref();
        match self.spend(hold, integration, grant, urgency).await {
            Ok(spent) if grant.is_none() && is_another(&spent.answered.access, &lease.live) => {
                let detail = "the app has another service principal in the tenant than the one connected";
                let problem = Problem::new(Reason::RelinkRequired, detail).case(Case::NoServicePrincipal);
                let mut setback = self.setback(hold, problem, None, SLOW);
                setback.failure.iter_mut().for_each(|failure| failure.needs_person = true);
                Err(Setback { accepted: Some(spent.accepted), ..setback })
            }
            Ok(spent) => Ok(Landing {
                token: (!is_cold(lease, *urgency.borrow())).then(|| spent.token()),
                // A service principal has no window to keep open: its next use asks (design.md 6.5).
                refresh_at: grant.map(|_| make_keep_alive_at(hold.store_now)),
                grant: spent.answered.refresh.filter(|_| grant.is_some()),
                accepted: Some(spent.accepted),
                setback: None,
            }),
            Err(Unspent { setback, rescued }) => {
                let Some(rescued) = rescued.filter(|_| grant.is_some()) else {
                    return Err(setback);
                };
                // It is kept, and the failure stays one.
                let setback = Setback { pause: setback.pause.max(RESCUED_PAUSE), ..setback };
                let refresh_at = Some(later(self.store_now(hold), setback.pause));
                let token = lease.live.token.clone();
                Ok(Landing {
                    grant: Some(rescued),
                    token,
                    refresh_at,
                    accepted: None,
                    setback: Some(setback),
                })
            }
        }
    }

    /// Remembers why a refresh brought nothing, gives the lease back and tells who waits. Where the row is another's
    /// by now, that is what is told.
    pub(super) async fn set_back(&self, hold: &Hold, setback: Setback) {
        let is_written = self.write_setback(hold, &setback).await;
        if let Some(credential) = &setback.accepted {
            self.note_accepted(hold, credential).await;
        }
        if setback.failure.is_none() {
            self.metrics.count(Outcome::PutOff);
            if !is_written {
                return self.show_row(&hold.key).await;
            }
        }
        if !is_written {
            return self.lost(&hold.key).await;
        }
        if let Some(failure) = &setback.failure {
            self.metrics.count(if failure.lost { Outcome::Lost } else { Outcome::Failed });
            tracing::warn!(
                connection.key = %hold.key, reason = failure.reason.as_str(), entra.code = failure.code,
                count = failure.count, "a refresh failed"
            );
        }
        if let Some(told) = setback.told {
            self.tell(&hold.key, setback.problem, setback.pause.min(told));
        }
    }

    /// False: another write won.
    async fn write_setback(&self, hold: &Hold, setback: &Setback) -> bool {
        let retry_at = later(self.store_now(hold), setback.pause);
        let is_lost = setback.failure.as_ref().is_some_and(|failure| failure.lost);
        let mut failures = 0;
        loop {
            let written = match &setback.failure {
                Some(failure) => self.vault.fail(hold, failure, retry_at).await,
                None => self.vault.put_off(hold, retry_at).await,
            };
            let error = match written {
                Ok(is_written) => return is_written,
                Err(error) => error,
            };
            // Until then its row may say that the grant is lost: as bad as a new grant that is not written.
            if !self.is_strict() || is_lost {
                tracing::warn!(
                    connection.key = %hold.key, error = &error as &dyn std::error::Error,
                    "a verdict was not written; the lease runs out by itself"
                );
                return true;
            }
            failures += 1;
            self.tell(&hold.key, setback.problem.clone(), RETRY_STORE);
            self.clock.sleep(RETRY_COMMIT.wait(failures, make_luck())).await;
        }
    }

    pub(super) fn tell(&self, key: &ConnectionKey, problem: Problem, pause: Duration) {
        let until = self.clock.now().monotonic.saturating_add(pause);
        self.slots.slot(key).fail(problem, until);
    }
}

/// Told by the token itself, where it tells (P7). With a grant nobody else can come of it.
fn is_another(access: &AccessToken, live: &Live) -> bool {
    unverified_object_id(access).is_some_and(|object_id| object_id != live.identity.object_id)
}

/// Nobody asks for it, now or lately: its grant is kept alive, and no token is left lying about (design.md
/// 6.4).
fn is_cold(lease: &Lease, urgency: Urgency) -> bool {
    let now = lease.hold.store_now;
    let last = lease.live.token.as_ref().map(|token| later(token.expires_at, COLD_AFTER));
    urgency == Urgency::Due && last.is_none_or(|last| last < now)
}

/// How often a row is looked at whose lease another replica holds (design.md 6.3).
const POLL: Duration = Duration::from_millis(250);
/// Longer than a lease, and than anybody waits: then whoever asks next begins anew.
const FOLLOWED_MAX: Duration = Duration::from_secs(20);
pub(super) const RETRY_STORE: Duration = Duration::from_secs(2);
/// Each unusable answer takes a grant's place by another one.
pub(super) const RESCUED_PAUSE: Duration = Duration::from_mins(1);
/// A connection whose last token ran out so long ago is not in use, even if Entra was away for a while.
const COLD_AFTER: Duration = Duration::from_hours(24);
/// What an administrator must mend is looked at again at this pace.
pub(super) const SLOW: Duration = Duration::from_mins(15);
/// A slot repeats a problem at most this long before the row is asked again: it may have been mended
/// through another replica.
pub(super) const TELL_MAX: Duration = Duration::from_secs(30);
