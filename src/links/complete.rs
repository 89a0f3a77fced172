//! The callback: take the code once, exchange it, seal what it bought, then verify.

use std::sync::Arc;
use std::time::Duration;

use super::check::Checked;
use super::{Found, Links, Parts};
use crate::clock::later;
use crate::connection::{Identity, Role};
use crate::entra::{App, Verdict};
use crate::event::{By, Event, Outcome};
use crate::ids::AccountId;
use crate::reason::{Problem, Reason};
use crate::secret::{AuthorizationCode, hash_text};
use crate::vault::{Integration, LinkEnd, LinkPhase, StoredToken, VaultError};

/// What a browser brought to one of the two redirect URIs.
pub struct Callback {
    /// Whose redirect URI it came to.
    pub developers: bool,
    pub state: String,
    pub outcome: Result<AuthorizationCode, Declined>,
    pub cookie: Option<String>,
}

/// Entra sent no code. Its `error` only; its text is never shown or kept (threat T18).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Declined {
    pub by_person: bool,
}

/// How a callback ended, for the last page.
#[derive(Clone, Debug)]
pub enum Completed {
    /// Verified; whoever began the link must confirm it.
    Verified {
        account: AccountId,
        identity: Identity,
        replaces: Option<Identity>,
    },
    /// Held; what is left to check waits for Microsoft.
    Held,
    Ended(LinkEnd),
}

/// Why a page cannot go on. Each is one fixed sentence, with nothing of the link in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PageProblem {
    #[error("no such link")]
    Unknown,
    #[error("the link has expired")]
    Expired,
    #[error("the link was used already")]
    Used,
    #[error("the link is over")]
    Over,
    #[error("another browser entered this link")]
    OtherBrowser,
    #[error("the callback came to the other role's redirect URI")]
    OtherRole,
    #[error("the broker cannot answer now")]
    Unavailable,
}

impl Links {
    /// Completes a link with what the browser brought. Once taken it is finished whether or not the
    /// browser waits.
    pub async fn complete(&self, callback: Callback) -> Result<Completed, PageProblem> {
        let parts = self.0.clone();
        let work = async move { parts.complete(callback).await };
        self.0.tasks.run(work).await.unwrap_or(Err(PageProblem::Unavailable))
    }
}

impl Parts {
    async fn complete(self: Arc<Self>, callback: Callback) -> Result<Completed, PageProblem> {
        let mut found = self.for_callback(&callback).await?;
        let integration = self.page_integration(&found.link.key.account).await?;
        found.link.phase = LinkPhase::Taken;
        // Whoever loses this write brought the same state a second time.
        self.save(&mut found).await.map_err(PageProblem::taken_from)?;
        match callback.outcome {
            Err(declined) => {
                let message = if declined.by_person {
                    "The sign-in was declined. Begin the link again and accept."
                } else {
                    "Entra refused the sign-in. An administrator must look at the app's registration and consent."
                };
                let reason = if declined.by_person { Reason::LinkExpired } else { Reason::ConsentRequired };
                self.end(&mut found, reason, message).await
            }
            Ok(code) => match self.exchange(&mut found, &integration, &code).await {
                Ok(()) => self.verify(&mut found, &integration).await,
                Err(problem) => {
                    let message = format!("{}. {}", problem.detail, problem.reason.what_to_do());
                    self.end(&mut found, problem.reason, &message).await
                }
            },
        }
    }

    /// The link this callback is for, if role, phase, time and browser agree. Changes nothing: what
    /// does not agree must not spend somebody else's link.
    async fn for_callback(&self, callback: &Callback) -> Result<Found, PageProblem> {
        let hash = hash_text(&callback.state);
        let (link, version, store_now) =
            self.vault.link_by_state(&hash).await.map_err(PageProblem::from)?.ok_or(PageProblem::Unknown)?;
        let found = Found { link, version, store_now };
        if callback.developers != matches!(found.link.key.role, Role::Developer(_)) {
            return Err(PageProblem::OtherRole);
        }
        let bound = found.link.secrets.as_ref().and_then(|secrets| secrets.cookie_hash.as_ref());
        // Hashes of 256 random bits: comparing them leaks nothing that helps.
        let same_browser = match (bound, &callback.cookie) {
            (Some(bound), Some(cookie)) => *bound == hash_text(cookie),
            _ => false,
        };
        match found.link.phase {
            LinkPhase::Begun => {}
            LinkPhase::Ended => return Err(PageProblem::Over),
            LinkPhase::Taken | LinkPhase::Held | LinkPhase::Verified | LinkPhase::Connected => {
                return Err(PageProblem::Used);
            }
        }
        if !same_browser {
            return Err(PageProblem::OtherBrowser);
        }
        if found.has_expired() {
            return Err(PageProblem::Expired);
        }
        Ok(found)
    }

    /// Spends the code and seals what it bought into the link, at once (invariant 3).
    async fn exchange(
        &self,
        found: &mut Found,
        integration: &Integration,
        code: &AuthorizationCode,
    ) -> Result<(), Problem> {
        let credential = self.accounts.choose(integration)?;
        let app = App {
            tenant: &integration.tenant,
            client_id: &integration.client_id,
            secret: &credential.secret,
        };
        let Some(secrets) = found.link.secrets.as_mut() else {
            return Err(Problem::new(Reason::LinkExpired, "The link is over"));
        };
        // Before it is asked: a life counted from the answer's arrival would be too long.
        let asked_at = self.clock.now().wall;
        let redeemed = self.entra.redeem(&app, code, &secrets.verifier, &found.link.redirect_uri).await;
        let answered = match redeemed {
            Ok(answered) => answered,
            Err(error) if error.verdict == Verdict::ClientCredential => {
                let rejected = self.accounts.reject(&integration.account, &credential.id).await;
                return Err(rejected.unwrap_or_else(|| exchange_refused(Verdict::Unknown)));
            }
            Err(error) => return Err(exchange_refused(error.verdict)),
        };
        secrets.token = Some(StoredToken {
            access: answered.access,
            expires_at: later(asked_at, answered.lifetime),
            lifetime: answered.lifetime,
            scopes: answered.scopes,
        });
        secrets.grant = answered.refresh;
        secrets.unverified_id_token = answered.id_token;
        found.link.phase = LinkPhase::Held;
        found.link.expires_at = later(self.clock.now().wall, CONFIRM_WITHIN);
        self.save_hard(found).await.map_err(|error| error.problem())?;
        self.accounts.accept(&integration.account, credential).await;
        Ok(())
    }

    /// Saves what cannot be had again: a store that stumbles is asked a few times.
    async fn save_hard(&self, found: &mut Found) -> Result<(), VaultError> {
        for _ in 0..SAVE_TRIES {
            match self.save(found).await {
                Err(VaultError::Store(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a held link was not saved; again"
                    );
                    self.clock.sleep(SAVE_RETRY).await;
                }
                saved_or_changed => return saved_or_changed,
            }
        }
        self.save(found).await
    }

    async fn verify(&self, found: &mut Found, integration: &Integration) -> Result<Completed, PageProblem> {
        Ok(match self.check_held(found, integration).await {
            Checked::Verified(identity, replaces) => {
                Completed::Verified { account: found.link.key.account.clone(), identity, replaces }
            }
            Checked::Ended(end) => Completed::Ended(end),
            Checked::Later => Completed::Held,
        })
    }

    async fn end(&self, found: &mut Found, reason: Reason, message: &str) -> Result<Completed, PageProblem> {
        let mut event =
            Event::new("link.complete", By::Browser, Outcome::Refused { reason: reason.as_str() })
                .about(&found.link.key);
        event.link = Some(found.link.id.clone());
        // That it ended is worth a record, but nothing was released: a failing audit is told elsewhere.
        let _recorded = self.gate.record(event).await;
        found.link.end(reason, message);
        self.save(found).await.map_err(PageProblem::from)?;
        Ok(Completed::Ended(LinkEnd { reason, message: message.to_owned() }))
    }

    pub(super) async fn page_integration(
        &self,
        account: &AccountId,
    ) -> Result<Arc<Integration>, PageProblem> {
        match self.accounts.integration(account).await {
            Ok(Some(integration)) => Ok(integration),
            Ok(None) => Err(PageProblem::Over),
            Err(_) => Err(PageProblem::Unavailable),
        }
    }
}

impl PageProblem {
    fn taken_from(error: VaultError) -> Self {
        match error {
            VaultError::Changed(_) => Self::Used,
            other => Self::from(other),
        }
    }
}

impl From<VaultError> for PageProblem {
    fn from(error: VaultError) -> Self {
        // Logs the cause.
        let _told = error.problem();
        Self::Unavailable
    }
}

fn exchange_refused(verdict: Verdict) -> Problem {
    match verdict {
        Verdict::Relink { .. } => Problem::new(
            Reason::LinkExpired,
            "Entra did not accept the sign-in: it was used already or took too long",
        ),
        Verdict::Admin | Verdict::AppConfig | Verdict::Consent | Verdict::ClientCredential => {
            Problem::new(verdict.reason(), "Entra refused to complete the sign-in")
        }
        Verdict::Throttled | Verdict::Transient | Verdict::Unknown => {
            Problem::new(verdict.reason(), "Entra did not answer, so the sign-in was lost")
        }
    }
}

/// From `held` to confirmed (design.md 4.2).
const CONFIRM_WITHIN: Duration = Duration::from_mins(10);
const SAVE_TRIES: usize = 20;
const SAVE_RETRY: Duration = Duration::from_millis(250);
