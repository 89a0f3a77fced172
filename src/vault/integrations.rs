//! Integrations and their client credentials.

use std::sync::Arc;

use jiff::Timestamp;
use url::Url;

use super::integration_record::IntegrationForm;
use super::record;
use super::{Vault, VaultError};
use crate::connection::HeadlessIdentity;
use crate::ids::{AccountId, ClientId, CredentialId, DevopsScope, Label, Organization, SourceName, TenantId};
use crate::seal::Place;
use crate::secret::{ClientSecret, PrivateKey, hash_text, make_random_text};
use crate::store::{Cas, IntegrationRow};

/// An account's organization, tenant, app and client credentials.
#[derive(Clone, Debug)]
pub struct Integration {
    pub account: AccountId,
    /// What the row was at when it was read; 0 before it is first written.
    pub version: i64,
    pub organization: Organization,
    pub tenant: TenantId,
    pub client_id: ClientId,
    pub public_url: Url,
    pub headless: HeadlessIdentity,
    /// What users are asked for; `user_impersonation` if empty.
    pub scopes: Vec<DevopsScope>,
    /// Releases and lists stand still.
    pub suspension: Option<Suspension>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// In the order in which they are tried.
    pub credentials: Vec<ClientCredential>,
}

/// Who stopped an account's releases, and why.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Suspension {
    pub since: Timestamp,
    pub actor: Option<Label>,
    pub note: Option<Label>,
}

#[derive(Clone, Debug)]
pub struct ClientCredential {
    pub id: CredentialId,
    pub means: Means,
    pub added_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// When Entra first accepted it.
    pub proven_at: Option<Timestamp>,
    /// When Entra last refused it; a verdict on it alone, never on connections (design.md 6.8).
    pub rejected_at: Option<Timestamp>,
}

/// What a client credential is made of.
#[derive(Clone, Debug)]
pub enum Means {
    Secret {
        secret: Arc<ClientSecret>,
        /// Keys the fingerprint that people see, so that it cannot be searched for in a leak.
        salt: String,
    },
    Certificate {
        /// SHA-256 of the certificate's DER, in hex.
        fingerprint: String,
        key: Arc<PrivateKey>,
    },
    /// The assertion itself is read from the source's file at each use, and never stored.
    Federated { source: SourceName },
}

impl Means {
    pub fn secret(secret: ClientSecret) -> Self {
        Self::Secret { secret: Arc::new(secret), salt: make_random_text() }
    }

    fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Secret { secret: one, .. }, Self::Secret { secret: two, .. }) => {
                one.expose() == two.expose()
            }
            (Self::Certificate { fingerprint: one, .. }, Self::Certificate { fingerprint: two, .. }) => {
                one == two
            }
            (Self::Federated { source: one }, Self::Federated { source: two }) => one == two,
            _ => false,
        }
    }
}

impl ClientCredential {
    pub fn new(id: CredentialId, means: Means, added_at: Timestamp, expires_at: Option<Timestamp>) -> Self {
        Self { id, means, added_at, expires_at, proven_at: None, rejected_at: None }
    }

    /// Names the credential for people. Of a secret it is keyed by a salt that only the sealed record has.
    pub fn fingerprint(&self) -> String {
        match &self.means {
            Means::Secret { secret, salt } => {
                let mut hash = hash_text(&format!("{salt}{}", secret.expose()));
                hash.truncate(FINGERPRINT_LEN);
                hash
            }
            Means::Certificate { fingerprint, .. } => fingerprint.clone(),
            Means::Federated { source } => source.to_string(),
        }
    }

    /// What people call it.
    pub fn kind(&self) -> &'static str {
        match self.means {
            Means::Secret { .. } => "client secret",
            Means::Certificate { .. } => "client certificate",
            Means::Federated { .. } => "federated assertion",
        }
    }

    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Neither expired nor refused by Entra.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.rejected_at.is_none() && !self.has_expired(now)
    }
}

impl Integration {
    /// The credential made of the same.
    pub fn credential_of(&mut self, means: &Means) -> Option<&mut ClientCredential> {
        self.credentials.iter_mut().find(|credential| credential.means.is_same_as(means))
    }

    pub fn credential(&self, id: &CredentialId) -> Option<&ClientCredential> {
        self.credentials.iter().find(|credential| credential.id == *id)
    }
}

impl Vault {
    pub async fn integration(&self, account: &AccountId) -> Result<Option<Integration>, VaultError> {
        let row = self.store.integration(account).await?;
        row.map(|row| self.open_integration(&row)).transpose()
    }

    /// A page of integrations; only those of wanted accounts are opened. A damaged one is an `Err` of
    /// its own.
    pub async fn integrations(
        &self,
        after: Option<&AccountId>,
        limit: usize,
        wanted: impl Fn(&AccountId) -> bool,
    ) -> Result<Vec<(AccountId, Option<Result<Integration, VaultError>>)>, VaultError> {
        let rows = self.store.integrations(after, limit).await?;
        let open = |row: IntegrationRow| {
            let opened = wanted(&row.account).then(|| self.open_integration(&row));
            (row.account, opened)
        };
        Ok(rows.into_iter().map(open).collect())
    }

    /// The versions that the store has now, for replicas that compare what they hold.
    pub async fn integration_versions(
        &self,
        accounts: Vec<AccountId>,
    ) -> Result<Vec<(AccountId, i64)>, VaultError> {
        Ok(self.store.integration_versions(accounts).await?)
    }

    /// Writes it against the version it was read at; returns it with its new version.
    pub async fn put_integration(&self, mut integration: Integration) -> Result<Integration, VaultError> {
        let expected = (integration.version != 0).then_some(integration.version);
        // A first version follows the clock, so that one never comes back after a deletion.
        let version = match integration.version {
            0 => integration.updated_at.as_microsecond().max(1),
            version => version + 1,
        };
        let plain = record::write(&IntegrationForm::from(&integration));
        let place = Place { table: TABLE, key: integration.account.as_str(), generation: version };
        let row = IntegrationRow {
            account: integration.account.clone(),
            version,
            sealed: self.sealer.seal(&place, &plain),
        };
        match self.store.put_integration(expected, row).await? {
            Cas::Won => {
                integration.version = version;
                Ok(integration)
            }
            Cas::Lost => Err(VaultError::Changed(format!("integration {}", integration.account))),
        }
    }

    /// Deletes it at the version it was read at, and wipes what it held.
    pub async fn delete_integration(&self, integration: &Integration) -> Result<(), VaultError> {
        match self.store.delete_integration(&integration.account, integration.version).await? {
            Cas::Won => {
                self.forget_old_pages().await;
                Ok(())
            }
            Cas::Lost => Err(VaultError::Changed(format!("integration {}", integration.account))),
        }
    }

    fn open_integration(&self, row: &IntegrationRow) -> Result<Integration, VaultError> {
        let name = format!("integration {}", row.account);
        let place = Place { table: TABLE, key: row.account.as_str(), generation: row.version };
        let plain = self
            .sealer
            .open(&place, &row.sealed)
            .map_err(|source| VaultError::Sealed { key: name.clone(), source })?;
        let form: Option<IntegrationForm<'_>> = record::read(&plain);
        let integration = form.and_then(|form| form.into_integration(row.account.clone(), row.version));
        integration.ok_or(VaultError::Damaged(name))
    }
}

const TABLE: &str = "integration";
const FINGERPRINT_LEN: usize = 16;
