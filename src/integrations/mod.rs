//! Registering an account's app and organization, and looking at what is registered.
//!
//! # Invariants
//!
//! 1. A secret goes in and never comes out: views show a keyed fingerprint and the expiry (P1).
//! 2. A new secret for the same app changes no connection; pauses are lifted and all resumes (P4).
//! 3. Tenant or client id do not change under live connections: their grants would be worthless.
//!
//! Several credentials, proving them, suspending and deleting come with the next step.

mod public_url;

use std::sync::Arc;

pub use public_url::{PublicUrls, parse_public_url};

use jiff::Timestamp;
use url::Url;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::connection::HeadlessIdentity;
use crate::event::Outcome;
use crate::gate::{Asking, Gate};
use crate::ids::{AccountId, ClientId, Organization, TenantId};
use crate::policy::Permission;
use crate::reason::Refused;
use crate::secret::{ClientSecret, make_random_text};
use crate::tasks::Tasks;
use crate::tokens::Tokens;
use crate::vault::{ClientCredential, Connection, Integration, Vault};

/// The use cases of registration. Cheap to clone.
#[derive(Clone)]
pub struct Integrations {
    pub gate: Gate,
    pub vault: Arc<Vault>,
    pub accounts: Arc<Accounts>,
    pub tokens: Tokens,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
    pub public_urls: PublicUrls,
}

/// What a platform tells about an account.
pub struct Registration {
    pub account: AccountId,
    pub organization: Organization,
    pub tenant: TenantId,
    pub client_id: ClientId,
    pub public_url: Url,
    pub headless: HeadlessIdentity,
    /// `None` keeps the one in force.
    pub secret: Option<(ClientSecret, Option<Timestamp>)>,
}

impl Integrations {
    /// Registers the account or changes its registration.
    pub async fn put(&self, asking: Asking, registration: Registration) -> Result<Integration, Refused> {
        let this = self.clone();
        let work = async move { this.put_in_task(asking, registration).await };
        let lost = |_| Err(Refused::Precondition("the work did not come to its end; look again".into()));
        self.tasks.run(work).await.unwrap_or_else(lost)
    }

    /// The account's registration.
    pub async fn integration(&self, asking: Asking, account: AccountId) -> Result<Arc<Integration>, Refused> {
        let allowed = self.gate.allow(&asking, Permission::IntegrationsRead, &account).await?;
        match self.accounts.integration(allowed.account()).await? {
            Some(integration) => Ok(integration),
            None => Err(self.gate.denied(&asking, Some(&account)).await),
        }
    }

    /// A page of the registrations this caller may see, after `after`; with the account to go on from.
    pub async fn integrations(
        &self,
        asking: Asking,
        after: Option<AccountId>,
        limit: usize,
    ) -> Result<(Vec<Integration>, Option<AccountId>), Refused> {
        self.gate.allow_list(&asking, Permission::IntegrationsRead).await?;
        let listed = self.list(&asking, after, limit).await;
        self.gate.conclude(asking.event(Outcome::Done), listed).await
    }

    async fn list(
        &self,
        asking: &Asking,
        mut after: Option<AccountId>,
        limit: usize,
    ) -> Result<(Vec<Integration>, Option<AccountId>), Refused> {
        let wanted =
            |account: &AccountId| self.gate.may_see(&asking.caller, Permission::IntegrationsRead, account);
        let mut seen = Vec::new();
        loop {
            let page = self.vault.integrations(after.as_ref(), READ_AT_ONCE, wanted).await?;
            let is_last = page.len() < READ_AT_ONCE;
            for (account, opened) in page {
                after = Some(account);
                // A damaged one fails its own calls; the list goes on without it, and the log says so.
                let opened = opened.and_then(|opened| opened.map_err(|error| error.problem()).ok());
                seen.extend(opened);
                if seen.len() == limit {
                    return Ok((seen, after));
                }
            }
            if is_last {
                return Ok((seen, None));
            }
        }
    }

    async fn put_in_task(&self, asking: Asking, registration: Registration) -> Result<Integration, Refused> {
        let allowed = self.gate.allow(&asking, Permission::IntegrationsWrite, &registration.account).await?;
        let mut event = asking.event(Outcome::Done);
        event.account = Some(allowed.account().clone());
        if let Err(refused) = self.public_urls.check(&registration.public_url) {
            return self.gate.conclude(event, Err(refused)).await;
        }
        let put = self.put_allowed(allowed.account(), registration).await;
        self.gate.conclude(event, put).await
    }

    async fn put_allowed(
        &self,
        account: &AccountId,
        registration: Registration,
    ) -> Result<Integration, Refused> {
        let before = self.vault.integration(account).await?;
        let moves = before.as_ref().is_some_and(|before| {
            before.tenant != registration.tenant || before.client_id != registration.client_id
        });
        if moves {
            self.refuse_under_live_connections(account).await?;
        }
        let renews = registration.secret.is_some();
        let elsewhere =
            moves || before.as_ref().is_some_and(|one| one.organization != registration.organization);
        let integration = registration.over(before, self.clock.now().wall)?;
        let written = self.vault.put_integration(integration).await?;
        self.accounts.hold(written.clone());
        if elsewhere {
            // After the write, so that no link of the old one begins in between.
            self.vault.end_links(account, None, "The integration changed. Begin the link again.").await?;
        }
        if renews {
            self.vault.lift_pauses(account).await?;
            self.tokens.forgive(account);
        }
        tracing::info!(account = %account, integration.version = written.version, "integration registered");
        Ok(written)
    }

    async fn refuse_under_live_connections(&self, account: &AccountId) -> Result<(), Refused> {
        let connections = self.vault.connections(account, None, LIVE_SHOWN_MAX).await?;
        let live: Vec<String> = connections
            .into_iter()
            .filter(|(_, opened)| {
                !matches!(opened, Ok(opened) if matches!(opened.connection, Connection::Ended(_)))
            })
            .map(|(key, _)| key.role.to_string())
            .collect();
        if live.is_empty() {
            return Ok(());
        }
        let detail = format!(
            "tenant or client id cannot change under live connections: disconnect {} first",
            live.join(", ")
        );
        Err(Refused::Precondition(detail.into()))
    }
}

impl Registration {
    /// The integration that results, over the one that stood.
    fn over(self, before: Option<Integration>, now: Timestamp) -> Result<Integration, Refused> {
        let credentials = match (self.secret, &before) {
            (Some((secret, expires_at)), _) => {
                let id = make_random_text().parse().expect("base64url is a name");
                vec![ClientCredential::new(id, secret, now, expires_at)]
            }
            (None, Some(before)) if before.client_id == self.client_id => before.credentials.clone(),
            (None, _) => {
                return Err(Refused::invalid("client_secret", "is required for a new app registration"));
            }
        };
        Ok(Integration {
            account: self.account,
            version: before.as_ref().map_or(0, |before| before.version),
            organization: self.organization,
            tenant: self.tenant,
            client_id: self.client_id,
            public_url: self.public_url,
            headless: self.headless,
            created_at: before.map_or(now, |before| before.created_at),
            updated_at: now,
            credentials,
        })
    }
}

/// Rows are small; this keeps a page of a large platform to few reads.
const READ_AT_ONCE: usize = 200;
/// Enough names to tell a person what is in the way.
const LIVE_SHOWN_MAX: usize = 20;
