//! Calls over mutual TLS, as services of the platform make them.

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
        let request = pb::GetServiceUserTokenRequest {
            account_id: account.to_owned(),
            purpose: "demo".to_owned(),
            ..Default::default()
        };
        self.0
            .credentials()
            .get_service_user_token(within(CALL_LIMIT, request))
            .await
            .map(Response::into_inner)
    }

    pub(crate) async fn repositories(&self, account: &str) -> Result<pb::ListReadableReposResponse, Status> {
        let request = pb::ListReadableReposRequest { account_id: account.to_owned(), ..Default::default() };
        self.0.credentials().list_readable_repos(within(CALL_LIMIT, request)).await.map(Response::into_inner)
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

const CALL_LIMIT: std::time::Duration = std::time::Duration::from_secs(12);
