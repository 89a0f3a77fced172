//! A store that goes back: what was disconnected or replaced since does not come back with it (P9, design.md
//! 6.13).

use std::time::Duration;

use azdo_broker::lifecycle::Ended;
use azdo_broker::pb;
use azdo_broker::testing::TestPostgres;
use tonic::Code;

use crate::support::{Client, PATIENCE, Replicas, TestApp, assert_refused, developer, reason_of};

const DAY: Duration = Duration::from_hours(24);

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

/// What an asynchronous standby has when it lacks the last commits.
struct Standby<'a>(&'a TestPostgres);

impl<'a> Standby<'a> {
    async fn caught_up(server: &'a TestPostgres) -> Self {
        let keep = "CREATE TABLE kept AS SELECT * FROM azdo_broker.connections";
        server.execute("broker0", keep).await;
        Self(server)
    }

    /// Every connection to the database breaks with it, and what was not caught up with is gone.
    async fn promote(self) {
        self.promote_with("NULL, lease_until = NULL").await;
    }

    /// The same with connections that may not be refreshed: until when, and leased until when.
    async fn promote_with(self, retry_at: &str) {
        let promote = format!(
            "UPDATE azdo_broker.connections c SET generation = kept.generation, sealed = kept.sealed,
                live = kept.live, refresh_at = kept.refresh_at, failure = NULL, lease_holder = NULL,
                retry_at = {retry_at}
             FROM kept WHERE c.account = kept.account AND c.role = kept.role;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()"
        );
        self.0.execute("broker0", &promote).await;
    }
}

/// Asks until the connection is refused as one that went back: a replica finds out once it reaches the store.
async fn refused_in_time(replicas: &Replicas, client: &Client) {
    let refused = async {
        loop {
            match client.token().await {
                Err(status) if reason_of(&status) == "ROLLBACK_SUSPECTED" => return,
                // What is told of a store that was away holds for seconds of the clock.
                _ => replicas.first.advance(Duration::from_millis(1)),
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
}

async fn no_token_in_time(client: &Client, developer: &str) {
    let refused = async { while client.token_of_developer(developer).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
}

/// F06: the replica that disconnected remembers.
#[tokio::test]
async fn f06_a_disconnect_that_a_failover_lost_is_remembered_by_a_living_replica() {
    let replicas = Replicas::linked(1).await;
    let operator = replicas.operator(0).await;
    operator.token().await.unwrap();
    let standby = Standby::caught_up(&replicas.server).await;
    operator.disconnect().await.unwrap();

    standby.promote().await;

    refused_in_time(&replicas, &operator).await;
    assert_eq!(accept(&operator, false).await.accepted, 1);
    operator.token().await.unwrap();
}

/// F06, P9: and has it refused by replicas that never heard of it.
#[tokio::test]
async fn f06_a_disconnect_that_a_failover_lost_is_refused_by_replicas_that_did_not_see_it() {
    let replicas = Replicas::linked(3).await;
    let (one, unaware) = (replicas.operator(0).await, replicas.operator(1).await);
    let standby = Standby::caught_up(&replicas.server).await;
    one.disconnect().await.unwrap();

    standby.promote().await;

    refused_in_time(&replicas, &unaware).await;
    refused_in_time(&replicas, &one).await;
    assert_eq!(accept(&unaware, false).await.accepted, 1);
    for replica in 0..3 {
        let client = replicas.operator(replica).await;
        let answers = async { while client.token().await.is_err() {} };
        tokio::time::timeout(PATIENCE, answers).await.unwrap();
    }
}

/// F06: also where nobody may refresh it now, or somebody else is at it.
#[tokio::test]
async fn f06_what_went_back_is_refused_by_everybody_while_it_is_paused_or_leased() {
    let later = "azdo_broker.store_now() + 300000000";
    for state in [format!("{later}, lease_until = NULL"), format!("NULL, lease_until = {later}")] {
        let replicas = Replicas::linked(2).await;
        let standby = Standby::caught_up(&replicas.server).await;
        replicas.operator(0).await.disconnect().await.unwrap();

        standby.promote_with(&state).await;

        refused_in_time(&replicas, &replicas.operator(1).await).await;
    }
}

/// F06, P7: a row that is gone takes its token with it, and is disconnected as any other.
#[tokio::test]
async fn f06_a_link_that_a_failover_lost_is_released_no_more_and_can_be_disconnected() {
    let replicas = Replicas::linked(1).await;
    let operator = replicas.operator(0).await;
    operator.token().await.unwrap();
    let gone = "DELETE FROM azdo_broker.connections;
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    replicas.server.execute("broker0", gone).await;

    refused_in_time(&replicas, &operator).await;
    let ended = operator.disconnect().await.unwrap();

    assert_eq!(ended.state(), pb::ConnectionState::Disconnected);
    assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
}

/// F06: who disconnected is gone with the failover; who was refused since remembers.
#[tokio::test]
async fn f06_a_disconnect_is_remembered_by_a_replica_that_only_read_of_it() {
    let mut replicas = Replicas::linked(2).await;
    let reader = replicas.operator(1).await;
    let standby = Standby::caught_up(&replicas.server).await;
    replicas.operator(0).await.disconnect().await.unwrap();
    assert_refused(reader.token().await, Code::FailedPrecondition, "NOT_LINKED");
    replicas.first.tell_to_stop();
    assert_eq!(replicas.first.ended().await, Ended::Drained);

    standby.promote().await;

    refused_in_time(&replicas, &reader).await;
}

/// F06: an identity that was replaced is not asked for again by who knows its successor.
#[tokio::test]
async fn f06_a_relink_that_a_failover_lost_does_not_bring_the_old_identity_back() {
    let mut replicas = Replicas::linked(2).await;
    let reader = replicas.operator(1).await;
    let standby = Standby::caught_up(&replicas.server).await;
    replicas.first.link("ana@contoso.com").await;
    assert_eq!(reader.token().await.unwrap().identity.unwrap().login, "ana@contoso.com");
    replicas.first.tell_to_stop();
    assert_eq!(replicas.first.ended().await, Ended::Drained);

    standby.promote().await;

    refused_in_time(&replicas, &reader).await;
    replicas.advance(DAY).await;
    assert_refused(reader.token().await, Code::FailedPrecondition, "ROLLBACK_SUSPECTED");
}

/// P9: one connection that went back keeps none of the others from being followed.
#[tokio::test]
async fn what_went_back_does_not_stop_others_from_being_followed() {
    let replicas = Replicas::linked(2).await;
    let (one, other) = (replicas.operator(0).await, replicas.operator(1).await);
    for (id, upn) in [("ana", "ana@contoso.com"), ("eve", "svc@contoso.com")] {
        replicas.first.link_developer(id, upn).await;
        other.token_of_developer(id).await.unwrap();
    }
    other.token().await.unwrap();
    let standby = Standby::caught_up(&replicas.server).await;
    one.disconnect_of(developer("ana")).await.unwrap();

    standby.promote().await;
    no_token_in_time(&other, "ana").await;
    other.token_of_developer("eve").await.unwrap();
    // By the comparison alone.
    let unheard = "UPDATE azdo_broker.connections SET generation = generation + 1, live = false, sealed = ''
                   WHERE role = 'developer/eve'";
    replicas.server.execute("broker0", unheard).await;
    no_token_in_time(&other, "eve").await;
}

/// What one replica linked, another one disconnected and everybody has forgotten, went nowhere.
#[tokio::test]
async fn an_erased_connection_is_missed_by_no_replica() {
    let mut replicas = Replicas::linked(2).await;
    let one = replicas.operator(0).await;
    replicas.operator(1).await.disconnect().await.unwrap();
    replicas.advance(31 * DAY).await;
    replicas.server.execute("broker0", "DELETE FROM azdo_broker.connections").await;

    assert_refused(one.token().await, Code::FailedPrecondition, "NOT_LINKED");
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

/// P3: looking is an act, too.
#[tokio::test]
async fn a_dry_run_is_recorded() {
    let app = TestApp::linked().await;
    accept(&app.operator().await, true).await;
    assert!(app.files.audit().iter().any(|line| line["act"] == "AcceptRestore"));
}

/// P9: a column that somebody edited stops one connection at the most, and not for longer than it says so.
#[tokio::test]
async fn a21_an_edited_word_of_what_was_seen_keeps_nobody_from_linking_anew() {
    let app = TestApp::linked().await;
    let edit = r#"UPDATE connections SET failure = '{"reason":"ROLLBACK_SUSPECTED","code":null,
        "since":"2026-01-01T00:00:00Z","count":1,"behind":{"generation":9223372036854775807,"is_end":true}}'
        WHERE account || '/' || role = ?1"#;
    app.edit_store(edit, "acme/service_user");
    app.operator().await.connection().await.unwrap();

    app.link("svc@contoso.com").await;

    app.job_runner().await.token().await.unwrap();
}
