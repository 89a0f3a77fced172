//! Links, what is written with them, and integrations.

use std::time::Duration;

use jiff::Timestamp;

use super::super::{Cas, ConnectionWrite, IntegrationRow, LinkRow, Store, StoreError};
use super::{key, load, name, now, won, write};
use crate::clock::earlier;
use crate::connection::{ConnectionKey, Role};
use crate::ids::AccountId;

pub(super) async fn a_link_is_found_by_id_and_state(store: &Store) -> Result<(), StoreError> {
    let begun = link("link-1", 1);
    store.insert_link(begun.clone()).await?;
    assert!(store.insert_link(begun.clone()).await.is_err(), "an id twice");
    assert_eq!(store.link(&begun.id).await?.row.as_ref(), Some(&begun));
    assert_eq!(store.link_by_state(&begun.state_hash).await?.row.as_ref(), Some(&begun));

    let taken = LinkRow { sealed: b"taken".into(), open: false, ..link("link-1", 2) };
    assert_eq!(store.replace_link(2, taken.clone()).await?, Cas::Lost);
    won(store.replace_link(1, taken.clone()).await?);
    assert_eq!(store.replace_link(1, link("link-1", 3)).await?, Cas::Lost);
    let moved = LinkRow { key: key("evil"), ..link("link-1", 3) };
    assert_eq!(store.replace_link(2, moved).await?, Cas::Lost, "a link keeps its key");
    assert_eq!(store.link(&begun.id).await?.row, Some(taken));
    Ok(())
}

pub(super) async fn open_links_are_those_of_the_account_and_role(store: &Store) -> Result<(), StoreError> {
    let developer = ConnectionKey { role: Role::Developer(name("ana")), ..key("acme") };
    let mine = link("mine", 1);
    let hers = LinkRow { key: developer.clone(), ..link("hers", 1) };
    let ended = LinkRow { open: false, ..link("ended", 1) };
    let foreign = LinkRow { key: key("other"), ..link("foreign", 1) };
    for row in [&mine, &hers, &ended, &foreign] {
        store.insert_link(row.clone()).await?;
    }
    let acme: AccountId = name("acme");
    assert_eq!(store.open_links(&acme, None).await?, [hers.clone(), mine]);
    assert_eq!(store.open_links(&acme, Some(&developer.role)).await?, [hers]);
    Ok(())
}

pub(super) async fn links_that_ran_out_are_listed_while_they_are_open(
    store: &Store,
) -> Result<(), StoreError> {
    let old = link("old", 1);
    store.insert_link(old.clone()).await?;
    store.insert_link(closed("over", 1)).await?;
    store.insert_link(LinkRow { expires_at: Timestamp::MAX, ..link("young", 1) }).await?;
    assert_eq!(store.expired_links(9).await?, [old]);
    assert_eq!(store.expired_links(0).await?, []);
    Ok(())
}

pub(super) async fn expired_links_are_deleted_the_oldest_first(store: &Store) -> Result<(), StoreError> {
    let now = now(store).await?;
    for (id, ran_out) in [("a", 1), ("c", 3), ("b", 2)] {
        let expires_at = earlier(now, Duration::from_mins(60 - ran_out));
        store.insert_link(LinkRow { expires_at, ..link(id, 1) }).await?;
    }
    let young = LinkRow { expires_at: Timestamp::MAX, ..link("young", 1) };
    store.insert_link(young.clone()).await?;

    assert_eq!(store.delete_some_links(now, 0).await?, 0);
    assert_eq!(store.delete_some_links(now, 2).await?, 2, "no more than was asked for");
    assert!(store.link(&name("c")).await?.row.is_some(), "the youngest of them is next");
    assert_eq!(store.delete_links(now).await?, 1);

    for id in ["a", "b", "c"] {
        assert_eq!(store.link(&name(id)).await?.row, None);
    }
    assert_eq!(store.link(&young.id).await?.row, Some(young));
    Ok(())
}

pub(super) async fn a_link_connects_with_all_that_belongs_to_it(store: &Store) -> Result<(), StoreError> {
    store.insert_link(link("held", 1)).await?;
    let connected = closed("held", 2);

    won(store.connect(1, connected.clone(), write("acme", None, 1)).await?);

    assert_eq!(store.link(&connected.id).await?.row, Some(connected));
    assert!(load(store, "acme").await?.live);
    Ok(())
}

pub(super) async fn a_lost_swap_connects_nothing(store: &Store) -> Result<(), StoreError> {
    let held = link("held", 1);
    store.insert_link(held.clone()).await?;
    won(store.commit(write("acme", None, 10)).await?);
    let before = load(store, "acme").await?;

    for (link_version, generation) in [(9, 10), (1, 9)] {
        let write = write("acme", Some(generation), 11);
        assert_eq!(store.connect(link_version, closed("held", 2), write).await?, Cas::Lost);
    }

    assert_eq!(store.link(&held.id).await?.row, Some(held));
    assert_eq!(load(store, "acme").await?, before);
    Ok(())
}

pub(super) async fn a_disconnect_ends_the_links_or_does_nothing(store: &Store) -> Result<(), StoreError> {
    store.insert_link(link("open", 1)).await?;
    won(store.commit(write("acme", None, 1)).await?);
    let tombstone = ConnectionWrite { live: false, ..write("acme", Some(1), 2) };

    let lost = store.disconnect(tombstone.clone(), vec![(9, closed("open", 2))]).await?;
    assert_eq!((lost, load(store, "acme").await?.live), (Cas::Lost, true));
    won(store.disconnect(tombstone, vec![(1, closed("open", 2))]).await?);

    assert!(!load(store, "acme").await?.live);
    assert_eq!(store.link(&name("open")).await?.row, Some(closed("open", 2)));
    Ok(())
}

pub(super) async fn integrations_are_swapped_and_listed(store: &Store) -> Result<(), StoreError> {
    let row = |account, version| IntegrationRow { account: name(account), version, sealed: b"sealed".into() };
    won(store.put_integration(None, row("b", 1)).await?);
    won(store.put_integration(None, row("a", 1)).await?);
    assert_eq!(store.put_integration(None, row("a", 2)).await?, Cas::Lost);
    assert_eq!(store.put_integration(Some(2), row("a", 3)).await?, Cas::Lost);
    won(store.put_integration(Some(1), row("a", 2)).await?);

    assert_eq!(store.integration(&name("a")).await?, Some(row("a", 2)));
    assert_eq!(store.integrations(None, 1).await?, [row("a", 2)]);
    assert_eq!(store.integrations(Some(&name("a")), 10).await?, [row("b", 1)]);

    assert_eq!(store.delete_integration(&name("a"), 1).await?, Cas::Lost);
    won(store.delete_integration(&name("a"), 2).await?);
    assert_eq!(store.integration(&name("a")).await?, None);
    Ok(())
}

pub(super) fn link(id: &str, version: i64) -> LinkRow {
    LinkRow {
        id: name(id),
        key: key("acme"),
        state_hash: format!("state of {id}"),
        version,
        open: true,
        expires_at: Timestamp::UNIX_EPOCH,
        sealed: b"begun".into(),
    }
}

fn closed(id: &str, version: i64) -> LinkRow {
    LinkRow { open: false, ..link(id, version) }
}
