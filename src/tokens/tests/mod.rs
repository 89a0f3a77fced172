//! The refresher over a real store and a fake Entra, on paused time.

pub(crate) mod given;
mod rollback;
mod setbacks;
mod simulation;
mod slots;
mod storms;
mod strict;

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::accounts::{Accounts, Sources};
use crate::budgets::{TokenBudget, TokenRates};
use crate::caller::Caller;
use crate::connection::Role;
use crate::entra::{EntraError, Verdict};
use crate::keys::{FileKey, KeyProvider};
use crate::policy::Permission;
use crate::seal::{Keyring, Sealer};
use crate::secret::{ClientSecret, RefreshToken};
use crate::store::memory::{Fault, Memory, MemoryLine};
use crate::store::{Store, StorePlace};
use crate::testing::{FakeEntra, RuntimeClock};
use crate::vault::{
    ClientCredential, Connection, Imported, Integration, Link, LinkPhase, Means, Opened, Vault,
};

use given::*;

/// Nothing looks what is due, so that only who asks makes requests.
const ON_DEMAND: RefreshConfig = RefreshConfig { concurrency: 4, tick: Duration::from_hours(24) };

/// P5: one refresh, however many ask.
#[tokio::test(start_paused = true)]
async fn f13_many_callers_on_a_cold_cache_make_one_request() {
    let given = Given::a_linked_connection().await;
    given.entra.set_latency(Duration::from_secs(1));
    let asked: Vec<Asked> = (0..500).map(|_| given.ask()).collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap().unwrap().access.expose(), "access-of-old-1");
    }
    assert_eq!(given.entra.spent(), ["grant-of-old-0"]);
}

/// P4, invariant 2: dropping a wait drops no answer.
#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_loses_nothing() {
    let given = Given::a_linked_connection().await;
    let before = given.row().await.generation;
    given.refresh_in_flight().await.abort();
    given.entra.release();
    assert_eq!(given.answer().await, Ok("access-of-old-1".to_owned()));
    assert!(before < given.row().await.generation);
    assert_eq!(given.entra.spent().len(), 1);
}

/// Interleaving 1 of design 6.2: the old identity's grant under the new link.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_answers_after_a_relink_leaves_the_new_grant_alone() {
    let given = Given::a_linked_connection().await;
    let asked = given.refresh_in_flight().await;
    given.disconnect().await;
    given.link("new").await;
    given.entra.release();
    assert_eq!(asked.await.unwrap().unwrap().access.expose(), "access-of-new-1");
    assert_eq!(given.answer().await, Ok("access-of-new-1".to_owned()));
    assert_eq!(given.entra.spent(), ["grant-of-old-0", "grant-of-new-0"]);
}

/// Interleaving 2: a disconnected connection goes on being released.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_answers_after_a_disconnect_is_not_released() {
    let given = Given::a_linked_connection().await;
    let asked = given.refresh_in_flight().await;
    given.disconnect().await;
    let tombstone = given.row().await.generation;
    given.entra.release();
    assert_eq!(asked.await.unwrap().unwrap_err().reason, Reason::NotLinked);
    assert_eq!(given.answer().await, Err(Reason::NotLinked));
    let row = given.row().await;
    assert!(matches!(row.connection, Connection::Ended(_)) && row.generation == tombstone);
}

/// Interleaving 3: what was committed before a disconnect is published after it.
#[tokio::test(start_paused = true)]
async fn news_of_an_older_generation_does_not_raise_the_dead() {
    let given = Given::a_linked_connection().await;
    assert!(given.answer().await.is_ok());
    let committed = given.row().await;
    given.disconnect().await;
    let Connection::Live(live) = &committed.connection else { panic!("was live") };
    given.tokens.adopt(&key(), committed.generation, live, &given.store_clock());
    assert_eq!(given.answer().await, Err(Reason::NotLinked));
    given.link("new").await;
    given.tokens.adopt(&key(), committed.generation, live, &given.store_clock());
    assert_eq!(given.answer().await, Ok("access-of-new-1".to_owned()));
}

/// P7: who repeats a disconnect did not hear its answer, and neither did the releases of this process.
#[tokio::test(start_paused = true)]
async fn what_a_row_says_ends_what_was_held() {
    let given = Given::a_linked_connection().await;
    assert!(given.answer().await.is_ok());
    given.vault.disconnect(&key()).await.unwrap();
    given.tokens.publish(&given.row().await, &given.store_clock());
    assert_eq!(given.answer().await, Err(Reason::NotLinked));
}

/// P6: an outage costs no read while the token has the asked-for life.
#[tokio::test(start_paused = true)]
async fn f12_an_outage_costs_no_read_while_the_token_lives() {
    let given = Given::a_linked_connection().await;
    assert!(given.answer().await.is_ok());
    given.entra.set_down(true);
    for _ in 0..54 {
        sleep(Duration::from_mins(1)).await;
        assert_eq!(given.answer().await, Ok("access-of-old-1".to_owned()));
    }
    sleep(Duration::from_mins(2)).await;
    assert_eq!(given.answer().await, Err(Reason::UpstreamUnavailable));
    given.entra.set_down(false);
    sleep(Duration::from_mins(6)).await;
    assert!(given.answer().await.is_ok(), "recovers by itself");
}

/// P6, design.md 6.5: the outage begins before the refresh would have come, and ends a minute before the token is
/// too short. Until then, and until it is replaced, no read fails.
#[tokio::test(start_paused = true)]
async fn f12_an_outage_that_ends_in_time_costs_no_read_after_it_either() {
    let given = Given::a_linked_connection().await;
    assert!(given.answer().await.is_ok());
    given.entra.set_down(true);
    sleep(Duration::from_mins(54)).await;
    given.entra.set_down(false);
    for _ in 0..60 {
        assert!(given.answer().await.is_ok());
        sleep(Duration::from_secs(10)).await;
    }
}

/// P6: also whoever asked before the row was read is served from it (found by the simulation).
#[tokio::test(start_paused = true)]
async fn a_caller_whom_the_row_can_serve_does_not_wait_behind_a_refresh_for_another() {
    let given = Given::looking_every(Duration::from_hours(1)).await;
    assert!(given.answer().await.is_ok());
    sleep(Duration::from_mins(40)).await;
    // As a restart does: what the row says is not known yet.
    given.tokens.slots.forget_all();
    given.entra.hold();
    let demanding = given.ask_for(Duration::from_mins(30));
    let modest = given.ask();
    given.entra.held().wait_for(|held| *held == 1).await.unwrap();
    assert_eq!(modest.await.unwrap().unwrap().access.expose(), "access-of-old-1");
    given.entra.release();
    assert_eq!(demanding.await.unwrap().unwrap().access.expose(), "access-of-old-2");
}

/// P7: no token with less life than asked; what cannot be had costs no request.
#[tokio::test(start_paused = true)]
async fn a_lifetime_that_cannot_be_had_costs_no_request() {
    let given = Given::a_linked_connection().await;
    given.entra.set_lifetime(Duration::from_mins(10));
    assert!(given.answer().await.is_ok());
    let problem = given.ask_for(Duration::from_mins(20)).await.unwrap().unwrap_err();
    assert_eq!(problem.reason, Reason::MinTtlTooLong);
    assert_eq!(problem.facts, [("longest_ttl_s", "599".to_owned())]);
    assert_eq!(given.entra.spent().len(), 1);
}

/// P7: a caller that needs more life than is left waits for a new token.
#[tokio::test(start_paused = true)]
async fn a_token_with_too_little_life_left_is_replaced_first() {
    let given = Given::a_linked_connection().await;
    assert!(given.answer().await.is_ok());
    given.entra.set_down(true);
    sleep(Duration::from_mins(45)).await;
    given.entra.set_down(false);
    sleep(Duration::from_mins(6)).await;
    let token = given.ask_for(Duration::from_mins(30)).await.unwrap().unwrap();
    assert!(Duration::from_mins(30) < token.validity.left(given.clock.now()));
}

#[tokio::test(start_paused = true)]
async fn a_used_connection_is_refreshed_at_half_life_and_an_unused_one_is_not() {
    let given = Given::looking_every(Duration::from_mins(1)).await;
    sleep(Duration::from_hours(24)).await;
    assert_eq!(given.entra.spent().len(), 0, "nobody asked");
    assert!(given.answer().await.is_ok());
    sleep(Duration::from_mins(23)).await;
    assert_eq!(given.entra.spent().len(), 1);
    sleep(Duration::from_mins(8)).await;
    assert_eq!(given.entra.spent().len(), 2, "between 40 and 50 % of its life");
    sleep(Duration::from_hours(24)).await;
    assert_eq!(given.entra.spent().len(), 2, "the second one was never used");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_alive_every_week() {
    let given = Given::looking_every(Duration::from_hours(1)).await;
    sleep(Duration::from_hours(24 * 29)).await;
    assert!((4..=5).contains(&given.entra.spent().len()), "{:?}", given.entra.spent());
}

/// P4: a refused grant is believed when it is refused again, minutes later, and never retried then.
#[tokio::test(start_paused = true)]
async fn f11_a_refused_grant_needs_confirmation_and_is_kept() {
    let given = Given::a_linked_connection().await;
    for _ in 0..2 {
        given.entra.fail_next(EntraError::new(Verdict::Relink { unmistakable: false }));
    }
    assert_eq!(given.answer().await, Err(Reason::UpstreamUnavailable), "once may be a mistake");
    sleep(Duration::from_mins(6)).await;
    assert_eq!(given.answer().await, Err(Reason::RelinkRequired));
    sleep(Duration::from_hours(6)).await;
    assert_eq!(given.answer().await, Err(Reason::RelinkRequired));
    assert_eq!(given.entra.spent().len(), 2, "nothing retries what only a person can mend");
    let row = given.row().await;
    let Connection::Live(live) = &row.connection else { panic!("the link is lost") };
    assert_eq!(live.grant.as_ref().unwrap().expose(), "grant-of-old-0");
}

/// P4: a bad client secret ends no connection, and a new one resumes all.
#[tokio::test(start_paused = true)]
async fn f11_a_rejected_client_secret_costs_no_link() {
    let given = Given::a_linked_connection().await;
    given.entra.fail_next(EntraError::new(Verdict::ClientCredential));
    assert_eq!(given.answer().await, Err(Reason::ClientCredentialRejected));
    assert_eq!(given.answer().await, Err(Reason::ClientCredentialRejected));
    assert_eq!(given.entra.spent().len(), 1, "not asked again at once");
    sleep(Duration::from_mins(21)).await;
    assert_eq!(given.answer().await, Ok("access-of-old-1".to_owned()), "the probe finds it works again");
}

/// A refusal of the grant comes after the client was believed (azure.md 6.3): a connection that a person must
/// link again does not keep the others of its account from going on (found by the simulation).
#[tokio::test(start_paused = true)]
async fn a_refused_grant_lifts_the_rejection_of_the_credential_it_was_sent_with() {
    let given = Given::looking_every(Duration::from_hours(1)).await;
    given.entra.fail_next(EntraError::new(Verdict::ClientCredential));
    assert_eq!(given.answer().await, Err(Reason::ClientCredentialRejected));
    sleep(Duration::from_mins(21)).await;
    given.entra.fail_next(EntraError::new(Verdict::Relink { unmistakable: true }));
    assert_eq!(given.answer().await, Err(Reason::RelinkRequired));
    let integration = given.accounts.integration(&key().account).await.unwrap().unwrap();
    assert_eq!(integration.credentials[0].rejected_at, None);
}

/// A holder was refused: replaced when the refresh answers, not dropped before (P6), once a minute.
#[tokio::test(start_paused = true)]
async fn a53_a_reported_token_is_replaced_once_a_minute_at_most() {
    let given = Given::a_linked_connection().await;
    let first = given.ask().await.unwrap().unwrap();
    let report = |fingerprint: &Fingerprint| given.tokens.report(&allowed(), &key(), fingerprint);
    given.entra.hold();
    assert_eq!(report(&first.fingerprint), Reported::Replacing);
    given.entra.held().wait_for(|held| *held == 1).await.unwrap();
    assert_eq!(given.answer().await, Ok("access-of-old-1".to_owned()), "still at hand");
    given.entra.release();
    let second = given.tokens.token_other_than(&allowed(), &key(), &first.fingerprint).await.unwrap();
    assert_eq!(second.access.expose(), "access-of-old-2");
    assert_eq!(report(&first.fingerprint), Reported::Unknown);
    assert_eq!(report(&second.fingerprint), Reported::TooSoon);
    assert_eq!(given.entra.spent().len(), 2);
}

/// P4: kept at once; the failure stays one, and is paced like one.
#[tokio::test(start_paused = true)]
async fn f09_the_grant_of_an_unusable_answer_is_kept_and_no_storm_follows() {
    let given = Given::a_linked_connection().await;
    for number in 7..17 {
        let rescued = Some(RefreshToken::new(format!("grant-of-old-{number}")));
        given.entra.fail_next(EntraError { rescued, ..EntraError::new(Verdict::Unknown) });
    }
    assert_eq!(given.answer().await, Err(Reason::UpstreamUnavailable));
    assert!(
        matches!(given.row().await.connection, Connection::Live(live) if live.grant.as_ref().unwrap().expose() == "grant-of-old-7")
    );
    let failure = given.row().await.failure.expect("remembered for callers elsewhere");
    assert_eq!((failure.reason, failure.count), (Reason::UpstreamUnavailable, 1));
    sleep(Duration::from_mins(1)).await;
    assert!(given.entra.spent().len() <= 2, "{:?}", given.entra.spent());
    sleep(Duration::from_mins(2)).await;
    assert_eq!(
        given.row().await.failure.map(|failure| (failure.since, 2 <= failure.count)),
        Some((failure.since, true))
    );
    sleep(Duration::from_hours(2)).await;
    assert!(given.answer().await.is_ok(), "recovers by itself");
    assert_eq!(given.row().await.failure, None);
}

/// P7: also from a cold slot, and for exactly the life that tokens have.
#[tokio::test(start_paused = true)]
async fn a_lifetime_that_cannot_be_had_costs_no_request_after_a_restart_either() {
    let given = Given::a_linked_connection().await;
    given.entra.set_lifetime(Duration::from_mins(10));
    assert!(given.answer().await.is_ok());
    // What a new process knows is what the row says.
    given.tokens.slots.forget_all();
    for min_ttl in [Duration::from_mins(20), Duration::from_mins(10)] {
        let problem = given.ask_for(min_ttl).await.unwrap().unwrap_err();
        assert_eq!(problem.reason, Reason::MinTtlTooLong);
    }
    assert_eq!(given.entra.spent().len(), 1);
}

/// A holder who waits for the replacement is not sent away by what failed before they asked.
#[tokio::test(start_paused = true)]
async fn an_old_failure_does_not_end_the_wait_for_a_replacement() {
    // Nothing looks what is due meanwhile, so that the failure stays remembered.
    let given = Given::looking_every(Duration::from_hours(1)).await;
    let first = given.ask().await.unwrap().unwrap();
    given.entra.set_down(true);
    assert_eq!(given.tokens.report(&allowed(), &key(), &first.fingerprint), Reported::Replacing);
    sleep(Duration::from_mins(1)).await;
    given.entra.set_down(false);
    given.entra.hold();
    assert_eq!(given.tokens.report(&allowed(), &key(), &first.fingerprint), Reported::Replacing);
    given.entra.held().wait_for(|held| *held == 1).await.unwrap();
    assert!(given.tokens.obstacle(&key()).is_some(), "the first attempt's failure is remembered");

    let (tokens, fingerprint) = (given.tokens.clone(), first.fingerprint.clone());
    let waiting =
        tokio::spawn(async move { tokens.token_other_than(&allowed(), &key(), &fingerprint).await });
    sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "sent away by an old failure");

    given.entra.release();
    assert_ne!(waiting.await.unwrap().unwrap().fingerprint, first.fingerprint);
}
