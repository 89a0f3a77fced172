//! `PutIntegration`: what a platform tells about an account, over what it told before.

use jiff::Timestamp;
use url::Url;

use super::Integrations;
use super::credentials::{add, make_id};
use crate::accounts::Edit;
use crate::connection::HeadlessIdentity;
use crate::event::Outcome;
use crate::gate::Asking;
use crate::ids::{AccountId, ClientId, CredentialId, DevopsScope, Organization, TenantId};
use crate::policy::Permission;
use crate::reason::{Reason, Refused};
use crate::vault::{ClientCredential, Integration, Means};

/// What a platform tells about an account.
#[derive(Clone)]
pub struct Registration {
    pub account: AccountId,
    pub organization: Organization,
    pub tenant: TenantId,
    pub client_id: ClientId,
    pub public_url: Url,
    pub headless: HeadlessIdentity,
    /// `user_impersonation` if empty.
    pub scopes: Vec<DevopsScope>,
    /// A client secret to be added to the credentials that stand, and when it expires.
    pub secret: Option<(Means, Option<Timestamp>)>,
    /// Go on although live connections end by it.
    pub force: bool,
}

/// What a registration came to.
struct Put {
    /// Links begun before are of another organization, app or wish.
    ends_links: bool,
    /// Secrets of the app before this one were dropped.
    drops_credentials: bool,
    to_prove: Option<CredentialId>,
}

impl Integrations {
    /// Registers the account or changes its registration.
    pub async fn put(&self, asking: Asking, registration: Registration) -> Result<Integration, Refused> {
        let this = self.clone();
        self.in_task(async move { this.put_in_task(asking, registration).await }).await
    }

    async fn put_in_task(&self, asking: Asking, registration: Registration) -> Result<Integration, Refused> {
        let allowed = self.gate.allow(&asking, Permission::IntegrationsWrite, &registration.account).await?;
        let mut event = asking.event(Outcome::Done);
        event.account = Some(allowed.account().clone());
        if let Err(refused) = self.public_urls.check(&registration.public_url) {
            return self.gate.conclude(event, Err(refused)).await;
        }
        let put = self.put_allowed(&asking, allowed.account(), &registration).await;
        self.gate.conclude(event, put).await
    }

    async fn put_allowed(
        &self,
        asking: &Asking,
        account: &AccountId,
        registration: &Registration,
    ) -> Result<Integration, Refused> {
        let before = self.vault.integration(account).await?;
        let moves = before.as_ref().is_some_and(|before| registration.moves(before));
        if moves && !registration.force {
            self.refuse_under_live_connections(account).await?;
        }
        // What cannot stand is told before anything ends for it.
        registration.over(before, self.clock.now().wall)?;
        if moves {
            self.end_connections(asking, account).await?;
        }
        let edited = self.accounts.change(account, |before| {
            let now_moves = before.as_ref().is_some_and(|before| registration.moves(before));
            if now_moves && !moves {
                let detail = "the integration was changed meanwhile; look at it and put it again";
                return Err(Refused::Precondition(detail.into()));
            }
            let (integration, put) = registration.over(before, self.clock.now().wall)?;
            Ok(Edit::Write(Box::new(integration), put))
        });
        let edited = edited.await?;
        if edited.told.ends_links {
            // After the write, so that no link of the old one begins in between.
            self.vault.end_links(account, None, "The integration changed. Begin the link again.").await?;
        }
        if moves {
            // What was confirmed between the first look and the write.
            self.end_connections(asking, account).await?;
        }
        if edited.told.drops_credentials {
            self.vault.forget_old_pages().await;
        }
        self.vault.lift_pauses(account, Reason::IntegrationMisconfigured).await?;
        self.tokens.forgive(account);
        tracing::info!(account = %account, "integration registered");
        let gone = || Refused::Precondition("the integration was deleted meanwhile".into());
        let integration = edited.integration.ok_or_else(gone)?;
        if let Some(credential) = edited.told.to_prove {
            self.begin_proof(&integration, &credential).await?;
        }
        Ok((*integration).clone())
    }
}

impl Registration {
    /// Whether grants of the one that stands would be worthless.
    fn moves(&self, before: &Integration) -> bool {
        before.tenant != self.tenant || before.client_id != self.client_id
    }

    /// The integration that results, over the one that stood.
    fn over(&self, before: Option<Integration>, now: Timestamp) -> Result<(Integration, Put), Refused> {
        let ends_links = before.as_ref().is_some_and(|before| {
            self.moves(before) || before.organization != self.organization || before.scopes != self.scopes
        });
        let is_other_app = before.as_ref().is_some_and(|before| before.client_id != self.client_id);
        if is_other_app && self.secret.is_none() {
            return Err(Refused::invalid("client_secret", "is required for another app registration"));
        }
        let drops_credentials =
            is_other_app && before.as_ref().is_some_and(|before| !before.credentials.is_empty());
        let mut integration = Integration {
            account: self.account.clone(),
            version: before.as_ref().map_or(0, |before| before.version),
            organization: self.organization.clone(),
            tenant: self.tenant.clone(),
            client_id: self.client_id.clone(),
            public_url: self.public_url.clone(),
            headless: self.headless,
            scopes: self.scopes.clone(),
            suspension: before.as_ref().and_then(|before| before.suspension.clone()),
            created_at: before.as_ref().map_or(now, |before| before.created_at),
            updated_at: now,
            credentials: before.filter(|_| !is_other_app).map_or_else(Vec::new, |before| before.credentials),
        };
        let to_prove = match &self.secret {
            None => None,
            Some((means, expires_at)) => {
                let new = ClientCredential::new(make_id(), means.clone(), now, *expires_at);
                let added = add(&mut integration, new)?;
                (!added.is_in_force(now) || added.proven_at.is_none()).then_some(added.id)
            }
        };
        Ok((integration, Put { ends_links, drops_credentials, to_prove }))
    }
}
