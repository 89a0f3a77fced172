//! Imports: grants of another system, sealed at once and released only when proven.

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::Fault;
use tonic::Code;

use crate::support::{
    CLIENT_ID, Client, IDE_BACKEND, SECRET, TENANT, TestApp, assert_invalid, assert_refused, developer,
    service_user,
};

/// A refresh token that somebody else got for the same app.
pub(crate) async fn grant_from_elsewhere(app: &TestApp, upn: &str) -> String {
    let redirect = "http://localhost/complete/azure_active_directory";
    let scope = "499b84ac-1321-427f-aa17-267ca6975798/user_impersonation offline_access openid profile email";
    let login = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0");
    let query = [
        ("client_id", CLIENT_ID),
        ("response_type", "code"),
        ("redirect_uri", redirect),
        ("scope", scope),
        ("state", "s"),
    ];
    let authorize = reqwest::Url::parse_with_params(&format!("{login}/authorize"), query).unwrap();
    let callback = app.emulator.sign_in(authorize.as_str(), upn).await.unwrap();
    let callback = reqwest::Url::parse(&callback).unwrap();
    let code = callback.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let http = reqwest::Client::builder()
        .proxy(reqwest::Proxy::all(app.emulator.proxy_url()).unwrap())
        .tls_certs_only([reqwest::Certificate::from_pem(app.emulator.ca_pem().as_bytes()).unwrap()])
        .build()
        .unwrap();
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", CLIENT_ID),
        ("client_secret", SECRET),
        ("redirect_uri", redirect),
        ("code", &code),
        ("scope", scope),
    ];
    let answer = http.post(format!("{login}/token")).form(&form).send().await.unwrap();
    let answer: serde_json::Value = answer.json().await.unwrap();
    answer["refresh_token"].as_str().expect("a refresh token").to_owned()
}

pub(crate) fn item(name: pb::ConnectionName, refresh_token: &str) -> pb::ImportItem {
    pb::ImportItem {
        connection: Some(name),
        refresh_token: refresh_token.to_owned(),
        ..pb::ImportItem::default()
    }
}

pub(crate) async fn import(
    client: &Client,
    items: Vec<pb::ImportItem>,
    replace: bool,
) -> Vec<pb::ImportResult> {
    let request =
        pb::ImportConnectionsRequest { account_id: "acme".into(), items, replace, actor: "ops".into() };
    client.connections().import_connections(request).await.unwrap().into_inner().results
}

/// The code and reason of the one result there is.
fn only(results: &[pb::ImportResult]) -> (Code, &str) {
    let [result] = results else { panic!("{results:?}") };
    (Code::from(result.code), &result.reason)
}

#[tokio::test]
async fn an_import_is_proven_by_a_refresh_and_then_released() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "svc@contoso.com").await;

    let results = import(&operator, vec![item(service_user(), &grant)], false).await;

    assert_eq!(only(&results), (Code::Ok, ""));
    assert_eq!(operator.connection().await.unwrap().state(), pb::ConnectionState::Imported);
    let token = operator.token().await.unwrap();
    assert_eq!(token.identity.unwrap().login, "svc@contoso.com");
    let connection = operator.connection().await.unwrap();
    assert_eq!(connection.state(), pb::ConnectionState::Connected);
    assert_eq!(connection.linked_by, "ops");
    assert_eq!(app.refreshes().len(), 1, "one refresh proved it and brought the token");
    let audit = app.files.audit();
    assert!(audit.iter().any(|line| line["act"] == "ImportConnections" && line["role"] == "service_user"));
    assert!(!format!("{audit:?}").contains(&grant));
}

#[tokio::test]
async fn an_import_that_nobody_asks_for_is_proven_all_the_same() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let grants = [
        grant_from_elsewhere(&app, "ana@contoso.com").await,
        grant_from_elsewhere(&app, "ben@contoso.com").await,
    ];
    let items = vec![item(developer("ana"), &grants[0]), item(developer("ben"), &grants[1])];

    import(&operator, items, false).await;

    app.tick_until(|| app.refreshes().len() == 2).await;
    assert_eq!(operator.token_of_developer("ana").await.unwrap().identity.unwrap().login, "ana@contoso.com");
    assert_eq!(operator.token_of_developer("ben").await.unwrap().identity.unwrap().login, "ben@contoso.com");
}

#[tokio::test]
async fn the_same_import_again_is_harmless_and_another_needs_replace() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let first = grant_from_elsewhere(&app, "svc@contoso.com").await;
    let second = grant_from_elsewhere(&app, "ana@contoso.com").await;
    import(&operator, vec![item(service_user(), &first)], false).await;
    operator.token().await.unwrap();

    // The grant was rotated since; the import is known all the same.
    let again = import(&operator, vec![item(service_user(), &first)], false).await;
    let other = import(&operator, vec![item(service_user(), &second)], false).await;

    assert_eq!(only(&again), (Code::Ok, ""));
    assert_eq!(only(&other), (Code::AlreadyExists, ""));
    assert_eq!(operator.token().await.unwrap().identity.unwrap().login, "svc@contoso.com");
    let replaced = import(&operator, vec![item(service_user(), &second)], true).await;
    assert_eq!(only(&replaced), (Code::Ok, ""));
    assert_eq!(operator.token().await.unwrap().identity.unwrap().login, "ana@contoso.com");
}

#[tokio::test]
async fn a_linked_connection_is_not_imported_over() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "ana@contoso.com").await;

    let results = import(&operator, vec![item(service_user(), &grant)], false).await;

    assert_eq!(only(&results), (Code::AlreadyExists, ""));
    assert_eq!(operator.token().await.unwrap().identity.unwrap().login, "svc@contoso.com");
}

/// P9: what a person ended does not come back because a script ran once more.
#[tokio::test]
async fn what_was_disconnected_does_not_come_back_by_the_same_import() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "svc@contoso.com").await;
    import(&operator, vec![item(service_user(), &grant)], false).await;
    operator.token().await.unwrap();
    operator.disconnect().await.unwrap();

    let results = import(&operator, vec![item(service_user(), &grant)], false).await;

    assert_eq!(only(&results), (Code::AlreadyExists, ""));
    assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
}

#[tokio::test]
async fn nor_does_it_after_a_person_linked_the_connection_anew() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "svc@contoso.com").await;
    import(&operator, vec![item(service_user(), &grant)], false).await;
    operator.token().await.unwrap();
    app.link("svc@contoso.com").await;
    operator.disconnect().await.unwrap();

    let results = import(&operator, vec![item(service_user(), &grant)], false).await;

    assert_eq!(only(&results), (Code::AlreadyExists, ""));
    assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
}

/// P4: what the proving refresh brought is sealed before anybody looks at it, and a restart goes on there.
#[tokio::test]
async fn a_proof_that_was_cut_off_goes_on_after_a_restart_and_spends_nothing() {
    let mut app = TestApp::start().await;
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "svc@contoso.com").await;
    import(&operator, vec![item(service_user(), &grant)], false).await;
    app.fault(Fault::DevopsOutage { status: None, count: Some(4) });
    assert_refused(operator.token().await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    app.emulator.clear_faults();

    app.restart().await;
    app.advance(Duration::from_mins(1));

    assert!(app.operator().await.token().await.is_ok());
    assert_eq!(app.refreshes().len(), 1);
}

#[tokio::test]
async fn a_revoked_grant_is_told_as_one() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "ana@contoso.com").await;
    app.fault(Fault::UserRevoke { upn: "ana@contoso.com".into() });
    import(&operator, vec![item(developer("ana"), &grant)], false).await;

    let refused = operator.token_of_developer("ana").await;

    assert_refused(refused, Code::FailedPrecondition, "RELINK_REQUIRED");
    app.link_developer("ana", "ana@contoso.com").await;
    assert!(operator.token_of_developer("ana").await.is_ok(), "linking anew mends it");
}

#[tokio::test]
async fn an_import_needs_its_permission_and_well_formed_items() {
    let app = TestApp::start().await;
    let ide = app.over_tls(IDE_BACKEND).await;
    let request = |items: Vec<pb::ImportItem>| pb::ImportConnectionsRequest {
        account_id: "acme".into(),
        items,
        ..pb::ImportConnectionsRequest::default()
    };
    let denied = ide.connections().import_connections(request(vec![item(service_user(), "t")])).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    let operator = app.operator().await;
    for (items, field) in [
        (vec![], "items"),
        (vec![item(service_user(), "t"); 21], "items"),
        (vec![item(service_user(), "t"), item(service_user(), "u")], "items"),
        (vec![item(service_user(), "")], "items.refresh_token"),
        (vec![item(service_user(), "a b")], "items.refresh_token"),
        (
            vec![pb::ImportItem { expected_object_id: "x".into(), ..item(service_user(), "t") }],
            "items.expected_object_id",
        ),
    ] {
        let answer = operator.connections().import_connections(request(items)).await;
        assert_invalid(answer.map(tonic::Response::into_inner), field);
    }
    app.assert_nothing_linked().await;
}
