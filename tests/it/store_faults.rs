//! Stores that are locked, saturated, of others, or whose clock is not the replicas': nothing at hand is withheld,
//! what needs the store is refused in time, and all recovers by itself (P6).

use std::future::Future;
use std::time::Duration;

use azdo_broker::app;
use azdo_broker::config::Config;
use azdo_broker::offline;
use azdo_broker::testing::ManualClock;
use azure_emulator::Fault;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{Client, PATIENCE, Replicas, TestApp, assert_refused};

const PAST_EXPIRY: Duration = Duration::from_hours(2);
/// Longer than a store that failed is left alone.
const A_LITTLE: Duration = Duration::from_secs(3);
/// Design 6.19: a caller is told within this time.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_hours(1);

/// Many callers who need the store, of every kind: all are told in time that it does not answer.
async fn all_are_told_in_time(operator: &Client) {
    let mut asked = JoinSet::new();
    for _ in 0..20 {
        let (one, other) = (operator.clone(), operator.clone());
        asked.spawn(told_in_time(async move { one.disconnect().await }));
        asked.spawn(told_in_time(async move { other.token_lasting(Duration::from_mins(30)).await }));
    }
    asked.join_all().await;
}

async fn told_in_time<T>(asking: impl Future<Output = Result<T, tonic::Status>>) {
    let answer = tokio::time::timeout(TOLD_WITHIN, asking).await.expect("in time");
    assert_refused(answer, Code::Unavailable, "STORE_UNAVAILABLE");
}

async fn recovers(operator: &Client) {
    let recovers = async { while operator.token().await.is_err() {} };
    tokio::time::timeout(PATIENCE, recovers).await.expect("recovers by itself");
}

#[tokio::test]
async fn f04_a_file_that_another_program_locks_costs_no_read_of_what_is_at_hand() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let held = operator.token().await.unwrap().token_fingerprint;
    let other = rusqlite::Connection::open(app.files.path("azdo-broker.db")).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();

    for _ in 0..20 {
        assert_eq!(operator.token().await.unwrap().token_fingerprint, held);
    }
    told_in_time(operator.disconnect()).await;
    assert_eq!(operator.token().await.unwrap().token_fingerprint, held, "it did not disconnect");
    app.advance(PAST_EXPIRY);
    all_are_told_in_time(&operator).await;

    other.execute_batch("ROLLBACK").unwrap();
    app.advance(A_LITTLE);
    recovers(&operator).await;
    assert_eq!(app.refreshes().len(), 1);
}

/// A transaction of somebody else that stands open holds what every one of ours needs, so that the whole pool waits.
#[tokio::test]
async fn f07_a_saturated_database_costs_no_read_of_what_is_at_hand() {
    let mut replicas = Replicas::linked(1).await;
    let operator = replicas.operator(0).await;
    let held = operator.token().await.unwrap().token_fingerprint;
    let (idle, connection) =
        tokio_postgres::connect(&replicas.server.url("broker0"), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    idle.batch_execute("BEGIN; LOCK TABLE azdo_broker.connections").await.unwrap();

    let mut asked = JoinSet::new();
    for _ in 0..40 {
        let operator = operator.clone();
        asked.spawn(told_in_time(async move { operator.disconnect().await }));
    }
    while !asked.is_empty() {
        assert_eq!(operator.token().await.unwrap().token_fingerprint, held);
        while let Some(told) = asked.try_join_next() {
            told.unwrap();
        }
    }
    replicas.advance(PAST_EXPIRY).await;
    all_are_told_in_time(&operator).await;

    drop(idle);
    connection.await.unwrap().unwrap();
    replicas.advance(A_LITTLE).await;
    recovers(&operator).await;
    assert_eq!(replicas.first.refreshes().len(), 1);
}

/// Tokens at hand, leases and one request for one expiry.
#[tokio::test]
async fn f20_a_wall_clock_that_is_an_hour_wrong_costs_no_token_and_no_second_request() {
    let mut replicas = Replicas::whose_clocks_differ(HOUR).await;
    for expiry in 0..3 {
        // Everybody is first once.
        let mut fingerprints = Vec::new();
        for replica in 0..3 {
            let operator = replicas.operator((expiry + replica) % 3).await;
            fingerprints.push(operator.token().await.unwrap().token_fingerprint);
        }
        fingerprints.dedup();
        assert_eq!((fingerprints.len(), replicas.first.refreshes().len()), (1, expiry));
        replicas.advance(PAST_EXPIRY).await;
    }
}

#[tokio::test]
async fn f20_many_callers_of_replicas_whose_clocks_differ_make_one_request() {
    let mut replicas = Replicas::whose_clocks_differ(HOUR).await;
    replicas.advance(PAST_EXPIRY).await;
    let mut asked = JoinSet::new();
    for replica in 0..3 {
        let operator = replicas.operator(replica).await;
        for _ in 0..50 {
            let operator = operator.clone();
            asked.spawn(async move { operator.token().await.unwrap().token_fingerprint });
        }
    }
    let mut fingerprints = asked.join_all().await;
    fingerprints.dedup();
    assert_eq!((fingerprints.len(), replicas.first.refreshes().len()), (1, 1));
}

/// A pause that one of them wrote is as long for every other one.
#[tokio::test]
async fn f20_a_pause_is_as_long_for_replicas_whose_clocks_differ() {
    for first in 0..3 {
        let mut replicas = Replicas::whose_clocks_differ(HOUR).await;
        replicas.advance(PAST_EXPIRY).await;
        replicas.first.fault(Fault::EntraThrottle { retry_after: Some(120), count: Some(1) });
        for replica in 0..3 {
            let operator = replicas.operator((first + replica) % 3).await;
            assert_refused(operator.token().await, Code::Unavailable, "UPSTREAM_THROTTLED");
        }
        let left = "SELECT (retry_at - azdo_broker.store_now()) / 1000000 BETWEEN 100 AND 600
                    FROM azdo_broker.connections";
        assert_eq!(replicas.server.ask("broker0", left).await, ["t"], "by the database's clock");

        replicas.advance(Duration::from_secs(100)).await;
        for replica in 0..3 {
            let operator = replicas.operator(replica).await;
            assert_refused(operator.token().await, Code::Unavailable, "UPSTREAM_THROTTLED");
        }
        assert_eq!(replicas.first.refreshes().len(), 1, "nobody asked again");

        replicas.advance(Duration::from_mins(10)).await;
        for replica in 0..3 {
            replicas.operator((first + 2 + replica) % 3).await.token().await.unwrap();
        }
        assert_eq!(replicas.first.refreshes().len(), 2);
    }
}

/// F05: the database is right, the key file is of another installation.
#[tokio::test]
async fn f05_a_database_whose_keyring_another_key_wrapped_is_refused_and_left_as_it_is() {
    let replicas = Replicas::linked(1).await;
    let other = replicas.first.files.of_replica(&replicas.first.emulator);
    std::fs::remove_file(other.path("azdo-broker.key")).unwrap();
    offline::keys_new(&other.path("azdo-broker.key")).unwrap();
    let before = replicas.server.dump("broker0");

    let clock = std::sync::Arc::new(ManualClock::at(replicas.first.now()));
    let refused =
        app::build(Config::read(&other.config()).unwrap(), clock).await.err().expect("must not start");

    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("cannot unwrap the keyring: it was wrapped by key"), "{cause}");
    assert_eq!(replicas.server.dump("broker0"), before);
    replicas.operator(0).await.token().await.unwrap();
}
