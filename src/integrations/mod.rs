//! Registering an account's app and organization, its client credentials, stopping and deleting it.
//!
//! # Invariants
//!
//! 1. A secret goes in and never comes out: views show a keyed fingerprint and the expiry (P1).
//! 2. A new client credential changes no connection. It is tried first when Entra has taken it
//!    ([`prove`]); then pauses are lifted and all resumes by itself (P4).
//! 3. Tenant or client id do not change under live connections, whose grants would be worthless, unless
//!    a person says so: then the connections end.
//!
//! What is registered is used by others: tokens, links and lists.

mod check;
mod credentials;
mod end;
mod prove;
mod public_url;
mod register;
mod suspend;

use std::sync::Arc;

pub use check::{Check, Checks, Found, Report, Runs};
pub use credentials::NewCredential;
pub use prove::{ProofQueue, Prover, make_prover};
pub use public_url::{PublicUrls, parse_public_url};
pub use register::Registration;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::event::Outcome;
use crate::gate::{Asking, Gate};
use crate::ids::{AccountId, CredentialId};
use crate::policy::Permission;
use crate::reason::{Reason, Refused};
use crate::tasks::Tasks;
use crate::tokens::Tokens;
use crate::vault::{ClientCredential, Integration, Vault};

/// The use cases of registration. Cheap to clone.
#[derive(Clone)]
pub struct Integrations {
    pub gate: Gate,
    pub vault: Arc<Vault>,
    pub accounts: Arc<Accounts>,
    pub tokens: Tokens,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
    pub proofs: ProofQueue,
    pub public_urls: PublicUrls,
}

impl Integrations {
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

    /// A credential was added that is not proven: proves it. Where nothing else is in force, what waits may try
    /// it at once: if Entra does not take it yet, the first refusal holds the others back.
    async fn begin_proof(&self, integration: &Integration, added: &CredentialId) -> Result<(), Refused> {
        let now = self.clock.now().wall;
        let another = |one: &ClientCredential| one.id != *added && one.is_in_force(now);
        if !integration.credentials.iter().any(another) {
            self.vault.lift_pauses(&integration.account, Reason::ClientCredentialRejected).await?;
            self.tokens.forgive(&integration.account);
        }
        self.proofs.ask(&integration.account, added);
        Ok(())
    }

    /// Runs what changes something to its end, whether or not the caller waits.
    async fn in_task<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refused>> + Send + 'static,
    ) -> Result<T, Refused> {
        let lost = |_| Err(Refused::Precondition("the work did not come to its end; look again".into()));
        self.tasks.run(work).await.unwrap_or_else(lost)
    }
}

/// Rows are small; this keeps a page of a large platform to few reads.
const READ_AT_ONCE: usize = 200;
