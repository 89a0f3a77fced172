//! What a store's outbox must do.

use std::time::Duration;

use super::links;
use super::{LEASE, claim, failure, key, load, name, verdict, won, write};
use crate::connection::{Change, Failure};
use crate::store::{Cas, ChangePage, ConnectionWrite, Position, Store, StoreError, Verdict};

pub(super) async fn a_change_is_told_with_its_write_and_only_once(store: &Store) -> Result<(), StoreError> {
    let begin = store.outbox_end().await?.row;
    won(store.commit(told(write("acme", None, 1), Change::Connected)).await?);
    won(store.commit(told(write("acme", None, 1), Change::Connected)).await?);
    assert_eq!(store.commit(told(write("acme", None, 2), Change::Connected)).await?, Cas::Lost);
    won(store.commit(write("acme", Some(1), 2)).await?);
    won(store.commit(told(write("acme", Some(2), 3), Change::Refreshed)).await?);
    let claimed = claim(store, "acme", LEASE).await?;
    let stale = Verdict { fence: claimed.row.fence - 1, ..verdict(&claimed, claimed.store_now) };
    assert_eq!(
        store.record_failure(Verdict { change: Some(Change::NeedsRelink), ..stale }).await?,
        Cas::Lost
    );
    let failing = Verdict { change: Some(Change::Failing), ..verdict(&claimed, claimed.store_now) };
    won(store.record_failure(failing).await?);
    store.clear_pause(&name("acme"), failure(claimed.store_now).reason).await?;
    store.clear_pause(&name("acme"), failure(claimed.store_now).reason).await?;
    let tombstone = ConnectionWrite { live: false, ..write("acme", Some(3), 4) };
    won(store.disconnect(told(tombstone, Change::Disconnected), vec![]).await?);

    let page = read(store, &begin, 100).await?;

    assert_eq!(
        said(&page),
        [
            ("acme/service_user", 1, Change::Connected),
            ("acme/service_user", 3, Change::Refreshed),
            ("acme/service_user", 3, Change::Failing),
            ("acme/service_user", 3, Change::Recovered),
            ("acme/service_user", 4, Change::Disconnected),
        ]
        .map(|(key, generation, change)| (key.to_owned(), generation, change))
    );
    assert!(page.is_last && page.rows.iter().all(|row| row.happened_at <= page.store_now));
    Ok(())
}

pub(super) async fn what_belongs_together_and_is_lost_tells_nothing(store: &Store) -> Result<(), StoreError> {
    let begin = store.outbox_end().await?.row;
    let link = links::link("absent", 1);
    let write = told(write("acme", None, 1), Change::Connected);
    assert_eq!(store.connect(1, link, write).await?, Cas::Lost);
    assert_eq!(read(store, &begin, 100).await?.rows, []);
    Ok(())
}

pub(super) async fn who_reads_on_misses_and_repeats_nothing(store: &Store) -> Result<(), StoreError> {
    let mut position = store.outbox_end().await?.row;
    for number in 1..=7 {
        let write = write("acme", (1 < number).then(|| number - 1), number);
        won(store.commit(told(write, Change::Refreshed)).await?);
    }
    let (mut generations, mut pages) = (Vec::new(), 0);
    loop {
        let page = read(store, &position, 3).await?;
        generations.extend(page.rows.iter().map(|row| row.generation.0));
        pages += 1;
        position = page.next;
        if page.is_last {
            break;
        }
        // What was told is a place to read on from as well.
        assert_eq!(page.rows.last().map(|row| row.position.clone()), Some(position.clone()));
    }
    assert_eq!((generations, pages), ((1..=7).collect(), 3));
    assert_eq!(read(store, &position, 3).await?.rows, []);
    won(store.commit(told(write("acme", Some(7), 8), Change::Refreshed)).await?);
    assert_eq!(read(store, &position, 3).await?.rows.len(), 1);
    Ok(())
}

pub(super) async fn what_is_deleted_is_said_to_be_gone(store: &Store) -> Result<(), StoreError> {
    let begin = store.outbox_end().await?.row;
    for number in 1..=6 {
        let write = write("acme", (1 < number).then(|| number - 1), number);
        won(store.commit(told(write, Change::Refreshed)).await?);
    }
    let all = read(store, &begin, 100).await?.rows;
    assert_eq!(store.prune_outbox(LEASE, 100, 100).await?, 0, "young and few");

    assert_eq!(store.prune_outbox(LEASE, 4, 100).await?, 2);

    assert_eq!(store.changes_after(&begin, 100).await?, None);
    assert_eq!(store.changes_after(&all[0].position, 100).await?, None);
    assert_eq!(read(store, &all[1].position, 100).await?.rows, all[2..]);
    assert_eq!(store.prune_outbox(Duration::ZERO, 100, 3).await?, 3, "old, and no more at once than asked");
    assert_eq!(store.changes_after(&all[3].position, 100).await?, None);
    assert_eq!(read(store, &all[4].position, 100).await?.rows, all[5..]);
    assert_eq!(store.prune_outbox(Duration::ZERO, 100, 100).await?, 1);
    let end = store.outbox_end().await?.row;
    assert_eq!(read(store, &all[5].position, 100).await?.rows, []);
    won(store.commit(told(write("acme", Some(6), 7), Change::Refreshed)).await?);
    assert_eq!(read(store, &end, 100).await?.rows.len(), 1);
    Ok(())
}

pub(super) async fn a_foreseen_loss_is_told_when_nobody_is_on_it(store: &Store) -> Result<(), StoreError> {
    let begin = store.outbox_end().await?.row;
    for (account, lease) in [("held", LEASE), ("dead", Duration::ZERO), ("paused", Duration::ZERO)] {
        won(store.commit(write(account, None, 1)).await?);
        let claimed = claim(store, account, lease).await?;
        let lost = Some(Failure { lost: account != "paused", ..failure(claimed.store_now) });
        won(store.foresee_failure(Verdict { failure: lost, ..verdict(&claimed, claimed.store_now) }).await?);
    }

    assert_eq!(store.tell_losses(10).await?, 1);
    assert_eq!(store.tell_losses(10).await?, 0);

    let told = said(&read(store, &begin, 100).await?);
    assert_eq!(told, [(key("dead").to_string(), 1, Change::NeedsRelink)]);
    let row = load(store, "dead").await?;
    assert!(row.lease_until.is_none() && row.failure.is_some_and(|failure| failure.lost));
    Ok(())
}

pub(super) async fn a_position_of_another_outbox_is_gone(store: &Store) -> Result<(), StoreError> {
    let end = store.outbox_end().await?.row;
    let other = Position { outbox: "another".into(), ..end.clone() };
    assert_eq!(store.changes_after(&other, 100).await?, None);
    let future = Position { xact: end.xact + 1_000_000, id: end.id + 1_000_000, ..end };
    assert_eq!(store.changes_after(&future, 100).await?, None);
    Ok(())
}

fn told(write: ConnectionWrite, change: Change) -> ConnectionWrite {
    ConnectionWrite { change: Some(change), ..write }
}

/// All at once is told: what other transactions of the server keep back is waited for.
async fn read(store: &Store, position: &Position, limit: usize) -> Result<ChangePage, StoreError> {
    loop {
        let page = store.changes_after(position, limit).await?.expect("nothing is gone");
        if !page.is_more_coming {
            return Ok(page);
        }
    }
}

fn said(page: &ChangePage) -> Vec<(String, i64, Change)> {
    page.rows.iter().map(|row| (row.key.to_string(), row.generation.0, row.change)).collect()
}
