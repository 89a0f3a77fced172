//! Who signed in, and do they belong? From `held` to `verified`.
//!
//! Resumable: nothing here spends anything, so a check that a dead process left is made again.

use super::{Found, Parts};
use crate::connection::Identity;
use crate::devops::DevopsError;
use crate::entra::{self, Expected, IdTokenError};
use crate::event::{By, Event, Outcome};
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

impl Parts {
    /// Checks a held link and saves the outcome.
    pub(super) async fn check_held(&self, found: &mut Found, integration: &Integration) -> Checked {
        let identity = match self.identify(found, integration).await {
            Ok(identity) => identity,
            Err(Some(end)) => {
                found.link.end(end.reason, end.message.clone());
                return self.saved(found, Checked::Ended(end)).await;
            }
            Err(None) => return Checked::Later,
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
    /// `Err(None)`: cannot be told now.
    async fn identify(&self, found: &Found, integration: &Integration) -> Result<Identity, Option<LinkEnd>> {
        let link = &found.link;
        let secrets = link.secrets.as_ref().ok_or(None)?;
        let (Some(unverified), Some(token), Some(_)) =
            (&secrets.unverified_id_token, &secrets.token, &secrets.grant)
        else {
            return Err(end(
                Reason::IntegrationMisconfigured,
                "Entra sent no id_token or no refresh token: the app must be of platform Web and may ask for openid and offline_access.",
            ));
        };
        if !entra::are_for_devops(&token.scopes) {
            return Err(end(
                Reason::IntegrationMisconfigured,
                "Entra issued no access to Azure DevOps: the app needs the delegated permission user_impersonation of Azure DevOps.",
            ));
        }
        let expected = Expected {
            tenant: &integration.tenant,
            client_id: &integration.client_id,
            nonce: &secrets.nonce,
        };
        let mut identity = match self.entra.verify_id_token(unverified, &expected).await {
            Ok(identity) => identity,
            Err(IdTokenError::KeysUnreachable(_) | IdTokenError::KeysUnusable) => return Err(None),
            Err(error) => {
                tracing::warn!(link = %link.id, error = &error as &dyn std::error::Error, "an id_token was refused");
                return Err(end(
                    Reason::LinkMismatch,
                    "The sign-in does not belong to this link or this tenant. Begin the link again with an account of the integration's tenant.",
                ));
            }
        };
        let member = self.devops.who_am_i(&integration.organization, &token.access).await;
        let member = member.map_err(|error| not_admitted(&error))?;
        if identity.login.is_empty() {
            identity.login = member.login;
        }
        if identity.display_name.is_empty() {
            identity.display_name = member.display_name;
        }
        let is_expected =
            link.expected_login.as_ref().is_none_or(|login| login.eq_ignore_ascii_case(&identity.login));
        if !is_expected {
            return Err(end(
                Reason::LinkMismatch,
                "Somebody else signed in than was expected. Begin the link again and choose the expected account.",
            ));
        }
        Ok(identity)
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

fn not_admitted(error: &DevopsError) -> Option<LinkEnd> {
    match error {
        DevopsError::NotAMember | DevopsError::Unauthenticated => end(
            Reason::NotAMember,
            "This account is not a member of the Azure DevOps organization. Its administrator must add the account as a user with at least Basic access; then begin the link again.",
        ),
        DevopsError::Forbidden => end(
            Reason::AdminActionRequired,
            "Azure DevOps refuses this sign-in by policy. Its administrator must allow the broker's address; then begin the link again.",
        ),
        DevopsError::NotFound => end(
            Reason::IntegrationMisconfigured,
            "Azure DevOps knows no such organization. Whoever registered the integration must correct its name.",
        ),
        DevopsError::Throttled { .. } | DevopsError::Unavailable | DevopsError::Unparseable => None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape its callers return")]
fn end(reason: Reason, message: &str) -> Option<LinkEnd> {
    Some(LinkEnd { reason, message: message.to_owned() })
}
