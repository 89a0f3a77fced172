//! The callback: take the code once, exchange it, seal what it bought, then verify.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::check::Checked;
use super::{Found, LinkView, Links, Parts, lost};
use crate::clock::later;
use crate::connection::{Identity, Role};
use crate::entra::{Declined, Redirect, Verdict};
use crate::event::{By, Event, Outcome};
use crate::gate::Asking;
use crate::ids::{AccountId, LinkId};
use crate::policy::{Allowed, Permission};
use crate::reason::{Problem, Reason, Refused};
use crate::secret::{AuthorizationCode, hash_text, make_random_text};
use crate::vault::{Front, Integration, LinkEnd, LinkPhase, StoredToken, VaultError};

/// What a browser brought to one of the two redirect URIs.
pub struct Callback {
    /// Whose redirect URI it came to.
    pub developers: bool,
    pub state: String,
    pub outcome: Result<AuthorizationCode, Redirect>,
    pub cookie: Option<String>,
}

/// What the platform's own callback received (front B).
pub struct Received {
    /// Without query.
    pub redirect_uri: String,
    pub state: String,
    pub outcome: Result<AuthorizationCode, Redirect>,
}

/// How a callback ended, and where the browser goes then.
pub struct Completion {
    pub completed: Completed,
    /// The return target with the confirmation in it, unless the link ended. For this browser alone.
    pub go_to: Option<Url>,
}

/// How a callback ended.
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
    /// Completes a link of our pages with what the browser brought. Once taken it is finished whether or
    /// not the browser waits.
    pub async fn complete(&self, callback: Callback) -> Result<Completion, PageProblem> {
        let parts = self.0.clone();
        let work = async move {
            let mut found = parts.for_callback(&callback).await?;
            let integration = parts.page_integration(&found.link.key.account).await?;
            Ok(parts.finish(&mut found, &integration, By::Browser, callback.outcome).await?)
        };
        self.0.tasks.run(work).await.unwrap_or(Err(PageProblem::Unavailable))
    }

    /// Completes a link of the platform's pages with what their callback received. Repeating it answers
    /// the link as it is.
    pub async fn receive(
        &self,
        asking: Asking,
        account: AccountId,
        received: Received,
    ) -> Result<LinkView, Refused> {
        let allowed = self.0.gate.allow(&asking, Permission::Link, &account).await?;
        let parts = self.0.clone();
        let work = async move { parts.receive(&asking, &allowed, received).await };
        self.0.tasks.run(work).await.unwrap_or_else(|_| Err(lost()))
    }
}

impl Parts {
    async fn receive(
        &self,
        asking: &Asking,
        allowed: &Allowed,
        received: Received,
    ) -> Result<LinkView, Refused> {
        let mut event = asking.event(Outcome::Done);
        event.account = Some(allowed.account().clone());
        let found = match self.for_platform(allowed, &received).await {
            Ok(found) => found,
            Err(refused) => return self.gate.conclude(event, Err(refused)).await,
        };
        let mut event = event.about(&found.link.key);
        event.link = Some(found.link.id.clone());
        let view = self.receive_for(found, By::Caller(asking.caller.clone()), received).await;
        self.gate.conclude(event, view).await
    }

    async fn receive_for(&self, mut found: Found, by: By, received: Received) -> Result<LinkView, Refused> {
        if found.link.phase == LinkPhase::Begun && !found.has_expired() {
            let integration = self.integration(&found.link.key.account).await?;
            match self.finish(&mut found, &integration, by, received.outcome).await {
                Ok(_) => {}
                // The same state came twice: whoever was faster spends the code.
                Err(VaultError::Changed(_)) => {
                    let id = &found.link.id;
                    found = self.link(id).await?.ok_or(Refused::NotFound("the link"))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.brought_up_to_date(found).await
    }

    /// Takes the link, spends the code, checks who signed in: the one core of both fronts.
    async fn finish(
        &self,
        found: &mut Found,
        integration: &Arc<Integration>,
        by: By,
        outcome: Result<AuthorizationCode, Redirect>,
    ) -> Result<Completion, VaultError> {
        let over = |completed| Completion { completed, go_to: None };
        found.link.phase = LinkPhase::Taken;
        // Whoever loses this write brought the same state a second time.
        self.save(found).await?;
        let code = match outcome {
            Ok(code) => code,
            Err(redirect) => {
                let problem = declined(redirect);
                let message = format!("{}. {}", problem.detail, problem.what_to_do());
                return self.end(found, by, problem.reason, &message).await.map(over);
            }
        };
        match self.exchange(found, integration, &code).await {
            Ok(go_to) => Ok(match self.check_held(found, integration).await {
                Checked::Verified(identity, replaces) => {
                    let account = found.link.key.account.clone();
                    Completion { completed: Completed::Verified { account, identity, replaces }, go_to }
                }
                Checked::Ended(end) => over(Completed::Ended(end)),
                Checked::Later => Completion { completed: Completed::Held, go_to },
            }),
            Err(problem) => {
                let message = format!("{}. {}", problem.detail, problem.what_to_do());
                self.end(found, by, problem.reason, &message).await.map(over)
            }
        }
    }

    /// The link this browser's callback is for, if front, role, phase, time and browser agree. Changes
    /// nothing: what does not agree must not spend somebody else's link.
    async fn for_callback(&self, callback: &Callback) -> Result<Found, PageProblem> {
        let found = self.by_state(&callback.state).await?.ok_or(PageProblem::Unknown)?;
        if found.link.front != Front::OurPages {
            return Err(PageProblem::Unknown);
        }
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

    /// The link that the platform's callback is for: of its pages, begun by this caller, and the redirect
    /// URI of the link's role. Who did not begin it does not learn of it.
    async fn for_platform(&self, allowed: &Allowed, received: &Received) -> Result<Found, Refused> {
        let found = self.by_state(&received.state).await?;
        let found = found.filter(|found| found.link.front == Front::PlatformPages && found.is_of(allowed));
        let found = found.ok_or(Refused::NotFound("the link"))?;
        if found.link.redirect_uri.as_str() != received.redirect_uri {
            return Err(Refused::invalid("redirect_uri", "is not the redirect URI of this link's role"));
        }
        Ok(found)
    }

    async fn by_state(&self, state: &str) -> Result<Option<Found>, VaultError> {
        let asked = self.clock.now();
        let found = self.vault.link_by_state(&hash_text(state)).await?;
        Ok(found.map(|found| self.found(found, asked)))
    }

    /// Spends the code and seals what it bought into the link, at once (invariant 3). The answer is where
    /// the browser goes with its confirmation, if the link has a return target.
    async fn exchange(
        &self,
        found: &mut Found,
        integration: &Arc<Integration>,
        code: &AuthorizationCode,
    ) -> Result<Option<Url>, Problem> {
        let Some(secrets) = found.link.secrets.as_mut() else {
            return Err(Problem::new(Reason::LinkExpired, "The link is over"));
        };
        let mut attempts = self.accounts.attempts(integration.clone());
        let (answered, asked_at, accepted) = loop {
            let chosen = attempts.next().await?;
            // Before it is asked: a life counted from the answer's arrival would be too long.
            let asked_at = found.store_clock.at(self.clock.now());
            match self.entra.redeem(&chosen.app(), code, &secrets.verifier, &found.link.redirect_uri).await {
                Ok(answered) => break (answered, asked_at, chosen.credential.id),
                // A refusal of the client comes before the code is spent: the next credential is tried.
                Err(error) if error.verdict == Verdict::ClientCredential => {
                    attempts.rejected(&chosen, &error).await;
                }
                Err(error) => return Err(exchange_refused(error.verdict).entra_code(error.code)),
            }
        };
        secrets.token = Some(StoredToken {
            access: answered.access,
            expires_at: later(asked_at, answered.lifetime),
            lifetime: answered.lifetime,
            scopes: answered.scopes,
        });
        secrets.grant = answered.refresh;
        secrets.unverified_id_token = answered.id_token;
        let go_to = found.link.return_to.clone().map(|target| {
            let confirmation = make_random_text();
            secrets.confirmation_hash = Some(hash_text(&confirmation));
            with_confirmation(target, &found.link.id, &confirmation)
        });
        found.link.phase = LinkPhase::Held;
        found.link.expires_at = later(found.store_clock.at(self.clock.now()), CONFIRM_WITHIN);
        self.save_hard(found).await.map_err(|error| error.problem())?;
        if self.accounts.accept(&integration.account, &accepted).await {
            self.tokens.forgive(&integration.account);
        }
        Ok(go_to)
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

    async fn end(
        &self,
        found: &mut Found,
        by: By,
        reason: Reason,
        message: &str,
    ) -> Result<Completed, VaultError> {
        let mut event = Event::new("link.complete", by, Outcome::Refused { reason: reason.as_str() })
            .about(&found.link.key);
        event.link = Some(found.link.id.clone());
        // That it ended is worth a record, but nothing was released: a failing audit is told elsewhere.
        let _recorded = self.gate.record(event).await;
        found.link.end(reason, message);
        self.save(found).await?;
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

impl From<VaultError> for PageProblem {
    fn from(error: VaultError) -> Self {
        match error {
            // Somebody else took the link's next step.
            VaultError::Changed(_) => Self::Used,
            error => {
                // Logs the cause.
                let _told = error.problem();
                Self::Unavailable
            }
        }
    }
}

/// The return target with what `ConfirmLink` asks for; it travels through this browser alone.
fn with_confirmation(mut target: Url, id: &LinkId, confirmation: &str) -> Url {
    target.query_pairs_mut().append_pair("link_id", id.as_str()).append_pair("confirmation", confirmation);
    target
}

/// The sign-in came back without a code.
fn declined(redirect: Redirect) -> Problem {
    let problem = match redirect.declined {
        Declined::ByPerson => Problem::new(Reason::LinkExpired, "The sign-in was declined"),
        Declined::Refused(Verdict::Relink { .. }) => {
            Problem::new(Reason::LinkMismatch, "Entra did not let this account sign in")
        }
        Declined::Refused(
            verdict @ (Verdict::Admin | Verdict::AppConfig | Verdict::Consent | Verdict::ClientCredential),
        ) => Problem::new(verdict.reason(), "Entra refused the sign-in"),
        Declined::Refused(Verdict::Throttled | Verdict::Transient | Verdict::Unknown) => {
            Problem::new(Reason::UpstreamUnavailable, "Entra did not complete the sign-in")
        }
    };
    problem.entra_code(redirect.code)
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
