//! A caller over a socket or mTLS, with the calls tests make most.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use azdo_broker::pb;
use azdo_broker::pb::connections_client::ConnectionsClient;
use azdo_broker::pb::credential_broker_client::CredentialBrokerClient;
use azdo_broker::pb::integrations_client::IntegrationsClient;
use azdo_broker::pb::operations_client::OperationsClient;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::service_fn;

type Answer<T> = Result<T, Status>;

/// One connection to the broker.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) Channel);

impl Client {
    pub(crate) async fn over_socket(path: &Path) -> Self {
        Self::over_socket_by(endpoint(), path).await
    }

    /// One that lets the broker send next to nothing ahead of what it reads.
    pub(crate) async fn that_takes_little(path: &Path) -> Self {
        Self::over_socket_by(endpoint().initial_stream_window_size(1024), path).await
    }

    async fn over_socket_by(endpoint: Endpoint, path: &Path) -> Self {
        let path = path.to_owned();
        let connector = service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Self(endpoint.connect_with_connector(connector).await.unwrap())
    }

    pub(crate) async fn over_tls(
        address: SocketAddr,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, tonic::transport::Error> {
        let connector = service_fn(move |_| {
            let tls = TlsConnector::from(tls.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
                tls.connect(name, stream).await.map(TokioIo::new)
            }
        });
        endpoint().connect_with_connector(connector).await.map(Self)
    }

    pub(crate) fn broker(&self) -> CredentialBrokerClient<Channel> {
        CredentialBrokerClient::new(self.0.clone())
    }

    pub(crate) fn connections(&self) -> ConnectionsClient<Channel> {
        ConnectionsClient::new(self.0.clone())
    }

    pub(crate) fn integrations(&self) -> IntegrationsClient<Channel> {
        IntegrationsClient::new(self.0.clone())
    }

    pub(crate) fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.0.clone())
    }

    /// A token of `acme`'s service user.
    pub(crate) async fn token(&self) -> Answer<pb::GetServiceUserTokenResponse> {
        self.token_of("acme", None).await
    }

    pub(crate) async fn token_lasting(&self, min_ttl: Duration) -> Answer<pb::GetServiceUserTokenResponse> {
        self.token_of("acme", Some(min_ttl)).await
    }

    pub(crate) async fn token_of(
        &self,
        account: &str,
        min_ttl: Option<Duration>,
    ) -> Answer<pb::GetServiceUserTokenResponse> {
        let min_ttl = min_ttl.map(|time| time.try_into().unwrap());
        let request =
            pb::GetServiceUserTokenRequest { account_id: account.into(), min_ttl, ..Default::default() };
        self.broker().get_service_user_token(request).await.map(tonic::Response::into_inner)
    }

    /// A token of a developer of `acme`.
    pub(crate) async fn token_of_developer(&self, developer: &str) -> Answer<pb::GetDeveloperTokenResponse> {
        let request = pb::GetDeveloperTokenRequest {
            account_id: "acme".into(),
            developer_id: developer.into(),
            ..pb::GetDeveloperTokenRequest::default()
        };
        self.broker().get_developer_token(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn git(&self, url: &str) -> Answer<pb::GetGitCredentialResponse> {
        let request = pb::GetGitCredentialRequest {
            account_id: "acme".into(),
            url: url.into(),
            ..pb::GetGitCredentialRequest::default()
        };
        self.broker().get_git_credential(request).await.map(tonic::Response::into_inner)
    }

    /// The first page of `acme`'s list, made anew.
    pub(crate) async fn repos(&self, include_unreadable: bool) -> Answer<pb::ListReadableReposResponse> {
        let max_age = Some(prost_types::Duration::default());
        self.repos_page(pb::ListReadableReposRequest { include_unreadable, max_age, ..list_request() }).await
    }

    pub(crate) async fn repos_page(
        &self,
        request: pb::ListReadableReposRequest,
    ) -> Answer<pb::ListReadableReposResponse> {
        self.broker().list_readable_repos(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn report(&self, fingerprint: &str) -> Answer<pb::ReportTokenRejectedResponse> {
        self.report_of(None, fingerprint).await
    }

    pub(crate) async fn report_of(
        &self,
        connection: Option<pb::ConnectionName>,
        fingerprint: &str,
    ) -> Answer<pb::ReportTokenRejectedResponse> {
        let request = pb::ReportTokenRejectedRequest {
            account_id: "acme".into(),
            connection,
            token_fingerprint: fingerprint.into(),
        };
        self.broker().report_token_rejected(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn begin(&self) -> Answer<pb::BeginLinkResponse> {
        self.begin_expecting("").await
    }

    pub(crate) async fn begin_expecting(&self, login: &str) -> Answer<pb::BeginLinkResponse> {
        self.begin_with(pb::BeginLinkRequest { expected_login: login.into(), ..begin_request() }).await
    }

    pub(crate) async fn begin_with(&self, request: pb::BeginLinkRequest) -> Answer<pb::BeginLinkResponse> {
        self.connections().begin_link(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn link(&self, id: &str) -> Answer<pb::Link> {
        let request = pb::GetLinkRequest { account_id: "acme".into(), link_id: id.into() };
        self.connections().get_link(request).await.map(tonic::Response::into_inner)
    }

    /// Hands over what the platform's own callback received.
    pub(crate) async fn complete(&self, request: pb::CompleteLinkRequest) -> Answer<pb::Link> {
        self.connections().complete_link(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn confirm(&self, id: &str) -> Answer<pb::Connection> {
        self.confirm_with(id, "").await
    }

    pub(crate) async fn confirm_with(&self, id: &str, confirmation: &str) -> Answer<pb::Connection> {
        let request = pb::ConfirmLinkRequest {
            account_id: "acme".into(),
            link_id: id.into(),
            confirmation: confirmation.into(),
            ..pb::ConfirmLinkRequest::default()
        };
        self.connections().confirm_link(request).await.map(tonic::Response::into_inner)
    }

    /// `acme`'s service user, as it stands.
    pub(crate) async fn connection(&self) -> Answer<pb::Connection> {
        self.connection_of(service_user()).await
    }

    pub(crate) async fn connection_of(&self, name: pb::ConnectionName) -> Answer<pb::Connection> {
        let request = pb::GetConnectionRequest { account_id: "acme".into(), connection: Some(name) };
        self.connections().get_connection(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn disconnect(&self) -> Answer<pb::Connection> {
        self.disconnect_of(service_user()).await
    }

    pub(crate) async fn disconnect_of(&self, name: pb::ConnectionName) -> Answer<pb::Connection> {
        let request = pb::DisconnectRequest {
            account_id: "acme".into(),
            connection: Some(name),
            ..pb::DisconnectRequest::default()
        };
        self.connections().disconnect(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn add_secret(&self, value: &str) -> Answer<pb::ClientCredential> {
        let request = pb::AddClientCredentialRequest {
            account_id: "acme".into(),
            client_secret: value.into(),
            ..pb::AddClientCredentialRequest::default()
        };
        self.integrations().add_client_credential(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn remove_credential(&self, id: &str, force: bool) -> Answer<pb::Integration> {
        let request = pb::RemoveClientCredentialRequest {
            account_id: "acme".into(),
            client_credential_id: id.into(),
            force,
            actor: String::new(),
        };
        self.integrations().remove_client_credential(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn put(&self, request: pb::PutIntegrationRequest) -> Answer<pb::Integration> {
        self.integrations().put_integration(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn integration(&self, account: &str) -> Answer<pb::Integration> {
        let request = pb::GetIntegrationRequest { account_id: account.into() };
        self.integrations().get_integration(request).await.map(tonic::Response::into_inner)
    }
}

/// The first page of `acme`'s headless identity.
pub(crate) fn list_request() -> pb::ListReadableReposRequest {
    pb::ListReadableReposRequest { account_id: "acme".into(), ..pb::ListReadableReposRequest::default() }
}

/// A link of `acme`'s service user by the broker's own pages.
pub(crate) fn begin_request() -> pb::BeginLinkRequest {
    pb::BeginLinkRequest {
        account_id: "acme".into(),
        connection: Some(service_user()),
        front: pb::Front::OurPages.into(),
        ..pb::BeginLinkRequest::default()
    }
}

pub(crate) fn service_user() -> pb::ConnectionName {
    pb::ConnectionName { role: pb::Role::ServiceUser.into(), developer_id: String::new() }
}

pub(crate) fn developer(id: &str) -> pb::ConnectionName {
    pb::ConnectionName { role: pb::Role::Developer.into(), developer_id: id.into() }
}

/// The reason in a refusal's details; empty if it has none.
pub(crate) fn reason_of(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// Refused with this code and reason.
#[track_caller]
pub(crate) fn assert_refused<T>(answer: Answer<T>, code: Code, reason: &str) -> Status {
    let Err(status) = answer else { panic!("was answered, {reason} was expected") };
    assert_eq!((status.code(), reason_of(&status).as_str()), (code, reason), "{}", status.message());
    status
}

/// Refused as invalid, naming the field and nothing of what stood in it.
#[track_caller]
pub(crate) fn assert_invalid<T>(answer: Answer<T>, field: &str) {
    let Err(status) = answer else { panic!("was answered, though {field} is invalid") };
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    let details = status.get_error_details();
    let fields: Vec<_> =
        details.bad_request().unwrap().field_violations.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(fields, [field]);
    assert!(status.message().len() < 400, "echoes what was sent");
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://localhost")
}
