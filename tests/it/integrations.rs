//! `PutIntegration`, `GetIntegration`, `ListIntegrations`.

use std::time::Duration;

use azdo_broker::pb;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{CLIENT_ID, IDE_BACKEND, SECRET, TENANT, TestApp, assert_invalid, assert_refused};

fn list_request() -> pb::ListIntegrationsRequest {
    pb::ListIntegrationsRequest::default()
}

#[tokio::test]
async fn a_registration_is_answered_with_the_redirect_uris_to_register_at_entra() {
    let app = TestApp::empty().await;
    let operator = app.operator().await;

    let put = operator.put(app.registration()).await.unwrap();

    assert_eq!(
        (put.organization.as_str(), put.tenant_id.as_str(), put.client_id.as_str()),
        ("contoso", TENANT, CLIENT_ID)
    );
    assert_eq!(put.headless_identity(), pb::HeadlessIdentity::ServiceUser);
    let base = format!("http://localhost:{}/complete/azure_active_directory", app.links.port());
    let uris: Vec<_> = put.redirect_uris.iter().map(|one| (one.role(), one.uri.clone())).collect();
    let expected = [(pb::Role::ServiceUser, format!("{base}_service_user")), (pb::Role::Developer, base)];
    assert_eq!(uris, expected);
    let mut shown = operator.integration("acme").await.unwrap();
    // Its proof may have ended meanwhile.
    shown.client_credentials[0].proven_at = put.client_credentials[0].proven_at;
    assert_eq!(shown, put);
}

/// P1: a secret goes in and never comes out, in no form anybody could have asked for.
#[tokio::test]
async fn a_client_secret_is_never_shown_only_a_fingerprint_of_it() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let put = operator.put(app.registration()).await.unwrap();
    let got = operator.integration("acme").await.unwrap();
    let listed = operator.integrations().list_integrations(list_request()).await.unwrap().into_inner();
    let refused = operator.put(pb::PutIntegrationRequest { public_url: SECRET.into(), ..app.registration() });
    let refused = refused.await.unwrap_err();

    let audit = std::fs::read_to_string(app.files.path("audit.jsonl")).unwrap();
    let said = format!("{put:?}{got:?}{listed:?}{refused:?}{:?}{audit}", refused.get_error_details());
    let escaped: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    for form in [SECRET, &SECRET[..12], &escaped] {
        assert!(!said.contains(form), "{form}");
    }
    // The scan finds what is there.
    assert!(said.contains(CLIENT_ID));
    let shown = &got.client_credentials[0];
    assert!(!shown.fingerprint.is_empty() && shown.kind() == pb::ClientCredentialKind::Secret);
}

/// P1, T04: neither database nor write-ahead log nor audit holds a secret that opens anything.
#[tokio::test]
async fn a17_no_file_of_the_broker_holds_a_secret_in_the_clear() {
    let app = TestApp::linked().await;
    app.advance(Duration::from_hours(2));
    let token = app.job_runner().await.token().await.unwrap();
    let mut secrets = vec![SECRET.to_owned(), token.access_token];
    for request in app.emulator.token_requests() {
        secrets.extend(request.refresh_token);
        secrets.extend(request.access_token);
    }
    let pending = app.signed_in("ana@contoso.com").await;
    secrets.push(pending.callback.split("state=").nth(1).unwrap().to_owned());
    secrets.push(pending.browser.cookie.unwrap().split_once('=').unwrap().1.to_owned());

    let mut seen = Vec::new();
    for file in std::fs::read_dir(app.files.path("")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "sock") {
            seen.extend(std::fs::read(path).unwrap());
        }
    }
    let holds = |text: &str| seen.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("acme") && holds("SQLite format 3"), "the scan finds what is there");
    assert!(5 < secrets.len());
    for secret in &secrets {
        assert!(!holds(secret), "{secret:.20}");
    }
}

/// P1: sealed or not, what another app makes useless is in no file any more.
#[tokio::test]
async fn a18_the_credentials_of_the_app_before_are_gone_from_all_files() {
    let app = TestApp::start().await;
    let store = rusqlite::Connection::open(app.files.path("azdo-broker.db")).unwrap();
    let dropped: Vec<u8> = store
        .query_row("SELECT sealed FROM integrations WHERE account = 'acme'", [], |row| row.get(0))
        .unwrap();
    let is_there = || {
        let files = ["azdo-broker.db", "azdo-broker.db-wal"].map(|name| app.files.path(name));
        let mut seen = files.into_iter().map(|path| std::fs::read(path).unwrap_or_default());
        seen.any(|bytes| bytes.windows(64).any(|window| window == &dropped[..64]))
    };
    assert!(is_there(), "the scan finds what is there");
    let client_id = "ffffffff-0000-4000-a000-000000000001".into();

    app.operator().await.put(pb::PutIntegrationRequest { client_id, ..app.registration() }).await.unwrap();

    assert!(!is_there());
}

#[tokio::test]
async fn a_registration_without_a_secret_keeps_the_one_in_force() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let before = operator.integration("acme").await.unwrap();
    let unchanged = pb::PutIntegrationRequest { client_secret: String::new(), ..app.registration() };

    let after = operator.put(unchanged).await.unwrap();

    assert_eq!(after.client_credentials[0].fingerprint, before.client_credentials[0].fingerprint);
    app.advance(Duration::from_hours(2));
    assert!(operator.token().await.is_ok());
}

#[tokio::test]
async fn a_registration_without_a_client_credential_waits_for_one() {
    let app = TestApp::empty().await;
    let operator = app.operator().await;
    let request = pb::PutIntegrationRequest { client_secret: String::new(), ..app.registration() };
    let put = operator.put(request).await.unwrap();
    assert_eq!(put.warnings[0].code, "CLIENT_CREDENTIAL_REJECTED");
    assert_refused(operator.begin().await, Code::FailedPrecondition, "CLIENT_CREDENTIAL_REJECTED");
    operator.put(app.registration()).await.unwrap();
    operator.begin().await.unwrap();
}

/// A mistyped client id must not wipe the credentials of the right one.
#[tokio::test]
async fn another_app_registration_needs_a_secret_of_its_own() {
    let app = TestApp::start().await;
    let client_id = "20000000-0000-4000-a000-000000000002".into();
    let request = pb::PutIntegrationRequest { client_id, client_secret: String::new(), ..app.registration() };
    assert_invalid(app.operator().await.put(request).await, "client_secret");
}

/// Grants of another tenant or app would be worthless: refused, naming what is in the way.
#[tokio::test]
async fn tenant_and_client_id_do_not_change_under_a_live_connection() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let registered = operator.integration("acme").await.unwrap();
    let other = "20000000-0000-4000-a000-000000000002".to_owned();
    for request in [
        pb::PutIntegrationRequest { tenant_id: other.clone(), ..app.registration() },
        pb::PutIntegrationRequest { client_id: other.clone(), ..app.registration() },
    ] {
        let status = assert_refused(operator.put(request).await, Code::FailedPrecondition, "");
        assert!(status.message().contains("service_user"), "{}", status.message());
    }
    assert_eq!(operator.integration("acme").await.unwrap().tenant_id, registered.tenant_id);
    assert!(operator.token().await.is_ok());

    operator.disconnect().await.unwrap();
    let moved = pb::PutIntegrationRequest { tenant_id: other.clone(), ..app.registration() };
    assert_eq!(operator.put(moved).await.unwrap().tenant_id, other);
}

/// Design 4.2: a change of tenant or client id ends earlier links.
#[tokio::test]
async fn a_change_of_tenant_ends_links_that_are_under_way() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let (id, _) = app.verified("svc@contoso.com").await;
    let tenant_id = "20000000-0000-4000-a000-000000000002".into();
    operator.put(pb::PutIntegrationRequest { tenant_id, ..app.registration() }).await.unwrap();

    assert_refused(operator.confirm(&id).await, Code::FailedPrecondition, "LINK_EXPIRED");
    app.assert_nothing_linked().await;
}

#[tokio::test]
async fn a_public_url_that_browsers_cannot_be_sent_to_is_refused() {
    let app = TestApp::empty().await;
    let operator = app.operator().await;
    let long = format!("https://platform.example/{}", "x".repeat(300));
    for url in [
        "",
        "platform.example",
        "http://platform.example",
        "http://127.0.0.1:8080",
        "http://localhost.evil.test",
        "https://user:secret@platform.example",
        "https://platform.example/?x=1",
        "https://platform.example/#x",
        "javascript:alert(1)",
        "file:///etc/passwd",
        &long,
    ] {
        let request = pb::PutIntegrationRequest { public_url: url.into(), ..app.registration() };
        assert_invalid(operator.put(request).await, "public_url");
    }
    assert_refused(operator.integration("acme").await, Code::PermissionDenied, "");
}

#[tokio::test]
async fn malformed_names_of_a_registration_are_refused_by_their_field() {
    let app = TestApp::empty().await;
    let operator = app.operator().await;
    let long = "x".repeat(10_000);
    let good = app.registration();
    for (request, field) in [
        (pb::PutIntegrationRequest { organization: "../x".into(), ..good.clone() }, "organization"),
        (pb::PutIntegrationRequest { organization: long.clone(), ..good.clone() }, "organization"),
        (pb::PutIntegrationRequest { tenant_id: "contoso.com".into(), ..good.clone() }, "tenant_id"),
        (pb::PutIntegrationRequest { client_id: "' OR 1=1--".into(), ..good.clone() }, "client_id"),
        (pb::PutIntegrationRequest { client_secret: long, ..good.clone() }, "client_secret"),
        (pb::PutIntegrationRequest { account_id: "a b".into(), ..good.clone() }, "account_id"),
    ] {
        assert_invalid(operator.put(request).await, field);
    }
}

/// Lists show what the caller may see, page by page.
#[tokio::test]
async fn a_list_shows_each_caller_their_accounts() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    operator.put(app.registration_of("globex")).await.unwrap();

    let mut integrations = operator.integrations();
    let first =
        integrations.list_integrations(pb::ListIntegrationsRequest { page_size: 1, ..list_request() });
    let first = first.await.unwrap().into_inner();
    let next = pb::ListIntegrationsRequest { page_token: first.next_page_token.clone(), ..list_request() };
    let second = integrations.list_integrations(next).await.unwrap().into_inner();

    let accounts = |page: &pb::ListIntegrationsResponse| {
        page.integrations.iter().map(|one| one.account_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!((accounts(&first), accounts(&second)), (vec!["acme".into()], vec!["globex".into()]));
    assert_eq!(second.next_page_token, "");
    let denied = app.over_tls(IDE_BACKEND).await.integrations().list_integrations(list_request()).await;
    assert_eq!(denied.unwrap_err().code(), tonic::Code::PermissionDenied);
    let negative = pb::ListIntegrationsRequest { page_size: -1, ..list_request() };
    assert_invalid(integrations.list_integrations(negative).await, "page_size");
}

/// Design 4.1: a secret about to expire is a warning on every token, before it is a failure.
#[tokio::test]
async fn a_secret_that_expires_soon_is_a_warning() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let seconds = app.emulator.now().as_second() + 12 * 24 * 3600;
    let client_secret_expires_at = Some(prost_types::Timestamp { seconds, nanos: 0 });
    operator.put(pb::PutIntegrationRequest { client_secret_expires_at, ..app.registration() }).await.unwrap();

    let token = operator.token().await.unwrap();

    let warning = &token.warnings[0];
    assert!(warning.text.contains("12 days"), "{}", warning.text);
    assert_eq!(operator.connection().await.unwrap().warnings, token.warnings);
    assert_eq!(operator.integration("acme").await.unwrap().warnings, token.warnings);
    let shown = operator.integration("acme").await.unwrap().client_credentials.remove(0);
    assert_eq!(shown.expires_at.unwrap().seconds, seconds);
}
