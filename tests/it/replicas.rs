//! Several brokers over one PostgreSQL: one refresh for all, news in time, a database that goes away.

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::Fault;
use tonic::{Code, Status};

use crate::support::{PATIENCE, Replicas, assert_refused, reason_of};

const PAST_EXPIRY: Duration = Duration::from_hours(2);
/// Design 6.3: a disconnect is in force within this time on every replica that reaches the store.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(1);

type Answer = Result<pb::GetServiceUserTokenResponse, Status>;

/// Asks the replica until the answer is what is waited for.
async fn within_a_second(replicas: &Replicas, replica: usize, is_it: impl Fn(&Answer) -> bool) {
    let asking = async {
        let client = replicas.operator(replica).await;
        while !is_it(&client.token().await) {}
    };
    tokio::time::timeout(IN_FORCE_WITHIN, asking).await.expect("within a second");
}

/// P5 across replicas: one request for one expiry, and everybody has the same token.
#[tokio::test]
async fn f14_three_replicas_with_two_hundred_callers_each_make_one_request() {
    let mut replicas = Replicas::linked(3).await;
    replicas.advance(PAST_EXPIRY).await;
    let mut asked = Vec::new();
    for replica in 0..3 {
        let client = replicas.operator(replica).await;
        for _ in 0..200 {
            let client = client.clone();
            asked.push(tokio::spawn(async move { client.token().await }));
        }
    }
    let mut fingerprints = Vec::new();
    for answer in asked {
        fingerprints.push(answer.await.unwrap().unwrap().token_fingerprint);
    }
    fingerprints.dedup();
    assert_eq!((fingerprints.len(), replicas.first.refreshes().len()), (1, 1));
}

/// P7, design 6.3.
#[tokio::test]
async fn a_disconnect_is_in_force_on_the_other_replicas_within_a_second() {
    let replicas = Replicas::linked(3).await;
    for replica in 0..3 {
        replicas.operator(replica).await.token().await.unwrap();
    }

    replicas.operator(0).await.disconnect().await.unwrap();

    for replica in 1..3 {
        within_a_second(&replicas, replica, |answer| {
            answer.as_ref().is_err_and(|status| reason_of(status) == "NOT_LINKED")
        })
        .await;
    }
}

#[tokio::test]
async fn a_suspension_is_in_force_on_the_other_replicas_within_a_second() {
    let replicas = Replicas::linked(2).await;
    let other = replicas.operator(1).await;
    other.token().await.unwrap();
    let suspend = pb::SuspendRequest { account_id: "acme".into(), ..pb::SuspendRequest::default() };

    replicas.operator(0).await.integrations().suspend(suspend).await.unwrap();

    within_a_second(&replicas, 1, |answer| {
        answer.as_ref().is_err_and(|status| reason_of(status) == "SUSPENDED")
    })
    .await;
    let resume = pb::ResumeRequest { account_id: "acme".into(), ..pb::ResumeRequest::default() };
    other.integrations().resume(resume).await.unwrap();
    within_a_second(&replicas, 0, Result::is_ok).await;
}

#[tokio::test]
async fn what_one_replica_links_the_other_releases() {
    let replicas = Replicas::linked(2).await;
    let other = replicas.operator(1).await;
    assert_eq!(other.token().await.unwrap().identity.unwrap().login, "svc@contoso.com");

    replicas.first.link("ana@contoso.com").await;

    within_a_second(&replicas, 1, |answer| {
        answer.as_ref().is_ok_and(|token| token.identity.as_ref().unwrap().login == "ana@contoso.com")
    })
    .await;
}

/// A refresh of one replica is everybody's: the next caller elsewhere costs no request.
#[tokio::test]
async fn what_one_replica_refreshes_the_other_has() {
    let mut replicas = Replicas::linked(2).await;
    let (one, other) = (replicas.operator(0).await, replicas.operator(1).await);
    other.token().await.unwrap();
    replicas.advance(PAST_EXPIRY).await;

    let refreshed = one.token().await.unwrap().token_fingerprint;

    assert_eq!(other.token().await.unwrap().token_fingerprint, refreshed);
    assert_eq!(replicas.first.refreshes().len(), 1);
}

/// P6: while the database is away, what is at hand is released; what is not is refused in time.
#[tokio::test]
async fn f06_a_database_that_is_away_costs_no_read_of_what_is_at_hand() {
    let mut replicas = Replicas::linked(1).await;
    let operator = replicas.operator(0).await;
    let held = operator.token().await.unwrap().token_fingerprint;
    replicas.server.signal("STOP");

    for _ in 0..20 {
        assert_eq!(operator.token().await.unwrap().token_fingerprint, held);
    }
    replicas.first.advance(PAST_EXPIRY);
    assert_refused(operator.token().await, Code::Unavailable, "STORE_UNAVAILABLE");

    replicas.server.signal("CONT");
    replicas.advance(Duration::from_secs(3)).await;
    let recovers = async { while operator.token().await.is_err() {} };
    tokio::time::timeout(PATIENCE, recovers).await.expect("recovers by itself");
}

/// Design 6.6: the database goes away between Entra's answer and the commit. Whoever waits gets the token,
/// and the grant is committed when the database is back: nothing is asked twice.
#[tokio::test]
async fn f16_a_token_that_cannot_be_committed_is_lent_and_its_grant_is_kept() {
    let mut replicas = Replicas::linked(1).await;
    let operator = replicas.operator(0).await;
    let before = operator.connection().await.unwrap().generation;
    replicas.advance(PAST_EXPIRY).await;
    replicas.first.fault(Fault::EntraHold { count: Some(1) });
    let asked = tokio::spawn({
        let operator = operator.clone();
        async move { operator.token().await }
    });
    replicas.first.emulator.wait_held(1).await;

    replicas.server.signal("STOP");
    replicas.first.emulator.release_held();
    let lent = async {
        while !asked.is_finished() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            replicas.first.advance(Duration::from_secs(1));
        }
        asked.await.unwrap().unwrap()
    };
    let lent = tokio::time::timeout(PATIENCE, lent).await.unwrap().token_fingerprint;
    assert_eq!(Some(&lent), replicas.first.refreshes()[0].at_issued.as_ref());
    assert_eq!(operator.token().await.unwrap().token_fingerprint, lent);

    replicas.server.signal("CONT");
    let committed = async {
        while operator.connection().await.map_or(before, |connection| connection.generation) == before {
            replicas.first.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, committed).await.expect("the grant is committed");
    assert_eq!(operator.token().await.unwrap().token_fingerprint, lent);
    assert_eq!(replicas.first.refreshes().len(), 1);
}
