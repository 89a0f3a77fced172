//! The `Integrations` service.

use tonic::{Request, Response, Status};

use super::{CHANGE_DEADLINE, Face, LIST_DEADLINE, asking, encode, parse};
use crate::connection::HeadlessIdentity;
use crate::ids::DevopsScope;
use crate::integrations::{NewCredential, Registration, parse_public_url};
use crate::pb;
use crate::pb::integrations_server::Integrations;
use crate::reason::Refused;
use crate::secret::{ClientSecret, PrivateKey};
use crate::vault::Means;

#[tonic::async_trait]
impl Integrations for Face {
    async fn put_integration(
        &self,
        mut request: Request<pb::PutIntegrationRequest>,
    ) -> Result<Response<pb::Integration>, Status> {
        // Moved out at once, so that no other copy of it is held while the call runs.
        let secret = std::mem::take(&mut request.get_mut().client_secret);
        let asked = request.get_ref();
        let asking = asking("PutIntegration", &request, &asked.actor, "")?;
        self.call(CHANGE_DEADLINE, async {
            let registration = registration(asked, secret)?;
            Ok(encode::integration(&self.integrations.put(asking, registration).await?, self.now()))
        })
        .await
    }

    async fn get_integration(
        &self,
        request: Request<pb::GetIntegrationRequest>,
    ) -> Result<Response<pb::Integration>, Status> {
        let asked = request.get_ref();
        let asking = asking("GetIntegration", &request, "", "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            Ok(encode::integration(&*self.integrations.integration(asking, account).await?, self.now()))
        })
        .await
    }

    async fn list_integrations(
        &self,
        request: Request<pb::ListIntegrationsRequest>,
    ) -> Result<Response<pb::ListIntegrationsResponse>, Status> {
        let asked = request.get_ref();
        let asking = asking("ListIntegrations", &request, "", "")?;
        self.call(CHANGE_DEADLINE, async {
            let size = parse::page_size(asked.page_size)?;
            let after = match asked.page_token.as_str() {
                "" => None,
                token => Some(parse::name("page_token", token)?),
            };
            let (seen, next) = self.integrations.integrations(asking, after, size).await?;
            let wanted = asked.organization.to_ascii_lowercase();
            let shown = |one: &pb::Integration| wanted.is_empty() || one.organization == wanted;
            Ok(pb::ListIntegrationsResponse {
                integrations: seen
                    .iter()
                    .map(|one| encode::integration(one, self.now()))
                    .filter(shown)
                    .collect(),
                next_page_token: next.map(|account| account.to_string()).unwrap_or_default(),
            })
        })
        .await
    }

    async fn delete_integration(
        &self,
        request: Request<pb::DeleteIntegrationRequest>,
    ) -> Result<Response<pb::DeleteIntegrationResponse>, Status> {
        let asked = request.get_ref();
        let asking = asking("DeleteIntegration", &request, &asked.actor, "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            self.integrations.delete(asking, account, asked.force).await?;
            Ok(pb::DeleteIntegrationResponse {})
        })
        .await
    }

    async fn add_client_credential(
        &self,
        mut request: Request<pb::AddClientCredentialRequest>,
    ) -> Result<Response<pb::ClientCredential>, Status> {
        // Moved out at once, so that no other copy of them is held while the call runs.
        let secret = std::mem::take(&mut request.get_mut().client_secret);
        let private_key = std::mem::take(&mut request.get_mut().private_key_pem);
        let asked = request.get_ref();
        let asking = asking("AddClientCredential", &request, &asked.actor, "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let new = new_credential(asked, secret, private_key)?;
            let added = self.integrations.add_credential(asking, account, new).await?;
            Ok(encode::client_credential(&added, self.now()))
        })
        .await
    }

    async fn remove_client_credential(
        &self,
        request: Request<pb::RemoveClientCredentialRequest>,
    ) -> Result<Response<pb::Integration>, Status> {
        let asked = request.get_ref();
        let asking = asking("RemoveClientCredential", &request, &asked.actor, "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let id = parse::name("client_credential_id", &asked.client_credential_id)?;
            let left = self.integrations.remove_credential(asking, account, id, asked.force).await?;
            Ok(encode::integration(&left, self.now()))
        })
        .await
    }

    async fn check_integration(
        &self,
        request: Request<pb::CheckIntegrationRequest>,
    ) -> Result<Response<pb::CheckIntegrationResponse>, Status> {
        let asked = request.get_ref();
        let asking = asking("CheckIntegration", &request, &asked.actor, "")?;
        self.call(LIST_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            Ok(encode::report(&self.checks.check(asking, account).await?))
        })
        .await
    }

    async fn suspend(
        &self,
        request: Request<pb::SuspendRequest>,
    ) -> Result<Response<pb::Integration>, Status> {
        let asked = request.get_ref();
        let asking = asking("Suspend", &request, &asked.actor, "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let note = parse::label("note", &asked.note)?;
            let suspended = self.integrations.suspend(asking, account, note).await?;
            Ok(encode::integration(&suspended, self.now()))
        })
        .await
    }

    async fn resume(&self, request: Request<pb::ResumeRequest>) -> Result<Response<pb::Integration>, Status> {
        let asked = request.get_ref();
        let asking = asking("Resume", &request, &asked.actor, "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let resumed = self.integrations.resume(asking, account).await?;
            Ok(encode::integration(&resumed, self.now()))
        })
        .await
    }
}

impl Face {
    fn now(&self) -> jiff::Timestamp {
        self.integrations.clock.now().wall
    }
}

/// Exactly one kind, with nothing of another.
fn new_credential(
    asked: &pb::AddClientCredentialRequest,
    secret: String,
    private_key: String,
) -> Result<NewCredential, Refused> {
    let expires_at = parse::timestamp("client_secret_expires_at", asked.client_secret_expires_at)?;
    if expires_at.is_some() && secret.is_empty() {
        return Err(Refused::invalid("client_secret_expires_at", "comes with a client_secret only"));
    }
    let pem = &asked.certificate_pem;
    match (secret.is_empty(), pem.is_empty() && private_key.is_empty(), asked.federated_source.is_empty()) {
        (false, true, true) => Ok(NewCredential::Secret { secret: client_secret(secret)?, expires_at }),
        (true, false, true) => {
            for (field, text) in [("certificate_pem", pem), ("private_key_pem", &private_key)] {
                match text.len() {
                    0 => {
                        return Err(Refused::invalid(field, "is required: a certificate comes with its key"));
                    }
                    len if PEM_LEN_MAX < len => return Err(Refused::invalid(field, "is too long")),
                    _ => {}
                }
            }
            Ok(NewCredential::Certificate { pem: pem.clone(), key: PrivateKey::new(private_key) })
        }
        (true, true, false) => {
            let source = parse::name("federated_source", &asked.federated_source)?;
            Ok(NewCredential::Federated { source })
        }
        _ => Err(Refused::invalid(
            "client_secret",
            "exactly one kind is required: a secret, a certificate with its key, or a federated source",
        )),
    }
}

fn client_secret(text: String) -> Result<ClientSecret, Refused> {
    if SECRET_LEN_MAX < text.len() {
        return Err(Refused::invalid("client_secret", "is too long to be a client secret"));
    }
    Ok(ClientSecret::new(text))
}

fn scopes(asked: &[String]) -> Result<Vec<DevopsScope>, Refused> {
    let mut scopes = Vec::new();
    for scope in asked {
        let scope = parse::name("devops_scopes", scope)?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if SCOPES_MAX < scopes.len() {
        return Err(Refused::invalid("devops_scopes", "are more than 16"));
    }
    Ok(scopes)
}

fn registration(asked: &pb::PutIntegrationRequest, secret: String) -> Result<Registration, Refused> {
    let headless = parse::headless(asked.headless_identity()).unwrap_or(HeadlessIdentity::ServiceUser);
    let expires_at = parse::timestamp("client_secret_expires_at", asked.client_secret_expires_at)?;
    if secret.is_empty() && expires_at.is_some() {
        return Err(Refused::invalid("client_secret_expires_at", "comes with a client_secret only"));
    }
    Ok(Registration {
        account: parse::account(&asked.account_id)?,
        organization: parse::name("organization", &asked.organization)?,
        tenant: parse::name("tenant_id", &asked.tenant_id)?,
        client_id: parse::name("client_id", &asked.client_id)?,
        public_url: parse_public_url(&asked.public_url)?,
        headless,
        scopes: scopes(&asked.devops_scopes)?,
        secret: if secret.is_empty() {
            None
        } else {
            Some((Means::secret(client_secret(secret)?), expires_at))
        },
        force: asked.force,
    })
}

/// Entra's are 40 characters.
const SECRET_LEN_MAX: usize = 256;
const PEM_LEN_MAX: usize = 16 * 1024;
/// Those of one request; the contract's limit.
const SCOPES_MAX: usize = 16;
