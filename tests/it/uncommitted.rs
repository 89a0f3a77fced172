//! F02: Entra answered, and the store does not take the new grant.

use tonic_health::pb::health_check_response::ServingStatus;

use crate::admin::shows;
use crate::reflection_health::health;
use crate::support::TestApp;

const PAST_EXPIRY: std::time::Duration = std::time::Duration::from_hours(2);

/// P4, P6, design 6.6: that a grant is only in memory is seen, although the store answers everything else.
#[tokio::test]
async fn f02_a_grant_that_the_store_does_not_take_is_seen_in_gauge_and_health_until_it_does() {
    let mut app = TestApp::linked().await;
    let job = app.job_runner().await;
    let becomes = async |status| {
        let looking = async { while health(&job, "store").await != Ok(status) {} };
        app.as_seconds_pass(looking).await;
    };
    becomes(ServingStatus::Serving).await;
    let before = app.operator().await.connection().await.unwrap().generation;
    app.advance(PAST_EXPIRY);
    change(
        &app,
        "CREATE TRIGGER broken BEFORE UPDATE OF sealed ON connections BEGIN SELECT RAISE(ABORT, 'no'); END",
    );

    let lent = app.as_seconds_pass(job.token()).await.unwrap();

    shows(&app, "azdo_broker_uncommitted_grants 1\n".to_owned()).await;
    becomes(ServingStatus::NotServing).await;
    for name in ["", "azdo.broker.v1.CredentialBroker", "audit", "keys"] {
        assert_eq!(health(&job, name).await, Ok(ServingStatus::Serving), "{name}");
    }
    assert_eq!(app.operator().await.connection().await.unwrap().generation, before, "it is not committed");

    change(&app, "DROP TRIGGER broken");

    becomes(ServingStatus::Serving).await;
    shows(&app, "azdo_broker_uncommitted_grants 0\n".to_owned()).await;
    assert!(before < app.operator().await.connection().await.unwrap().generation);
    app.restart().await;
    let token = app.job_runner().await.token().await.unwrap();
    assert_eq!((token.token_fingerprint, app.refreshes().len()), (lent.token_fingerprint, 1));
}

/// Changes the broker's database behind its back.
fn change(app: &TestApp, sql: &str) {
    let store = rusqlite::Connection::open(app.files.path("azdo-broker.db")).unwrap();
    store.busy_timeout(crate::support::PATIENCE).unwrap();
    store.execute_batch(sql).unwrap();
}
