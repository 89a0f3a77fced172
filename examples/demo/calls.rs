//! Calls over mutual TLS, as services of the platform make them.

use std::time::Duration;

use azdo_broker::client::{Remote, Settings, within};
use azdo_broker::pb;
use tonic::{Code, Response, Status};

use crate::outcome::{Context as _, Outcome};
use crate::world::World;

/// A service of the platform, known by its certificate.
pub(crate) struct Service(Remote);

impl Service {
    /// Connects with the certificate of that name.
    pub(crate) async fn connect(world: &World, name: &str) -> Outcome<Self> {
        let file = |extension: &str| Some(world.dir.join(format!("{name}.{extension}")));
        let settings = Settings {
            address: Some(format!("https://localhost:{}", world.ports.tcp)),
            ca: Some(world.dir.join("ca.pem")),
            cert: file("pem"),
            key: file("key"),
            ..Settings::default()
        };
        Ok(Self(Remote::connect(&settings).await?))
    }

    pub(crate) async fn token(&self, account: &str) -> Result<pb::GetServiceUserTokenResponse, Status> {
        self.token_lasting(account, Duration::from_mins(5)).await
    }

    pub(crate) async fn token_lasting(
        &self,
        account: &str,
        min_ttl: Duration,
    ) -> Result<pb::GetServiceUserTokenResponse, Status> {
        let request = pb::GetServiceUserTokenRequest {
            account_id: account.to_owned(),
            min_ttl: min_ttl.try_into().ok(),
            purpose: "demo".to_owned(),
            ..Default::default()
        };
        self.0
            .credentials()
            .get_service_user_token(within(CALL_LIMIT, request))
            .await
            .map(Response::into_inner)
    }

    /// Tells the broker that a token was refused: it is replaced.
    pub(crate) async fn report(&self, account: &str, fingerprint: &str) -> Result<(), Status> {
        let request = pb::ReportTokenRejectedRequest {
            account_id: account.to_owned(),
            connection: None,
            token_fingerprint: fingerprint.to_owned(),
        };
        self.0.credentials().report_token_rejected(within(CALL_LIMIT, request)).await.map(drop)
    }

    pub(crate) async fn repositories(&self, account: &str) -> Result<pb::ListReadableReposResponse, Status> {
        let request = pb::ListReadableReposRequest { account_id: account.to_owned(), ..Default::default() };
        self.0.credentials().list_readable_repos(within(CALL_LIMIT, request)).await.map(Response::into_inner)
    }

    pub(crate) async fn developer_token(
        &self,
        account: &str,
        developer: &str,
    ) -> Result<pb::GetDeveloperTokenResponse, Status> {
        let request = pb::GetDeveloperTokenRequest {
            account_id: account.to_owned(),
            developer_id: developer.to_owned(),
            purpose: "demo".to_owned(),
            ..Default::default()
        };
        self.0.credentials().get_developer_token(within(CALL_LIMIT, request)).await.map(Response::into_inner)
    }

    /// Begins a developer's link by the platform's own pages.
    pub(crate) async fn begin_developer(
        &self,
        account: &str,
        developer: &str,
        expected_login: &str,
    ) -> Result<pb::BeginLinkResponse, Status> {
        let connection =
            pb::ConnectionName { role: pb::Role::Developer.into(), developer_id: developer.to_owned() };
        let request = pb::BeginLinkRequest {
            account_id: account.to_owned(),
            connection: Some(connection),
            front: pb::Front::PlatformPages.into(),
            expected_login: expected_login.to_owned(),
            actor: developer.to_owned(),
            ..Default::default()
        };
        self.0.connections().begin_link(within(CALL_LIMIT, request)).await.map(Response::into_inner)
    }

    /// Hands over what the platform's callback received.
    pub(crate) async fn complete(
        &self,
        account: &str,
        redirect_uri: &str,
        state: String,
        code: String,
    ) -> Result<pb::Link, Status> {
        let request = pb::CompleteLinkRequest {
            account_id: account.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            state,
            code,
            ..Default::default()
        };
        self.0.connections().complete_link(within(CALL_LIMIT, request)).await.map(Response::into_inner)
    }

    pub(crate) async fn confirm(&self, account: &str, link_id: &str) -> Result<pb::Connection, Status> {
        let request = pb::ConfirmLinkRequest {
            account_id: account.to_owned(),
            link_id: link_id.to_owned(),
            ..Default::default()
        };
        self.0.connections().confirm_link(within(CALL_LIMIT, request)).await.map(Response::into_inner)
    }

    /// Asks for a token that must be refused, and returns the refusal's words.
    pub(crate) async fn refusal(&self, account: &str) -> Outcome<String> {
        match self.token(account).await {
            Err(status) if status.code() == Code::PermissionDenied => Ok(status.message().to_owned()),
            Err(status) => Err(status).context("refused, but not by policy"),
            Ok(_) => Err("a token was released".into()),
        }
    }
}

const CALL_LIMIT: Duration = Duration::from_secs(12);
