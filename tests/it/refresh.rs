//! Refreshes: in the background when due, by one grant after the other, and what refusals come to.

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::{Change, Fault};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{CLIENT_ID, PATIENCE, TestApp, assert_refused};

const PAST_EXPIRY: Duration = Duration::from_hours(2);

/// Linked with tokens of exactly one hour.
async fn linked_with_hours() -> TestApp {
    let app = TestApp::start().await;
    app.fault(Fault::ExpiresIn { seconds: 3600 });
    app.link("svc@contoso.com").await;
    app
}

/// Design 6.5: a used connection is refreshed at half life, before anybody has to wait.
#[tokio::test]
async fn a_used_connection_is_refreshed_in_the_background_at_half_life() {
    let app = linked_with_hours().await;
    let job = app.job_runner().await;
    let first = job.token().await.unwrap();
    app.advance(Duration::from_mins(23));
    assert_eq!(job.token().await.unwrap().token_fingerprint, first.token_fingerprint);
    assert_eq!(app.refreshes().len(), 0);

    app.advance(Duration::from_mins(8));
    app.tick_until(|| app.refreshes().len() == 1).await;

    let refreshed =
        async { while job.token().await.unwrap().token_fingerprint == first.token_fingerprint {} };
    tokio::time::timeout(PATIENCE, refreshed).await.unwrap();
    assert_eq!(app.refreshes().len(), 1);
}

/// Only use makes a refresh due early: `globex` is used, `acme` is not. Each week keeps the 90 days open.
#[tokio::test]
async fn an_unused_connection_is_not_refreshed_before_its_week() {
    let app = linked_with_hours().await;
    let operator = app.operator().await;
    operator.put(app.registration_of("globex")).await.unwrap();
    app.link_of("globex", "ana@contoso.com").await;
    operator.token_of("globex", None).await.unwrap();

    app.advance(Duration::from_mins(31));
    app.tick_until(|| !app.refreshes().is_empty()).await;
    app.advance(Duration::from_hours(5 * 24));
    operator.token_of("globex", None).await.unwrap();
    assert!(app.refreshes().iter().all(|one| one.user_upn.as_deref() == Some("ana@contoso.com")));

    app.advance(Duration::from_hours(3 * 24));
    let is_svc = |upn: &Option<String>| upn.as_deref() == Some("svc@contoso.com");
    app.tick_until(|| app.refreshes().iter().any(|one| is_svc(&one.user_upn))).await;
}

/// P4: each refresh spends the grant of the one before.
#[tokio::test]
async fn each_refresh_spends_the_newest_grant() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    for _ in 0..4 {
        app.advance(PAST_EXPIRY);
        job.token().await.unwrap();
    }
    let chain = app.requests_for_users();
    assert_eq!(chain.len(), 5);
    for pair in chain.windows(2) {
        assert_eq!(pair[1].rt_used, pair[0].rt_issued);
    }
}

/// F09: an answer without a refresh token leaves the old one in force.
#[tokio::test]
async fn a26_an_answer_without_a_new_grant_keeps_the_old_one() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    app.fault(Fault::NoRefreshToken { count: Some(1) });
    for _ in 0..2 {
        app.advance(PAST_EXPIRY);
        job.token().await.unwrap();
    }
    let refreshes = app.refreshes();
    assert_eq!(refreshes[0].rt_issued, None);
    assert_eq!(refreshes[1].rt_used, refreshes[0].rt_used);
}

#[tokio::test]
async fn a26_a_lifetime_written_as_text_is_understood() {
    let app = TestApp::start().await;
    app.fault(Fault::ExpiresIn { seconds: 3600 });
    app.fault(Fault::ExpiresInText {});
    app.link("svc@contoso.com").await;
    let token = app.job_runner().await.token().await.unwrap();
    assert_eq!(token.expires_at.unwrap().seconds, app.emulator.now().as_second() + 3600);
}

/// P4: a bad client secret ends no link; it is told whose turn it is, and all resumes by itself.
#[tokio::test]
async fn an_expired_client_secret_is_reported_and_a_new_one_mends_all() {
    let app = TestApp::linked().await;
    let (operator, job) = (app.operator().await, app.job_runner().await);
    app.advance(PAST_EXPIRY);
    app.fault(Fault::SecretExpire { client_id: CLIENT_ID.into() });

    let status = assert_refused(job.token().await, Code::FailedPrecondition, "CLIENT_CREDENTIAL_REJECTED");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["who_acts"], "whoever registers integrations");
    assert!(!details.help().unwrap().links.is_empty());
    let connection = operator.connection().await.unwrap();
    assert_eq!(connection.state(), pb::ConnectionState::Failing);
    assert_eq!(connection.failure.unwrap().reason, "CLIENT_CREDENTIAL_REJECTED");

    app.change(Change::AddSecret { client_id: CLIENT_ID.into(), value: "new~secret.of+acme".into() });
    let renewed =
        pb::PutIntegrationRequest { client_secret: "new~secret.of+acme".into(), ..app.registration() };
    operator.put(renewed).await.unwrap();
    assert_eq!(job.token().await.unwrap().identity.unwrap().login, "svc@contoso.com");
    assert_eq!(operator.connection().await.unwrap().state(), pb::ConnectionState::Connected);
    assert_eq!(app.exchanges().len(), 1);
}

/// P6: while the token lasts nobody notices a bad secret but the operator.
#[tokio::test]
async fn an_expired_client_secret_takes_no_valid_token_away() {
    let app = linked_with_hours().await;
    let job = app.job_runner().await;
    let first = job.token().await.unwrap();
    app.fault(Fault::SecretExpire { client_id: CLIENT_ID.into() });
    app.advance(Duration::from_mins(31));
    app.tick_until(|| !app.refreshes().is_empty()).await;

    assert_eq!(job.token().await.unwrap().token_fingerprint, first.token_fingerprint);
}

#[tokio::test]
async fn a_rejected_secret_is_not_tried_by_every_caller() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    app.advance(PAST_EXPIRY);
    app.fault(Fault::SecretExpire { client_id: CLIENT_ID.into() });
    for _ in 0..20 {
        assert_refused(job.token().await, Code::FailedPrecondition, "CLIENT_CREDENTIAL_REJECTED");
        app.advance(Duration::from_secs(10));
    }
    assert_eq!(app.refreshes().len(), 1);
}

#[tokio::test]
async fn a_revoked_user_must_link_again_and_that_mends_it() {
    let app = TestApp::linked().await;
    let (operator, job) = (app.operator().await, app.job_runner().await);
    app.advance(PAST_EXPIRY);
    app.fault(Fault::UserRevoke { upn: "svc@contoso.com".into() });

    let status = assert_refused(job.token().await, Code::FailedPrecondition, "RELINK_REQUIRED");
    assert_eq!(status.get_error_details().error_info().unwrap().metadata["who_acts"], "the linked person");
    // Kept, with who it was, until a person acts; and not asked about again.
    let connection = operator.connection().await.unwrap();
    assert_eq!(connection.state(), pb::ConnectionState::NeedsRelink, "at once: the code is unmistakable");
    assert_eq!(connection.identity.unwrap().login, "svc@contoso.com");
    app.advance(Duration::from_hours(24));
    assert_refused(job.token().await, Code::FailedPrecondition, "RELINK_REQUIRED");
    assert_eq!(app.refreshes().len(), 1);

    app.link("svc@contoso.com").await;
    assert!(job.token().await.is_ok());
    assert_eq!(operator.connection().await.unwrap().failure, None);
}

/// A moment of outage costs a caller a second, not the call (azure.md 1.10).
#[tokio::test]
async fn a_refresh_that_meets_a_moment_of_outage_is_sent_once_more_within_the_call() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    app.advance(PAST_EXPIRY);
    app.fault(Fault::EntraOutage { status: Some(503), retry_after: None, count: Some(1) });

    app.as_seconds_pass(job.token()).await.unwrap();

    let refreshes = app.refreshes();
    assert_eq!((refreshes.len(), &refreshes[0].rt_used), (2, &refreshes[1].rt_used));
    let waited = refreshes[1].time.as_second() - refreshes[0].time.as_second();
    assert!(1 <= waited, "{waited} s");
    assert_eq!(app.operator().await.connection().await.unwrap().failure, None);
}

/// Once: the next attempt is the refresher's, after a pause.
#[tokio::test]
async fn an_outage_that_lasts_or_tells_its_wait_is_not_asked_again_within_the_call() {
    for (retry_after, requests) in [(None, 2), (Some(3), 1)] {
        let app = TestApp::linked().await;
        let job = app.job_runner().await;
        app.advance(PAST_EXPIRY);
        app.fault(Fault::EntraOutage { status: Some(503), retry_after, count: None });

        let refused = app.as_seconds_pass(job.token()).await;

        let status = assert_refused(refused, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        assert!(status.get_error_details().retry_info().is_some());
        assert_eq!(app.refreshes().len(), requests);
    }
}

/// Finding 2, design 6.7: throttling that looks like a refused grant is throttling.
#[tokio::test]
async fn throttling_that_looks_like_a_refused_grant_ends_nothing() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    app.advance(PAST_EXPIRY);
    app.fault(Fault::next_error(50_196));

    let status = assert_refused(job.token().await, Code::Unavailable, "UPSTREAM_THROTTLED");

    assert!(status.get_error_details().retry_info().is_some());
    app.advance(Duration::from_mins(10));
    assert!(job.token().await.is_ok());
}

/// Design 6.7: a refusal that may be a mistake is asked again, minutes apart, before anybody must act.
#[tokio::test]
async fn a_refused_grant_is_believed_only_the_second_time() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    app.advance(PAST_EXPIRY);
    let (error, suberror, claims, http) = (Some("invalid_grant".to_owned()), None, None, None);
    app.fault(Fault::EntraError { code: 70_000, error, suberror, claims, http, count: Some(2) });

    assert_refused(job.token().await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    assert_refused(job.token().await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    assert_eq!(app.refreshes().len(), 1);
    let operator = app.operator().await;
    assert_eq!(operator.connection().await.unwrap().state(), pb::ConnectionState::Failing, "not yet sure");
    app.advance(Duration::from_mins(6));

    assert_refused(job.token().await, Code::FailedPrecondition, "RELINK_REQUIRED");
    assert_eq!(operator.connection().await.unwrap().state(), pb::ConnectionState::NeedsRelink);
    assert_eq!(app.refreshes().len(), 2);
}

/// A23: nothing of Entra's text reaches a caller or the audit.
#[tokio::test]
async fn a23_an_answer_names_entras_code_and_none_of_its_text() {
    let app = TestApp::linked().await;
    app.advance(PAST_EXPIRY);
    app.fault(Fault::next_error(53_003));

    let status = assert_refused(
        app.job_runner().await.token().await,
        Code::FailedPrecondition,
        "ADMIN_ACTION_REQUIRED",
    );

    assert_eq!(status.get_error_details().error_info().unwrap().metadata["entra_code"], "AADSTS53003");
    for text in ["Trace ID", "Correlation ID", "Due to a configuration"] {
        assert!(!status.message().contains(text), "{}", status.message());
    }
    app.advance(Duration::from_mins(16));
    assert!(app.job_runner().await.token().await.is_ok());
}

#[tokio::test]
async fn a_reported_token_is_replaced_once_a_minute_and_an_unknown_one_never() {
    let app = TestApp::linked().await;
    let (operator, job) = (app.operator().await, app.job_runner().await);
    let first = job.token().await.unwrap();

    operator.report(&"0".repeat(32)).await.unwrap();
    job.report(&first.token_fingerprint).await.unwrap();
    operator.report(&first.token_fingerprint).await.unwrap();
    app.tick_until(|| app.refreshes().len() == 1).await;

    let replaced = async { while job.token().await.unwrap().token_fingerprint == first.token_fingerprint {} };
    tokio::time::timeout(PATIENCE, replaced).await.unwrap();
    job.report(&first.token_fingerprint).await.unwrap();
    assert!(job.token().await.is_ok());
    assert_eq!(app.refreshes().len(), 1);
}
