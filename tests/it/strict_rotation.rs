//! Where each grant works once and a second use revokes all of its family: nothing is sent again that
//! may have been used, and what was lost is told as lost (design.md 6.6).

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::Fault;
use tonic::Code;

use crate::import::{grant_from_elsewhere, import, item};
use crate::support::{PATIENCE, TestApp, assert_refused, service_user};

const PAST_EXPIRY: Duration = Duration::from_hours(2);
const SVC: &str = "svc@contoso.com";

/// A broker that is told how its identity provider is, which is so.
async fn strict_and_not_linked() -> TestApp {
    let mut app = TestApp::start().await;
    app.files.entra_keys = "rotation = \"strict\"";
    app.restart().await;
    app.fault(Fault::StrictRotation {});
    app
}

/// The same with a service user whose token has run out.
pub(crate) async fn strict() -> TestApp {
    let app = strict_and_not_linked().await;
    app.link(SVC).await;
    app.advance(PAST_EXPIRY);
    app
}

/// The emulator refuses whoever comes with a used grant, and then all that came from it.
fn assert_no_grant_came_twice(app: &TestApp) {
    let used: Vec<_> = app.refreshes().into_iter().filter_map(|refresh| refresh.rt_used).collect();
    let different: std::collections::BTreeSet<_> = used.iter().collect();
    assert_eq!(different.len(), used.len(), "a grant was sent twice");
}

/// P4: each refresh spends the grant of the one before, over restarts too.
#[tokio::test]
async fn grants_that_work_once_are_each_used_once() {
    let mut app = strict().await;
    for _ in 0..3 {
        app.job_runner().await.token().await.unwrap();
        app.restart().await;
        app.advance(PAST_EXPIRY);
    }
    assert!(app.refreshes().iter().all(|refresh| refresh.outcome.is_ok()));
    assert_no_grant_came_twice(&app);
}

/// The connection breaks off under the answer that holds the next grant.
#[tokio::test]
async fn a_lost_answer_is_told_as_lost_and_its_grant_never_sent_again() {
    let mut app = strict().await;
    let (operator, job) = (app.operator().await, app.job_runner().await);
    app.fault(Fault::EntraCut { count: Some(1) });

    let status = assert_refused(job.token().await, Code::FailedPrecondition, "RELINK_REQUIRED");

    assert!(status.message().contains("was lost"), "{}", status.message());
    let lost = operator.connection().await.unwrap();
    assert_eq!(lost.state(), pb::ConnectionState::NeedsRelink);
    assert!(lost.failure.unwrap().message.contains("only once"));
    app.advance(Duration::from_hours(24 * 8));
    assert_refused(job.token().await, Code::FailedPrecondition, "RELINK_REQUIRED");
    app.restart().await;
    assert_refused(app.job_runner().await.token().await, Code::FailedPrecondition, "RELINK_REQUIRED");
    assert_eq!(app.refreshes().len(), 1, "nothing is sent again");

    app.link(SVC).await;
    app.advance(PAST_EXPIRY);
    app.job_runner().await.token().await.unwrap();
    assert_no_grant_came_twice(&app);
}

/// Whoever died over a refresh left a lease behind, which hides nothing once it ran out.
#[tokio::test]
async fn a_loss_is_listed_though_a_lease_was_left_behind() {
    let app = strict().await;
    let operator = app.operator().await;
    app.fault(Fault::EntraCut { count: Some(1) });
    assert_refused(operator.token().await, Code::FailedPrecondition, "RELINK_REQUIRED");
    app.edit_store(
        "UPDATE connections SET lease_holder = 'gone', lease_until = 1 WHERE role = ?1",
        "service_user",
    );

    let request = pb::ListConnectionsRequest { account_id: "acme".into(), ..Default::default() };
    let listed = operator.connections().list_connections(request).await.unwrap().into_inner();

    assert_eq!(listed.connections[0].state(), pb::ConnectionState::NeedsRelink);
}

/// Whoever waited goes away; the request is out, and what it brings is kept (P4).
#[tokio::test]
async fn a_grant_that_hangs_at_entra_is_sent_once_though_nobody_waits_for_it() {
    let app = strict().await;
    app.fault(Fault::EntraHang { count: Some(1) });
    let job = app.job_runner().await;
    let waiting = tokio::spawn({
        let job = job.clone();
        async move { job.token().await }
    });
    app.emulator.wait_held(1).await;
    waiting.abort();

    app.emulator.release_held();

    job.token().await.unwrap();
    assert_eq!(app.refreshes().len(), 1);
    assert_no_grant_came_twice(&app);
}

/// Nobody knows whether it was heard; a real deadline passes here.
#[tokio::test]
async fn a_grant_that_entra_never_answers_is_lost() {
    let app = strict().await;
    app.fault(Fault::EntraHang { count: None });
    let (operator, job) = (app.operator().await, app.job_runner().await);
    // As long as a caller waits, the broker waits for Entra.
    assert_refused(job.token().await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");

    let state = async || operator.connection().await.unwrap().state();
    let told = async { while state().await != pb::ConnectionState::NeedsRelink {} };
    tokio::time::timeout(PATIENCE, told).await.unwrap();

    let status = assert_refused(job.token().await, Code::FailedPrecondition, "RELINK_REQUIRED");
    assert!(status.message().contains("was lost"), "{}", status.message());
    app.emulator.release_held();
    app.advance(Duration::from_hours(24 * 8));
    assert_refused(job.token().await, Code::FailedPrecondition, "RELINK_REQUIRED");
    assert!(app.refreshes().len() <= 1, "nothing is sent again");
}

/// What the proof's refresh brought is kept while the membership cannot be asked.
#[tokio::test]
async fn the_proof_of_an_import_sends_its_grant_once_however_often_it_is_interrupted() {
    let mut app = strict_and_not_linked().await;
    let grant = grant_from_elsewhere(&app, SVC).await;
    import(&app.operator().await, vec![item(service_user(), &grant)], false).await;
    app.fault(Fault::DevopsOutage { status: Some(503), count: Some(2) });
    for _ in 0..2 {
        let answer = app.operator().await.token().await;
        assert_refused(answer, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        app.restart().await;
        app.advance(Duration::from_mins(11));
    }

    let token = app.operator().await.token().await.unwrap();

    assert_eq!(token.identity.unwrap().login, SVC);
    assert_eq!(app.refreshes().len(), 1, "one refresh proved it");
    assert_no_grant_came_twice(&app);
}

#[tokio::test]
async fn an_import_whose_proof_was_lost_is_told_as_lost_and_not_tried_again() {
    let app = strict_and_not_linked().await;
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, SVC).await;
    import(&operator, vec![item(service_user(), &grant)], false).await;
    app.fault(Fault::EntraCut { count: Some(1) });

    assert_refused(operator.token().await, Code::FailedPrecondition, "RELINK_REQUIRED");

    assert_eq!(operator.connection().await.unwrap().state(), pb::ConnectionState::NeedsRelink);
    app.advance(Duration::from_hours(24 * 8));
    assert_refused(operator.token().await, Code::FailedPrecondition, "RELINK_REQUIRED");
    assert_eq!(app.refreshes().len(), 1, "nothing is sent again");
}

/// A gateway that heard nothing may have been heard itself.
#[tokio::test]
async fn an_answer_that_a_gateway_did_not_get_is_lost_too() {
    for status in [502, 504] {
        let app = strict().await;
        app.fault(Fault::EntraOutage { status: Some(status), retry_after: None, count: Some(1) });
        let answer = app.job_runner().await.token().await;
        assert_refused(answer, Code::FailedPrecondition, "RELINK_REQUIRED");
        assert_eq!(app.refreshes().len(), 1);
    }
}

/// Who answers that there is no token has used no grant up: all goes on, and nobody need act.
#[tokio::test]
async fn an_answer_that_refuses_loses_nothing() {
    let faults = [
        Fault::EntraOutage { status: Some(503), retry_after: Some(1), count: Some(1) },
        Fault::EntraThrottle { retry_after: Some(1), count: Some(1) },
        Fault::EntraHtml { count: Some(1) },
    ];
    for fault in faults {
        let app = strict().await;
        let which = format!("{fault:?}");
        app.fault(fault);
        let job = app.job_runner().await;
        assert!(job.token().await.is_err(), "{which}");
        let state = app.operator().await.connection().await.unwrap().state();
        assert_eq!(state, pb::ConnectionState::Failing, "{which}");

        app.advance(Duration::from_mins(11));

        assert!(job.token().await.is_ok(), "{which}");
        let state = app.operator().await.connection().await.unwrap().state();
        assert_eq!(state, pb::ConnectionState::Connected, "{which}");
    }
}

/// While Entra is asked the connection is as good as before, whatever its row foresees.
#[tokio::test]
async fn a_loss_that_is_only_foreseen_is_shown_to_nobody() {
    let app = strict().await;
    let (operator, job) = (app.operator().await, app.job_runner().await);
    app.fault(Fault::EntraHold { count: Some(1) });
    let waiting = tokio::spawn(async move { job.token().await });
    app.emulator.wait_held(1).await;

    let meanwhile = operator.connection().await.unwrap();

    assert_eq!((meanwhile.state(), meanwhile.failure), (pb::ConnectionState::Connected, None));
    app.emulator.release_held();
    waiting.await.unwrap().unwrap();
    let after = operator.connection().await.unwrap();
    assert_eq!((after.state(), after.failure), (pb::ConnectionState::Connected, None));
}

/// P6: a token that is held is released as long as it lasts, with a warning.
#[tokio::test]
async fn a_token_outlives_the_grant_that_was_lost() {
    let app = strict().await;
    app.fault(Fault::ExpiresIn { seconds: 3600 });
    let job = app.job_runner().await;
    let token = job.token().await.unwrap();
    app.fault(Fault::EntraCut { count: None });
    let answer = job.token_lasting(Duration::from_mins(30)).await.unwrap();
    assert_eq!(answer.token_fingerprint, token.token_fingerprint);
    app.advance(Duration::from_mins(40));
    assert_refused(
        job.token_lasting(Duration::from_mins(30)).await,
        Code::FailedPrecondition,
        "RELINK_REQUIRED",
    );

    let still = job.token().await.unwrap();

    assert_eq!(still.token_fingerprint, token.token_fingerprint);
    assert_eq!(still.warnings[0].code, "REFRESH_FAILING");
}

/// Where a used grant goes on working nobody has to act: the same is simply asked again.
#[tokio::test]
async fn as_entra_does_it_a_lost_answer_costs_nothing() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    app.advance(PAST_EXPIRY);
    app.fault(Fault::EntraCut { count: Some(1) });
    app.as_seconds_pass(job.token()).await.unwrap();
    assert_eq!(app.refreshes()[0].rt_used, app.refreshes()[1].rt_used);
}
