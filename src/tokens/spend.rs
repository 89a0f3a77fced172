//! One token request of a connection: with the client credential in force, or the next one.
//!
//! A refusal of the client comes before the grant is spent (azure.md 6.3), so that the next credential may
//! ask with the same grant, in the same refresh: no caller waits for it.
//!
//! Nothing is asked that the lease may not outlast: its answer, in full, comes while nobody else may ask.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::Refresh;
use super::setback::Setback;
use crate::accounts::PROBE_EVERY;
use crate::budgets::Urgency;
use crate::clock::later;
use crate::entra::{Answered, DEADLINE, EntraError, Verdict};
use crate::ids::CredentialId;
use crate::secret::RefreshToken;
use crate::vault::{Hold, Integration, StoredToken};

/// What Entra gave.
pub(super) struct Spent {
    pub(super) answered: Answered,
    pub(super) asked_at: Timestamp,
    /// The credential that Entra took, to be noted once the grant is safe.
    pub(super) accepted: CredentialId,
}

/// Why it gave nothing that can be used.
pub(super) struct Unspent {
    pub(super) setback: Setback,
    /// The rest of the answer was unusable, but this may be the only grant that still works.
    pub(super) rescued: Option<RefreshToken>,
}

impl Refresh {
    /// Spends the grant; without one, asks for the app itself.
    pub(super) async fn spend(
        &self,
        hold: &Hold,
        integration: Arc<Integration>,
        grant: Option<&RefreshToken>,
        urgency: &watch::Receiver<Urgency>,
    ) -> Result<Spent, Unspent> {
        let mut attempts = self.accounts.attempts(integration);
        let mut is_foreseen = false;
        loop {
            let chosen = match attempts.next().await {
                Ok(chosen) => chosen,
                Err(problem) => {
                    let pause = problem.retry_after.unwrap_or(PROBE_EVERY);
                    let setback = self.setback(hold, problem, attempts.code(), pause);
                    return Err(Unspent { setback, rescued: None });
                }
            };
            let within = hold.left(self.clock.now()).saturating_sub(DEADLINE).min(TURN_WITHIN);
            let turn = match self.budget.turn(&chosen.integration.tenant, urgency, within).await {
                Ok(turn) => turn,
                Err(wait) => {
                    let is_silent = self.budget.is_silent(&chosen.integration.tenant);
                    let setback = Refresh::no_turn(wait, is_silent, *urgency.borrow());
                    return Err(Unspent { setback, rescued: None });
                }
            };
            let is_late = || hold.left(self.clock.now()) < DEADLINE;
            if grant.is_some() && self.is_strict() && !is_foreseen && !is_late() {
                self.foresee_loss(hold).await.map_err(|setback| Unspent { setback, rescued: None })?;
                is_foreseen = true;
            }
            // Whatever came before took its time; two replicas at once would spend one grant twice (P5).
            if is_late() {
                return Err(Unspent { setback: Refresh::out_of_time(), rescued: None });
            }
            // Before it is asked: a life counted from the answer's arrival would be too long.
            let now = self.clock.now();
            let asked_at = hold.store_clock.at(now);
            let asked = match grant {
                Some(grant) => self.entra.refresh(&chosen.app(), grant).await,
                None => self.entra.client_credentials(&chosen.app()).await,
            };
            match &asked {
                Err(error) if error.is_silence() => {
                    self.budget.unanswered(&chosen.integration.tenant, now.monotonic);
                }
                Err(error) if !error.was_asked() => {}
                _ => self.budget.answered(&chosen.integration.tenant),
            }
            // Given back where nothing was sent.
            if asked.as_ref().err().is_none_or(EntraError::was_asked) {
                turn.spend();
            }
            match asked {
                Ok(answered) => return Ok(Spent { answered, asked_at, accepted: chosen.credential.id }),
                Err(error) if error.verdict == Verdict::ClientCredential => {
                    // First of all: a process that dies over the rest has lost no grant.
                    if is_foreseen {
                        is_foreseen = !self.take_loss_back(hold).await;
                    }
                    attempts.rejected(&chosen, &error).await;
                }
                Err(mut error) => {
                    if let Some(wait) = error.wish_of_tenant() {
                        self.budget.pause(&chosen.integration.tenant, wait);
                    }
                    // Else a connection whose grant is used up would take each probe of a credential that
                    // works again, and all others of the account would wait for it.
                    let accepted = proves_credential(&error).then(|| chosen.credential.id.clone());
                    let is_lost = grant.is_some() && self.is_lost_with(&error);
                    let setback = if is_lost { self.lost_grant(hold) } else { self.judged(hold, &error) };
                    let rescued = error.rescued.take();
                    let setback = if rescued.is_some() { setback.of_a_new_grant() } else { setback };
                    return Err(Unspent { setback: Setback { accepted, ..setback }, rescued });
                }
            }
        }
    }

    /// Entra took the credential: what waited for it goes on.
    pub(super) async fn note_accepted(&self, hold: &Hold, credential: &CredentialId) {
        let account = &hold.key.account;
        if self.accounts.accept(account, credential).await {
            self.slots.forgive(account);
        }
    }
}

/// Who it is comes before what they ask for: a grant or a consent is refused to an app that Entra knows.
fn proves_credential(error: &EntraError) -> bool {
    let is_of_the_person = matches!(error.verdict, Verdict::Relink { .. } | Verdict::Consent);
    is_of_the_person || error.is_past_client_authentication()
}

/// Of what the lease leaves beside the ten seconds that Entra may take.
const TURN_WITHIN: Duration = Duration::from_secs(3);

impl Spent {
    pub(super) fn token(&self) -> StoredToken {
        StoredToken {
            access: self.answered.access.clone(),
            expires_at: later(self.asked_at, self.answered.lifetime),
            lifetime: self.answered.lifetime,
            scopes: self.answered.scopes.clone(),
        }
    }
}
