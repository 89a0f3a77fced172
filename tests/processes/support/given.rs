//! A broker beside an emulator, and what a caller, an operator and a browser do with it.

use std::time::Duration;

use azdo_broker::client::{Remote, Settings, within};
use azdo_broker::pb;
use azure_emulator::{Emulator, Options};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::Value;
use tonic::Status;

use super::{
    ACCOUNT, Broker, CLIENT, Home, ORGANIZATION, SECRET, SERVICE_USER, TENANT, run_with_input, until,
};

pub(crate) struct Given {
    pub(crate) emulator: Emulator,
    pub(crate) home: Home,
    pub(crate) broker: Broker,
}

/// Where Microsoft sent a browser back to, and what the browser has in hand.
pub(crate) struct Returned {
    pub(crate) callback: String,
    pub(crate) cookie: String,
}

impl Given {
    /// A broker that knows the account's integration.
    pub(crate) async fn a_broker() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let emulator = Emulator::start(options).await.unwrap();
        let home = Home::with_store(Some(&emulator)).await;
        let broker = Broker::start(&home).await;
        let public_url = format!("--public-url=http://localhost:{}", home.links);
        let organization = format!("--organization={ORGANIZATION}");
        let (tenant, client) = (format!("--tenant-id={TENANT}"), format!("--client-id={CLIENT}"));
        let args = ["integration", "put", &organization, &tenant, &client, &public_url, "--secret-file=-"];
        run_with_input(&mut home.command(&args), SECRET.as_bytes()).await.done();
        Self { emulator, home, broker }
    }

    /// With the service user connected.
    pub(crate) async fn a_linked_broker() -> Self {
        let given = Self::a_broker().await;
        given.link().await;
        given
    }

    /// What the emulator was asked for on behalf of people: all but proofs of client credentials.
    pub(crate) fn requests_for_users(&self) -> Vec<azure_emulator::TokenRequest> {
        let requests = self.emulator.token_requests().into_iter();
        requests.filter(|request| request.grant_type != "client_credentials").collect()
    }

    /// Stops it as an operator would. A store may be copied when its last connection has taken the write-ahead
    /// log with it.
    pub(crate) async fn stop(&mut self) {
        self.broker.tell_to_stop();
        self.broker.ended().await;
        let wal = self.home.path("azdo-broker.db-wal");
        until("the store is closed", async || (!wal.exists()).then_some(())).await;
    }

    /// Starts it again, in the same folder.
    pub(crate) async fn restart(&mut self) {
        self.broker = Broker::start(&self.home).await;
    }

    pub(crate) async fn remote(&self) -> Remote {
        let address = Some(self.home.address("operator"));
        Remote::connect(&Settings { address, ..Settings::default() }).await.unwrap()
    }

    pub(crate) async fn begin_link(&self) -> pb::BeginLinkResponse {
        let request = pb::BeginLinkRequest {
            account_id: ACCOUNT.into(),
            connection: Some(service_user()),
            front: pb::Front::OurPages.into(),
            ..Default::default()
        };
        self.remote().await.connections().begin_link(within(CALL, request)).await.unwrap().into_inner()
    }

    /// Presses the button on our page and signs in at Microsoft's, up to the redirect back.
    pub(crate) async fn sign_in(&self, link_url: &str) -> Returned {
        let entered = browser().post(link_url).send().await.unwrap();
        let header = |name| entered.headers()[name].to_str().unwrap().to_owned();
        let cookie = header(SET_COOKIE).split(';').next().unwrap().to_owned();
        let callback = self.emulator.sign_in(&header(LOCATION), SERVICE_USER).await.unwrap();
        Returned { callback, cookie }
    }

    /// A link at the state `state`, signed in.
    pub(crate) async fn signed_in(&self, state: pb::LinkState) -> String {
        let begun = self.begin_link().await;
        let returned = self.sign_in(&begun.link_url).await;
        returned.arrive().await.unwrap();
        assert_eq!(self.get_link(&begun.link_id).await.state(), state);
        begun.link_id
    }

    pub(crate) async fn get_link(&self, link_id: &str) -> pb::Link {
        let request = pb::GetLinkRequest { account_id: ACCOUNT.into(), link_id: link_id.into() };
        self.remote().await.connections().get_link(within(CALL, request)).await.unwrap().into_inner()
    }

    pub(crate) async fn confirm(&self, link_id: &str) -> Result<pb::Connection, Status> {
        let request = pb::ConfirmLinkRequest {
            account_id: ACCOUNT.into(),
            link_id: link_id.into(),
            ..Default::default()
        };
        let confirmed = self.remote().await.connections().confirm_link(within(CALL, request)).await;
        confirmed.map(tonic::Response::into_inner)
    }

    pub(crate) async fn link(&self) -> pb::Connection {
        let link_id = self.signed_in(pb::LinkState::Verified).await;
        self.confirm(&link_id).await.unwrap()
    }

    /// Links a developer by the platform's pages.
    pub(crate) async fn link_developer(&self, id: &str, upn: &str) {
        let mut connections = self.remote().await.connections();
        let request = pb::BeginLinkRequest {
            account_id: ACCOUNT.into(),
            connection: Some(pb::ConnectionName {
                role: pb::Role::Developer.into(),
                developer_id: id.into(),
            }),
            front: pb::Front::PlatformPages.into(),
            ..Default::default()
        };
        let begun = connections.begin_link(within(CALL, request)).await.unwrap().into_inner();
        let callback = self.emulator.sign_in(&begun.authorize_url, upn).await.unwrap();
        let callback = reqwest::Url::parse(&callback).unwrap();
        let code = callback.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
        let request = pb::CompleteLinkRequest {
            account_id: ACCOUNT.into(),
            redirect_uri: callback.as_str().split('?').next().unwrap().to_owned(),
            state: begun.state,
            code,
            ..Default::default()
        };
        let link = connections.complete_link(within(CALL, request)).await.unwrap().into_inner();
        assert_eq!(link.state(), pb::LinkState::Verified, "{link:?}");
        self.confirm(&begun.link_id).await.unwrap();
    }

    pub(crate) async fn token(&self) -> Result<pb::GetServiceUserTokenResponse, Status> {
        let min_ttl = Some(prost_types::Duration { seconds: TOKEN_MIN_TTL_S, nanos: 0 });
        let request =
            pb::GetServiceUserTokenRequest { account_id: ACCOUNT.into(), min_ttl, ..Default::default() };
        let released = self.remote().await.credentials().get_service_user_token(within(CALL, request)).await;
        released.map(tonic::Response::into_inner)
    }

    /// Reports the token in force as rejected: a refresh is on its way. Once a minute and process.
    pub(crate) async fn demand_refresh(&self) {
        let request = pb::ReportTokenRejectedRequest {
            account_id: ACCOUNT.into(),
            connection: Some(service_user()),
            token_fingerprint: self.token().await.unwrap().token_fingerprint,
        };
        self.remote().await.credentials().report_token_rejected(within(CALL, request)).await.unwrap();
    }

    /// The account's connections as the command line tells them.
    pub(crate) async fn connections(&self) -> Vec<Value> {
        let told = self.home.run(&["connections", "--json"]).await.json();
        told["connections"].as_array().unwrap().clone()
    }

    pub(crate) async fn connection(&self) -> pb::Connection {
        let request =
            pb::GetConnectionRequest { account_id: ACCOUNT.into(), connection: Some(service_user()) };
        let found = self.remote().await.connections().get_connection(within(CALL, request)).await;
        found.unwrap().into_inner()
    }

    pub(crate) async fn generation(&self) -> i64 {
        let found = self.connection().await;
        assert_eq!(found.state(), pb::ConnectionState::Connected, "{found:?}");
        found.generation
    }

    /// Waits for a commit after `generation`.
    pub(crate) async fn newer_than(&self, generation: i64) -> i64 {
        let newer = async || Some(self.generation().await).filter(|found| generation < *found);
        until("a refresh that landed", newer).await
    }

    pub(crate) async fn probe(&self, path: &str) -> u16 {
        let url = format!("http://127.0.0.1:{}{path}", self.home.admin);
        browser().get(url).send().await.unwrap().status().as_u16()
    }
}

impl Returned {
    /// Goes where Microsoft sent the browser: the page it is shown.
    pub(crate) async fn arrive(self) -> reqwest::Result<String> {
        browser().get(self.callback).header(COOKIE, self.cookie).send().await?.text().await
    }
}

fn browser() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.build().unwrap()
}

fn service_user() -> pb::ConnectionName {
    pb::ConnectionName { role: pb::Role::ServiceUser.into(), developer_id: String::new() }
}

const TOKEN_MIN_TTL_S: i64 = 300;
const CALL: Duration = Duration::from_secs(15);
