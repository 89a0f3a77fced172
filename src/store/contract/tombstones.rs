//! What a store must keep of a connection that ended, and when it may forget it.

use std::time::Duration;

use jiff::Timestamp;

use super::leases::due;
use super::{LEASE, claim, fail, key, load, now, won, write};
use crate::ids::Generation;
use crate::store::{Cas, Claim, ConnectionWrite, Store, StoreError};

pub(super) async fn a_tombstone_keeps_its_generation_and_is_not_claimed(
    store: &Store,
) -> Result<(), StoreError> {
    won(store.commit(due(store, "acme", 1).await?).await?);
    let late = claim(store, "acme", LEASE).await?;
    let tombstone = ConnectionWrite { live: false, sealed: b"tombstone".into(), ..write("acme", Some(1), 2) };
    won(store.disconnect(ConnectionWrite { refresh_at: Some(Timestamp::MIN), ..tombstone }, vec![]).await?);

    let row = load(store, "acme").await?;
    assert_eq!((row.generation, row.live), (Generation(2), false));
    assert_eq!(store.claim(&key("acme"), LEASE).await?, Claim::Absent(Some(Box::new(row))));
    assert!(store.claim_due(10, LEASE).await?.is_empty());
    assert_eq!(fail(store, &late, late.store_now).await?, Cas::Lost);
    assert_eq!(store.commit(write("acme", Some(1), 3)).await?, Cas::Lost);
    assert_eq!(store.commit(write("acme", None, 3)).await?, Cas::Lost);
    won(store.commit(write("acme", Some(2), 3)).await?);
    Ok(())
}

pub(super) async fn old_tombstones_are_erased_the_oldest_first(store: &Store) -> Result<(), StoreError> {
    let now = now(store).await?.as_microsecond();
    let (kept, day) = (Duration::from_hours(48), 24 * 3600 * 1_000_000);
    for (account, ended) in [("b", now - 4 * day), ("a", now - 3 * day), ("young", now - day)] {
        won(store.commit(write(account, None, 1)).await?);
        let tombstone = ConnectionWrite { live: false, ..write(account, Some(1), ended) };
        won(store.disconnect(tombstone, vec![]).await?);
    }
    won(store.commit(write("alive", None, 1)).await?);
    let held = ["b", "a", "young", "alive"].map(key).to_vec();
    let stay = async |store: &Store| -> Result<Vec<String>, StoreError> {
        let mut found = store.generations(held.clone()).await?;
        found.sort();
        Ok(found.into_iter().map(|one| one.key.account.to_string()).collect())
    };

    assert_eq!(store.erase_ended(kept, 1).await?, 1);
    assert_eq!(stay(store).await?, ["a", "alive", "young"]);
    assert_eq!(store.erase_ended(kept, 10).await?, 1);
    assert_eq!(store.erase_ended(kept, 10).await?, 0);
    assert_eq!(stay(store).await?, ["alive", "young"]);
    assert_eq!(store.claim(&key("a"), LEASE).await?, Claim::Absent(None));
    assert_eq!(store.commit(write("a", Some(now - 3 * day), now)).await?, Cas::Lost, "it is not there");
    won(store.commit(write("a", None, now)).await?);
    assert_eq!(store.erase_ended(Duration::ZERO, 10).await?, 1, "the young one");
    assert_eq!(stay(store).await?, ["a", "alive"]);
    Ok(())
}
