//! What is particular to the store in PostgreSQL: several replicas, the schema, a database that stalls.

use super::*;
use crate::testing::TestPostgres;

pub(super) async fn a_store_in(place: &StorePlace) -> Store {
    Store::create(place, &"store-1".parse().unwrap(), b"keyring").await.unwrap();
    open(place, "one").await
}

async fn open(place: &StorePlace, holder: &str) -> Store {
    Store::open(place, Arc::new(crate::clock::SystemClock::default()), holder).await.unwrap()
}

async fn refusal(place: &StorePlace) -> String {
    let clock = Arc::new(crate::clock::SystemClock::default());
    let refused = Store::open(place, clock, "one").await.err().expect("must not open").to_string();
    assert_eq!(refused.lines().count(), 1, "{refused}");
    refused.replace(&place.to_string(), "STORE")
}

#[tokio::test]
async fn the_store_in_postgresql_keeps_the_contract() {
    let server = TestPostgres::start();
    contract::holds(async || a_store_in(&server.database().await).await).await;
}

/// F14, F15: two replicas, one lease.
#[tokio::test]
async fn f15_a_lease_of_one_replica_is_none_of_another() {
    let server = TestPostgres::start();
    let place = server.database().await;
    let (one, other) = (a_store_in(&place).await, open(&place, "other").await);
    assert_eq!(one.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
    let lease = Duration::from_mins(1);

    let key = key();
    let (first, second) = tokio::join!(one.claim(&key, lease), other.claim(&key, lease));

    let won = [first.unwrap(), second.unwrap()].into_iter().filter(|claim| matches!(claim, Claim::Won(_)));
    assert_eq!(won.count(), 1);
}

/// What replicas claim at the same moment is shared out, none of it twice.
#[tokio::test]
async fn due_connections_are_claimed_by_one_replica_each() {
    let server = TestPostgres::start();
    let place = server.database().await;
    let (one, other) = (a_store_in(&place).await, open(&place, "other").await);
    for number in 0..200 {
        let key = ConnectionKey { account: format!("a{number}").parse().unwrap(), role: Role::ServiceUser };
        let due = ConnectionWrite { key, refresh_at: Some(Timestamp::UNIX_EPOCH), ..write(None, 1, b"s") };
        assert_eq!(one.commit(due).await.unwrap(), Cas::Won);
    }
    let mut claimed = Vec::new();
    while claimed.len() < 200 {
        let lease = Duration::from_mins(1);
        let (first, second) = tokio::join!(one.claim_due(30, lease), other.claim_due(30, lease));
        claimed.extend(first.unwrap().into_iter().chain(second.unwrap()).map(|claimed| claimed.row.key));
    }
    let count = claimed.len();
    claimed.sort();
    claimed.dedup();
    assert_eq!((count, claimed.len()), (200, 200));
}

/// With whatever the planner believes: nothing (a bulk load, a restore), what was so when the table was empty,
/// what is so.
#[tokio::test]
async fn due_connections_are_found_by_index_in_postgresql_whatever_its_statistics_are() {
    let server = TestPostgres::start_with(&["autovacuum=off".to_owned()]);
    let fill = "INSERT INTO azdo_broker.connections (account, role, generation, live, refresh_at, sealed)
                SELECT 'a' || n, 'service_user', 1, true, 9000000000000000 + n, 'x'
                FROM generate_series(1, 100000) n";
    let analyze = "ANALYZE azdo_broker.connections";
    for (number, before) in [vec![fill], vec![analyze, fill], vec![fill, analyze]].into_iter().enumerate() {
        let _store = a_store_in(&server.database().await).await;
        let database = format!("broker{number}");
        server.execute(&database, &before.join(";")).await;

        let sql = crate::store::postgres::claim_due_sql();
        let sql = sql.replace("$1", "64").replace("$2", "'h'").replace("$3", "1");
        let plan = server.ask(&database, &format!("EXPLAIN (ANALYZE, TIMING OFF) {sql}")).await.join("\n");

        assert!(plan.contains("Index Cond: (due_at <= "), "{plan}");
        assert!(!plan.contains("Removed by"), "it looked at rows that are not due: {plan}");
        assert!(!plan.contains("Seq Scan on connections"), "{plan}");
    }
}

/// A store as the version before left it, with a row in it. Whoever would migrate it waits until the client is dropped.
async fn an_old_store_kept_locked(server: &TestPostgres) -> (StorePlace, tokio_postgres::Client) {
    let place = server.database().await;
    let store = a_store_in(&place).await;
    assert_eq!(store.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
    let age = "ALTER TABLE azdo_broker.store DROP COLUMN relocation;
               ALTER TABLE azdo_broker.connections DROP COLUMN grant_until;
               DROP TABLE azdo_broker.outbox, azdo_broker.outbox_state;
               DROP INDEX azdo_broker.connections_lost, azdo_broker.connections_ended;
               UPDATE azdo_broker.store SET schema = 1";
    server.execute("broker0", age).await;
    let (lock, connection) =
        tokio_postgres::connect(&server.url("broker0"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    lock.batch_execute("SELECT pg_advisory_lock(1635410546)").await.unwrap();
    (place, lock)
}

async fn wait_for_waiting(server: &TestPostgres, replicas: usize) {
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    while server.ask("broker0", waiting).await != [replicas.to_string()] {}
}

/// F26: whoever waited finds it done; done twice it would fail.
#[tokio::test]
async fn f26_replicas_that_start_at_once_migrate_an_old_store_once() {
    let server = TestPostgres::start();
    let (place, lock) = an_old_store_kept_locked(&server).await;
    let unlock = async {
        wait_for_waiting(&server, 3).await;
        drop(lock);
    };

    let (one, two, three, ()) =
        tokio::join!(open(&place, "one"), open(&place, "two"), open(&place, "three"), unlock);

    for store in [one, two, three] {
        assert_eq!(store.connection(&key()).await.unwrap().row.unwrap().sealed, b"sealed");
    }
    assert_eq!(server.ask("broker0", "SELECT schema FROM azdo_broker.store").await, ["2"]);
    assert_eq!(server.ask("broker0", "SELECT count(*) FROM azdo_broker.outbox_state").await, ["1"]);
}

/// F26: a newer version was faster. Its schema is not taken for an older one, nor written over.
#[tokio::test]
async fn f26_a_store_that_a_newer_version_migrates_meanwhile_is_refused_and_left_as_it_is() {
    let server = TestPostgres::start();
    let (place, lock) = an_old_store_kept_locked(&server).await;
    let overtake = async {
        wait_for_waiting(&server, 1).await;
        lock.batch_execute("UPDATE azdo_broker.store SET schema = 99").await.unwrap();
        let newer = server.dump("broker0");
        drop(lock);
        newer
    };

    let (refused, newer) = tokio::join!(refusal(&place), overtake);

    assert!(refused.ends_with("(schema 99, this one knows 2): run that one"), "{refused}");
    assert_eq!(server.dump("broker0"), newer);
}

/// Design 6.3: told at once, and by comparing where the telling was lost.
#[tokio::test]
async fn what_one_replica_writes_is_news_to_another() {
    let server = TestPostgres::start();
    let place = server.database().await;
    let (one, other) = (a_store_in(&place).await, open(&place, "other").await);
    let mut news = other.news();
    assert_eq!(news.next().await, News::StoreReturned, "what was before is to be compared");

    assert_eq!(one.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
    let integration = IntegrationRow { account: "acme".parse().unwrap(), version: 1, sealed: b"s".into() };
    assert_eq!(one.put_integration(None, integration).await.unwrap(), Cas::Won);

    assert_eq!(news.next().await, News::Connection(key(), Generation(1)));
    assert_eq!(news.next().await, News::Integration("acme".parse().unwrap()));

    server
        .execute(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR query = ''",
        )
        .await;
    assert_eq!(news.next().await, News::StoreReturned, "a line that was cut may have missed something");
}

/// F07: a caller waits a bounded time, and is told what did not answer.
#[tokio::test]
async fn f07_a_row_that_somebody_keeps_locked_costs_a_bounded_wait() {
    let server = TestPostgres::start();
    let place = server.database().await;
    let store = a_store_in(&place).await;
    assert_eq!(store.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
    let (client, connection) =
        tokio_postgres::connect(&server.url("broker0"), tokio_postgres::NoTls).await.unwrap();
    let work = async {
        client.batch_execute("BEGIN; SELECT * FROM azdo_broker.connections FOR UPDATE").await.unwrap();
        let refused = store.claim(&key(), Duration::from_mins(1)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Busy { .. }), "{refused:?}");
        assert!(store.connection(&key()).await.unwrap().row.is_some(), "reads go on");
        client.batch_execute("ROLLBACK").await.unwrap();
        assert!(matches!(store.claim(&key(), Duration::from_mins(1)).await.unwrap(), Claim::Won(_)));
        drop(client);
    };
    let ((), _ended) = tokio::join!(work, connection);
}

/// F06: the server goes away under a write, and comes back.
#[tokio::test]
async fn f06_connections_that_broke_are_replaced() {
    let server = TestPostgres::start();
    let place = server.database().await;
    let store = a_store_in(&place).await;
    assert_eq!(store.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
    server
        .execute(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'broker0'",
        )
        .await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(store.probe().await.is_ok());
    }
    assert_eq!(answers.last(), Some(&true), "{answers:?}");
}

#[tokio::test]
async fn f05_a_database_without_a_store_is_refused_and_left_as_it_is() {
    let server = TestPostgres::start();
    let place = server.database().await;
    assert_eq!(refusal(&place).await, "there is no store at STORE: run `azdo-broker store init`");

    let _store = a_store_in(&place).await;
    let again = Store::create(&place, &"store-2".parse().unwrap(), b"other").await.unwrap_err();
    assert!(again.to_string().contains("exists already"), "{again}");
    assert_eq!(open(&place, "one").await.store_id().as_str(), "store-1");

    server.execute("broker0", "UPDATE azdo_broker.store SET schema = 99").await;
    let before = server.dump("broker0");
    let newer = refusal(&place).await;
    assert!(newer.starts_with("STORE was written by a newer azdo-broker (schema 99"), "{newer}");
    assert!(newer.ends_with("run that one"), "{newer}");
    assert_eq!(server.dump("broker0"), before);
}

#[tokio::test]
async fn a_database_that_forgets_what_it_confirmed_is_refused() {
    let server = TestPostgres::start_with(&["synchronous_commit=off".to_owned()]);
    let place = server.database().await;
    Store::create(&place, &"store-1".parse().unwrap(), b"keyring").await.unwrap();
    let forgetful = refusal(&place).await;
    assert!(forgetful.contains("synchronous_commit is off"), "{forgetful}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let server = TestPostgres::start();
    let url = server.url("broker0");
    let place = StorePlace::Postgres(Box::new(server.place(&url)));
    drop(server);
    let refused = refusal(&place).await;
    assert!(refused.contains("STORE cannot be reached"), "{refused}");
}
