//! A store that goes back: what was disconnected or replaced since does not come back with it (P9, design.md
//! 6.13).

use azdo_broker::pb;
use tonic::Code;

use crate::support::{Client, Replicas, TestApp, assert_refused};

async fn accept(client: &Client, dry_run: bool) -> pb::AcceptRestoreResponse {
    let request = pb::AcceptRestoreRequest {
        account_id: "acme".into(),
        dry_run,
        note: "restored on purpose".into(),
        ..pb::AcceptRestoreRequest::default()
    };
    client.operations().accept_restore(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a22_a_disconnected_link_does_not_come_back_by_a_restored_backup_until_that_is_accepted() {
    let mut app = TestApp::linked().await;
    let backup = app.stop_and_back_up().await;
    app.start_again().await;
    app.operator().await.disconnect().await.unwrap();
    app.stop_and_back_up().await;

    app.restore(&backup);
    app.start_again().await;

    let operator = app.operator().await;
    assert_refused(app.job_runner().await.token().await, Code::FailedPrecondition, "ROLLBACK_SUSPECTED");
    assert_refused(operator.connection().await, Code::FailedPrecondition, "ROLLBACK_SUSPECTED");
    let told = accept(&operator, true).await;
    assert_eq!((told.accepted, told.connections[0].was_disconnected), (1, true));
    assert_refused(operator.token().await, Code::FailedPrecondition, "ROLLBACK_SUSPECTED");

    assert_eq!(accept(&operator, false).await.accepted, 1);

    operator.token().await.unwrap();
    assert_eq!(accept(&operator, false).await.accepted, 0);
    app.restart().await;
    app.job_runner().await.token().await.unwrap();
    let line = app.files.audit().into_iter().find(|line| line["act"] == "AcceptRestore").unwrap();
    assert_eq!((&line["account"], &line["purpose"]), (&"acme".into(), &"restored on purpose".into()));
}

/// The identity that was replaced does not come back, and a new link needs nobody's word.
#[tokio::test]
async fn a22_a_replaced_identity_does_not_come_back_by_a_restored_backup() {
    let mut app = TestApp::linked().await;
    let backup = app.stop_and_back_up().await;
    app.start_again().await;
    app.link("ana@contoso.com").await;
    app.stop_and_back_up().await;

    app.restore(&backup);
    app.start_again().await;

    let job = app.job_runner().await;
    assert_refused(job.token().await, Code::FailedPrecondition, "ROLLBACK_SUSPECTED");
    app.link("svc@contoso.com").await;
    assert_eq!(job.token().await.unwrap().identity.unwrap().login, "svc@contoso.com");
}

/// A link that the store has never heard of is missed, too.
#[tokio::test]
async fn a22_a_link_that_a_restored_backup_lacks_is_missed() {
    let mut app = TestApp::start().await;
    let backup = app.stop_and_back_up().await;
    app.start_again().await;
    app.link("svc@contoso.com").await;
    app.stop_and_back_up().await;

    app.restore(&backup);
    app.start_again().await;

    let operator = app.operator().await;
    assert_refused(operator.token().await, Code::FailedPrecondition, "ROLLBACK_SUSPECTED");
    assert_eq!(accept(&operator, false).await.accepted, 1);
    assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
    app.link("svc@contoso.com").await;
    operator.token().await.unwrap();
}

/// A refresh that went back is no danger: its older grant goes on.
#[tokio::test]
async fn a_refresh_that_a_restored_backup_lacks_is_made_again() {
    let mut app = TestApp::linked().await;
    let backup = app.stop_and_back_up().await;
    app.start_again().await;
    app.advance(std::time::Duration::from_hours(2));
    app.job_runner().await.token().await.unwrap();
    app.stop_and_back_up().await;

    app.restore(&backup);
    app.start_again().await;

    app.job_runner().await.token().await.unwrap();
}

#[tokio::test]
async fn only_operators_accept_a_restore() {
    let app = TestApp::linked().await;
    let request = pb::AcceptRestoreRequest { all_accounts: true, ..pb::AcceptRestoreRequest::default() };
    let refused = app.job_runner().await.operations().accept_restore(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// F06: an asynchronous standby lacks the last commits. The replica that disconnected remembers.
#[tokio::test]
async fn f06_a_disconnect_that_a_failover_lost_is_remembered_by_a_living_replica() {
    let replicas = Replicas::linked(1).await;
    let operator = replicas.operator(0).await;
    operator.token().await.unwrap();
    let keep = "CREATE TABLE kept AS SELECT generation, sealed FROM azdo_broker.connections";
    replicas.server.execute("broker0", keep).await;
    operator.disconnect().await.unwrap();

    let back =
        "UPDATE azdo_broker.connections c SET generation = kept.generation, sealed = kept.sealed, live = true
                FROM kept";
    replicas.server.execute("broker0", back).await;

    assert_refused(operator.token().await, Code::FailedPrecondition, "ROLLBACK_SUSPECTED");
    assert_eq!(accept(&operator, false).await.accepted, 1);
    operator.token().await.unwrap();
}
