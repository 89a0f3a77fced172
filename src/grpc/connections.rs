//! The `Connections` service.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::{CHANGE_DEADLINE, Face, asking, encode, parse, status};
use crate::connection::Role;
use crate::ids::AccountId;
use crate::pb;
use crate::pb::connections_server::Connections;
use crate::reason::Refused;

#[tonic::async_trait]
impl Connections for Face {
    type WatchConnectionsStream = Empty<Result<pb::WatchConnectionsResponse, Status>>;

    async fn begin_link(
        &self,
        request: Request<pb::BeginLinkRequest>,
    ) -> Result<Response<pb::BeginLinkResponse>, Status> {
        let asked = request.get_ref();
        let asking = asking("BeginLink", &request, &asked.actor, "")?;
        self.call(CHANGE_DEADLINE, async {
            let account = parse::account(&asked.account_id)?;
            match (parse::role(asked.connection.as_ref())?, asked.front()) {
                (_, pb::Front::Unspecified) => return Err(Refused::invalid("front", "is required")),
                (Role::ServiceUser, pb::Front::OurPages) => {}
                (Role::ServicePrincipal, _) => {
                    return Err(Refused::invalid(
                        "connection.role",
                        "a service principal is not linked by a person",
                    ));
                }
                (Role::ServiceUser | Role::Developer(_), _) => {
                    return Err(Refused::invalid(
                        "front",
                        "only service users by our own pages are built yet",
                    ));
                }
            }
            parse::must_be_empty("return_to", &asked.return_to)?;
            let expected = parse::label("expected_login", &asked.expected_login)?;
            let begun = self.links.begin(asking, account, expected.map(|login| login.to_string())).await?;
            Ok(pb::BeginLinkResponse {
                link_id: begun.id.to_string(),
                link_url: begun.link_url.to_string(),
                authorize_url: String::new(),
                state: String::new(),
                expires_at: Some(encode::timestamp(begun.expires_at)),
            })
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
            parse::must_be_empty("confirmation", &asked.confirmation)?;
            let account = parse::account(&asked.account_id)?;
            let id = parse::name("link_id", &asked.link_id)?;
            Ok(encode::connection(&self.links.confirm(asking, account, id).await?))
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
        _request: Request<pb::CompleteLinkRequest>,
    ) -> Result<Response<pb::Link>, Status> {
        Err(status::unimplemented())
    }

    async fn connect_service_principal(
        &self,
        _request: Request<pb::ConnectServicePrincipalRequest>,
    ) -> Result<Response<pb::Connection>, Status> {
        Err(status::unimplemented())
    }

    async fn import_connections(
        &self,
        _request: Request<pb::ImportConnectionsRequest>,
    ) -> Result<Response<pb::ImportConnectionsResponse>, Status> {
        Err(status::unimplemented())
    }

    async fn watch_connections(
        &self,
        _request: Request<pb::WatchConnectionsRequest>,
    ) -> Result<Response<Self::WatchConnectionsStream>, Status> {
        Err(status::unimplemented())
    }
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
