//! The `Connections` service.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::{Request, Response, Status};

use super::watch::WatchStream;
use super::{CHANGE_DEADLINE, Face, asking, encode, import, parse};
use crate::connection::Role;
use crate::entra::judge_redirect;
use crate::ids::AccountId;
use crate::links::{Received, Wanted};
use crate::pb;
use crate::pb::connections_server::Connections;
use crate::reason::Refused;
use crate::secret::AuthorizationCode;
use crate::vault::Front;

#[tonic::async_trait]
impl Connections for Face {
    type WatchConnectionsStream = WatchStream;

    async fn begin_link(
        &self,
        request: Request<pb::BeginLinkRequest>,
    ) -> Result<Response<pb::BeginLinkResponse>, Status> {
        let asked = request.get_ref();
        let asking = asking("BeginLink", &request, &asked.actor, "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let front = match asked.front() {
                pb::Front::Unspecified => return Err(Refused::invalid("front", "is required")),
                pb::Front::OurPages => Front::OurPages,
                pb::Front::PlatformPages => Front::PlatformPages,
            };
            let expected = parse::label("expected_login", &asked.expected_login)?;
            let wanted = Wanted {
                account,
                role: parse::role(asked.connection.as_ref())?,
                front,
                return_to: parse::label("return_to", &asked.return_to)?.map(|name| name.to_string()),
                expected_login: expected.map(|login| login.to_string()),
            };
            Ok(encode::begun(self.links.begin(asking, wanted).await?))
        })
        .await
    }

    async fn get_link(&self, request: Request<pb::GetLinkRequest>) -> Result<Response<pb::Link>, Status> {
        let asked = request.get_ref();
        let asking = asking("GetLink", &request, "", "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let id = parse::name("link_id", &asked.link_id)?;
            Ok(encode::link(&self.links.link(asking, account, id).await?))
        })
        .await
    }

    async fn confirm_link(
        &self,
        request: Request<pb::ConfirmLinkRequest>,
    ) -> Result<Response<pb::Connection>, Status> {
        let asked = request.get_ref();
        let asking = asking("ConfirmLink", &request, &asked.actor, "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let id = parse::name("link_id", &asked.link_id)?;
            let confirmation = parse::optional("confirmation", &asked.confirmation, CONFIRMATION_LEN_MAX)?;
            Ok(encode::connection(&self.links.confirm(asking, account, id, confirmation).await?))
        })
        .await
    }

    async fn get_connection(
        &self,
        request: Request<pb::GetConnectionRequest>,
    ) -> Result<Response<pb::Connection>, Status> {
        let asked = request.get_ref();
        let asking = asking("GetConnection", &request, "", "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let role = parse::role(asked.connection.as_ref())?;
            Ok(encode::connection(&self.links.connection(asking, account, role).await?))
        })
        .await
    }

    async fn list_connections(
        &self,
        request: Request<pb::ListConnectionsRequest>,
    ) -> Result<Response<pb::ListConnectionsResponse>, Status> {
        let asked = request.get_ref();
        let asking = asking("ListConnections", &request, "", "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let size = parse::page_size(asked.page_size)?;
            let after = page_after(&account, &asked.page_token)?;
            let views = self.links.connections(asking, account.clone(), after.as_deref(), size).await?;
            let last = if views.len() < size { None } else { views.last() };
            let next = last.map(|view| page_token(&account, &view.key.role.to_string()));
            let shown = |connection: &pb::Connection| {
                let role = connection.connection.as_ref().map_or(0, |name| name.role);
                let ended = connection.state() == pb::ConnectionState::Disconnected;
                (asked.role == 0 || asked.role == role)
                    && if asked.state == 0 { !ended } else { asked.state == connection.state }
            };
            Ok(pb::ListConnectionsResponse {
                connections: views.iter().map(encode::connection).filter(shown).collect(),
                next_page_token: next.unwrap_or_default(),
            })
        })
        .await
    }

    async fn disconnect(
        &self,
        request: Request<pb::DisconnectRequest>,
    ) -> Result<Response<pb::Connection>, Status> {
        let asked = request.get_ref();
        let asking = asking("Disconnect", &request, &asked.actor, "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let role = parse::role(asked.connection.as_ref())?;
            Ok(encode::connection(&self.links.disconnect(asking, account, role).await?))
        })
        .await
    }

    async fn complete_link(
        &self,
        mut request: Request<pb::CompleteLinkRequest>,
    ) -> Result<Response<pb::Link>, Status> {
        // Moved out at once, so that no other copy of it is held while the call runs.
        let code = std::mem::take(&mut request.get_mut().code);
        let asked = request.get_ref();
        let asking = asking("CompleteLink", &request, "", "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let received = received(asked, code)?;
            Ok(encode::link(&self.links.receive(asking, account, received).await?))
        })
        .await
    }

    async fn connect_service_principal(
        &self,
        request: Request<pb::ConnectServicePrincipalRequest>,
    ) -> Result<Response<pb::Connection>, Status> {
        let asked = request.get_ref();
        let asking = asking("ConnectServicePrincipal", &request, &asked.actor, "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            Ok(encode::connection(&self.links.connect_service_principal(asking, account).await?))
        })
        .await
    }

    async fn import_connections(
        &self,
        mut request: Request<pb::ImportConnectionsRequest>,
    ) -> Result<Response<pb::ImportConnectionsResponse>, Status> {
        // Moved out at once, so that no other copy of the grants is held while the call runs.
        let items = std::mem::take(&mut request.get_mut().items);
        let asked = request.get_ref();
        let asking = asking("ImportConnections", &request, &asked.actor, "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            let names: Vec<_> = items.iter().map(|item| item.connection.clone()).collect();
            let items = import::items(items)?;
            let outcomes = self.links.import(asking, account, items, asked.replace).await?;
            let results =
                names.into_iter().zip(outcomes).map(|(name, outcome)| import::result(name, &outcome));
            Ok(pb::ImportConnectionsResponse { results: results.collect() })
        })
        .await
    }

    async fn watch_connections(
        &self,
        request: Request<pb::WatchConnectionsRequest>,
    ) -> Result<Response<Self::WatchConnectionsStream>, Status> {
        self.watch(request).await
    }
}

fn received(asked: &pb::CompleteLinkRequest, code: String) -> Result<Received, Refused> {
    let text = |field, text, max| {
        parse::optional(field, text, max)?.ok_or_else(|| Refused::invalid(field, "is required"))
    };
    let error = parse::optional("error", &asked.error, ERROR_LEN_MAX)?;
    let description = parse::optional("error_description", &asked.error_description, DESCRIPTION_LEN_MAX)?;
    let outcome = match (code.is_empty(), error) {
        (false, None) if code.len() <= CODE_LEN_MAX => Ok(AuthorizationCode::new(code)),
        (false, None) => return Err(Refused::invalid("code", "is too long")),
        (true, Some(error)) => Err(judge_redirect(&error, &description.unwrap_or_default())),
        (false, Some(_)) | (true, None) => {
            return Err(Refused::invalid("code", "exactly one of code and error is required"));
        }
    };
    Ok(Received {
        redirect_uri: text("redirect_uri", &asked.redirect_uri, URI_LEN_MAX)?,
        state: text("state", &asked.state, STATE_LEN_MAX)?,
        outcome,
    })
}

/// Where the next page begins: the last role shown, tied to its account.
fn page_token(account: &AccountId, role: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{account} {role}"))
}

fn page_after(account: &AccountId, token: &str) -> Result<Option<String>, Refused> {
    if token.is_empty() {
        return Ok(None);
    }
    let decoded = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let after = decoded.and_then(|text| {
        let (of, role) = text.split_once(' ')?;
        (of == account.as_str() && Role::parse(role).is_some()).then(|| role.to_owned())
    });
    after.map(Some).ok_or_else(|| Refused::invalid("page_token", "is not one of this list"))
}

/// Entra names no limit for codes; they were seen beyond 700 characters (azure.md 1.3).
const CODE_LEN_MAX: usize = 16 * 1024;
const ERROR_LEN_MAX: usize = 256;
const DESCRIPTION_LEN_MAX: usize = 4 * 1024;
/// Ours are 43 characters.
const STATE_LEN_MAX: usize = 128;
const CONFIRMATION_LEN_MAX: usize = 128;
/// Entra's own limit (azure.md 1.3).
const URI_LEN_MAX: usize = 256;
