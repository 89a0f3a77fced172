//! One refresh of one connection: lease, open, spend, seal, commit, publish.
//!
//! Background and on-demand refreshes end here (S23). Runs only in the [`Refresher`](super::Refresher)'s
//! tasks and must run to its end once Entra was asked: the answer may hold the only grant that works.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::metrics::Outcome;
use super::slot::Slots;
use super::{Metrics, Used, not_linked};
use crate::accounts::{Accounts, PROBE_EVERY};
use crate::backoff::Backoff;
use crate::clock::{Clock, between, later};
use crate::connection::{ConnectionKey, Failure};
use crate::entra::{App, EntraError, TokenEndpoint, Verdict};
use crate::ids::Generation;
use crate::reason::{Problem, Reason};
use crate::secret::{Fingerprint, RefreshToken, make_luck};
use crate::vault::{
    Claimed, ClientCredential, Connection, Hold, Integration, Lease, Live, StoredToken, Vault, VaultError,
    make_keep_alive_at,
};

/// What a refresh needs.
pub struct Refresh {
    pub(super) slots: Arc<Slots>,
    pub(super) clock: Arc<dyn Clock>,
    metrics: Metrics,
    vault: Arc<Vault>,
    accounts: Arc<Accounts>,
    entra: Arc<dyn TokenEndpoint>,
}

/// What a demand wants of it.
pub(super) struct Want {
    pub(super) min_ttl: Duration,
    pub(super) rejected: Option<Fingerprint>,
}

/// What a refresh brought, ready to be committed.
struct Landing {
    grant: Option<RefreshToken>,
    token: Option<StoredToken>,
    refresh_at: Timestamp,
}

/// Why a refresh brought nothing: what to tell callers, what to remember, when to try again.
struct Setback {
    problem: Problem,
    failure: Failure,
    pause: Duration,
}

impl Refresh {
    pub fn new(
        vault: Arc<Vault>,
        accounts: Arc<Accounts>,
        entra: Arc<dyn TokenEndpoint>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { slots: Arc::default(), clock, metrics: Metrics::default(), vault, accounts, entra }
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
        let _slot = self.slots.slot(key);
        loop {
            match self.look(key, &want).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => return self.tell(key, error.problem(), RETRY_STORE),
            }
            match self.vault.claim(key).await {
                Ok(Claimed::Won(lease)) => return self.leased(*lease).await,
                Ok(Claimed::Absent) => return self.tell(key, not_linked(key), Duration::ZERO),
                Ok(Claimed::Paused { until, failure }) => {
                    return self.tell_pause(key, until, failure.as_ref());
                }
                // Another replica refreshes: its commit is what we look for.
                Ok(Claimed::Leased) => self.clock.sleep(POLL).await,
                Err(error) => return self.tell(key, error.problem(), RETRY_STORE),
            }
        }
    }

    /// Takes due connections. A store that fails is asked again at the next tick.
    pub(super) async fn claim_due(&self, limit: usize) -> Vec<Lease> {
        self.vault.claim_due(limit).await.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot ask the store what is due");
            Vec::new()
        })
    }

    /// Spends the lease: asks Entra and lands what it says.
    pub(super) async fn leased(&self, lease: Lease) {
        let _slot = self.slots.slot(&lease.hold.key);
        match self.ask_entra(&lease).await {
            Ok(landing) => self.land(lease, landing).await,
            Err(setback) => self.set_back(&lease.hold, setback).await,
        }
    }

    /// Brings the refreshes of used connections forward. Lost ones are told again by the next use
    /// after a restart; until then the weekly date stands.
    pub(super) async fn pull(&self, uses: Vec<Used>) {
        let pulls = uses.into_iter().map(|used| (used.key, used.generation, used.refresh_at)).collect();
        if let Err(error) = self.vault.pull_refresh(pulls).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "refreshes were not brought forward");
        }
    }

    /// Reads the row and publishes it; true if that answered the demand.
    async fn look(&self, key: &ConnectionKey, want: &Want) -> Result<bool, VaultError> {
        let Some(opened) = self.vault.connection(key).await? else {
            self.tell(key, not_linked(key), Duration::ZERO);
            return Ok(true);
        };
        match &opened.connection {
            Connection::Ended(_) => {
                self.learn(key, opened.generation, &opened.connection);
                self.tell(key, not_linked(key), Duration::ZERO);
                return Ok(true);
            }
            Connection::Live(_) => self.learn(key, opened.generation, &opened.connection),
        }
        let slot = self.slots.slot(key);
        let refused = want.rejected.as_ref().is_some_and(|fingerprint| slot.holds(fingerprint));
        let is_answered = !refused && slot.has_token_for(want.min_ttl, self.clock.now());
        if is_answered {
            slot.settle();
        }
        Ok(is_answered)
    }

    /// Chooses the credential, spends the grant, judges the answer.
    async fn ask_entra(&self, lease: &Lease) -> Result<Landing, Setback> {
        let hold = &lease.hold;
        let account = &hold.key.account;
        let integration = match self.accounts.integration(account).await {
            Ok(Some(integration)) => integration,
            Ok(None) => return Err(self.setback(hold, not_linked(&hold.key), None, SLOW)),
            Err(problem) => return Err(self.setback(hold, problem, None, RETRY_STORE)),
        };
        let credential = match self.accounts.choose(&integration) {
            Ok(credential) => credential,
            Err(problem) => return Err(self.setback(hold, problem, None, PROBE_EVERY)),
        };
        match self.entra.refresh(&app(&integration, credential), &lease.live.grant).await {
            Ok(answered) => {
                self.accounts.accept(account, credential).await;
                let token = StoredToken {
                    access: answered.access,
                    expires_at: later(self.clock.now().wall, answered.lifetime),
                    lifetime: answered.lifetime,
                    scopes: answered.scopes,
                };
                let refresh_at = make_keep_alive_at(hold.store_now);
                Ok(Landing { grant: answered.refresh, token: Some(token), refresh_at })
            }
            // The rest of the answer is unusable, but this may be the only grant that still works.
            Err(EntraError { rescued: Some(grant), .. }) => {
                let refresh_at = later(hold.store_now, RETRY_STORE);
                Ok(Landing { grant: Some(grant), token: lease.live.token.clone(), refresh_at })
            }
            Err(error) => Err(self.judged(hold, credential, &error).await),
        }
    }

    /// Commits what Entra answered. The grant exists only here until the store has it, so a store
    /// that fails is tried for as long as the process may live (P4).
    async fn land(&self, lease: Lease, landing: Landing) {
        let Lease { hold, live } = lease;
        let connection = Connection::Live(Live {
            // No new grant in the answer: the old one goes on (azure.md 5.5).
            grant: landing.grant.unwrap_or(live.grant),
            token: landing.token,
            refreshed_at: Some(self.clock.now().wall),
            ..live
        });
        let began = self.clock.now().monotonic;
        let mut told = false;
        loop {
            match self.vault.commit_refresh(&hold, &connection, landing.refresh_at).await {
                Ok(generation) => return self.committed(&hold.key, generation, &connection),
                Err(VaultError::Changed(_)) => return self.lost(&hold.key).await,
                Err(error) if COMMIT_PATIENCE < self.clock.now().monotonic.saturating_sub(began) => {
                    self.metrics.count(Outcome::Lost);
                    tracing::error!(
                        connection.key = %hold.key, error = &error as &dyn std::error::Error,
                        "a new grant could not be written and is given up; the old one stays"
                    );
                    return self.tell(&hold.key, error.problem(), RETRY_STORE);
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        self.tell(&hold.key, error.problem(), RETRY_STORE);
                    }
                    self.clock.sleep(RETRY_COMMIT).await;
                }
            }
        }
    }

    /// Remembers why a refresh failed, gives the lease back and tells who waits.
    async fn set_back(&self, hold: &Hold, setback: Setback) {
        self.metrics.count(Outcome::Failed);
        tracing::warn!(
            connection.key = %hold.key, reason = setback.failure.reason.as_str(), entra.code = setback.failure.code,
            count = setback.failure.count, "a refresh failed"
        );
        let retry_at = later(self.clock.now().wall, setback.pause);
        if let Err(error) = self.vault.fail(hold, &setback.failure, retry_at).await {
            tracing::warn!(
                connection.key = %hold.key, error = &error as &dyn std::error::Error,
                "a verdict was not written; the lease runs out by itself"
            );
        }
        self.tell(&hold.key, setback.problem, setback.pause.min(TELL_MAX));
    }

    fn committed(&self, key: &ConnectionKey, generation: Generation, connection: &Connection) {
        self.metrics.count(Outcome::Committed);
        tracing::info!(connection.key = %key, connection.generation = generation.0, "refreshed");
        self.learn(key, generation, connection);
        self.slots.slot(key).settle();
    }

    /// The row changed while Entra was asked: our token is dropped, the row decides (P7).
    async fn lost(&self, key: &ConnectionKey) {
        self.metrics.count(Outcome::Dropped);
        tracing::info!(connection.key = %key, "the connection changed during its refresh; the answer was dropped");
        match self.vault.connection(key).await {
            Ok(Some(opened)) => {
                self.learn(key, opened.generation, &opened.connection);
                match opened.connection {
                    Connection::Live(_) => self.slots.slot(key).settle(),
                    Connection::Ended(_) => self.tell(key, not_linked(key), Duration::ZERO),
                }
            }
            Ok(None) => self.tell(key, not_linked(key), Duration::ZERO),
            Err(error) => self.tell(key, error.problem(), RETRY_STORE),
        }
    }

    /// Turns Entra's refusal into what is told, remembered and waited for.
    async fn judged(&self, hold: &Hold, credential: &ClientCredential, error: &EntraError) -> Setback {
        let reason = error.verdict.reason();
        match error.verdict {
            Verdict::ClientCredential => {
                let problem = self.accounts.reject(&hold.key.account, &credential.id).await;
                self.setback(hold, problem, error.code, PROBE_EVERY)
            }
            Verdict::Relink { unmistakable } => self.relink(hold, error, unmistakable),
            Verdict::Admin | Verdict::AppConfig | Verdict::Consent => {
                let problem = coded(Problem::new(reason, refused(hold)), error.code);
                self.setback(hold, problem, error.code, SLOW)
            }
            Verdict::Throttled | Verdict::Transient | Verdict::Unknown => {
                let mut setback =
                    self.setback(hold, Problem::new(reason, UNAVAILABLE), error.code, Duration::ZERO);
                let backoff = BACKOFF.wait(setback.failure.count, make_luck());
                setback.pause = error.retry_after.map_or(backoff, |asked| asked.max(backoff));
                setback.problem = coded(setback.problem.retry_after(setback.pause), error.code);
                setback
            }
        }
    }

    /// A refused grant needs confirmation, minutes apart, unless the code is unmistakable: throttling
    /// and mistakes of Entra's look alike (design.md 6.7).
    fn relink(&self, hold: &Hold, error: &EntraError, unmistakable: bool) -> Setback {
        let problem = coded(Problem::new(Reason::RelinkRequired, refused(hold)), error.code);
        let mut setback = self.setback(hold, problem, error.code, NEVER);
        let since = setback.failure.since;
        let confirmed = 2 <= setback.failure.count && CONFIRM_AFTER <= between(since, self.clock.now().wall);
        if !unmistakable && !confirmed {
            setback.pause = CONFIRM_AFTER;
            let detail = "Entra refused the grant once; it is asked again before anybody must act";
            setback.problem = coded(
                Problem::new(Reason::UpstreamUnavailable, detail).retry_after(CONFIRM_AFTER),
                error.code,
            );
        }
        setback
    }

    fn setback(&self, hold: &Hold, problem: Problem, code: Option<u32>, pause: Duration) -> Setback {
        let reason = problem.reason;
        let failure = match &hold.failure {
            Some(before) if before.reason == reason => {
                Failure { reason, code, since: before.since, count: before.count.saturating_add(1) }
            }
            _ => Failure { reason, code, since: self.clock.now().wall, count: 1 },
        };
        Setback { problem, failure, pause }
    }

    fn tell(&self, key: &ConnectionKey, problem: Problem, pause: Duration) {
        let until = self.clock.now().monotonic.saturating_add(pause);
        self.slots.slot(key).fail(problem, until);
    }

    /// The row says "not before": told as what the row remembers.
    fn tell_pause(&self, key: &ConnectionKey, until: Timestamp, failure: Option<&Failure>) {
        let left = between(self.clock.now().wall, until);
        let problem = match failure {
            Some(failure) if failure.reason.is_transient() => {
                Problem::new(failure.reason, UNAVAILABLE).retry_after(left)
            }
            Some(failure) if failure.reason == Reason::RelinkRequired && left <= CONFIRM_AFTER => {
                Problem::new(
                    Reason::UpstreamUnavailable,
                    "Entra refused the grant once; it is asked again soon",
                )
                .retry_after(left)
            }
            Some(failure) => Problem::new(failure.reason, "Entra refuses to refresh this connection"),
            None => Problem::new(Reason::UpstreamUnavailable, UNAVAILABLE).retry_after(left),
        };
        let code = failure.and_then(|failure| failure.code);
        self.tell(key, coded(problem, code), left.min(TELL_MAX));
    }
}

fn app<'a>(integration: &'a Integration, credential: &'a ClientCredential) -> App<'a> {
    App { tenant: &integration.tenant, client_id: &integration.client_id, secret: &credential.secret }
}

fn coded(problem: Problem, code: Option<u32>) -> Problem {
    match code {
        Some(code) => problem.fact("entra_code", format!("AADSTS{code}")),
        None => problem,
    }
}

fn refused(hold: &Hold) -> String {
    format!("Entra refuses to refresh the account's {}", hold.key.role.kind())
}

const UNAVAILABLE: &str = "Entra does not issue a token now; the connection is kept and refreshed later";
/// How often a row is looked at whose lease another replica holds (design.md 6.3).
const POLL: Duration = Duration::from_millis(250);
const RETRY_STORE: Duration = Duration::from_secs(2);
const RETRY_COMMIT: Duration = Duration::from_millis(200);
/// Shutdown waits for this too; longer outages end with the old grant, which Entra still takes.
const COMMIT_PATIENCE: Duration = Duration::from_mins(2);
/// What an administrator must mend is looked at again at this pace.
const SLOW: Duration = Duration::from_mins(15);
/// How far apart two refusals must be to be believed.
const CONFIRM_AFTER: Duration = Duration::from_mins(5);
/// A confirmed revocation is never retried; a person's link lifts it.
const NEVER: Duration = Duration::from_hours(24 * 365 * 100);
/// A slot repeats a problem at most this long before the row is asked again: it may have been mended
/// through another replica.
const TELL_MAX: Duration = Duration::from_secs(30);
const BACKOFF: Backoff = Backoff { min: Duration::from_secs(2), max: Duration::from_mins(5) };
