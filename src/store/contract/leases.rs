//! Leases: who may refresh, what a verdict leaves, and what is due.

use std::time::Duration;

use super::super::{Cas, Claim, Claimed, ConnectionWrite, Store, StoreError, Verdict};
use super::{LEASE, claim, fail, failure, key, load, name, now, verdict, won, write};
use crate::connection::Failure;

pub(super) async fn a_lease_is_had_by_one(store: &Store) -> Result<(), StoreError> {
    won(store.commit(write("acme", None, 1)).await?);

    let claimed = claim(store, "acme", LEASE).await?;
    let until = claimed.store_now + LEASE;

    assert_eq!(store.claim(&key("acme"), LEASE).await?, Claim::Leased { until });
    assert_eq!(load(store, "acme").await?, claimed.row);
    store.release_lease(&key("acme"), claimed.row.fence + 1).await?;
    assert!(matches!(store.claim(&key("acme"), LEASE).await?, Claim::Leased { .. }));
    store.release_lease(&key("acme"), claimed.row.fence).await?;
    assert!(claimed.row.fence < claim(store, "acme", LEASE).await?.row.fence);
    Ok(())
}

pub(super) async fn a_lease_that_ran_out_is_had_by_the_next(store: &Store) -> Result<(), StoreError> {
    won(store.commit(write("acme", None, 1)).await?);
    let stale = claim(store, "acme", Duration::ZERO).await?;
    let next = claim(store, "acme", LEASE).await?;
    assert!(stale.row.fence < next.row.fence);
    Ok(())
}

pub(super) async fn a_stale_fence_cannot_record_a_failure(store: &Store) -> Result<(), StoreError> {
    won(store.commit(write("acme", None, 1)).await?);
    let stale = claim(store, "acme", Duration::ZERO).await?;
    let next = claim(store, "acme", LEASE).await?;
    let retry_at = next.store_now + LEASE;

    assert_eq!(fail(store, &stale, retry_at).await?, Cas::Lost);
    assert_eq!(load(store, "acme").await?.failure, None);
    won(store.commit(write("acme", Some(1), 2)).await?);
    assert_eq!(fail(store, &next, retry_at).await?, Cas::Lost, "the generation is another one");
    Ok(())
}

pub(super) async fn a_stale_holder_with_the_right_generation_commits(
    store: &Store,
) -> Result<(), StoreError> {
    won(store.commit(write("acme", None, 1)).await?);
    let stale = claim(store, "acme", Duration::ZERO).await?;
    claim(store, "acme", LEASE).await?;

    won(store.commit(write("acme", Some(stale.row.generation.0), 2)).await?);

    assert_eq!(load(store, "acme").await?.lease_until, None);
    Ok(())
}

pub(super) async fn a_failure_pauses_until_success_or_mending(store: &Store) -> Result<(), StoreError> {
    won(store.commit(due(store, "acme", 1).await?).await?);
    let claimed = claim(store, "acme", LEASE).await?;
    let retry_at = claimed.store_now + LEASE;

    won(fail(store, &claimed, retry_at).await?);

    let paused = Claim::Paused { until: retry_at, failure: Some(failure(claimed.store_now)) };
    assert_eq!(store.claim(&key("acme"), LEASE).await?, paused);
    assert!(store.claim_due(10, LEASE).await?.is_empty());

    let reason = failure(claimed.store_now).reason;
    store.clear_pause(&name("other"), reason).await?;
    store.clear_pause(&name("acme"), crate::reason::Reason::SnapshotGone).await?;
    assert_eq!(store.claim(&key("acme"), LEASE).await?, paused);
    store.clear_pause(&name("acme"), reason).await?;
    let claimed = claim(store, "acme", LEASE).await?;
    assert_eq!((claimed.row.retry_at, &claimed.row.failure), (None, &None));

    won(fail(store, &claimed, retry_at).await?);
    won(store.commit(write("acme", Some(1), 2)).await?);
    let row = load(store, "acme").await?;
    assert_eq!((row.retry_at, row.failure), (None, None));
    Ok(())
}

pub(super) async fn a_foreseen_failure_stands_unless_another_verdict_comes(
    store: &Store,
) -> Result<(), StoreError> {
    won(store.commit(due(store, "acme", 1).await?).await?);
    let stale = claim(store, "acme", Duration::ZERO).await?;
    let claimed = claim(store, "acme", LEASE).await?;
    let retry_at = claimed.store_now + 2 * LEASE;

    assert_eq!(store.foresee_failure(verdict(&stale, retry_at)).await?, Cas::Lost);
    won(store.foresee_failure(verdict(&claimed, retry_at)).await?);

    let row = load(store, "acme").await?;
    assert_eq!(
        (row.failure.is_some(), row.retry_at, row.lease_until),
        (true, Some(retry_at), claimed.row.lease_until)
    );
    store.release_lease(&key("acme"), claimed.row.fence).await?;
    assert!(matches!(store.claim(&key("acme"), LEASE).await?, Claim::Paused { .. }));
    assert!(store.claim_due(10, LEASE).await?.is_empty());
    won(store.commit(write("acme", Some(1), 2)).await?);
    assert_eq!(load(store, "acme").await?.failure, None);
    Ok(())
}

/// What was mended meanwhile stays mended, and what was foreseen did not come.
pub(super) async fn whoever_puts_off_leaves_failures_alone(store: &Store) -> Result<(), StoreError> {
    won(store.commit(write("mended", None, 1)).await?);
    let failed = claim(store, "mended", LEASE).await?;
    won(fail(store, &failed, failed.store_now).await?);
    let claimed = claim(store, "mended", LEASE).await?;
    store.clear_pause(&name("mended"), failure(claimed.store_now).reason).await?;
    won(store
        .put_off(Verdict { failure: claimed.row.failure.clone(), ..verdict(&claimed, claimed.store_now) })
        .await?);
    let row = load(store, "mended").await?;
    assert_eq!(
        (row.failure, row.retry_at, row.lease_until),
        (None, None, None),
        "it may be demanded at once"
    );

    let claimed = claim(store, "mended", LEASE).await?;
    let lost = Some(Failure { lost: true, ..failure(claimed.store_now) });
    won(store.foresee_failure(Verdict { failure: lost, ..verdict(&claimed, claimed.store_now) }).await?);
    won(store.put_off(Verdict { failure: None, ..verdict(&claimed, claimed.store_now) }).await?);
    assert_eq!(load(store, "mended").await?.failure, None);
    Ok(())
}

/// What a write says of failures it says, but over a grant that may be used up.
pub(super) async fn a_write_that_keeps_a_loss_keeps_no_other_failure(
    store: &Store,
) -> Result<(), StoreError> {
    won(store.commit(write("acme", None, 1)).await?);
    for (generation, lost) in [(1, true), (2, false)] {
        let claimed = claim(store, "acme", Duration::ZERO).await?;
        let before = Failure { lost, ..failure(claimed.store_now) };
        let now = claimed.store_now;
        won(store
            .foresee_failure(Verdict { failure: Some(before.clone()), ..verdict(&claimed, now) })
            .await?);
        let paused = Some((failure(now), now + LEASE));
        let refused =
            ConnectionWrite { paused, keeps_loss: true, ..write("acme", Some(generation), generation + 1) };
        won(store.commit(refused).await?);
        let row = load(store, "acme").await?;
        let expected = if lost { (Some(before), Some(now)) } else { (Some(failure(now)), Some(now + LEASE)) };
        assert_eq!((row.failure, row.retry_at, row.lease_until), (expected.0, expected.1, None));
    }
    won(store.commit(write("acme", Some(3), 4)).await?);
    let row = load(store, "acme").await?;
    assert_eq!((row.failure, row.retry_at), (None, None));
    Ok(())
}

pub(super) async fn only_what_is_due_is_claimed(store: &Store) -> Result<(), StoreError> {
    let now = now(store).await?;
    for (account, refresh_at) in [
        ("b", Some(now - 2 * LEASE)),
        ("a", Some(now - LEASE)),
        ("later", Some(now + LEASE)),
        ("never", None),
    ] {
        won(store.commit(ConnectionWrite { refresh_at, ..write(account, None, 1) }).await?);
    }
    let accounts = |claimed: &[Claimed]| -> Vec<String> {
        claimed.iter().map(|claimed| claimed.row.key.account.to_string()).collect()
    };
    let first = store.claim_due(1, LEASE).await?;
    assert_eq!(accounts(&first), ["b"]);
    assert_eq!(first[0].row, load(store, "b").await?);
    assert_eq!(accounts(&store.claim_due(10, LEASE).await?), ["a"]);
    assert!(store.claim_due(10, LEASE).await?.is_empty());
    assert_eq!(claim(store, "later", LEASE).await?.row.refresh_at, Some(now + LEASE), "before it is due");
    claim(store, "never", LEASE).await.map(drop)
}

pub(super) async fn due(
    store: &Store,
    account: &str,
    generation: i64,
) -> Result<ConnectionWrite, StoreError> {
    let refresh_at = Some(now(store).await?);
    Ok(ConnectionWrite { refresh_at, ..write(account, None, generation) })
}
