//! Stopping an account, moving it by force, deleting it.

use std::time::Duration;

use azdo_broker::pb;
use tonic::Code;

use crate::support::{SECRET, TestApp, assert_refused, developer};

fn suspend() -> pb::SuspendRequest {
    pb::SuspendRequest { account_id: "acme".into(), note: "unpaid".into(), actor: "olga".into() }
}

fn resume() -> pb::ResumeRequest {
    pb::ResumeRequest { account_id: "acme".into(), actor: "olga".into() }
}

/// Releases and lists stop; refreshes go on, so that nothing is lost; a restart changes nothing.
#[tokio::test]
async fn a_suspended_account_gets_nothing_and_loses_nothing() {
    let mut app = TestApp::linked().await;
    let (operator, job) = (app.operator().await, app.job_runner().await);
    job.token().await.unwrap();

    let suspended = operator.integrations().suspend(suspend()).await.unwrap().into_inner();

    let suspension = suspended.suspension.unwrap();
    assert_eq!((suspension.actor.as_str(), suspension.note.as_str()), ("olga", "unpaid"));
    assert_refused(job.token().await, Code::FailedPrecondition, "SUSPENDED");
    assert_refused(
        job.git("https://dev.azure.com/contoso/p/_git/r").await,
        Code::FailedPrecondition,
        "SUSPENDED",
    );
    assert_refused(job.repos(false).await, Code::FailedPrecondition, "SUSPENDED");
    assert_refused(operator.begin().await, Code::FailedPrecondition, "SUSPENDED");
    let again = pb::SuspendRequest { note: "again".into(), ..suspend() };
    let again = operator.integrations().suspend(again).await.unwrap().into_inner();
    assert_eq!(again.suspension.unwrap().note, "unpaid", "the first one stands");
    app.advance(Duration::from_mins(61));
    app.tick_until(|| !app.refreshes().is_empty()).await;

    app.restart().await;
    let (operator, job) = (app.operator().await, app.job_runner().await);
    assert_refused(job.token().await, Code::FailedPrecondition, "SUSPENDED");
    for _ in 0..2 {
        let resumed = operator.integrations().resume(resume()).await.unwrap().into_inner();
        assert_eq!(resumed.suspension, None);
    }
    job.token().await.unwrap();
}

/// A caller that waits while somebody suspends gets nothing either.
#[tokio::test]
async fn a_release_that_waits_while_the_account_is_suspended_is_refused() {
    let app = TestApp::linked().await;
    let (operator, job) = (app.operator().await, app.job_runner().await);
    app.advance(Duration::from_hours(2));
    app.fault(azure_emulator::Fault::EntraHold { count: Some(1) });
    let waiting = tokio::spawn({
        let job = job.clone();
        async move { job.token().await }
    });
    app.tick_until(|| !app.refreshes().is_empty()).await;
    operator.integrations().suspend(suspend()).await.unwrap();
    app.emulator.release_held();
    assert_refused(waiting.await.unwrap(), Code::FailedPrecondition, "SUSPENDED");
    assert!(app.released().is_empty());
}

#[tokio::test]
async fn a_move_by_force_ends_every_connection_and_says_so_before() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let tenant_id = "20000000-0000-4000-a000-000000000002".to_owned();
    let moved = pb::PutIntegrationRequest { tenant_id: tenant_id.clone(), ..app.registration() };
    let refused = assert_refused(operator.put(moved.clone()).await, Code::FailedPrecondition, "");
    assert!(refused.message().contains("service_user"), "{}", refused.message());

    let put = operator.put(pb::PutIntegrationRequest { force: true, ..moved }).await.unwrap();

    assert_eq!(put.tenant_id, tenant_id);
    assert_eq!(operator.connection().await.unwrap().state(), pb::ConnectionState::Disconnected);
    assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
    let ended = app.files.audit().into_iter().filter(|line| line["role"] == "service_user");
    assert!(ended.into_iter().any(|line| line["act"] == "PutIntegration"), "each end is on record");
}

/// Tombstones stay, so that nothing older comes back, also under a new registration.
#[tokio::test]
async fn a_deleted_integration_leaves_tombstones_and_can_be_registered_anew() {
    let mut app = TestApp::linked().await;
    let operator = app.operator().await;
    let delete =
        |force| pb::DeleteIntegrationRequest { account_id: "acme".into(), force, actor: String::new() };
    let refused = operator.integrations().delete_integration(delete(false)).await;
    let refused = assert_refused(refused, Code::FailedPrecondition, "");
    assert!(refused.message().contains("service_user"));
    let before = operator.connection().await.unwrap();

    for force in [true, true, false] {
        operator.integrations().delete_integration(delete(force)).await.unwrap();
    }

    assert_refused(operator.integration("acme").await, Code::PermissionDenied, "");
    assert_refused(operator.token().await, Code::PermissionDenied, "");
    app.restart().await;
    let operator = app.operator().await;
    assert_refused(operator.integration("acme").await, Code::PermissionDenied, "");
    let put = operator.put(app.registration()).await.unwrap();
    assert_eq!(put.client_credentials.len(), 1);
    let tombstone = operator.connection().await.unwrap();
    assert_eq!(tombstone.state(), pb::ConnectionState::Disconnected);
    assert!(before.generation < tombstone.generation);
    assert_refused(operator.connection_of(developer("ana")).await, Code::FailedPrecondition, "NOT_LINKED");
    let store = std::fs::read(app.files.path("azdo-broker.db")).unwrap();
    assert!(store.windows(SECRET.len()).all(|window| window != SECRET.as_bytes()));
}
