//! A store moves: whole, marked, and never twice at once.

use rustix::fs::{FlockOperation, flock};

use super::*;
use crate::connection::Failure;
use crate::store::rows::{Cursor, Page};
use crate::testing::TestPostgres;

struct Moving {
    file: Given,
    server: TestPostgres,
    database: StorePlace,
}

impl Moving {
    /// A store in a file with 450 connections, links and integrations of 3, and an empty database.
    async fn a_full_file() -> Self {
        let file = Given::a_store();
        let store = file.open().await;
        for number in 0..450 {
            let account = format!("account-{number:04}").parse().unwrap();
            let key = ConnectionKey { account, role: Role::ServiceUser };
            let refresh_at = (number % 2 == 0).then_some(Timestamp::UNIX_EPOCH);
            let sealed = format!("sealed {number}").into_bytes();
            let grant_until = (number % 3 == 0).then_some(dies(number));
            let one = ConnectionWrite {
                key: key.clone(),
                sealed,
                refresh_at,
                grant_until,
                live: number % 5 != 0,
                ..write(None, 7, b"")
            };
            assert_eq!(store.commit(one).await.unwrap(), Cas::Won);
            if number % 7 == 1 {
                fail(&store, key).await;
            }
        }
        for number in 0..3 {
            let account: AccountId = format!("account-{number:04}").parse().unwrap();
            let row = IntegrationRow { account, version: 3, sealed: b"integration".into() };
            assert_eq!(store.put_integration(None, row).await.unwrap(), Cas::Won);
            store.insert_link(link(number)).await.unwrap();
        }
        drop(store);
        let server = TestPostgres::start();
        let database = server.database().await;
        Self { file, server, database }
    }

    fn place(&self) -> StorePlace {
        self.file.path().into()
    }

    async fn copy(&self, from: &StorePlace, to: &StorePlace) -> Result<Copied, String> {
        self.copy_until(u64::MAX, from, to).await
    }

    /// Breaks off, as a process that is killed does, when so many rows are there.
    async fn copy_until(&self, rows: u64, from: &StorePlace, to: &StorePlace) -> Result<Copied, String> {
        let clock: Arc<dyn Clock> = self.file.clock.clone();
        let (told, mut heard) = tokio::sync::watch::channel(0);
        let mut progress = |copied, _all| {
            told.send_replace(copied);
        };
        tokio::select! {
            biased;
            _ = heard.wait_for(|copied| rows <= *copied) => Err("broken off".to_owned()),
            copied = copy(from, to, clock, &mut progress) => copied.map_err(|error| error.to_string()),
        }
    }

    /// No broker has a connection to the database any more, and the server has noticed.
    async fn cut_off(&self) {
        let cut = "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE datname = 'broker0'";
        self.server.execute("postgres", cut).await;
    }

    async fn try_open(&self, place: &StorePlace) -> Result<Store, String> {
        let clock: Arc<dyn Clock> = self.file.clock.clone();
        Store::open(place, clock, "test").await.map_err(|error| error.to_string())
    }
}

fn link(number: i64) -> LinkRow {
    let account = format!("account-{number:04}").parse().unwrap();
    LinkRow {
        id: format!("link-{number}").parse().unwrap(),
        key: ConnectionKey { account, role: Role::ServiceUser },
        state_hash: format!("state {number}"),
        version: 2,
        open: number == 0,
        expires_at: Timestamp::UNIX_EPOCH,
        sealed: b"link".into(),
    }
}

/// Until it reaches the database again. Reads go on, whatever becomes of the store.
async fn back(replica: &Store) {
    while replica.connection(&key()).await.is_err() {}
}

fn dies(number: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + number).unwrap()
}

/// As a refresh that failed twice leaves it; nothing of a tombstone.
async fn fail(store: &Store, key: ConnectionKey) {
    for count in 1..=2 {
        let Claim::Won(claimed) = store.claim(&key, Duration::ZERO).await.unwrap() else { return };
        let failure = Some(Failure {
            code: Some(50173),
            count,
            needs_person: count == 2,
            ..Failure::new(Reason::RelinkRequired, Timestamp::UNIX_EPOCH)
        });
        let (generation, fence) = (claimed.row.generation, claimed.row.fence);
        let retry_at = Timestamp::UNIX_EPOCH;
        let verdict = Verdict { key: key.clone(), generation, fence, failure, retry_at, change: None };
        assert_eq!(store.record_failure(verdict).await.unwrap(), Cas::Won);
    }
}

async fn everything(
    store: &Store,
) -> (Vec<(ConnectionRow, Option<Timestamp>)>, Vec<LinkRow>, Vec<IntegrationRow>) {
    let mut all = (Vec::new(), Vec::new(), Vec::new());
    let mut next = Some(Cursor::Start);
    while let Some(cursor) = next {
        let page = store.page(cursor, 100).await.unwrap();
        all.0.extend(page.connections);
        all.1.extend(page.links);
        all.2.extend(page.integrations);
        next = page.next;
    }
    all
}

#[tokio::test]
async fn a_store_moves_into_a_database_and_back_and_loses_nothing() {
    let moving = Moving::a_full_file().await;
    let before = everything(&moving.file.open().await).await;
    assert_eq!((before.0.len(), before.1.len(), before.2.len()), (450, 3, 3));
    for (what, is_there) in [
        ("a tombstone", before.0.iter().any(|(row, _)| !row.live)),
        ("a failure", before.0.iter().any(|(row, _)| row.failure.as_ref().is_some_and(|f| f.needs_person))),
        ("a pause", before.0.iter().any(|(row, _)| row.retry_at.is_some())),
        ("a fence", before.0.iter().any(|(row, _)| row.fence == 2)),
        ("a plan", before.0.iter().any(|(row, _)| row.refresh_at.is_some())),
        ("an end", before.0.iter().any(|(_, grant_until)| *grant_until == Some(dies(3)))),
    ] {
        assert!(is_there, "nothing to lose: {what}");
    }
    let expiring = moving.file.open().await.expiring_grants(dies(0)..dies(450), 450).await.unwrap();

    let copied = moving.copy(&moving.place(), &moving.database).await.unwrap();

    let count = Count { connections: 450, links: 3, integrations: 3 };
    assert_eq!(copied, Copied::Whole { count, is_resumed: false, left_out: 0 });
    let there = moving.try_open(&moving.database).await.unwrap();
    assert_eq!(everything(&there).await, before);
    assert_eq!(there.fill(Page::default()).await.unwrap(), Cas::Lost, "what may be served is not filled");
    assert_eq!(there.expiring_grants(dies(0)..dies(450), 450).await.unwrap(), expiring);
    assert_eq!(
        (there.store_id().as_str(), there.wrapped_keyring().await.unwrap()),
        ("store-1", b"keyring".into())
    );
    let old = moving.try_open(&moving.place()).await.err().unwrap();
    assert!(old.contains(&format!("was moved to {}: serve that one", moving.database)), "{old}");
    assert_eq!(there.commit(write(None, 1, b"newer")).await.unwrap(), Cas::Won);
    let again = moving.copy(&moving.place(), &moving.database).await.unwrap();
    assert_eq!(again, Copied::Before, "what is served since is left alone");
    assert_eq!(there.connection(&key()).await.unwrap().row.unwrap().sealed, b"newer");
    let before = everything(&there).await;

    let home = moving.file.directory.path().join("home.db");
    let busy = moving.copy(&moving.database, &home.clone().into()).await.unwrap_err();
    assert!(busy.contains("connections of brokers use"), "{busy}");
    drop(there);
    // The server notices that a connection is closed a moment later.
    let back = async {
        loop {
            if let Ok(copied) = moving.copy(&moving.database, &home.clone().into()).await {
                return copied;
            }
        }
    };
    let back = tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
    let count = Count { connections: 451, ..count };
    assert_eq!(back, Copied::Whole { count, is_resumed: false, left_out: 0 });
    assert_eq!(everything(&moving.try_open(&home.clone().into()).await.unwrap()).await, before);
    assert!(moving.try_open(&moving.database).await.is_err(), "moved");

    fs::remove_file(&home).unwrap();
    let gone = moving.copy(&moving.database, &home.into()).await.unwrap_err();
    assert!(gone.contains("nothing is there any more: restore a backup"), "{gone}");
}

#[tokio::test]
async fn a_copy_that_breaks_off_leaves_none_to_serve_and_goes_on_where_it_was() {
    let moving = Moving::a_full_file().await;
    let before = everything(&moving.file.open().await).await;

    moving.copy_until(200, &moving.place(), &moving.database).await.unwrap_err();

    // The file is let go when the last of its blocking work is over.
    let mut leaving = moving.try_open(&moving.place()).await.err().unwrap();
    while leaving.contains("another azdo-broker uses") {
        leaving = moving.try_open(&moving.place()).await.err().unwrap();
    }
    assert!(leaving.contains("is being copied to"), "{leaving}");
    let arriving = moving.try_open(&moving.database).await.err().unwrap();
    assert!(arriving.contains("is being filled"), "{arriving}");
    let elsewhere = moving.file.directory.path().join("elsewhere.db");
    let refused = moving.copy(&moving.place(), &elsewhere.into()).await.unwrap_err();
    assert!(refused.contains("is being copied to"), "{refused}");

    let copied = moving.copy(&moving.place(), &moving.database).await.unwrap();

    assert!(matches!(copied, Copied::Whole { is_resumed: true, .. }), "{copied:?}");
    assert_eq!(everything(&moving.try_open(&moving.database).await.unwrap()).await, before);
}

#[tokio::test]
async fn a_file_is_not_moved_under_a_broker_and_no_broker_comes_up_meanwhile() {
    let moving = Moving::a_full_file().await;
    let served = moving.file.open().await;
    let refused = moving.copy(&moving.place(), &moving.database).await.unwrap_err();
    assert!(refused.contains("another azdo-broker uses"), "{refused}");
    let untouched = moving.try_open(&moving.database).await.err().unwrap();
    assert!(untouched.contains("there is no store"), "{untouched}");
    drop(served);

    let lock = fs::File::open(moving.file.beside(".lock")).unwrap();
    let mut looks = 0;
    let mut told = |_, _| {
        looks += 1;
        assert!(flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err(), "a broker would come up");
    };
    copy(&moving.place(), &moving.database, moving.file.clock.clone(), &mut told).await.unwrap();
    assert!(3 < looks, "{looks}");
}

/// P4: it was cut off when somebody looked who uses the store, and comes back.
#[tokio::test]
async fn a_replica_that_nobody_saw_can_write_nothing_into_a_database_that_leaves() {
    let moving = Moving::a_full_file().await;
    moving.copy(&moving.place(), &moving.database).await.unwrap();
    let replica = moving.try_open(&moving.database).await.unwrap();
    assert_eq!(replica.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
    let home = StorePlace::from(moving.file.directory.path().join("home.db"));

    let Claim::Won(claimed) = replica.claim(&key(), Duration::from_mins(5)).await.unwrap() else { panic!() };
    moving.cut_off().await;
    let refused = moving.copy(&moving.database, &home).await.unwrap_err();
    assert!(refused.contains("a broker refreshes a connection"), "{refused}");
    back(&replica).await;
    assert_eq!(replica.commit(write(Some(1), 2, b"refreshed")).await.unwrap(), Cas::Won, "nothing changed");
    assert_eq!(claimed.row.generation, Generation(1));

    let before = everything(&replica).await;
    for (until, sentence) in [(200, "is being copied to"), (u64::MAX, "was moved to")] {
        moving.cut_off().await;
        let copied = moving.copy_until(until, &moving.database, &home).await;
        assert_eq!(copied.is_ok(), until == u64::MAX, "{copied:?}");
        back(&replica).await;
        let refused = [
            replica.commit(write(Some(2), 3, b"lost")).await.map(drop),
            replica.connect(2, link(0), write(Some(2), 3, b"lost")).await.map(drop),
            replica.claim(&key(), Duration::from_mins(5)).await.map(drop),
            replica.claim_due(10, Duration::from_mins(5)).await.map(drop),
            replica.insert_link(link(7)).await,
            replica.delete_links(Timestamp::MAX).await.map(drop),
            replica.delete_integration(&"account-0000".parse().unwrap(), 3).await.map(drop),
            replica.probe().await,
        ];
        for (number, refused) in refused.into_iter().enumerate() {
            let refused = refused.expect_err("written").to_string();
            assert!(refused.contains(sentence), "{number}: {refused}");
        }
    }
    assert_eq!(everything(&moving.try_open(&home).await.unwrap()).await, before);
}

#[tokio::test]
async fn what_is_being_written_when_a_database_leaves_comes_along() {
    let moving = Moving::a_full_file().await;
    moving.copy(&moving.place(), &moving.database).await.unwrap();
    moving.cut_off().await;
    let home = StorePlace::from(moving.file.directory.path().join("home.db"));
    let (client, connection) =
        tokio_postgres::connect(&moving.server.url("broker0"), tokio_postgres::NoTls).await.unwrap();
    let writing = async {
        let begin =
            "BEGIN; UPDATE azdo_broker.connections SET generation = 99 WHERE account = 'account-0000'";
        client.batch_execute(begin).await.unwrap();
        let waits = async {
            while client.query("SELECT 1 FROM pg_locks WHERE NOT granted", &[]).await.unwrap().is_empty() {}
            client.batch_execute("COMMIT").await.unwrap();
        };
        let (copied, ()) = tokio::join!(moving.copy(&moving.database, &home), waits);
        drop(client);
        copied
    };
    let (copied, _ended) = tokio::join!(writing, connection);
    copied.unwrap();

    let copied = everything(&moving.try_open(&home).await.unwrap()).await.0;
    assert_eq!((copied.len(), copied[0].0.generation), (450, Generation(99)));
}

/// P9: what nobody could ever find keeps nothing else from being moved.
#[tokio::test]
async fn rows_that_name_nothing_stay_behind_and_the_others_move() {
    let moving = Moving::a_full_file().await;
    let store = moving.file.open().await;
    let before = everything(&store).await;
    let edit = "INSERT INTO connections (account, role, generation, live, sealed) VALUES ('acme', 'administrator', 1, 1, x'00');
                INSERT INTO integrations (account, version, sealed) VALUES ('no name', 1, x'00')";
    sqlite_of(&store).write("edit", move |at| at.tx.execute_batch(edit)).await.unwrap();
    drop(store);

    let copied = moving.copy(&moving.place(), &moving.database).await.unwrap();

    let count = Count { connections: 450, links: 3, integrations: 3 };
    assert_eq!(copied, Copied::Whole { count, is_resumed: false, left_out: 2 });
    assert_eq!(everything(&moving.try_open(&moving.database).await.unwrap()).await, before);
}

#[tokio::test]
async fn a_store_is_copied_over_no_other_one() {
    let moving = Moving::a_full_file().await;
    Store::create(&moving.database, &"store-2".parse().unwrap(), b"other").await.unwrap();
    let before = moving.server.dump("broker0");
    let refused = moving.copy(&moving.place(), &moving.database).await.unwrap_err();
    assert!(refused.contains("holds another store"), "{refused}");
    assert!(moving.copy(&moving.place(), &moving.place()).await.unwrap_err().contains("there already"));

    let twin = moving.server.database().await;
    Store::create(&twin, &"store-1".parse().unwrap(), b"keyring").await.unwrap();
    let twin_before = moving.server.dump("broker1");
    let refused = moving.copy(&moving.place(), &twin).await.unwrap_err();
    assert!(refused.contains("both hold the store store-1"), "{refused}");

    let after = (moving.server.dump("broker0"), moving.server.dump("broker1"));
    assert!(after == (before, twin_before), "a refused copy changed nothing where it was to go");
    assert!(moving.file.try_open().await.is_ok(), "nor where it came from");
}

/// F26: a store of the version before is brought up to date, and keeps its rows.
#[tokio::test]
async fn f26_a_store_of_the_first_schema_is_migrated() {
    let given = Given::a_store();
    let store = given.open().await;
    assert_eq!(store.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
    sqlite_of(&store)
        .write("age", |at| {
            at.tx.execute_batch(
                "ALTER TABLE store DROP COLUMN relocation; DROP TABLE outbox; DROP TABLE outbox_state;
                 DROP INDEX connections_expiring; DROP INDEX connections_ended; ALTER TABLE connections DROP COLUMN grant_until;",
            )?;
            at.tx.pragma_update(None, "user_version", 1)
        })
        .await
        .unwrap();
    drop(store);
    assert_eq!(given.open().await.connection(&key()).await.unwrap().row.unwrap().sealed, b"sealed");
}
