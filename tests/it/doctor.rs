//! `CheckIntegration`: what is wrong with an account, line by line, and who mends it.

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::{Change, Fault, Repository, World};
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
        "key",
        "entra",
        "clock",
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

/// An account whose service user sees repositories that were all changed so.
async fn with_all_repositories(change: impl Fn(&mut Repository)) -> TestApp {
    let mut world = World::example();
    let projects = world.organizations[0].projects.iter_mut();
    projects.flat_map(|project| &mut project.repositories).for_each(change);
    TestApp::linked_in(world).await
}

#[tokio::test]
async fn repositories_that_are_all_disabled_are_warned_of() {
    let app = with_all_repositories(|repository| repository.disabled = true).await;
    let words = "all of them disabled";
    assert_found(&check(&app).await, "repositories", pb::CheckOutcome::Warned, words);
}

#[tokio::test]
async fn repositories_that_are_seen_and_not_read_are_warned_of() {
    let app =
        with_all_repositories(|repository| repository.denied_read = vec!["svc@contoso.com".into()]).await;
    let words = "may read none of the";
    assert_found(&check(&app).await, "repositories", pb::CheckOutcome::Warned, words);
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_warned_of() {
    let app = TestApp::linked().await;
    app.emulator.advance(Duration::from_mins(4));
    assert_found(&check(&app).await, "clock", pb::CheckOutcome::Warned, "240 s apart");
}

#[tokio::test]
async fn an_entra_that_does_not_answer_is_told_and_what_it_would_tell_is_skipped() {
    let app = TestApp::linked().await;
    app.fault(Fault::DiscoveryOutage { count: None });
    let checks = check(&app).await;
    assert_found(&checks, "entra", pb::CheckOutcome::Failed, "the operator must look at proxy");
    assert_found(&checks, "clock", pb::CheckOutcome::Skipped, "");
    assert_found(&checks, "tenant", pb::CheckOutcome::Skipped, "");
    assert_eq!(checks.iter().find(|check| check.name == "entra").unwrap().reason, "UPSTREAM_UNAVAILABLE");
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_told() {
    let app = TestApp::linked().await;
    let trigger = "CREATE TRIGGER full BEFORE UPDATE ON store BEGIN SELECT RAISE(FAIL, 'full'); END";
    rusqlite::Connection::open(app.files.path("azdo-broker.db")).unwrap().execute(trigger, []).unwrap();
    assert_found(&check(&app).await, "store", pb::CheckOutcome::Failed, "The operator must make the store");
}

#[tokio::test]
async fn a_key_of_more_than_a_year_is_warned_of() {
    let mut app = TestApp::linked().await;
    let key = std::fs::File::options().write(true).open(app.files.path("azdo-broker.key")).unwrap();
    // The clock of the tests begins with 2026.
    let in_2024 = std::time::UNIX_EPOCH + Duration::from_hours(54 * 365 * 24 + 24 * 30);
    key.set_modified(in_2024).unwrap();
    app.restart().await;
    assert_found(&check(&app).await, "key", pb::CheckOutcome::Warned, "plan a new one");
}

/// P8: a check is no way around the pace of the identity in whose name it asks.
#[tokio::test]
async fn a_throttled_identity_is_not_asked_for_by_a_check_either() {
    let app = TestApp::linked().await;
    app.fault(Fault::DevopsThrottle { retry_after: Some(300), delayed: false, count: Some(1) });
    assert!(app.job_runner().await.repos(false).await.is_err());
    let asked = || {
        let requests = app.emulator.requests().into_iter();
        requests.filter(|one| one.host == "dev.azure.com" && one.authorization.is_some()).count()
    };
    let before = asked();

    let checks = check(&app).await;

    assert_found(&checks, "membership", pb::CheckOutcome::Failed, "does not tell now");
    assert_found(&checks, "repositories", pb::CheckOutcome::Skipped, "");
    assert_eq!(asked(), before, "it was asked all the same");
}

/// P4: a check that sees Entra accept a rejected secret is as good as the probe that is due in a while.
#[tokio::test]
async fn a_check_that_sees_a_rejected_secret_accepted_lets_releases_resume_at_once() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    app.advance(Duration::from_hours(2));
    let rejected = Fault::EntraError {
        code: 7_000_215,
        error: Some("invalid_client".into()),
        suberror: None,
        claims: None,
        http: Some(401),
        count: Some(1),
    };
    app.fault(rejected);
    assert_refused(job.token().await, Code::FailedPrecondition, "CLIENT_CREDENTIAL_REJECTED");

    let checks = check(&app).await;

    assert_found(&checks, "client_credential", pb::CheckOutcome::Passed, "accepts it");
    assert_found(&checks, "service_user", pb::CheckOutcome::Passed, "");
    job.token().await.unwrap();
    let credential = app.operator().await.integration("acme").await.unwrap().client_credentials.remove(0);
    assert!(credential.rejected_at.is_none());
}
