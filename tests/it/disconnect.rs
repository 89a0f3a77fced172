//! `Disconnect` and relinking, also while a refresh is in flight (design.md 6.2).

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::Fault;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::support::{TestApp, assert_refused};

const PAST_EXPIRY: Duration = Duration::from_hours(2);

type Asked = JoinHandle<Result<pb::GetServiceUserTokenResponse, Status>>;

/// Somebody waits for a refresh whose answer the emulator holds back; later requests it answers.
async fn refresh_in_flight(app: &TestApp) -> Asked {
    app.advance(PAST_EXPIRY);
    app.fault(Fault::EntraHold { count: Some(1) });
    let job = app.job_runner().await;
    let asked = tokio::spawn(async move { job.token().await });
    app.emulator.wait_held(1).await;
    asked
}

#[tokio::test]
async fn nothing_is_released_after_a_disconnect_until_somebody_links_again() {
    let app = TestApp::linked().await;
    let (operator, job) = (app.operator().await, app.job_runner().await);
    job.token().await.unwrap();

    let ended = operator.disconnect().await.unwrap();

    assert_eq!(ended.state(), pb::ConnectionState::Disconnected);
    assert_refused(job.token().await, Code::FailedPrecondition, "NOT_LINKED");
    let url = "https://dev.azure.com/contoso/website/_git/website";
    assert_refused(job.git(url).await, Code::FailedPrecondition, "NOT_LINKED");
    assert_refused(job.repos(false).await, Code::FailedPrecondition, "NOT_LINKED");
    assert_eq!(app.refreshes().len(), 0);
    app.link("ana@contoso.com").await;
    assert_eq!(job.token().await.unwrap().identity.unwrap().login, "ana@contoso.com");
}

#[tokio::test]
async fn a_disconnect_outlives_a_restart() {
    let mut app = TestApp::linked().await;
    app.operator().await.disconnect().await.unwrap();
    app.restart().await;
    assert_refused(app.job_runner().await.token().await, Code::FailedPrecondition, "NOT_LINKED");
}

#[tokio::test]
async fn disconnecting_twice_answers_the_same_tombstone() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let first = operator.disconnect().await.unwrap();
    assert_eq!(operator.disconnect().await.unwrap(), first);
    assert_eq!(operator.connection().await.unwrap(), first);
}

#[tokio::test]
async fn what_was_never_linked_is_not_disconnected() {
    let app = TestApp::start().await;
    let answer = app.operator().await.disconnect().await;
    assert_refused(answer, Code::FailedPrecondition, "NOT_LINKED");
}

/// P7: the token that was under way when the link ended is released to nobody.
#[tokio::test]
async fn a_disconnect_during_a_refresh_leaves_a_tombstone_and_releases_nothing() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let asked = refresh_in_flight(&app).await;
    let released = app.released().len();

    let tombstone = operator.disconnect().await.unwrap();
    app.emulator.release_held();

    assert_refused(asked.await.unwrap(), Code::FailedPrecondition, "NOT_LINKED");
    assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
    assert_eq!(operator.connection().await.unwrap(), tombstone);
    assert_eq!(app.released().len(), released);
}

/// P7: the grant of the old identity never stands under the new one's name.
#[tokio::test]
async fn a_relink_during_a_refresh_keeps_the_new_identitys_grant() {
    let app = TestApp::linked().await;
    let asked = refresh_in_flight(&app).await;

    let ana = app.link("ana@contoso.com").await;
    app.emulator.release_held();

    let waited = asked.await.unwrap().unwrap();
    assert_eq!(waited.identity.unwrap().login, "ana@contoso.com");
    let operator = app.operator().await;
    assert_eq!(operator.connection().await.unwrap().generation, ana.generation);
    app.advance(PAST_EXPIRY);
    let token = operator.token().await.unwrap();
    assert_eq!(token.identity.unwrap().login, "ana@contoso.com");
    let users: Vec<_> = app.refreshes().into_iter().map(|one| one.user_upn.unwrap()).collect();
    assert_eq!(users, ["svc@contoso.com", "ana@contoso.com"]);
}

#[tokio::test]
async fn a_disconnect_and_a_relink_during_a_refresh_keep_the_new_grant() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let asked = refresh_in_flight(&app).await;

    operator.disconnect().await.unwrap();
    let linked = app.link("svc@contoso.com").await;
    app.emulator.release_held();

    // Same person, but another grant: the token of the old one is nobody's.
    let held = app.refreshes()[0].at_issued.clone().unwrap();
    assert_ne!(asked.await.unwrap().unwrap().token_fingerprint, held);
    assert_ne!(operator.token().await.unwrap().token_fingerprint, held);
    assert_eq!(operator.connection().await.unwrap().generation, linked.generation);
    app.advance(PAST_EXPIRY);
    operator.token().await.unwrap();
    assert_eq!(app.refreshes().last().unwrap().rt_used, app.exchanges().last().unwrap().rt_issued);
}

/// Design 6.2: a tombstone's generation is not fallen below by a new link.
#[tokio::test]
async fn generations_only_grow() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let mut last = 0;
    for _ in 0..3 {
        let linked = app.link("svc@contoso.com").await.generation;
        app.advance(PAST_EXPIRY);
        operator.token().await.unwrap();
        let refreshed = operator.connection().await.unwrap().generation;
        let ended = operator.disconnect().await.unwrap().generation;
        assert!(last < linked && linked < refreshed && refreshed < ended);
        last = ended;
    }
}
