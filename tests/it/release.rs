//! `GetServiceUserToken`: decided, recorded, released, and never withheld while a token is valid.

use std::collections::HashSet;
use std::time::Duration;

use azure_emulator::Fault;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{Client, IDE_BACKEND, TestApp, assert_invalid, assert_refused, reason_of};

/// Longer than any token of Entra lives.
const PAST_EXPIRY: Duration = Duration::from_hours(2);

/// Walk 1 of the architecture: socket and mTLS get the same token, Entra was asked once, at the link.
#[tokio::test]
async fn a_token_is_the_same_over_socket_and_mtls_and_costs_no_request() {
    let app = TestApp::linked().await;

    let by_socket = app.job_runner().await.token().await.unwrap();
    let by_tls = app.over_tls(IDE_BACKEND).await.token().await.unwrap();

    assert_eq!(by_socket.token_fingerprint, by_tls.token_fingerprint);
    assert_eq!(by_socket.token_type, "Bearer");
    assert_eq!(by_socket.scopes, ["499b84ac-1321-427f-aa17-267ca6975798/user_impersonation"]);
    let identity = by_socket.identity.unwrap();
    assert_eq!(
        (identity.login.as_str(), identity.display_name.as_str()),
        ("svc@contoso.com", "Service Account")
    );
    assert_eq!(identity.object_id, "aaaa0000-0000-4000-a000-000000000001");
    assert_eq!(app.requests_for_users().len(), 1);
    assert_eq!(app.exchanges()[0].at_issued.as_ref(), Some(&by_socket.token_fingerprint));
}

/// P3: one line for each release, in the file before the caller has the answer.
#[tokio::test]
async fn a_release_is_on_record_once_before_it_is_answered() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    for count in 1..=3 {
        let token = job.token().await.unwrap();

        let lines = app.released();
        assert_eq!(lines.len(), count);
        let line = lines.last().unwrap();
        assert_eq!(line["outcome"]["fingerprint"], token.token_fingerprint.as_str());
        assert_eq!((&line["act"], &line["account"]), (&"GetServiceUserToken".into(), &"acme".into()));
        assert!(line["by"].to_string().contains("socket:job-runner"), "{line}");
        assert!(!line.to_string().contains(&token.access_token));
    }
}

/// Design 6.4: tokens are sealed in the record, so that a restart is no storm.
#[tokio::test]
async fn a_restarted_broker_releases_the_token_it_has() {
    let mut app = TestApp::linked().await;
    let before = app.job_runner().await.token().await.unwrap();

    app.restart().await;

    let after = app.job_runner().await.token().await.unwrap();
    assert_eq!(after.token_fingerprint, before.token_fingerprint);
    assert_eq!(app.refreshes().len(), 0);
}

/// P5, F13: one request for all, whoever asks and over however many connections.
#[tokio::test]
async fn f13_five_hundred_callers_on_a_cold_cache_make_one_token_request() {
    let app = TestApp::linked().await;
    app.advance(PAST_EXPIRY);
    app.fault(Fault::EntraHold { count: None });
    let mut callers = JoinSet::new();
    for _ in 0..5 {
        let (socket, tls) = (app.job_runner().await, app.over_tls(IDE_BACKEND).await);
        for client in [socket, tls] {
            for _ in 0..50 {
                let client = client.clone();
                callers.spawn(async move { client.token().await.unwrap().token_fingerprint });
            }
        }
    }
    app.emulator.wait_held(1).await;
    app.emulator.release_held();

    let fingerprints = callers.join_all().await;
    assert_eq!(fingerprints.len(), 500);
    assert_eq!(fingerprints.into_iter().collect::<HashSet<_>>().len(), 1);
    assert_eq!(app.refreshes().len(), 1);
    assert_eq!(app.released().len(), 500);
}

/// P4: the refresh is finished by a task of ours.
#[tokio::test]
async fn a_caller_that_goes_away_mid_refresh_loses_nothing() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let before = operator.connection().await.unwrap().generation;
    app.advance(PAST_EXPIRY);
    app.fault(Fault::EntraHold { count: None });
    let job = app.job_runner().await;
    let caller = tokio::spawn(async move { job.token().await });
    app.emulator.wait_held(1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());

    app.emulator.release_held();

    let token = operator.token().await.unwrap();
    let refreshes = app.refreshes();
    assert_eq!(refreshes.len(), 1);
    assert_eq!(refreshes[0].at_issued, Some(token.token_fingerprint));
    assert!(before < operator.connection().await.unwrap().generation);
}

#[tokio::test]
async fn a_min_ttl_of_more_than_half_an_hour_or_less_than_none_is_invalid() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    assert!(job.token_lasting(Duration::from_mins(30)).await.is_ok());

    assert_invalid(job.token_lasting(Duration::from_secs(1801)).await, "min_ttl");
    assert_invalid(job.token_lasting(Duration::from_nanos(1_800_000_000_001)).await, "min_ttl");
    let negative = prost_types::Duration { seconds: -1, nanos: 0 };
    let request = azdo_broker::pb::GetServiceUserTokenRequest {
        account_id: "acme".into(),
        min_ttl: Some(negative),
        ..azdo_broker::pb::GetServiceUserTokenRequest::default()
    };
    assert_invalid(job.broker().get_service_user_token(request).await, "min_ttl");
}

/// P7: no answer has less life than was asked for.
#[tokio::test]
async fn a_token_is_refreshed_before_it_has_less_life_than_asked_for() {
    let app = TestApp::start().await;
    app.fault(Fault::ExpiresIn { seconds: 3600 });
    app.link("svc@contoso.com").await;
    let job = app.job_runner().await;
    let first = job.token_lasting(Duration::from_mins(30)).await.unwrap();
    app.fault(Fault::EntraHold { count: None });
    app.advance(Duration::from_secs(3600 - 1800 - 1));
    let same = job.token_lasting(Duration::from_mins(30)).await.unwrap();
    assert_eq!(same.token_fingerprint, first.token_fingerprint);
    app.emulator.release_held();

    app.advance(Duration::from_secs(1));

    let second = job.token_lasting(Duration::from_mins(30)).await.unwrap();
    let left = second.expires_at.unwrap().seconds - app.emulator.now().as_second();
    assert!(1800 < left, "{left}");
    assert_ne!(second.token_fingerprint, first.token_fingerprint);
}

#[tokio::test]
async fn a_min_ttl_that_no_token_reaches_costs_no_request() {
    let app = TestApp::start().await;
    app.fault(Fault::ExpiresIn { seconds: 600 });
    app.link("svc@contoso.com").await;
    let job = app.job_runner().await;

    let refused = job.token_lasting(Duration::from_mins(20)).await;

    let status = assert_refused(refused, Code::FailedPrecondition, "MIN_TTL_TOO_LONG");
    let details = status.get_error_details();
    let longest: u64 = details.error_info().unwrap().metadata["longest_ttl_s"].parse().unwrap();
    assert!((500..=600).contains(&longest), "{longest}");
    assert!(details.retry_info().is_none());
    assert_eq!(app.refreshes().len(), 0);
    // What it says can be had, can be had.
    assert!(job.token_lasting(Duration::from_secs(longest)).await.is_ok());
    assert_eq!(app.refreshes().len(), 0);
}

/// Still true when the token has expired since.
#[tokio::test]
async fn a_min_ttl_that_no_token_reaches_costs_no_request_on_a_cold_cache_either() {
    let app = TestApp::start().await;
    app.fault(Fault::ExpiresIn { seconds: 600 });
    app.link("svc@contoso.com").await;
    app.advance(Duration::from_secs(601));
    let job = app.job_runner().await;

    let refused = job.token_lasting(Duration::from_mins(20)).await;

    assert_refused(refused, Code::FailedPrecondition, "MIN_TTL_TOO_LONG");
    assert!(job.token().await.is_ok());
    assert_eq!(app.refreshes().len(), 1);
}

/// Asks as long as the token of an hour must do, then until the outage shows.
async fn read_through_an_outage(app: &TestApp, job: &Client) {
    let first = job.token().await.unwrap();
    for _ in 0..11 {
        app.advance(Duration::from_mins(4));
        assert_eq!(job.token().await.unwrap().token_fingerprint, first.token_fingerprint);
    }
    app.advance(Duration::from_mins(10));
    assert_eq!(job.token().await.unwrap().token_fingerprint, first.token_fingerprint);
    app.advance(Duration::from_mins(1));
}

/// Waits as each refusal says, as a well-behaved caller does.
async fn ask_again_when_told(app: &TestApp, job: &Client) {
    for _ in 0..5 {
        let Err(status) = job.token().await else { return };
        let details = status.get_error_details();
        app.advance(details.retry_info().unwrap().retry_delay.unwrap() + Duration::from_secs(1));
    }
    panic!("was refused again and again");
}

/// P6: an outage of Entra costs no read while the token has the asked-for life; then it says so, and
/// when it is over all resumes by itself.
#[tokio::test]
async fn an_outage_of_entra_costs_no_read_while_the_token_lasts() {
    let app = TestApp::start().await;
    app.fault(Fault::ExpiresIn { seconds: 3600 });
    app.link("svc@contoso.com").await;
    app.fault(Fault::EntraOutage { status: None, retry_after: None, count: None });
    let job = app.job_runner().await;

    read_through_an_outage(&app, &job).await;

    let refused = app.as_seconds_pass(job.token()).await;
    let status = assert_refused(refused, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
    app.emulator.clear_faults();
    ask_again_when_told(&app, &job).await;
    assert_eq!(app.operator().await.connection().await.unwrap().failure, None);
}

/// P6: reads never wait behind a refresh.
#[tokio::test]
async fn a_refresh_that_hangs_delays_no_read_of_a_valid_token() {
    let app = TestApp::start().await;
    app.fault(Fault::ExpiresIn { seconds: 3600 });
    app.link("svc@contoso.com").await;
    let job = app.job_runner().await;
    let first = job.token().await.unwrap();
    app.fault(Fault::EntraHang { count: None });
    app.advance(Duration::from_mins(31));
    app.tick_until(|| 0 < app.emulator.held()).await;

    let within = tokio::time::timeout(Duration::from_secs(2), job.token());

    assert_eq!(within.await.unwrap().unwrap().token_fingerprint, first.token_fingerprint);
}

/// Garbage from something between us and Entra is an outage, not a verdict.
#[tokio::test]
async fn a26_a_page_instead_of_a_token_is_an_outage_and_ends_nothing() {
    let app = TestApp::linked().await;
    app.advance(PAST_EXPIRY);
    app.fault(Fault::EntraHtml { count: Some(1) });
    let job = app.job_runner().await;
    let refused = job.token().await.unwrap_err();
    assert_eq!((refused.code(), reason_of(&refused)), (Code::Unavailable, "UPSTREAM_UNAVAILABLE".into()));

    app.advance(Duration::from_mins(1));

    assert!(job.token().await.is_ok());
}

#[tokio::test]
async fn an_account_that_was_never_linked_has_no_token() {
    let app = TestApp::start().await;
    let status = assert_refused(app.operator().await.token().await, Code::FailedPrecondition, "NOT_LINKED");
    let details = status.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    assert!(!metadata["who_acts"].is_empty() && !metadata["what_to_do"].is_empty());
    assert_eq!((app.devops_requests(), app.requests_for_users().len()), (0, 0));
}
