//! Service principals: the app itself as an account's headless identity.

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::{Change, Fault};
use tonic::Code;

use crate::support::{CLIENT_ID, TENANT, TestApp, assert_invalid, assert_refused, list_request};

const PAST_EXPIRY: Duration = Duration::from_hours(2);

fn connect() -> pb::ConnectServicePrincipalRequest {
    pb::ConnectServicePrincipalRequest { account_id: "acme".into(), actor: "olga".into() }
}

fn principal() -> pb::ConnectionName {
    pb::ConnectionName { role: pb::Role::ServicePrincipal.into(), developer_id: String::new() }
}

impl TestApp {
    fn add_the_app_to_the_organization(&self) {
        self.change(Change::AddMember {
            organization: "contoso".into(),
            user: CLIENT_ID.into(),
            licence: azure_emulator::Licence::Basic,
        });
    }

    async fn set_headless(&self, headless: pb::HeadlessIdentity) {
        let request = pb::PutIntegrationRequest { headless_identity: headless.into(), ..self.registration() };
        self.operator().await.put(request).await.unwrap();
    }
}

/// Switching back and forth loses neither connection.
#[tokio::test]
async fn an_account_switches_to_its_service_principal_and_back() {
    let mut app = TestApp::linked().await;
    let (operator, job) = (app.operator().await, app.job_runner().await);
    app.add_the_app_to_the_organization();

    let connected = operator.connections().connect_service_principal(connect()).await.unwrap().into_inner();

    assert_eq!(connected.state(), pb::ConnectionState::Connected);
    assert_eq!((connected.linked_by.as_str(), connected.grant_expires_by), ("olga", None));
    let identity = connected.identity.unwrap();
    assert_eq!((identity.tenant_id.as_str(), identity.login.as_str()), (TENANT, ""));
    assert!(!identity.display_name.is_empty());
    assert_eq!(job.token().await.unwrap().identity.unwrap().login, "svc@contoso.com", "not switched yet");

    app.set_headless(pb::HeadlessIdentity::ServicePrincipal).await;
    let token = job.token().await.unwrap();
    assert_eq!(token.identity.unwrap().object_id, identity.object_id);
    assert_eq!(token.connection.unwrap().role(), pb::Role::ServicePrincipal);
    job.git("https://dev.azure.com/contoso/p/_git/r").await.unwrap();
    assert_eq!(job.repos(false).await.unwrap().identity.unwrap().object_id, identity.object_id);
    app.restart().await;
    app.advance(PAST_EXPIRY);
    let renewed = app.job_runner().await.token().await.unwrap();
    assert_ne!(renewed.token_fingerprint, token.token_fingerprint);
    assert!(app.refreshes().is_empty(), "no grant is spent for it");

    app.set_headless(pb::HeadlessIdentity::ServiceUser).await;
    assert_eq!(app.job_runner().await.token().await.unwrap().identity.unwrap().login, "svc@contoso.com");
    let still = app.operator().await.connection_of(principal()).await.unwrap();
    assert_eq!(still.state(), pb::ConnectionState::Connected);
}

/// Before a switch: what either may read, whichever is in use.
#[tokio::test]
async fn either_headless_identitys_list_can_be_had_to_compare_them() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let of = |headless: pb::HeadlessIdentity| pb::ListReadableReposRequest {
        headless_identity: headless.into(),
        ..list_request()
    };
    let refused = operator.repos_page(of(pb::HeadlessIdentity::ServicePrincipal)).await;
    let status = assert_refused(refused, Code::FailedPrecondition, "NOT_LINKED");
    assert!(status.message().contains("service principal"), "{}", status.message());
    app.add_the_app_to_the_organization();
    operator.connections().connect_service_principal(connect()).await.unwrap();

    let names = async |headless| {
        let listed = operator.repos_page(of(headless)).await.unwrap();
        listed.repos.into_iter().map(|repo| repo.name).collect::<Vec<_>>()
    };

    assert_eq!(names(pb::HeadlessIdentity::ServiceUser).await, ["analytics", "empty", "website"]);
    assert_eq!(
        names(pb::HeadlessIdentity::ServicePrincipal).await,
        ["analytics", "empty", "secret", "website"]
    );
    assert_eq!(names(pb::HeadlessIdentity::Unspecified).await, ["analytics", "empty", "website"]);
    let of_both =
        pb::ListReadableReposRequest { developer_id: "ana".into(), ..of(pb::HeadlessIdentity::ServiceUser) };
    assert_invalid(operator.repos_page(of_both).await, "headless_identity");
}

/// A used one is renewed at half life; an unused one costs nothing, for months.
#[tokio::test]
async fn a_service_principal_is_refreshed_when_used_and_never_kept_alive() {
    let app = TestApp::start().await;
    app.add_the_app_to_the_organization();
    app.fault(Fault::ExpiresIn { seconds: 3600 });
    let operator = app.operator().await;
    operator.connections().connect_service_principal(connect()).await.unwrap();
    app.set_headless(pb::HeadlessIdentity::ServicePrincipal).await;
    let asked = app.requests_of_the_app().len();
    app.advance(Duration::from_hours(24 * 100));
    app.tick_until(|| true).await;
    assert_eq!(app.requests_of_the_app().len(), asked, "nothing keeps it alive");

    operator.token().await.unwrap();
    assert_eq!(app.requests_of_the_app().len(), asked + 1);
    app.advance(Duration::from_mins(31));
    app.tick_until(|| app.requests_of_the_app().len() == asked + 2).await;
    let too_long = operator.token_lasting(Duration::from_mins(30)).await;
    assert!(too_long.is_ok());
}

/// `MIN_TTL_TOO_LONG` holds for it as for users, without a request.
#[tokio::test]
async fn more_life_than_its_tokens_have_is_refused() {
    let app = TestApp::start().await;
    app.add_the_app_to_the_organization();
    app.fault(Fault::ExpiresIn { seconds: 600 });
    let operator = app.operator().await;
    operator.connections().connect_service_principal(connect()).await.unwrap();
    app.set_headless(pb::HeadlessIdentity::ServicePrincipal).await;
    let asked = app.requests_of_the_app().len();
    let refused = operator.token_lasting(Duration::from_mins(15)).await;
    assert_refused(refused, Code::FailedPrecondition, "MIN_TTL_TOO_LONG");
    assert_eq!(app.requests_of_the_app().len(), asked);
}

#[tokio::test]
async fn an_organization_that_does_not_know_the_app_makes_no_connection() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let refused = operator.connections().connect_service_principal(connect()).await;
    assert_refused(refused, Code::FailedPrecondition, "NOT_A_MEMBER");
    assert_refused(operator.connection_of(principal()).await, Code::FailedPrecondition, "NOT_LINKED");
}

/// 7000229 is no verdict on the credential: the service user goes on with it.
#[tokio::test]
async fn a_tenant_without_the_service_principal_is_its_administrators_business_alone() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let missing = Fault::EntraError {
        code: 7_000_229,
        error: Some("invalid_client".into()),
        suberror: None,
        claims: None,
        http: None,
        count: Some(1),
    };
    app.fault(missing);
    let refused = operator.connections().connect_service_principal(connect()).await;
    assert_refused(refused, Code::FailedPrecondition, "ADMIN_ACTION_REQUIRED");
    assert_eq!(operator.integration("acme").await.unwrap().client_credentials[0].rejected_at, None);
    app.advance(PAST_EXPIRY);
    operator.token().await.unwrap();
}

#[tokio::test]
async fn connecting_again_is_harmless_and_a_disconnect_ends_it() {
    let app = TestApp::start().await;
    app.add_the_app_to_the_organization();
    let operator = app.operator().await;
    let first = operator.connections().connect_service_principal(connect()).await.unwrap().into_inner();
    app.advance(Duration::from_mins(5));
    let again = operator.connections().connect_service_principal(connect()).await.unwrap().into_inner();
    assert_eq!((again.identity, again.linked_at), (first.identity, first.linked_at));
    app.set_headless(pb::HeadlessIdentity::ServicePrincipal).await;
    operator.token().await.unwrap();

    operator.disconnect_of(principal()).await.unwrap();

    assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
    app.advance(PAST_EXPIRY);
    assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
}
