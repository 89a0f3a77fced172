//! `CheckIntegration`: what is wrong with an account, line by line, and who mends it.

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::{Change, Fault, World};
use tonic::Code;

use crate::support::{CLIENT_ID, IDE_BACKEND, STRANGER, TestApp, assert_refused};

async fn check(app: &TestApp) -> Vec<pb::Check> {
    app.advance(Duration::from_secs(61));
    let request = pb::CheckIntegrationRequest { account_id: "acme".into(), actor: "ops".into() };
    app.operator().await.integrations().check_integration(request).await.unwrap().into_inner().checks
}

#[track_caller]
fn assert_found(checks: &[pb::Check], name: &str, outcome: pb::CheckOutcome, words: &str) {
    let check =
        checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no {name}: {checks:?}"));
    assert_eq!(check.outcome(), outcome, "{check:?}");
    assert!(check.message.contains(words), "{check:?}");
}

#[tokio::test]
async fn all_is_well_with_a_linked_account_and_a_real_refresh_shows_it() {
    let app = TestApp::linked().await;
    let checks = check(&app).await;
    for name in [
        "store",
        "entra",
        "tenant",
        "client_credential",
        "organization",
        "directory",
        "service_user",
        "membership",
        "repositories",
    ] {
        assert_found(&checks, name, pb::CheckOutcome::Passed, "");
    }
    assert_found(
        &checks,
        "redirect_uris",
        pb::CheckOutcome::Skipped,
        "/complete/azure_active_directory_service_user",
    );
    assert_eq!(app.refreshes().len(), 1);
    assert!(!checks.iter().any(|check| check.message.contains("emu8Q")), "no secret is in it");
}

#[tokio::test]
async fn an_account_that_nobody_linked_is_told_so_and_what_follows_is_skipped() {
    let app = TestApp::start().await;
    let checks = check(&app).await;
    assert_found(&checks, "service_user", pb::CheckOutcome::Failed, "is not linked");
    assert_found(&checks, "membership", pb::CheckOutcome::Skipped, "");
    assert_found(&checks, "client_credential", pb::CheckOutcome::Passed, "accepts");
}

#[tokio::test]
async fn a_tenant_and_an_organization_that_do_not_exist_are_told() {
    let app = TestApp::empty().await;
    let wrong = pb::PutIntegrationRequest {
        tenant_id: "99999999-0000-4000-a000-000000000009".into(),
        organization: "nowhere".into(),
        ..app.registration()
    };
    app.operator().await.put(wrong).await.unwrap();
    let checks = check(&app).await;
    assert_found(&checks, "tenant", pb::CheckOutcome::Failed, "Directory (tenant) ID");
    assert_found(&checks, "organization", pb::CheckOutcome::Failed, "correct the name");
}

#[tokio::test]
async fn an_expired_secret_is_told_with_its_fingerprint_and_remedy() {
    let app = TestApp::linked().await;
    app.fault(Fault::SecretExpire { client_id: CLIENT_ID.into() });
    let checks = check(&app).await;
    assert_found(&checks, "client_credential", pb::CheckOutcome::Failed, "has expired");
    assert_found(&checks, "service_user", pb::CheckOutcome::Failed, "");
}

#[tokio::test]
async fn an_organization_of_another_tenant_is_told_by_its_challenge() {
    let app = TestApp::linked().await;
    let tenant = Some("fabrikam.com".to_owned());
    app.change(Change::Connect { organization: "contoso".into(), tenant });
    let checks = check(&app).await;
    assert_found(&checks, "directory", pb::CheckOutcome::Failed, "20000000-0000-4000-a000-000000000002");
}

#[tokio::test]
async fn an_organization_of_no_tenant_is_told() {
    let app = TestApp::linked().await;
    app.change(Change::Connect { organization: "contoso".into(), tenant: None });
    let checks = check(&app).await;
    assert_found(&checks, "directory", pb::CheckOutcome::Failed, "must connect the directory");
}

#[tokio::test]
async fn a_service_user_who_was_removed_from_the_organization_is_told() {
    let app = TestApp::linked().await;
    let user = "svc@contoso.com".to_owned();
    app.change(Change::RemoveMember { organization: "contoso".into(), user });
    let checks = check(&app).await;
    assert_found(&checks, "membership", pb::CheckOutcome::Failed, "must add this identity");
}

#[tokio::test]
async fn a_service_user_without_repositories_is_warned_of() {
    let mut world = World::example();
    world.organizations[0].projects.clear();
    let app = TestApp::linked_in(world).await;
    let checks = check(&app).await;
    assert_found(&checks, "repositories", pb::CheckOutcome::Warned, "Basic");
}

#[tokio::test]
async fn missing_consent_is_told() {
    let app = TestApp::linked().await;
    app.fault(Fault::ConsentDelete { upn: "svc@contoso.com".into() });
    let checks = check(&app).await;
    assert_found(&checks, "service_user", pb::CheckOutcome::Failed, "consent");
}

#[tokio::test]
async fn an_account_is_checked_once_a_minute_and_only_for_whom_may_read_it() {
    let app = TestApp::linked().await;
    check(&app).await;
    let request = || pb::CheckIntegrationRequest { account_id: "acme".into(), ..Default::default() };
    let again = app.operator().await.integrations().check_integration(request()).await;
    assert_refused(again.map(tonic::Response::into_inner), Code::ResourceExhausted, "RATE_LIMITED");
    for caller in [IDE_BACKEND, STRANGER] {
        let denied = app.over_tls(caller).await.integrations().check_integration(request()).await;
        assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    }
}
