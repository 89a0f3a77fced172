//! A failover that loses the last commits: what was disconnected or replaced in them does not come back (F06, P9,
//! design.md 6.13).

use std::time::Duration;

use azdo_broker::lifecycle::Ended;
use azdo_broker::pb;
use azdo_broker::testing::TestPostgres;
use azure_emulator::Fault;
use tonic::Code;

use crate::rollback::accept;
use crate::support::{Client, PATIENCE, Replicas, assert_refused, developer, reason_of};

const DAY: Duration = Duration::from_hours(24);

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
    let records = replicas.files(1).audit();
    assert!(
        records.iter().any(|line| line["act"] == "connection.ended"),
        "it would forget it with a restart"
    );
    assert_eq!(accept(&unaware, false).await.accepted, 1);
    for replica in 0..3 {
        let client = replicas.operator(replica).await;
        let answers = async { while client.token().await.is_err() {} };
        tokio::time::timeout(PATIENCE, answers).await.unwrap();
    }
}

/// F06, P7: a refresh by a replica that saw nothing makes the row younger, and not who stands there.
#[tokio::test]
async fn f06_a_refresh_does_not_carry_what_went_back_over_what_was_seen() {
    let mut replicas = Replicas::linked(2).await;
    let standby = Standby::caught_up(&replicas.server).await;
    replicas.operator(0).await.disconnect().await.unwrap();
    replicas.first.tell_to_stop();
    assert_eq!(replicas.first.ended().await, Ended::Drained);
    let unaware = replicas.operator(1).await;
    standby.promote().await;
    replicas.advance(Duration::from_hours(2)).await;
    let answers = async { while unaware.token().await.is_err() {} };
    tokio::time::timeout(PATIENCE, answers).await.unwrap();

    replicas.first.start_again().await;

    let one = replicas.operator(0).await;
    assert_refused(one.token().await, Code::FailedPrecondition, "ROLLBACK_SUSPECTED");
    refused_in_time(&replicas, &unaware).await;
    assert_eq!(accept(&one, false).await.accepted, 1);
    one.token().await.unwrap();
}

/// F06, P7: nor does one that was under way all the time.
#[tokio::test]
async fn f06_a_refresh_under_way_is_lost_to_who_found_out_what_went_back() {
    let mut replicas = Replicas::linked(2).await;
    let (one, unaware) = (replicas.operator(0).await, replicas.operator(1).await);
    replicas.advance(Duration::from_hours(2)).await;
    let standby = Standby::caught_up(&replicas.server).await;
    replicas.first.fault(Fault::EntraHold { count: None });
    let asked = tokio::spawn(async move { unaware.token().await });
    replicas.first.emulator.wait_held(1).await;
    one.disconnect().await.unwrap();
    standby.promote().await;
    refused_in_time(&replicas, &one).await;

    replicas.first.emulator.release_held();

    assert!(asked.await.unwrap().is_err());
    refused_in_time(&replicas, &replicas.operator(1).await).await;
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
