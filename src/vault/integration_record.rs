//! What stands inside an integration's sealed record, its client credentials among it.
//!
//! As in [`record`](super::record): a field that is new in a later version has a default, secrets are borrowed
//! when writing and owned when reading.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::integrations::{ClientCredential, Integration, Means, Suspension};
use crate::connection::HeadlessIdentity;
use crate::ids::{AccountId, ClientId, CredentialId, DevopsScope, Organization, SourceName, TenantId};
use crate::secret::{ClientSecret, PrivateKey};

#[derive(Deserialize, Serialize)]
pub(super) struct IntegrationForm<'a> {
    organization: Organization,
    tenant: TenantId,
    client_id: ClientId,
    public_url: Cow<'a, url::Url>,
    headless: HeadlessIdentity,
    #[serde(default)]
    scopes: Cow<'a, [DevopsScope]>,
    #[serde(default)]
    suspension: Option<Cow<'a, Suspension>>,
    created_at: Timestamp,
    updated_at: Timestamp,
    credentials: Vec<CredentialForm<'a>>,
}

#[derive(Deserialize, Serialize)]
struct CredentialForm<'a> {
    id: CredentialId,
    #[serde(default)]
    kind: KindForm,
    secret: Option<Cow<'a, str>>,
    salt: Option<Cow<'a, str>>,
    #[serde(default)]
    certificate: Option<Cow<'a, str>>,
    #[serde(default)]
    private_key: Option<Cow<'a, str>>,
    #[serde(default)]
    source: Option<SourceName>,
    added_at: Timestamp,
    expires_at: Option<Timestamp>,
    proven_at: Option<Timestamp>,
    rejected_at: Option<Timestamp>,
}

/// A record of the first version has none: it is a secret.
#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum KindForm {
    #[default]
    Secret,
    Certificate,
    Federated,
}

impl<'a> From<&'a ClientCredential> for CredentialForm<'a> {
    fn from(credential: &'a ClientCredential) -> Self {
        let nothing = Self {
            id: credential.id.clone(),
            kind: KindForm::Secret,
            secret: None,
            salt: None,
            certificate: None,
            private_key: None,
            source: None,
            added_at: credential.added_at,
            expires_at: credential.expires_at,
            proven_at: credential.proven_at,
            rejected_at: credential.rejected_at,
        };
        match &credential.means {
            Means::Secret { secret, salt } => {
                Self { secret: Some(secret.expose().into()), salt: Some(salt.into()), ..nothing }
            }
            Means::Certificate { fingerprint, key } => Self {
                kind: KindForm::Certificate,
                certificate: Some(fingerprint.into()),
                private_key: Some(key.expose().into()),
                ..nothing
            },
            Means::Federated { source } => {
                Self { kind: KindForm::Federated, source: Some(source.clone()), ..nothing }
            }
        }
    }
}

impl CredentialForm<'_> {
    /// `None` if it lacks what its kind needs.
    fn into_credential(self) -> Option<ClientCredential> {
        let means = match self.kind {
            KindForm::Secret => Means::Secret {
                secret: Arc::new(ClientSecret::new(self.secret?.into_owned())),
                salt: self.salt?.into_owned(),
            },
            KindForm::Certificate => Means::Certificate {
                fingerprint: self.certificate?.into_owned(),
                key: Arc::new(PrivateKey::new(self.private_key?.into_owned())),
            },
            KindForm::Federated => Means::Federated { source: self.source? },
        };
        Some(ClientCredential {
            id: self.id,
            means,
            added_at: self.added_at,
            expires_at: self.expires_at,
            proven_at: self.proven_at,
            rejected_at: self.rejected_at,
        })
    }
}

impl<'a> From<&'a Integration> for IntegrationForm<'a> {
    fn from(integration: &'a Integration) -> Self {
        Self {
            organization: integration.organization.clone(),
            tenant: integration.tenant.clone(),
            client_id: integration.client_id.clone(),
            public_url: Cow::Borrowed(&integration.public_url),
            headless: integration.headless,
            scopes: Cow::Borrowed(&integration.scopes),
            suspension: integration.suspension.as_ref().map(Cow::Borrowed),
            created_at: integration.created_at,
            updated_at: integration.updated_at,
            credentials: integration.credentials.iter().map(CredentialForm::from).collect(),
        }
    }
}

impl IntegrationForm<'_> {
    /// `None` if a credential in it is none.
    pub(super) fn into_integration(self, account: AccountId, version: i64) -> Option<Integration> {
        let credentials = self.credentials.into_iter().map(CredentialForm::into_credential);
        Some(Integration {
            account,
            version,
            organization: self.organization,
            tenant: self.tenant,
            client_id: self.client_id,
            public_url: self.public_url.into_owned(),
            headless: self.headless,
            scopes: self.scopes.into_owned(),
            suspension: self.suspension.map(Cow::into_owned),
            created_at: self.created_at,
            updated_at: self.updated_at,
            credentials: credentials.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::record;

    const FIRST_VERSION: &str = r#"{"organization":"contoso","tenant":"10000000-0000-4000-a000-000000000001",
        "client_id":"10000000-0000-4000-a000-000000000002","public_url":"https://p.example","headless":"service_user",
        "created_at":"2026-11-01T00:00:00Z","updated_at":"2026-11-01T00:00:00Z","credentials":[{"id":"one",
        "secret":"canary","salt":"s","added_at":"2026-11-01T00:00:00Z","expires_at":null,"proven_at":null,
        "rejected_at":null}]}"#;

    fn read(text: &str) -> Option<Integration> {
        let form: IntegrationForm<'_> = record::read(text.as_bytes())?;
        form.into_integration("acme".parse().unwrap(), 1)
    }

    #[test]
    fn a_record_of_the_first_version_holds_secrets() {
        let integration = read(FIRST_VERSION).unwrap();
        let Means::Secret { secret, .. } = &integration.credentials[0].means else { panic!("no secret") };
        assert_eq!(secret.expose(), "canary");
        assert!(integration.scopes.is_empty() && integration.suspension.is_none());
    }

    #[test]
    fn every_kind_of_credential_survives_its_record() {
        let mut integration = read(FIRST_VERSION).unwrap();
        let key = Arc::new(PrivateKey::new("key".to_owned()));
        let means = [
            Means::Certificate { fingerprint: "ab".to_owned(), key },
            Means::Federated { source: "cluster".parse().unwrap() },
        ];
        for means in means {
            let id = "id".parse().unwrap();
            integration.credentials.push(ClientCredential::new(id, means, integration.created_at, None));
        }
        let written = record::write(&IntegrationForm::from(&integration));
        let again = read(std::str::from_utf8(&written).unwrap()).unwrap();
        let fingerprints =
            |one: &Integration| one.credentials.iter().map(ClientCredential::fingerprint).collect::<Vec<_>>();
        assert_eq!(fingerprints(&again), fingerprints(&integration));
        assert!(
            matches!(&again.credentials[1].means, Means::Certificate { key, .. } if key.expose() == "key")
        );
    }

    #[test]
    fn a_credential_that_lacks_what_its_kind_needs_is_damage() {
        let odd = FIRST_VERSION.replace(r#""id":"one","#, r#""id":"one","kind":"certificate","#);
        assert!(read(&odd).is_none());
    }
}
