//! The `Integrations` service.

use tonic::{Request, Response, Status};

use super::{CHANGE_DEADLINE, Face, asking, encode, parse, status};
use crate::connection::HeadlessIdentity;
use crate::integrations::{Registration, parse_public_url};
use crate::pb;
use crate::pb::integrations_server::Integrations;
use crate::reason::Refused;
use crate::secret::ClientSecret;

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
            Ok(encode::integration(&self.integrations.put(asking, registration).await?))
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
            Ok(encode::integration(&*self.integrations.integration(asking, account).await?))
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
                integrations: seen.iter().map(encode::integration).filter(shown).collect(),
                next_page_token: next.map(|account| account.to_string()).unwrap_or_default(),
            })
        })
        .await
    }

    async fn delete_integration(
        &self,
        _request: Request<pb::DeleteIntegrationRequest>,
    ) -> Result<Response<pb::DeleteIntegrationResponse>, Status> {
        Err(status::unimplemented())
    }

    async fn add_client_credential(
        &self,
        _request: Request<pb::AddClientCredentialRequest>,
    ) -> Result<Response<pb::ClientCredential>, Status> {
        Err(status::unimplemented())
    }

    async fn remove_client_credential(
        &self,
        _request: Request<pb::RemoveClientCredentialRequest>,
    ) -> Result<Response<pb::Integration>, Status> {
        Err(status::unimplemented())
    }

    async fn check_integration(
        &self,
        _request: Request<pb::CheckIntegrationRequest>,
    ) -> Result<Response<pb::CheckIntegrationResponse>, Status> {
        Err(status::unimplemented())
    }

    async fn suspend(
        &self,
        _request: Request<pb::SuspendRequest>,
    ) -> Result<Response<pb::Integration>, Status> {
        Err(status::unimplemented())
    }

    async fn resume(
        &self,
        _request: Request<pb::ResumeRequest>,
    ) -> Result<Response<pb::Integration>, Status> {
        Err(status::unimplemented())
    }
}

fn registration(asked: &pb::PutIntegrationRequest, secret: String) -> Result<Registration, Refused> {
    let headless = match asked.headless_identity() {
        pb::HeadlessIdentity::Unspecified | pb::HeadlessIdentity::ServiceUser => {
            HeadlessIdentity::ServiceUser
        }
        pb::HeadlessIdentity::ServicePrincipal => HeadlessIdentity::ServicePrincipal,
    };
    if SECRET_LEN_MAX < secret.len() {
        return Err(Refused::invalid("client_secret", "is too long to be a client secret"));
    }
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
        secret: (!secret.is_empty()).then(|| (ClientSecret::new(secret), expires_at)),
    })
}

/// Entra's are 40 characters.
const SECRET_LEN_MAX: usize = 256;
