//! Integrations and their client credentials.

use std::sync::Arc;

use jiff::Timestamp;
use url::Url;

use super::record::{self, IntegrationForm};
use super::{Vault, VaultError};
use crate::connection::HeadlessIdentity;
use crate::ids::{AccountId, ClientId, CredentialId, Organization, TenantId};
use crate::seal::Place;
use crate::secret::{ClientSecret, hash_text};
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
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub credentials: Vec<ClientCredential>,
}

#[derive(Clone, Debug)]
pub struct ClientCredential {
    pub id: CredentialId,
    pub secret: Arc<ClientSecret>,
    pub(super) salt: String,
    pub added_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// When Entra first accepted it.
    pub proven_at: Option<Timestamp>,
    /// When Entra last refused it; a verdict on it alone, never on connections (design.md 6.8).
    pub rejected_at: Option<Timestamp>,
}

impl ClientCredential {
    pub fn new(
        id: CredentialId,
        secret: ClientSecret,
        added_at: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Self {
        let salt = crate::secret::make_random_text();
        Self { id, secret: Arc::new(secret), salt, added_at, expires_at, proven_at: None, rejected_at: None }
    }

    /// Names the secret for people. Keyed by a salt that only the sealed record has.
    pub fn fingerprint(&self) -> String {
        let mut hash = hash_text(&format!("{}{}", self.salt, self.secret.expose()));
        hash.truncate(FINGERPRINT_LEN);
        hash
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

    /// Writes it against the version it was read at; returns it with its new version.
    pub async fn put_integration(&self, mut integration: Integration) -> Result<Integration, VaultError> {
        let expected = (integration.version != 0).then_some(integration.version);
        let version = integration.version + 1;
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

    fn open_integration(&self, row: &IntegrationRow) -> Result<Integration, VaultError> {
        let name = format!("integration {}", row.account);
        let place = Place { table: TABLE, key: row.account.as_str(), generation: row.version };
        let plain = self
            .sealer
            .open(&place, &row.sealed)
            .map_err(|source| VaultError::Sealed { key: name.clone(), source })?;
        let form: IntegrationForm<'_> = record::read(&plain).ok_or(VaultError::Damaged(name))?;
        Ok(form.into_integration(row.account.clone(), row.version))
    }
}

const TABLE: &str = "integration";
const FINGERPRINT_LEN: usize = 16;
