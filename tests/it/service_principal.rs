//! Service principals: the app itself as an account's headless identity.

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::{Change, Fault};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{CLIENT_ID, SECRET, TENANT, TestApp, assert_invalid, assert_refused, list_request};

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

/// P7: what was proven is of the app that stood then; a deletion in between leaves no live row.
#[tokio::test]
async fn an_integration_deleted_or_replaced_meanwhile_gets_no_service_principal() {
    for replaced in [false, true] {
        let app = TestApp::start().await;
        app.add_the_app_to_the_organization();
        let operator = app.operator().await;
        app.fault(Fault::DevopsHold { path: None, count: Some(1) });
        let mut connections = operator.connections();
        let connecting = tokio::spawn(async move { connections.connect_service_principal(connect()).await });
        app.emulator.wait_held(1).await;
        if replaced {
            let client_id = "ffffffff-0000-4000-a000-000000000001".into();
            let other = pb::PutIntegrationRequest { client_id, force: true, ..app.registration() };
            operator.put(other).await.unwrap();
        } else {
            let request = pb::DeleteIntegrationRequest {
                account_id: "acme".into(),
                force: true,
                ..pb::DeleteIntegrationRequest::default()
            };
            operator.integrations().delete_integration(request).await.unwrap();
        }

        app.emulator.release_held();

        let refused = connecting.await.unwrap();
        assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition, "replaced: {replaced}");
        let stands = operator.connection_of(principal()).await;
        assert!(stands.is_err(), "replaced: {replaced}, {stands:?}");
        let lines = app.files.audit();
        let last = lines.iter().rfind(|line| line["act"] == "ConnectServicePrincipal").unwrap();
        assert_eq!(last["outcome"]["result"], "refused", "{last}");
    }
}

/// P7: the app's service principal was made anew in the tenant; nobody connected that one.
#[tokio::test]
async fn another_service_principal_of_the_same_app_is_not_released_for_the_connected_one() {
    let app = TestApp::start().await;
    app.add_the_app_to_the_organization();
    let operator = app.operator().await;
    operator.connections().connect_service_principal(connect()).await.unwrap();
    app.set_headless(pb::HeadlessIdentity::ServicePrincipal).await;
    app.change(Change::SetServicePrincipal {
        client_id: CLIENT_ID.into(),
        tenant: TENANT.into(),
        oid: Some("99999999-0000-4000-a000-000000000009".into()),
        present: true,
    });
    app.advance(PAST_EXPIRY);

    let status = assert_refused(operator.token().await, Code::FailedPrecondition, "RELINK_REQUIRED");

    assert!(status.message().contains("ConnectServicePrincipal"), "{}", status.message());
    operator.connections().connect_service_principal(connect()).await.unwrap();
    operator.token().await.unwrap();
}

/// P10: nobody links an app.
#[tokio::test]
async fn who_asks_for_a_service_principal_that_is_not_connected_is_told_how_to_connect_it() {
    let app = TestApp::start().await;
    app.set_headless(pb::HeadlessIdentity::ServicePrincipal).await;
    let operator = app.operator().await;
    let told = [operator.token().await.map(drop), operator.connection_of(principal()).await.map(drop)];
    for refused in told {
        let status = assert_refused(refused, Code::FailedPrecondition, "NOT_LINKED");
        let message = status.message();
        assert!(message.contains("ConnectServicePrincipal") && !message.contains("Link"), "{message}");
    }
}

/// P10: what Entra said of the credential tells what to enter.
#[tokio::test]
async fn a_rejected_credential_is_told_with_entras_code() {
    let app = TestApp::start().await;
    app.change(Change::RemoveSecret { client_id: CLIENT_ID.into(), value: SECRET.into() });

    let refused = app.operator().await.connections().connect_service_principal(connect()).await;

    let status = assert_refused(refused, Code::FailedPrecondition, "CLIENT_CREDENTIAL_REJECTED");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["entra_code"], "AADSTS7000215");
}

/// Design 6.13: proving it again is no new connection, so that a restored backup without it lacks nothing.
#[tokio::test]
async fn a_principal_that_was_only_proven_again_is_no_rollback_when_that_is_restored_away() {
    let mut app = TestApp::linked().await;
    app.add_the_app_to_the_organization();
    app.set_headless(pb::HeadlessIdentity::ServicePrincipal).await;
    app.operator().await.connections().connect_service_principal(connect()).await.unwrap();
    let backup = app.stop_and_back_up().await;
    app.start_again().await;
    app.operator().await.connections().connect_service_principal(connect()).await.unwrap();
    app.stop_and_back_up().await;

    app.restore(&backup);
    app.start_again().await;

    app.job_runner().await.token().await.unwrap();
}
