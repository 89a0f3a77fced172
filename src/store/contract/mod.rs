//! What every store must do: the normative text of the contract in the [module's](super) words.
//!
//! Stores keep their own clock, which this suite cannot move: it reads it and writes times around it.

mod leases;
mod links;
mod outbox;
mod tombstones;

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Cas, Claim, Claimed, Compared, ConnectionRow, ConnectionWrite, IntegrationRow, Store, StoreError, Verdict,
};
use crate::connection::{ConnectionKey, Failure, Role};
use crate::ids::{Generation, InvalidName};
use crate::reason::Reason;

/// Runs the suite, each part on a new, empty store.
pub async fn holds(make: impl AsyncFn() -> Store) {
    let parts = async {
        what_was_never_written_is_none(&make().await).await?;
        one_of_two_racing_writers_wins(&make().await).await?;
        a_repeated_commit_wins_again_and_only_its_own(&make().await).await?;
        what_is_held_can_be_compared(&make().await).await?;
        leases::whoever_puts_off_leaves_failures_alone(&make().await).await?;
        a_connection_reads_back_as_written(&make().await).await?;
        leases::a_lease_is_had_by_one(&make().await).await?;
        leases::a_lease_that_ran_out_is_had_by_the_next(&make().await).await?;
        leases::a_stale_fence_cannot_record_a_failure(&make().await).await?;
        leases::a_stale_holder_with_the_right_generation_commits(&make().await).await?;
        leases::a_failure_pauses_until_success_or_mending(&make().await).await?;
        leases::a_foreseen_failure_stands_unless_another_verdict_comes(&make().await).await?;
        tombstones::a_tombstone_keeps_its_generation_and_is_not_claimed(&make().await).await?;
        tombstones::old_tombstones_are_erased_the_oldest_first(&make().await).await?;
        leases::a_write_that_keeps_a_loss_keeps_no_other_failure(&make().await).await?;
        leases::only_what_is_due_is_claimed(&make().await).await?;
        a_refresh_is_pulled_earlier_never_later(&make().await).await?;
        grants_that_die_soon_are_listed_the_first_first(&make().await).await?;
        lists_are_ordered_and_paged(&make().await).await?;
        links::a_link_is_found_by_id_and_state(&make().await).await?;
        links::open_links_are_those_of_the_account_and_role(&make().await).await?;
        links::links_that_ran_out_are_listed_while_they_are_open(&make().await).await?;
        links::expired_links_are_deleted_the_oldest_first(&make().await).await?;
        links::a_link_connects_with_all_that_belongs_to_it(&make().await).await?;
        links::a_lost_swap_connects_nothing(&make().await).await?;
        links::a_disconnect_ends_the_links_or_does_nothing(&make().await).await?;
        links::integrations_are_swapped_and_listed(&make().await).await?;
        outbox::a_change_is_told_with_its_write_and_only_once(&make().await).await?;
        outbox::what_belongs_together_and_is_lost_tells_nothing(&make().await).await?;
        outbox::who_reads_on_misses_and_repeats_nothing(&make().await).await?;
        outbox::what_is_deleted_is_said_to_be_gone(&make().await).await?;
        outbox::a_foreseen_loss_is_told_when_nobody_is_on_it(&make().await).await?;
        outbox::a_position_of_another_outbox_is_gone(&make().await).await?;
        a_store_that_works_can_be_probed_and_compacted(&make().await).await
    };
    parts.await.expect("the store answers");
}

async fn what_was_never_written_is_none(store: &Store) -> Result<(), StoreError> {
    assert_eq!(store.connection(&key("acme")).await?.row, None);
    assert_eq!(store.claim(&key("acme"), LEASE).await?, Claim::Absent(None));
    assert_eq!(store.link(&name("link-1")).await?.row, None);
    assert_eq!(store.link_by_state("state").await?.row, None);
    assert_eq!(store.integration(&name("acme")).await?, None);
    assert!(store.claim_due(10, LEASE).await?.is_empty());
    Ok(())
}

async fn one_of_two_racing_writers_wins(store: &Store) -> Result<(), StoreError> {
    assert_eq!(store.commit(write("acme", None, 1)).await?, Cas::Won);
    assert_eq!(store.commit(write("acme", None, 2)).await?, Cas::Lost);

    let (one, other) =
        tokio::join!(store.commit(write("acme", Some(1), 2)), store.commit(write("acme", Some(1), 3)));

    let (one, other) = (one?, other?);
    assert_ne!(one, other);
    let kept = load(store, "acme").await?.generation;
    assert_eq!(kept, Generation(if one == Cas::Won { 2 } else { 3 }));
    Ok(())
}

/// Whoever did not hear that a write won asks again with the same bytes.
async fn a_repeated_commit_wins_again_and_only_its_own(store: &Store) -> Result<(), StoreError> {
    won(store.commit(write("acme", None, 1)).await?);
    won(store.commit(write("acme", None, 1)).await?);
    won(store.commit(write("acme", Some(1), 2)).await?);
    won(store.commit(write("acme", Some(1), 2)).await?);

    let other = ConnectionWrite { sealed: b"of another replica".into(), ..write("acme", Some(1), 2) };
    assert_eq!(store.commit(other).await?, Cas::Lost);
    won(store.commit(write("acme", Some(2), 3)).await?);
    assert_eq!(store.commit(write("acme", Some(1), 2)).await?, Cas::Lost, "somebody went on from it");
    Ok(())
}

async fn what_is_held_can_be_compared(store: &Store) -> Result<(), StoreError> {
    won(store.commit(write("a", None, 7)).await?);
    won(store.commit(ConnectionWrite { live: false, ..write("b", None, 8) }).await?);
    let integration = IntegrationRow { account: name("a"), version: 3, sealed: b"sealed".into() };
    won(store.put_integration(None, integration).await?);

    let mut generations = store.generations(vec![key("a"), key("b"), key("absent")]).await?;
    generations.sort();
    let versions = store.integration_versions(vec![name("a"), name("absent")]).await?;

    let compared = |account, generation| Compared { key: key(account), generation: Generation(generation) };
    assert_eq!(generations, [compared("a", 7), compared("b", 8)]);
    assert_eq!(versions, [(name("a"), 3)]);
    assert_eq!(store.generations(Vec::new()).await?, []);
    let mut rows = store.connections_of(vec![key("b"), key("absent"), key("a")]).await?.row;
    rows.sort_by(|one, other| one.key.cmp(&other.key));
    assert_eq!(rows, [load(store, "a").await?, load(store, "b").await?]);
    assert_eq!(store.connections_of(Vec::new()).await?.row, []);
    Ok(())
}

async fn a_connection_reads_back_as_written(store: &Store) -> Result<(), StoreError> {
    let now = now(store).await?;
    let written = ConnectionWrite { refresh_at: Some(now + LEASE), ..write("acme", None, 5) };
    won(store.commit(written.clone()).await?);

    let row = load(store, "acme").await?;

    assert_eq!((row.key, row.generation, row.sealed), (written.key, Generation(5), written.sealed));
    assert_eq!((row.live, row.refresh_at), (true, written.refresh_at));
    assert_eq!((row.retry_at, row.failure, row.lease_until), (None, None, None));
    Ok(())
}

async fn a_refresh_is_pulled_earlier_never_later(store: &Store) -> Result<(), StoreError> {
    let now = now(store).await?;
    won(store.commit(ConnectionWrite { refresh_at: Some(now + 2 * LEASE), ..write("a", None, 7) }).await?);
    won(store.commit(write("b", None, 7)).await?);
    let pull = |account, generation, at| (key(account), Generation(generation), at);

    store.pull_refresh(vec![pull("a", 7, now + LEASE), pull("b", 7, now)]).await?;
    store.pull_refresh(vec![pull("a", 7, now + 3 * LEASE), pull("b", 6, now - LEASE)]).await?;
    store.pull_refresh(vec![pull("absent", 7, now)]).await?;

    assert_eq!(load(store, "a").await?.refresh_at, Some(now + LEASE));
    assert_eq!(load(store, "b").await?.refresh_at, Some(now));
    Ok(())
}

async fn grants_that_die_soon_are_listed_the_first_first(store: &Store) -> Result<(), StoreError> {
    let now = now(store).await?;
    let dies = |account, at, live| ConnectionWrite { grant_until: Some(at), live, ..write(account, None, 1) };
    won(store.commit(dies("later", now + 3 * LEASE, true)).await?);
    won(store.commit(dies("second", now + LEASE, true)).await?);
    won(store.commit(dies("first", now - LEASE, true)).await?);
    won(store.commit(dies("ended", now, false)).await?);
    won(store.commit(write("none", None, 1)).await?);

    let waits = ConnectionWrite { refresh_at: Some(now), ..dies("waits", now, true) };
    won(store.commit(waits).await?);
    won(fail(store, &claim(store, "waits", LEASE).await?, now + LEASE).await?);
    let all = Timestamp::MIN..now + 2 * LEASE;

    let soon = store.expiring_grants(all.clone(), 10).await?;

    assert_eq!(soon, [(key("first"), now - LEASE), (key("second"), now + LEASE)]);
    assert_eq!(store.expiring_grants(all.clone(), 1).await?.len(), 1);
    assert_eq!(store.expiring_grants(now..all.end, 1).await?, [(key("second"), now + LEASE)]);
    won(store
        .commit(ConnectionWrite { grant_until: Some(now + 3 * LEASE), ..write("first", Some(1), 2) })
        .await?);
    assert_eq!(store.expiring_grants(all, 10).await?, [(key("second"), now + LEASE)]);
    Ok(())
}

async fn lists_are_ordered_and_paged(store: &Store) -> Result<(), StoreError> {
    for role in ["service_user", "developer/zoe", "developer/ana", "service_principal"] {
        let key = ConnectionKey { account: name("acme"), role: Role::parse(role).expect("a role") };
        let live = role != "developer/zoe";
        won(store.commit(ConnectionWrite { key, live, ..write("acme", None, 1) }).await?);
    }
    won(store.commit(write("other", None, 1)).await?);
    let roles =
        |rows: Vec<ConnectionRow>| rows.iter().map(|row| row.key.role.to_string()).collect::<Vec<_>>();

    let first = roles(store.connections(&name("acme"), None, 2).await?.row);
    let rest = roles(store.connections(&name("acme"), Some("developer/zoe"), 10).await?.row);

    assert_eq!(first, ["developer/ana", "developer/zoe"]);
    assert_eq!(rest, ["service_principal", "service_user"]);
    Ok(())
}

async fn a_store_that_works_can_be_probed_and_compacted(store: &Store) -> Result<(), StoreError> {
    store.probe().await?;
    store.compact().await
}

async fn now(store: &Store) -> Result<Timestamp, StoreError> {
    Ok(store.connection(&key("nobody")).await?.store_now)
}

async fn load(store: &Store, account: &str) -> Result<ConnectionRow, StoreError> {
    Ok(store.connection(&key(account)).await?.row.expect("was written"))
}

async fn claim(store: &Store, account: &str, lease: Duration) -> Result<Claimed, StoreError> {
    match store.claim(&key(account), lease).await? {
        Claim::Won(claimed) => Ok(*claimed),
        other => panic!("{account} should be free: {other:?}"),
    }
}

async fn fail(store: &Store, claimed: &Claimed, retry_at: Timestamp) -> Result<Cas, StoreError> {
    store.record_failure(verdict(claimed, retry_at)).await
}

fn verdict(claimed: &Claimed, retry_at: Timestamp) -> Verdict {
    let (row, failure) = (&claimed.row, Some(failure(claimed.store_now)));
    let (key, generation, fence) = (row.key.clone(), row.generation, row.fence);
    Verdict { key, generation, fence, failure, retry_at, change: None }
}

fn won(cas: Cas) {
    assert_eq!(cas, Cas::Won);
}

fn write(account: &str, expected: Option<i64>, generation: i64) -> ConnectionWrite {
    ConnectionWrite {
        key: key(account),
        expected: expected.map(Generation),
        generation: Generation(generation),
        sealed: format!("sealed {generation}").into(),
        live: true,
        refresh_at: None,
        grant_until: None,
        paused: None,
        keeps_loss: false,
        change: None,
    }
}

fn failure(since: Timestamp) -> Failure {
    // Stores keep microseconds.
    let since = Timestamp::from_microsecond(since.as_microsecond()).expect("was a time");
    Failure {
        reason: Reason::RelinkRequired,
        code: Some(50173),
        since,
        count: 2,
        needs_person: true,
        refused_at: None,
        lost: false,
        case: None,
    }
}

fn key(account: &str) -> ConnectionKey {
    ConnectionKey { account: name(account), role: Role::ServiceUser }
}

fn name<T: std::str::FromStr<Err = InvalidName>>(text: &str) -> T {
    text.parse().expect("a valid name")
}

/// Longer than any part of the suite takes.
const LEASE: Duration = Duration::from_mins(10);
