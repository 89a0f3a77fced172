//! The `CredentialBroker` service.

use tonic::{Request, Response, Status};

use super::{Face, LIST_DEADLINE, RELEASE_DEADLINE, asking, encode, parse};
use crate::connection::Role;
use crate::git_url::GitUrl;
use crate::pb;
use crate::pb::credential_broker_server::CredentialBroker;
use crate::reason::Refused;
use crate::release::{Released, Wish};
use crate::repos::{self, Filter, Start};
use crate::secret::Fingerprint;

#[tonic::async_trait]
impl CredentialBroker for Face {
    async fn get_service_user_token(
        &self,
        request: Request<pb::GetServiceUserTokenRequest>,
    ) -> Result<Response<pb::GetServiceUserTokenResponse>, Status> {
        let asked = request.get_ref();
        let asking = asking("GetServiceUserToken", &request, &asked.actor, &asked.purpose)?;
        self.call(RELEASE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let min_ttl = parse::min_ttl(asked.min_ttl)?;
            let released = self.release.service_user_token(Wish { asking, account, min_ttl }).await?;
            Ok(token_response(&released))
        })
        .await
    }

    async fn get_git_credential(
        &self,
        request: Request<pb::GetGitCredentialRequest>,
    ) -> Result<Response<pb::GetGitCredentialResponse>, Status> {
        let asked = request.get_ref();
        let asking = asking("GetGitCredential", &request, &asked.actor, &asked.purpose)?;
        self.call(RELEASE_DEADLINE, async {
            let developer = parse::developer(&asked.developer_id, &asked.developer_assertion)?;
            let account = parse::account(&asked.account_id)?;
            let min_ttl = parse::min_ttl(asked.min_ttl)?;
            let url =
                GitUrl::parse(&asked.url).map_err(|problem| Refused::invalid("url", problem.to_string()))?;
            let released =
                self.release.git_credential(Wish { asking, account, min_ttl }, developer, &url).await?;
            Ok(git_response(&released, &url))
        })
        .await
    }

    async fn list_readable_repos(
        &self,
        request: Request<pb::ListReadableReposRequest>,
    ) -> Result<Response<pb::ListReadableReposResponse>, Status> {
        let asked = request.get_ref();
        let asking = asking("ListReadableRepos", &request, &asked.actor, "")?;
        self.call(LIST_DEADLINE, async {
            let developer = parse::developer(&asked.developer_id, &asked.developer_assertion)?;
            let account = parse::account(&asked.account_id)?;
            parse::optional("project", &asked.project, PROJECT_LEN_MAX)?;
            let filter =
                Filter { project: asked.project.clone(), include_unreadable: asked.include_unreadable };
            let page_size = parse::page_size(asked.page_size)?;
            let start = match asked.page_token.as_str() {
                "" => Start::First { max_age: parse::max_age(asked.max_age)? },
                page_token => Start::At { page_token: page_token.to_owned() },
            };
            let role = match (developer, parse::headless(asked.headless_identity())) {
                (Some(_), Some(_)) => {
                    return Err(Refused::invalid("headless_identity", "comes without a developer_id"));
                }
                (developer, headless) => developer.map(Role::Developer).or(headless.map(Role::from)),
            };
            let wish = repos::Wish { asking, account, role, filter, page_size, start };
            Ok(encode::listed(&self.repos.page(&wish).await?))
        })
        .await
    }

    async fn report_token_rejected(
        &self,
        request: Request<pb::ReportTokenRejectedRequest>,
    ) -> Result<Response<pb::ReportTokenRejectedResponse>, Status> {
        let asked = request.get_ref();
        let asking = asking("ReportTokenRejected", &request, "", "")?;
        self.call(RELEASE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let role =
                asked.connection.as_ref().map(|connection| parse::role(Some(connection))).transpose()?;
            let fingerprint = Fingerprint::parse(&asked.token_fingerprint)
                .ok_or_else(|| Refused::invalid("token_fingerprint", "is 32 hexadecimal digits"))?;
            self.release.report_rejected(asking, account, role, &fingerprint).await?;
            Ok(pb::ReportTokenRejectedResponse {})
        })
        .await
    }

    async fn get_developer_token(
        &self,
        request: Request<pb::GetDeveloperTokenRequest>,
    ) -> Result<Response<pb::GetDeveloperTokenResponse>, Status> {
        let asked = request.get_ref();
        let asking = asking("GetDeveloperToken", &request, &asked.actor, &asked.purpose)?;
        self.call(RELEASE_DEADLINE, async {
            let developer = parse::developer(&asked.developer_id, &asked.developer_assertion)?;
            let developer = developer.ok_or_else(|| Refused::invalid("developer_id", "is required"))?;
            let account = parse::account(&asked.account_id)?;
            let min_ttl = parse::min_ttl(asked.min_ttl)?;
            let wish = Wish { asking, account, min_ttl };
            Ok(developer_response(&self.release.developer_token(wish, developer).await?))
        })
        .await
    }
}

/// The same fields under the other name.
fn developer_response(released: &Released) -> pb::GetDeveloperTokenResponse {
    let pb::GetServiceUserTokenResponse {
        access_token,
        token_type,
        expires_at,
        scopes,
        identity,
        warnings,
        token_fingerprint,
        connection,
    } = token_response(released);
    pb::GetDeveloperTokenResponse {
        access_token,
        token_type,
        expires_at,
        scopes,
        identity,
        warnings,
        token_fingerprint,
        connection,
    }
}

fn token_response(released: &Released) -> pb::GetServiceUserTokenResponse {
    let token = &released.token;
    pb::GetServiceUserTokenResponse {
        access_token: token.access.expose().to_owned(),
        token_type: "Bearer".to_owned(),
        expires_at: Some(encode::timestamp(token.validity.expires_at)),
        scopes: token.scopes.clone(),
        identity: Some(encode::identity(&token.identity)),
        warnings: encode::warnings(&released.warnings),
        token_fingerprint: token.fingerprint.as_str().to_owned(),
        connection: Some(encode::connection_name(&released.key)),
    }
}

fn git_response(released: &Released, url: &GitUrl) -> pb::GetGitCredentialResponse {
    let token = &released.token;
    pb::GetGitCredentialResponse {
        username: GIT_USERNAME.to_owned(),
        access_token: token.access.expose().to_owned(),
        expires_at: Some(encode::timestamp(token.validity.expires_at)),
        token_fingerprint: token.fingerprint.as_str().to_owned(),
        organization: url.organization.to_string(),
        identity: Some(encode::identity(&token.identity)),
        warnings: encode::warnings(&released.warnings),
        connection: Some(encode::connection_name(&released.key)),
    }
}

/// Azure Repos ignores it, but some helpers drop an empty one (azure.md 4.2).
const GIT_USERNAME: &str = "oauth2";
/// Azure's own limit of a project's name is 64 characters.
const PROJECT_LEN_MAX: usize = 256;
