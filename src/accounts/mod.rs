//! Integrations held in memory, and which client credential is in force.
//!
//! # Invariants
//!
//! 1. A verdict falls on the client credential that was used, by its id, never on connections
//!    (design.md 6.8, P4). That all are rejected is derived, not stored.
//! 2. A rejected credential is probed now and then: when it works again, all resumes by itself.
//!
//! It registers nothing; `integrations` does.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::{Clock, between};
use crate::ids::{AccountId, CredentialId};
use crate::reason::{Problem, Reason};
use crate::vault::{ClientCredential, Integration, Vault, VaultError};

/// Cheap to share behind an `Arc`.
pub struct Accounts {
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    held: RwLock<HashMap<AccountId, Arc<Integration>>>,
}

impl Accounts {
    pub fn new(vault: Arc<Vault>, clock: Arc<dyn Clock>) -> Self {
        Self { vault, clock, held: RwLock::default() }
    }

    /// The account's integration, from memory if it was asked for before; `None` if it has none.
    pub async fn integration(&self, account: &AccountId) -> Result<Option<Arc<Integration>>, Problem> {
        if let Some(held) = self.held.read().expect("no panic while held").get(account) {
            return Ok(Some(held.clone()));
        }
        let read = self.vault.integration(account).await.map_err(|error| error.problem())?;
        Ok(read.map(|integration| self.hold(integration)))
    }

    /// Makes this the integration in force. An older version than the held one changes nothing.
    pub fn hold(&self, integration: Integration) -> Arc<Integration> {
        let mut held = self.held.write().expect("no panic while held");
        if HELD_MAX <= held.len() && !held.contains_key(&integration.account) {
            // Any will do: it is read again when it is asked for.
            let some = held.keys().next().cloned();
            some.and_then(|account| held.remove(&account));
        }
        let integration = Arc::new(integration);
        let newest = held.entry(integration.account.clone()).or_insert_with(|| integration.clone());
        if newest.version < integration.version {
            *newest = integration;
        }
        newest.clone()
    }

    /// The credential to prove our app with: the first that is neither expired nor rejected, else one
    /// whose probe is due.
    pub fn choose<'a>(&self, integration: &'a Integration) -> Result<&'a ClientCredential, Problem> {
        let now = self.clock.now().wall;
        let alive = |credential: &&ClientCredential| credential.expires_at.is_none_or(|at| now < at);
        let credentials = || integration.credentials.iter();
        if let Some(credential) =
            credentials().filter(alive).find(|credential| credential.rejected_at.is_none())
        {
            return Ok(credential);
        }
        if let Some(credential) = credentials().find(|credential| probe_is_due(credential, now)) {
            return Ok(credential);
        }
        Err(rejected(integration))
    }

    /// Puts the verdict on the credential, and says what to tell. `None`: it is no longer in force, since
    /// a person replaced it. Losing a race means that somebody else wrote the same, or something newer.
    pub async fn reject(&self, account: &AccountId, credential: &CredentialId) -> Option<Problem> {
        let now = self.clock.now().wall;
        self.judge(account, credential, Some(now)).await;
        match self.integration(account).await {
            Ok(Some(integration)) => {
                let in_force = integration.credentials.iter().any(|one| one.id == *credential);
                in_force.then(|| rejected(&integration))
            }
            Ok(None) => Some(Problem::new(Reason::NotLinked, "the account has no integration any more")),
            Err(problem) => Some(problem),
        }
    }

    /// Entra accepted the credential: it is proven, and a rejection is lifted if there was one.
    pub async fn accept(&self, account: &AccountId, credential: &ClientCredential) {
        if credential.rejected_at.is_some() || credential.proven_at.is_none() {
            self.judge(account, &credential.id, None).await;
        }
    }

    async fn judge(&self, account: &AccountId, credential: &CredentialId, rejected_at: Option<Timestamp>) {
        let judged = self.write_judgement(account, credential, rejected_at).await;
        if let Err(error) = judged {
            tracing::warn!(
                account = %account, credential = %credential, error = &error as &dyn std::error::Error,
                "a verdict on a client credential was not written; the next use brings it again"
            );
        }
    }

    async fn write_judgement(
        &self,
        account: &AccountId,
        credential: &CredentialId,
        rejected_at: Option<Timestamp>,
    ) -> Result<(), VaultError> {
        let Some(mut integration) = self.vault.integration(account).await? else {
            return Ok(());
        };
        let found = integration.credentials.iter_mut().find(|one| one.id == *credential);
        if let Some(found) = found {
            found.rejected_at = rejected_at;
            if rejected_at.is_none() {
                found.proven_at = found.proven_at.or(Some(self.clock.now().wall));
            }
            let written = self.vault.put_integration(integration).await?;
            self.hold(written);
        }
        Ok(())
    }
}

fn probe_is_due(credential: &ClientCredential, now: Timestamp) -> bool {
    credential.rejected_at.is_none_or(|at| PROBE_EVERY <= between(at, now))
}

fn rejected(integration: &Integration) -> Problem {
    let fingerprints: Vec<String> =
        integration.credentials.iter().map(ClientCredential::fingerprint).collect();
    Problem::new(
        Reason::ClientCredentialRejected,
        "Entra rejects the account's client secret, or it has expired",
    )
    .retry_after(PROBE_EVERY)
    .fact("client_id", &integration.client_id)
    .fact("credential_fingerprints", fingerprints.join(","))
}

/// Gentle: a wrong secret stays wrong until a person acts, and then we are told.
pub const PROBE_EVERY: Duration = Duration::from_mins(10);
/// A few kilobytes each; beyond this the oldest asked-for are read from the store again.
const HELD_MAX: usize = 50_000;
