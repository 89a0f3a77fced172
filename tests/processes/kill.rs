//! F01: the broker is killed at the worst moments, and nothing is lost that cannot be had again.

use std::time::Duration;

use azdo_broker::pb::{ConnectionState, LinkState};
use azure_emulator::Fault;
use tonic::Code;

use crate::support::{Given, until};

#[tokio::test]
async fn f01_killed_before_the_answer_came_the_old_grant_still_refreshes() {
    let mut given = Given::a_linked_broker().await;
    let before = given.generation().await;
    given.emulator.fault(Fault::EntraHold { count: None });
    given.demand_refresh().await;
    given.emulator.wait_held(1).await;

    given.broker.kill().await;
    given.emulator.clear_faults();
    given.restart().await;

    assert_eq!(given.generation().await, before, "nothing was committed");
    given.demand_refresh().await;
    given.newer_than(before).await;
    given.token().await.unwrap();
}

/// Where each grant works once, what a kill loses is told, and nothing is sent again that would revoke
/// what a relink has brought since.
#[tokio::test]
async fn f01_killed_under_strict_rotation_the_loss_is_told_and_nothing_is_sent_twice() {
    let mut given = Given::a_linked_broker().await;
    given.home.edit_config("[entra]\n", "[entra]\nrotation = \"strict\"\n");
    given.broker.kill().await;
    given.restart().await;
    given.emulator.fault(Fault::StrictRotation {});
    given.emulator.fault(Fault::EntraHold { count: Some(1) });
    given.demand_refresh().await;
    given.emulator.wait_held(1).await;
    let asked = given.requests_for_users().len();

    given.broker.kill().await;
    given.emulator.release_held();
    given.restart().await;

    let connection = given.connection().await;
    assert_eq!(connection.state(), ConnectionState::NeedsRelink, "{connection:?}");
    assert!(connection.failure.unwrap().message.contains("was lost"));
    given.demand_refresh().await;
    given.token().await.unwrap();
    assert_eq!(given.requests_for_users().len(), asked, "the grant is not sent again");
}

/// From "the answer is on its way" over "in the transaction" to "committed, nobody told".
#[tokio::test]
async fn f01_killed_at_any_moment_after_the_answer_the_store_opens_and_releases() {
    let mut given = Given::a_linked_broker().await;
    let mut generation = given.generation().await;
    for delay in seeded_delays(15, ANSWER_US_MAX) {
        given.emulator.fault(Fault::EntraHold { count: None });
        given.demand_refresh().await;
        given.emulator.wait_held(1).await;
        given.emulator.release_held();
        // The moment of the kill is what varies here, not something that is waited for. A timer would
        // round it up to a millisecond, in which all is over.
        let at = tokio::time::Instant::now() + delay;
        while tokio::time::Instant::now() < at {
            tokio::task::yield_now().await;
        }
        given.broker.kill().await;

        given.restart().await;
        let found = given.generation().await;
        assert!(generation <= found, "the generation went back from {generation} to {found}");
        given.token().await.unwrap();
        generation = found;
    }
    given.demand_refresh().await;
    given.newer_than(generation).await;
}

#[tokio::test]
async fn f01_killed_before_the_checks_a_held_link_goes_on_and_connects() {
    let mut given = Given::a_broker().await;
    given.emulator.fault(Fault::DevopsOutage { status: None, count: None });
    let link = given.signed_in(LinkState::Held).await;
    given.broker.kill().await;
    given.emulator.clear_faults();

    given.restart().await;
    let verified = async || Some(given.get_link(&link).await).filter(|l| l.state() == LinkState::Verified);
    until("a verified link", verified).await;

    given.confirm(&link).await.unwrap();
    given.token().await.unwrap();
    assert_eq!(given.requests_for_users().len(), 1, "the code bought all that was needed");
}

#[tokio::test]
async fn f01_killed_between_verified_and_confirmed_the_link_connects() {
    let mut given = Given::a_broker().await;
    let link = given.signed_in(LinkState::Verified).await;
    given.broker.kill().await;

    given.restart().await;
    assert_eq!(given.get_link(&link).await.state(), LinkState::Verified);
    given.confirm(&link).await.unwrap();
    given.token().await.unwrap();
}

#[tokio::test]
async fn f01_killed_during_the_exchange_nothing_is_connected_and_a_new_link_works() {
    let mut given = Given::a_broker().await;
    let begun = given.begin_link().await;
    let returned = given.sign_in(&begun.link_url).await;
    given.emulator.fault(Fault::EntraHold { count: None });
    let browser = tokio::spawn(returned.arrive());
    given.emulator.wait_held(1).await;
    given.broker.kill().await;
    given.emulator.clear_faults();
    assert!(browser.await.unwrap().is_err(), "the browser got an answer of a dead broker");

    given.restart().await;
    assert_eq!(given.get_link(&begun.link_id).await.state(), LinkState::Taken);
    assert_eq!(given.confirm(&begun.link_id).await.unwrap_err().code(), Code::FailedPrecondition);
    assert!(given.connections().await.is_empty());
    given.link().await;
    given.token().await.unwrap();
}

#[tokio::test]
async fn f01_killed_while_confirming_the_link_is_verified_or_connected_and_confirms_again() {
    let mut given = Given::a_broker().await;
    for delay in seeded_delays(5, CONFIRM_US_MAX) {
        let link = given.signed_in(LinkState::Verified).await;
        // Either ends first: the answer, or the broker that would have given it.
        let _ = tokio::time::timeout(delay, given.confirm(&link)).await;
        given.broker.kill().await;

        given.restart().await;
        let state = given.get_link(&link).await.state();
        assert!(matches!(state, LinkState::Verified | LinkState::Connected), "{state:?}");
        let first = given.confirm(&link).await.unwrap();
        let again = given.confirm(&link).await.unwrap();
        assert_eq!(first.generation, again.generation, "confirming twice changed something");
        given.token().await.unwrap();
    }
}

/// The same in every run.
fn seeded_delays(count: u64, below_us: u64) -> impl Iterator<Item = Duration> {
    let mut seed: u64 = 42;
    (0..count).map(move |_| {
        // Knuth's MMIX generator.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros((seed >> 33) % below_us)
    })
}

/// From the answer's leaving Entra to the commit: 1 to 2 ms here.
const ANSWER_US_MAX: u64 = 3_000;
/// From the call to the connection: as long again.
const CONFIRM_US_MAX: u64 = 6_000;
