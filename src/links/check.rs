//! Who signed in, and do they belong? From `held` to `verified`.
//!
//! Resumable: nothing here spends anything, so a check that a dead process left is made again.

use super::{Found, Parts};
use crate::connection::Identity;
use crate::entra::IdTokenError;
use crate::event::{By, Event, Outcome};
use crate::identify::{Identify as _, SignIn, Unidentified};
use crate::reason::Reason;
use crate::vault::{Integration, LinkEnd, LinkPhase, Replaced, VaultError};

/// What checking came to.
pub(super) enum Checked {
    /// Who signed in, and whom they would replace.
    Verified(Identity, Option<Identity>),
    Ended(LinkEnd),
    /// Microsoft or the store does not answer; `GetLink` checks again.
    Later,
}

/// Why nobody is verified.
enum NotVerified {
    Ended(LinkEnd),
    Later,
}

impl Parts {
    /// Checks a held link and saves the outcome.
    pub(super) async fn check_held(&self, found: &mut Found, integration: &Integration) -> Checked {
        let identity = match self.identify(found, integration).await {
            Ok(identity) => identity,
            Err(NotVerified::Ended(end)) => {
                found.link.end(end.reason, end.message.clone());
                return self.saved(found, Checked::Ended(end)).await;
            }
            Err(NotVerified::Later) => return Checked::Later,
        };
        let Ok(replaces) = self.replaced(found, &identity).await else {
            return Checked::Later;
        };
        found.link.identity = Some(identity.clone());
        found.link.replaces = Some(Replaced { identity: replaces.clone() });
        found.link.phase = LinkPhase::Verified;
        self.saved(found, Checked::Verified(identity, replaces)).await
    }

    /// Whose connection this one would replace: nobody's if it is the same identity.
    pub(super) async fn replaced(
        &self,
        found: &Found,
        by: &Identity,
    ) -> Result<Option<Identity>, VaultError> {
        let standing = self.vault.standing(&found.link.key).await?;
        Ok(standing.identity.filter(|identity| !identity.is_same_as(by)))
    }

    /// The person behind the `id_token`, if they are a member of the organization and the one expected.
    async fn identify(&self, found: &Found, integration: &Integration) -> Result<Identity, NotVerified> {
        let link = &found.link;
        let secrets = link.secrets.as_ref().ok_or(NotVerified::Later)?;
        let (Some(unverified), Some(token), Some(_)) =
            (&secrets.unverified_id_token, &secrets.token, &secrets.grant)
        else {
            return Err(end(
                Reason::IntegrationMisconfigured,
                "Entra sent no id_token or no refresh token: the app must be of platform Web and may ask for openid and offline_access.",
            ));
        };
        let sign_in =
            SignIn { unverified, nonce: Some(&secrets.nonce), access: &token.access, scopes: &token.scopes };
        let identity = self.identifier.identify(integration, &sign_in).await?;
        let is_expected =
            link.expected_login.as_ref().is_none_or(|login| login.eq_ignore_ascii_case(&identity.login));
        if is_expected {
            return Ok(identity);
        }
        Err(end(
            Reason::LinkMismatch,
            "Somebody else signed in than was expected. Begin the link again and choose the expected account.",
        ))
    }

    /// Saves and records the outcome; whoever saved first was right.
    async fn saved(&self, found: &mut Found, checked: Checked) -> Checked {
        let outcome = match &checked {
            Checked::Verified(..) | Checked::Later => Outcome::Done,
            Checked::Ended(end) => Outcome::Refused { reason: end.reason.as_str() },
        };
        let mut event = Event::new("link.verify", By::Broker, outcome).about(&found.link.key);
        event.link = Some(found.link.id.clone());
        event.object_id = found.link.identity.as_ref().map(|identity| identity.object_id.clone());
        let recorded = self.gate.record(event).await;
        if recorded.is_ok() && self.save(found).await.is_ok() {
            return checked;
        }
        // Not ours to say: what stands is what counts, and what cannot be read is looked at again.
        match self.link(&found.link.id).await {
            Ok(Some(stands)) => *found = stands,
            Ok(None) | Err(_) => found.link.phase = LinkPhase::Held,
        }
        let link = &found.link;
        match (link.phase, &link.identity, &link.ended) {
            (LinkPhase::Verified | LinkPhase::Connected, Some(identity), _) => {
                let replaces = link.replaces.as_ref().and_then(|replaced| replaced.identity.clone());
                Checked::Verified(identity.clone(), replaces)
            }
            (LinkPhase::Ended, _, Some(end)) => Checked::Ended(end.clone()),
            _ => Checked::Later,
        }
    }
}

impl From<Unidentified> for NotVerified {
    fn from(why: Unidentified) -> Self {
        match why {
            Unidentified::No(problem) => {
                let message =
                    format!("{}. {} Then begin the link again.", problem.detail, problem.what_to_do());
                end(problem.reason, &message)
            }
            Unidentified::Another => end(Reason::LinkMismatch, FOREIGN),
            Unidentified::Unproven(IdTokenError::NotYetValid) => end(Reason::LinkMismatch, CLOCK),
            Unidentified::Unproven(_) => end(Reason::LinkMismatch, UNPROVEN),
            Unidentified::NotNow => Self::Later,
        }
    }
}

fn end(reason: Reason, message: &str) -> NotVerified {
    NotVerified::Ended(LinkEnd { reason, message: message.to_owned() })
}

const FOREIGN: &str = "The sign-in does not belong to this link or this tenant. Begin the link again with an account of the integration's tenant.";
const UNPROVEN: &str =
    "The sign-in could not be verified as one of this link and this tenant. Begin the link again.";
const CLOCK: &str =
    "The sign-in is of a time to come. The operator must set the broker's clock; then begin the link again.";
