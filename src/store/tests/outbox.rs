//! The outbox where transactions overlap, where somebody edits it, and where a store moves.

use super::*;
use crate::connection::Change;
use crate::testing::TestPostgres;

fn connected(account: &str) -> ConnectionWrite {
    let key = ConnectionKey { account: account.parse().unwrap(), role: Role::ServiceUser };
    ConnectionWrite { key, change: Some(Change::Connected), ..write(None, 1, b"sealed") }
}

fn accounts(page: &ChangePage) -> Vec<String> {
    page.rows.iter().map(|row| row.key.account.to_string()).collect()
}

/// The transaction that began first commits last: a reader that had gone by would miss it.
#[tokio::test]
async fn who_reads_on_misses_no_change_of_a_transaction_that_commits_late() {
    let server = TestPostgres::start();
    let place = server.database().await;
    Store::create(&place, &"store-1".parse().unwrap(), b"keyring").await.unwrap();
    let clock = Arc::new(crate::clock::SystemClock::default());
    let store = Store::open(&place, clock, "one").await.unwrap();
    let begin = store.outbox_end().await.unwrap().row;
    let (late, connection) =
        tokio_postgres::connect(&server.url("broker0"), tokio_postgres::NoTls).await.unwrap();
    let work = async {
        let insert = "BEGIN; INSERT INTO azdo_broker.outbox (account, role, generation, change, happened_at)
                      VALUES ('late', 'service_user', 1, 'connected', 1)";
        late.batch_execute(insert).await.unwrap();
        assert_eq!(store.commit(connected("early")).await.unwrap(), Cas::Won);

        let held_back = store.changes_after(&begin, 100).await.unwrap().unwrap();
        assert_eq!(accounts(&held_back), Vec::<String>::new());
        assert!(held_back.is_last && held_back.is_more_coming);

        late.batch_execute("COMMIT").await.unwrap();
        let told = store.changes_after(&held_back.next, 100).await.unwrap().unwrap();
        assert_eq!(accounts(&told), ["late", "early"]);
        assert!(told.is_last && !told.is_more_coming);
        drop(late);
    };
    let ((), _ended) = tokio::join!(work, connection);
}

/// P9: a row that somebody edited fails alone.
#[tokio::test]
async fn a21_an_edited_row_of_the_outbox_keeps_no_other_one_from_being_told() {
    let server = TestPostgres::start();
    let database = server.database().await;
    Store::create(&database, &"store-1".parse().unwrap(), b"keyring").await.unwrap();
    let edits =
        ["change = 'erased'", "role = 'administrator'", "account = ''", "happened_at = 9223372036854775807"];
    for edit in edits {
        let given = Given::a_store();
        let file = given.open().await;
        let in_database = Store::open(&database, given.clock.clone(), "one").await.unwrap();
        for (number, store) in [&file, &in_database].into_iter().enumerate() {
            let begin = store.outbox_end().await.unwrap().row;
            for account in ["edited", "acme"] {
                let expected =
                    store.connection(&connected(account).key).await.unwrap().row.map(|row| row.generation);
                let generation = Generation(expected.map_or(1, |generation| generation.0 + 1));
                let write = ConnectionWrite { expected, generation, ..connected(account) };
                assert_eq!(store.commit(write).await.unwrap(), Cas::Won);
            }
            let sql = format!("UPDATE outbox SET {edit} WHERE account = 'edited'");
            if number == 0 {
                rusqlite::Connection::open(given.path()).unwrap().execute(&sql, []).unwrap();
            } else {
                server.execute("broker0", &sql.replace("outbox", "azdo_broker.outbox")).await;
            }

            let page = store.changes_after(&begin, 100).await.unwrap().unwrap();

            assert_eq!(accounts(&page).last().map(String::as_str), Some("acme"), "{edit}");
            assert!(page.is_last, "{edit}");
        }
    }
}

/// Rows of the outbox stay behind: who reads on in the new place is told to begin again.
#[tokio::test]
async fn a_position_of_a_store_that_moved_is_gone_and_stays_so_when_it_moves_back() {
    let given = Given::a_store();
    let store = given.open().await;
    assert_eq!(store.commit(connected("acme")).await.unwrap(), Cas::Won);
    let at_home = store.outbox_end().await.unwrap().row;
    drop(store);
    let clock: Arc<dyn Clock> = given.clock.clone();
    let away = StorePlace::File(given.directory.path().join("away.db"));
    let back = StorePlace::File(given.directory.path().join("back.db"));
    let mut from: StorePlace = given.path().into();
    for to in [away, back] {
        copy(&from, &to, clock.clone(), &mut |_, _| {}).await.unwrap();
        let store = Store::open(&to, clock.clone(), "test").await.unwrap();
        assert_eq!(store.changes_after(&at_home, 100).await.unwrap(), None);
        let here = store.outbox_end().await.unwrap().row;
        assert_eq!(store.changes_after(&here, 100).await.unwrap().unwrap().rows, []);
        from = to;
    }
}
