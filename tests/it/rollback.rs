//! A backup that is restored: what was disconnected or replaced since does not come back with it (P9, design.md
//! 6.13).

use azdo_broker::pb;
use azure_emulator::Fault;
use tonic::Code;

use crate::import::{grant_from_elsewhere, import, item};
use crate::support::{Client, TestApp, assert_refused, developer};

pub(crate) async fn accept(client: &Client, dry_run: bool) -> pb::AcceptRestoreResponse {
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

/// Who was disconnected then, and is now, is no danger, whoever was linked between.
#[tokio::test]
async fn an_end_that_a_restored_backup_has_under_a_newer_one_is_the_same() {
    let mut app = TestApp::linked().await;
    app.operator().await.disconnect().await.unwrap();
    let backup = app.stop_and_back_up().await;
    app.start_again().await;
    app.link("ana@contoso.com").await;
    app.operator().await.disconnect().await.unwrap();
    app.stop_and_back_up().await;

    app.restore(&backup);
    app.start_again().await;

    let operator = app.operator().await;
    assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
    assert_eq!(operator.disconnect().await.unwrap().state(), pb::ConnectionState::Disconnected);
    assert_eq!(accept(&operator, true).await.connections, []);
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

/// The same of the proof of an import: whose it is was known when it was imported.
#[tokio::test]
async fn a_proof_that_a_restored_backup_lacks_is_made_again() {
    let mut app = TestApp::start().await;
    let grant = grant_from_elsewhere(&app, "ana@contoso.com").await;
    app.fault(Fault::EntraOutage { status: Some(503), retry_after: None, count: None });
    import(&app.operator().await, vec![item(developer("ana"), &grant)], false).await;
    let backup = app.stop_and_back_up().await;
    app.emulator.clear_faults();
    app.start_again().await;
    app.advance(std::time::Duration::from_mins(1));
    app.operator().await.token_of_developer("ana").await.unwrap();
    app.stop_and_back_up().await;

    app.restore(&backup);
    app.start_again().await;

    app.operator().await.token_of_developer("ana").await.unwrap();
}

#[tokio::test]
async fn only_operators_accept_a_restore() {
    let app = TestApp::linked().await;
    let request = pb::AcceptRestoreRequest { all_accounts: true, ..pb::AcceptRestoreRequest::default() };
    let refused = app.job_runner().await.operations().accept_restore(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// A record that does not open is told, and keeps none of the others from being accepted.
#[tokio::test]
async fn each_connection_is_accepted_on_its_own() {
    let mut app = TestApp::linked().await;
    app.link_developer("ana", "ana@contoso.com").await;
    let backup = app.stop_and_back_up().await;
    app.start_again().await;
    let operator = app.operator().await;
    operator.disconnect().await.unwrap();
    operator.disconnect_of(developer("ana")).await.unwrap();
    app.stop_and_back_up().await;
    app.restore(&backup);
    let damage = "UPDATE connections SET sealed = x'00' WHERE account || '/' || role = ?1";
    app.edit_store(damage, "acme/developer/ana");
    app.start_again().await;

    let operator = app.operator().await;
    let accepted = accept(&operator, false).await;
    let told = |one: &pb::RestoredConnection| one.refused.clone();
    assert_eq!((accepted.accepted, accepted.refused), (1, 1));
    assert_eq!(accepted.connections.iter().map(told).collect::<Vec<_>>(), ["RECORD_DAMAGED", ""]);
    operator.token().await.unwrap();
    app.link_developer("ana", "ana@contoso.com").await;
    assert_eq!(accept(&operator, false).await.connections, []);
}

/// P3: looking is an act, too, and so is a wish that finds nothing to do.
#[tokio::test]
async fn an_accept_that_accepts_nothing_is_recorded() {
    let app = TestApp::linked().await;
    for dry_run in [true, false] {
        accept(&app.operator().await, dry_run).await;
    }
    assert_eq!(app.files.audit().iter().filter(|line| line["act"] == "AcceptRestore").count(), 2);
}

/// P9: a column that somebody edited stops one connection at the most, and not for longer than it says so.
#[tokio::test]
async fn a21_an_edited_failure_keeps_nobody_from_linking_anew() {
    let app = TestApp::linked().await;
    let edit = r#"UPDATE connections SET failure = '{"reason":"ROLLBACK_SUSPECTED","code":null,
        "since":"2026-01-01T00:00:00Z"","count":1}'
        WHERE account || '/' || role = ?1"#;
    app.edit_store(edit, "acme/service_user");
    app.operator().await.connection().await.unwrap();

    app.link("svc@contoso.com").await;

    app.job_runner().await.token().await.unwrap();
}

/// What went back from an import is mended by the same import, where it may replace.
#[tokio::test]
async fn an_import_that_went_back_is_imported_again() {
    let mut app = TestApp::start().await;
    let grant = grant_from_elsewhere(&app, "ana@contoso.com").await;
    let again = || vec![item(developer("ana"), &grant)];
    import(&app.operator().await, again(), false).await;
    app.operator().await.token_of_developer("ana").await.unwrap();
    let backup = app.stop_and_back_up().await;
    app.start_again().await;
    app.operator().await.disconnect_of(developer("ana")).await.unwrap();
    app.stop_and_back_up().await;
    app.restore(&backup);
    app.start_again().await;
    let operator = app.operator().await;
    let refused = operator.token_of_developer("ana").await;
    assert_refused(refused, Code::FailedPrecondition, "ROLLBACK_SUSPECTED");

    import(&operator, again(), true).await;

    operator.token_of_developer("ana").await.unwrap();
}
