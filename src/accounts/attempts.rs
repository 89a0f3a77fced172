//! Which client credential proves our app, and what Entra's answers say about it (design.md 6.8).
//!
//! Tried in their order: those in force first, then one rejected one whose probe is due. Expired ones are
//! never tried. When Entra rejects the one that was used, the next one is tried at once, for the same
//! wish: client authentication comes before anything is spent (azure.md 6.3), so that no code or refresh
//! token is lost by it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Accounts, Edit, PROBE_EVERY};
use crate::clock::{between, later};
use crate::entra::{App, EntraError, Proof};
use crate::ids::{AccountId, CredentialId};
use crate::reason::{Problem, Reason};
use crate::remedy::Case;
use crate::secret::ClientAssertion;
use crate::vault::{ClientCredential, Integration, Means};

/// The tries of one wish: ask [`next`](Self::next), use it, tell [`rejected`](Self::rejected), again.
pub struct Attempts<'a> {
    accounts: &'a Accounts,
    integration: Arc<Integration>,
    tried: Vec<CredentialId>,
    began: Duration,
    /// Why one could not even be sent.
    unusable: Option<Problem>,
    /// What Entra said of the last one it rejected.
    code: Option<u32>,
    /// Rejected ones whose probes these tries took, and that nobody judged yet.
    probing: Vec<CredentialId>,
}

/// A credential ready to prove our app.
pub struct Chosen {
    pub integration: Arc<Integration>,
    pub credential: ClientCredential,
    assertion: Option<ClientAssertion>,
}

impl Accounts {
    pub fn attempts(&self, integration: Arc<Integration>) -> Attempts<'_> {
        let began = self.clock.now().monotonic;
        Attempts {
            accounts: self,
            integration,
            tried: Vec::new(),
            began,
            unusable: None,
            code: None,
            probing: Vec::new(),
        }
    }

    /// Whether there is anything to try: for wishes whose proof comes later.
    pub fn check_credentials(&self, integration: &Integration) -> Result<(), Problem> {
        let now = self.clock.now().wall;
        let may_work = |credential: &ClientCredential| {
            !credential.has_expired(now) && credential.rejected_at.is_none_or(|at| has_rested(at, now))
        };
        if integration.credentials.iter().any(may_work) { Ok(()) } else { Err(self.rejected(integration)) }
    }

    /// This one credential, whatever is known of it: for proving it.
    pub async fn choose(
        &self,
        integration: &Arc<Integration>,
        credential: &ClientCredential,
    ) -> Result<Chosen, Problem> {
        let assertion = match &credential.means {
            Means::Secret { .. } | Means::Certificate { .. } => None,
            Means::Federated { source } => {
                let detail = "the file of the account's federated source cannot be used";
                let unusable = || {
                    Problem::new(Reason::ClientCredentialRejected, detail)
                        .retry_after(SOURCE_RETRY)
                        .fact("federated_source", source)
                        .case(Case::SourceUnusable)
                };
                Some(self.sources.read(source).await.ok_or_else(unusable)?)
            }
        };
        Ok(Chosen { integration: integration.clone(), credential: credential.clone(), assertion })
    }

    /// Entra accepted the credential: it is proven, and a rejection is lifted if there was one. True if
    /// connections that waited for it may go on.
    pub async fn accept(&self, account: &AccountId, credential: &CredentialId) -> bool {
        let stands = self.integration(account).await.ok().flatten();
        let known = stands.as_ref().and_then(|integration| integration.credential(credential));
        if known.is_none_or(|known| known.rejected_at.is_none() && known.proven_at.is_some()) {
            return false;
        }
        self.judge(account, credential, None).await;
        self.probed.lock().expect("no panic while held").remove(credential);
        if let Err(error) = self.vault.lift_pauses(account, Reason::ClientCredentialRejected).await {
            tracing::warn!(
                account = %account, error = &error as &dyn std::error::Error,
                "pauses were not lifted; they run out by themselves"
            );
        }
        true
    }

    /// Puts the verdict on the credential.
    pub async fn reject(&self, account: &AccountId, credential: &CredentialId) {
        let now = self.clock.now().wall;
        self.judge(account, credential, Some(now)).await;
    }

    async fn judge(&self, account: &AccountId, credential: &CredentialId, rejected_at: Option<Timestamp>) {
        let now = self.clock.now().wall;
        let judged = self.change(account, |before| {
            let Some(mut integration) = before else { return Ok(Edit::Leave(())) };
            let place = integration.credentials.iter().position(|one| one.id == *credential);
            let Some(place) = place else { return Ok(Edit::Leave(())) };
            let found = &mut integration.credentials[place];
            found.rejected_at = rejected_at;
            if rejected_at.is_none() && found.proven_at.is_none() {
                found.proven_at = Some(now);
                // Proven for the first time: the newest is tried first.
                integration.credentials[..=place].rotate_right(1);
            }
            Ok(Edit::Write(Box::new(integration), ()))
        });
        match judged.await {
            Ok(_) => tracing::info!(
                account = %account, credential = %credential, is_rejected = rejected_at.is_some(),
                "a client credential was judged"
            ),
            Err(refused) => tracing::warn!(
                account = %account, credential = %credential, reason = refused.as_str(),
                "a verdict on a client credential was not written; the next use brings it again"
            ),
        }
    }

    /// The first that may be tried now. One whose probe is due is taken by one caller alone.
    fn pick<'a>(&self, integration: &'a Integration, tried: &[CredentialId]) -> Option<&'a ClientCredential> {
        let now = self.clock.now();
        let candidates = || {
            let alive = |one: &&ClientCredential| !one.has_expired(now.wall) && !tried.contains(&one.id);
            integration.credentials.iter().filter(alive)
        };
        let in_force = candidates().find(|one| one.rejected_at.is_none());
        in_force.or_else(|| {
            let is_due = |one: &&ClientCredential| {
                let rested = one.rejected_at.is_some_and(|at| has_rested(at, now.wall));
                rested && self.take_probe(&one.id, now.monotonic)
            };
            candidates().find(is_due)
        })
    }

    /// Whether nobody probes it already; notes that we do.
    fn take_probe(&self, credential: &CredentialId, now: Duration) -> bool {
        let mut probed = self.probed.lock().expect("no panic while held");
        probed.retain(|_, until| now < *until);
        if probed.contains_key(credential) {
            return false;
        }
        probed.insert(credential.clone(), now.saturating_add(PROBE_EVERY));
        true
    }

    /// A probe brought no verdict: the next one need not wait as long as for a rejection.
    fn give_probe_back(&self, credential: &CredentialId) {
        let soon = self.clock.now().monotonic.saturating_add(WAIT_MIN);
        let mut probed = self.probed.lock().expect("no panic while held");
        probed.entry(credential.clone()).and_modify(|until| *until = soon.min(*until));
    }

    /// Why there is no credential to try, and when the next probe is due.
    fn rejected(&self, integration: &Integration) -> Problem {
        let now = self.clock.now().wall;
        let fingerprints: Vec<String> =
            integration.credentials.iter().map(ClientCredential::fingerprint).collect();
        let rejected = integration.credentials.iter().filter(|one| !one.has_expired(now));
        let next_probe = rejected.filter_map(|one| one.rejected_at).min();
        let wait = next_probe.map_or(PROBE_EVERY, |at| between(now, later(at, PROBE_EVERY)));
        let detail = match fingerprints.len() {
            0 => "the account has no client credential",
            _ => "Entra rejects every client credential of the account, or they have expired",
        };
        Problem::new(Reason::ClientCredentialRejected, detail)
            .retry_after(wait.clamp(WAIT_MIN, PROBE_EVERY))
            .fact("client_id", &integration.client_id)
            .fact("credential_fingerprints", fingerprints.join(","))
    }
}

/// Whether a rejected credential may be probed. One of a time to come was rejected by a replica whose clock
/// ran ahead, and must not wait for it.
fn has_rested(rejected_at: Timestamp, now: Timestamp) -> bool {
    PROBE_EVERY <= between(rejected_at, now) || now < rejected_at
}

impl Attempts<'_> {
    /// The next credential to try. An error tells by `retry_after` how long trying is pointless.
    pub async fn next(&mut self) -> Result<Chosen, Problem> {
        loop {
            if TRY_WITHIN < self.accounts.clock.now().monotonic.saturating_sub(self.began) {
                let detail = "a client credential was rejected; the next one is tried with the next attempt";
                let problem = Problem::new(Reason::UpstreamUnavailable, detail);
                return Err(problem.retry_after(NEXT_ATTEMPT).entra_code(self.code));
            }
            let Some(credential) = self.accounts.pick(&self.integration, &self.tried) else {
                let rejected = || self.accounts.rejected(&self.integration);
                return Err(self.unusable.take().unwrap_or_else(rejected).entra_code(self.code));
            };
            self.tried.push(credential.id.clone());
            if credential.rejected_at.is_some() {
                self.probing.push(credential.id.clone());
            }
            match self.accounts.choose(&self.integration, credential).await {
                Ok(chosen) => return Ok(chosen),
                Err(problem) => self.unusable = Some(problem),
            }
        }
    }

    /// What Entra said of the last one it rejected, if it rejected one.
    pub fn code(&self) -> Option<u32> {
        self.code
    }

    /// Entra rejected it: the verdict is written, and what stands now, which a person may have changed
    /// meanwhile, is what is tried next.
    pub async fn rejected(&mut self, chosen: &Chosen, error: &EntraError) {
        self.code = error.code;
        self.probing.retain(|probing| *probing != chosen.credential.id);
        let account = &self.integration.account;
        self.accounts.reject(account, &chosen.credential.id).await;
        if let Ok(Some(integration)) = self.accounts.integration(account).await {
            let is_same_app = integration.tenant == self.integration.tenant
                && integration.client_id == self.integration.client_id;
            if is_same_app {
                self.integration = integration;
            }
        }
    }
}

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        for probing in &self.probing {
            self.accounts.give_probe_back(probing);
        }
    }
}

impl Chosen {
    /// Our app, proven by this credential.
    pub fn app(&self) -> App<'_> {
        let proof = match (&self.credential.means, &self.assertion) {
            (_, Some(assertion)) => Proof::Assertion(assertion),
            (Means::Certificate { fingerprint, key }, None) => Proof::Certificate { fingerprint, key },
            (Means::Secret { secret, .. }, None) => Proof::Secret(secret),
            (Means::Federated { .. }, None) => unreachable!("a federated one is chosen with its assertion"),
        };
        let Integration { tenant, client_id, scopes, .. } = &*self.integration;
        App { tenant, client_id, proof, scopes }
    }
}

/// Entra answers a bad credential at once; a slow one must not outlive the lease of a refresh.
const TRY_WITHIN: Duration = Duration::from_secs(4);
const NEXT_ATTEMPT: Duration = Duration::from_secs(1);
/// A file that is being replaced is whole again by then.
const SOURCE_RETRY: Duration = Duration::from_secs(30);
/// A probe that is under way answers by then.
const WAIT_MIN: Duration = Duration::from_secs(15);
