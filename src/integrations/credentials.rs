//! Adding and removing client credentials.

use std::sync::Arc;

use jiff::Timestamp;

use super::Integrations;
use crate::accounts::Edit;
use crate::entra::{CertificateError, read_certificate};
use crate::event::Outcome;
use crate::gate::Asking;
use crate::ids::{AccountId, CredentialId, SourceName};
use crate::policy::Permission;
use crate::reason::Refused;
use crate::secret::{ClientSecret, PrivateKey, make_random_text};
use crate::vault::{ClientCredential, Integration, Means};

/// A client credential as a caller tells it.
pub enum NewCredential {
    Secret { secret: ClientSecret, expires_at: Option<Timestamp> },
    Certificate { pem: String, key: PrivateKey },
    Federated { source: SourceName },
}

impl Integrations {
    /// Adds it as the last one; a proof is under way when this answers.
    pub async fn add_credential(
        &self,
        asking: Asking,
        account: AccountId,
        new: NewCredential,
    ) -> Result<ClientCredential, Refused> {
        let this = self.clone();
        let work = async move {
            let allowed = this.gate.allow(&asking, Permission::IntegrationsWrite, &account).await?;
            let account = allowed.account();
            let added = match this.add_allowed(account, new).await {
                Ok(None) => return Err(this.gate.denied(&asking, Some(account)).await),
                Ok(Some(added)) => Ok(added),
                Err(refused) => Err(refused),
            };
            let mut event = asking.event(Outcome::Done);
            event.account = Some(account.clone());
            event.credential = added.as_ref().ok().map(|added| added.id.clone());
            this.gate.conclude(event, added).await
        };
        self.in_task(work).await
    }

    /// `None`: the account has no integration.
    async fn add_allowed(
        &self,
        account: &AccountId,
        new: NewCredential,
    ) -> Result<Option<ClientCredential>, Refused> {
        let now = self.clock.now().wall;
        let (means, expires_at) = self.check(new, now)?;
        let edited = self.accounts.change(account, |before| {
            let Some(mut integration) = before else { return Ok(Edit::Leave(None)) };
            let new = ClientCredential::new(make_id(), means.clone(), now, expires_at);
            let added = add(&mut integration, new)?;
            Ok(Edit::Write(Box::new(integration), Some(added)))
        });
        let edited = edited.await?;
        if let (Some(integration), Some(added)) = (&edited.integration, &edited.told)
            && (!added.is_in_force(now) || added.proven_at.is_none())
        {
            self.begin_proof(integration, &added.id).await?;
        }
        Ok(edited.told)
    }

    /// What can be told without asking Entra.
    fn check(&self, new: NewCredential, now: Timestamp) -> Result<(Means, Option<Timestamp>), Refused> {
        match new {
            NewCredential::Secret { secret, expires_at } => Ok((Means::secret(secret), expires_at)),
            NewCredential::Certificate { pem, key } => {
                let facts = read_certificate(&pem, &key).map_err(|error| {
                    let field = match error {
                        CertificateError::Certificate => "certificate_pem",
                        CertificateError::Key | CertificateError::Mismatch => "private_key_pem",
                    };
                    Refused::invalid(field, error.to_string())
                })?;
                if facts.expires_at <= now {
                    return Err(Refused::invalid("certificate_pem", "has expired"));
                }
                let means = Means::Certificate { fingerprint: facts.fingerprint, key: Arc::new(key) };
                Ok((means, Some(facts.expires_at)))
            }
            NewCredential::Federated { source } => {
                if !self.accounts.sources().has(&source) {
                    let problem = "is not the name of a federated source in the broker's configuration";
                    return Err(Refused::invalid("federated_source", problem));
                }
                Ok((Means::Federated { source }, None))
            }
        }
    }

    /// Removes and wipes it. Under live connections the last one that works stays, unless forced: one that
    /// is not proven yet may prove to be wrong.
    pub async fn remove_credential(
        &self,
        asking: Asking,
        account: AccountId,
        credential: CredentialId,
        force: bool,
    ) -> Result<Arc<Integration>, Refused> {
        let this = self.clone();
        let work = async move {
            let allowed = this.gate.allow(&asking, Permission::IntegrationsWrite, &account).await?;
            let account = allowed.account();
            let mut event = asking.event(Outcome::Done);
            event.account = Some(account.clone());
            event.credential = Some(credential.clone());
            let removed = this.remove_allowed(account, &credential, force).await;
            let removed = match removed {
                Ok(None) => return Err(this.gate.denied(&asking, Some(account)).await),
                Ok(Some(left)) => Ok(left),
                Err(refused) => Err(refused),
            };
            this.gate.conclude(event, removed).await
        };
        self.in_task(work).await
    }

    /// `None`: the account has no integration.
    async fn remove_allowed(
        &self,
        account: &AccountId,
        credential: &CredentialId,
        force: bool,
    ) -> Result<Option<Arc<Integration>>, Refused> {
        let is_needed = !force && !self.vault.live_connections(account, 1).await?.is_empty();
        let now = self.clock.now().wall;
        let edited = self.accounts.change(account, |before| {
            let Some(mut integration) = before else { return Ok(Edit::Leave(())) };
            let place = integration.credentials.iter().position(|one| one.id == *credential);
            let place = place.ok_or(Refused::NotFound("the client credential"))?;
            let removed = integration.credentials.remove(place);
            if is_needed && let Some(detail) = why_it_stays(&removed, &integration.credentials, now) {
                return Err(Refused::Precondition(detail.into()));
            }
            integration.updated_at = now;
            Ok(Edit::Write(Box::new(integration), ()))
        });
        let integration = edited.await?.integration;
        self.vault.forget_old_pages().await;
        Ok(integration)
    }
}

/// What would be left of the `others` could not carry the live connections.
fn why_it_stays(
    removed: &ClientCredential,
    others: &[ClientCredential],
    now: Timestamp,
) -> Option<&'static str> {
    let works = |one: &ClientCredential| one.is_in_force(now) && one.proven_at.is_some();
    let is_another_in_force = others.iter().any(|one| one.is_in_force(now));
    if removed.is_in_force(now) && !is_another_in_force {
        return Some(
            "it is the last client credential in force under live connections: add another one first, or force it",
        );
    }
    (works(removed) && !others.iter().any(works)).then_some(
        "under live connections no other client credential is proven yet: wait until one is, or force it",
    )
}

/// Puts `new` last, unless it is there already; answers the one that stands.
pub(super) fn add(integration: &mut Integration, new: ClientCredential) -> Result<ClientCredential, Refused> {
    if let Some(known) = integration.credential_of(&new.means) {
        known.expires_at = new.expires_at.or(known.expires_at);
        return Ok(known.clone());
    }
    if CREDENTIALS_MAX <= integration.credentials.len() {
        let detail = "the integration has 8 client credentials: remove one that is not needed any more";
        return Err(Refused::Precondition(detail.into()));
    }
    integration.credentials.push(new.clone());
    integration.updated_at = new.added_at;
    Ok(new)
}

pub(super) fn make_id() -> CredentialId {
    make_random_text().parse().expect("base64url is a name")
}

/// Enough for a rotation in which something went wrong, twice.
const CREDENTIALS_MAX: usize = 8;
