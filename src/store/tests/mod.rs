//! What is particular to the store in a file: the file, the lock, faults of the disk.

mod copying;
mod edited;
mod memory;
mod outbox;
mod postgres;
mod postgres_tls;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::testing::{ManualClock, RuntimeClock};

struct Given {
    directory: TempDir,
    clock: Arc<ManualClock>,
}

impl Given {
    fn a_store() -> Self {
        let given = Self { directory: tempfile::tempdir().unwrap(), clock: Arc::default() };
        sqlite::create(&given.path(), &"store-1".parse().unwrap(), b"keyring", &Relocation::Home).unwrap();
        given
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("broker.db")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        self.directory.path().join(format!("broker.db{ending}"))
    }

    async fn try_open(&self) -> Result<Store, StoreError> {
        Store::open(&self.path().into(), Arc::clone(&self.clock) as Arc<dyn Clock>, "test").await
    }

    async fn open(&self) -> Store {
        self.try_open().await.unwrap()
    }

    async fn refusal(&self) -> String {
        let refusal = self.try_open().await.err().expect("must not open").to_string();
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
        refusal.replace(&self.path().display().to_string(), "STORE")
    }
}

fn key() -> ConnectionKey {
    ConnectionKey { account: "acme".parse().unwrap(), role: Role::ServiceUser }
}

fn write(expected: Option<i64>, generation: i64, sealed: &[u8]) -> ConnectionWrite {
    ConnectionWrite {
        key: key(),
        expected: expected.map(Generation),
        generation: Generation(generation),
        sealed: sealed.into(),
        live: true,
        refresh_at: None,
        grant_until: None,
        paused: None,
        keeps_loss: false,
        change: None,
    }
}

fn sqlite_of(store: &Store) -> &Sqlite {
    match &store.backend {
        Backend::Sqlite(sqlite) => sqlite,
        Backend::Postgres(_) | Backend::Memory(_) => panic!("is in a file"),
    }
}

async fn plan(store: &Store, sql: impl AsRef<str>) -> String {
    let explain = format!("EXPLAIN QUERY PLAN {}", sql.as_ref());
    let explained = sqlite_of(store).read("explain", move |at| {
        let mut statement = at.tx.prepare(&explain)?;
        for parameter in 1..=statement.parameter_count() {
            statement.raw_bind_parameter(parameter, 1)?;
        }
        let mut rows = statement.raw_query();
        let mut lines = Vec::new();
        while let Some(row) = rows.next()? {
            lines.push(row.get::<_, String>(3)?);
        }
        Ok(lines.join("\n"))
    });
    explained.await.unwrap()
}

#[tokio::test]
async fn the_store_in_a_file_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    contract::holds(async || {
        let path = directory.path().join(crate::secret::make_random_text());
        let place = StorePlace::File(path);
        Store::create(&place, &"store-1".parse().unwrap(), b"keyring").await.unwrap();
        Store::open(&place, Arc::clone(&clock), "test").await.unwrap()
    })
    .await;
}

/// Blocking threads hold a paused clock, so that a lease does not run out while the store writes.
#[tokio::test(start_paused = true)]
async fn a_paused_clock_waits_for_the_store() {
    let given = Given::a_store();
    let clock: Arc<dyn Clock> = Arc::new(RuntimeClock::default());
    let store = Store::open(&given.path().into(), clock, "test").await.unwrap();
    assert_eq!(store.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);

    let lease = Duration::from_secs(15);
    let key = key();
    let claim = tokio::time::timeout(Duration::from_millis(1), store.claim(&key, lease));
    assert!(matches!(claim.await, Ok(Ok(Claim::Won(_)))));
    tokio::time::sleep(lease).await;
    assert!(matches!(store.claim(&key, lease).await, Ok(Claim::Won(_))));
}

#[tokio::test]
async fn what_was_written_survives_reopening_but_leases_do_not() {
    let given = Given::a_store();
    let store = given.open().await;
    assert_eq!(store.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
    let Claim::Won(claimed) = store.claim(&key(), Duration::from_mins(1)).await.unwrap() else {
        panic!("was free");
    };
    drop(store);

    let store = given.open().await;

    let row = store.connection(&key()).await.unwrap().row.unwrap();
    assert_eq!((row.sealed.as_slice(), row.fence), (b"sealed".as_slice(), claimed.row.fence));
    assert_eq!(row.lease_until, None);
    assert_eq!(store.wrapped_keyring().await.unwrap(), b"keyring");
    assert_eq!(store.store_id().as_str(), "store-1");
}

#[tokio::test]
async fn due_connections_are_found_by_index() {
    let given = Given::a_store();
    let store = given.open().await;
    let plan = plan(&store, sqlite::leases::claim_due_sql()).await;
    assert!(plan.contains("INDEX connections_due"), "{plan}");
    assert!(!plan.contains("SCAN"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
}

#[tokio::test]
async fn nothing_is_due_before_its_time() {
    let given = Given::a_store();
    let store = given.open().await;
    let refresh_at = Some(given.clock.now().wall + Duration::from_secs(10));
    let write = ConnectionWrite { refresh_at, ..write(None, 1, b"sealed") };
    assert_eq!(store.commit(write).await.unwrap(), Cas::Won);

    given.clock.advance(Duration::from_secs(9));
    assert!(store.claim_due(10, Duration::from_secs(15)).await.unwrap().is_empty());
    given.clock.advance(Duration::from_secs(1));
    assert_eq!(store.claim_due(10, Duration::from_secs(15)).await.unwrap().len(), 1);
    given.clock.advance(Duration::from_secs(15));
    assert_eq!(store.claim_due(10, Duration::from_secs(15)).await.unwrap().len(), 1, "the lease ran out");
}

#[tokio::test]
async fn f04_a_second_broker_does_not_open_the_store() {
    let given = Given::a_store();
    let store = given.open().await;
    assert_eq!(
        given.refusal().await,
        "another azdo-broker uses STORE: stop it first, or give each process a store of its own"
    );
    drop(store);
    given.open().await;
}

#[tokio::test]
async fn f04_a_store_locked_by_another_program_is_read_but_not_written() {
    let given = Given::a_store();
    let store = given.open().await;
    let other = rusqlite::Connection::open(given.path()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();

    let began = tokio::time::Instant::now();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        asked.spawn(async move { store.commit(write(None, 1, b"sealed")).await });
    }
    for answer in asked.join_all().await {
        let busy = answer.unwrap_err();
        assert!(matches!(busy, StoreError::Busy { .. }), "{busy:?}");
    }

    assert!(began.elapsed() < 3 * sqlite::BUSY_TIMEOUT, "they wait together, not one after another");
    assert_eq!(store.connection(&key()).await.unwrap().row, None);
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(store.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
}

#[tokio::test]
async fn f05_a_missing_store_is_not_made() {
    let given = Given::a_store();
    fs::remove_file(given.path()).unwrap();
    assert_eq!(given.refusal().await, "there is no store at STORE: run `azdo-broker store init`");
    assert!(!given.path().exists());
}

#[test]
fn f05_a_new_store_replaces_nothing() {
    let given = Given::a_store();
    let before = fs::read(given.path()).unwrap();
    let again = |path: &Path| sqlite::create(path, &"store-2".parse().unwrap(), b"other", &Relocation::Home);

    assert!(matches!(again(&given.path()), Err(StoreError::Exists(_))));
    assert_eq!(fs::read(given.path()).unwrap(), before);

    fs::remove_file(given.path()).unwrap();
    fs::write(given.beside("-wal"), b"of the removed store").unwrap();
    assert!(
        matches!(again(&given.path()), Err(StoreError::Exists(path)) if path == given.beside("-wal").display().to_string())
    );
    let nowhere = given.directory.path().join("missing/broker.db");
    assert!(matches!(again(&nowhere), Err(StoreError::Io { .. })));
}

#[tokio::test]
async fn f05_what_is_no_store_is_refused_and_left_as_it_is() {
    for content in [b"".as_slice(), b"canary", &[7; 10_000]] {
        let given = Given::a_store();
        fs::write(given.path(), content).unwrap();
        let expected = "STORE is not a store of azdo-broker: correct the path, or restore a backup";
        assert_eq!(given.refusal().await, expected);
        assert_eq!(fs::read(given.path()).unwrap(), content);
    }
}

#[tokio::test]
async fn f05_a_truncated_or_corrupt_store_is_refused_and_left_as_it_is() {
    let given = Given::a_store();
    let store = given.open().await;
    assert_eq!(store.commit(write(None, 1, &[7; 9_000])).await.unwrap(), Cas::Won);
    store.compact().await.unwrap();
    drop(store);
    let whole = fs::read(given.path()).unwrap();
    let cuts = (1..whole.len() / 4096).map(|pages| whole[..pages * 4096].to_vec());
    let torn = [100, 600, 4000, 5000].map(|len| whole[..len].to_vec());
    let corrupt = (1..whole.len() / 4096).map(|page| {
        let mut bytes = whole.clone();
        bytes[page * 4096..page * 4096 + 64].fill(0xff);
        bytes
    });
    for bytes in cuts.chain(torn).chain(corrupt) {
        fs::write(given.path(), &bytes).unwrap();
        let refused = given.try_open().await.err().expect("must not open");
        assert!(matches!(refused, StoreError::Damaged { .. } | StoreError::NotAStore(_)), "{refused:?}");
        assert!(fs::read(given.path()).unwrap() == bytes, "a refused store was changed");
    }
}

#[tokio::test]
async fn f05_a_store_of_a_newer_version_is_refused() {
    let given = Given::a_store();
    let store = given.open().await;
    sqlite_of(&store).write("age", |at| at.tx.pragma_update(None, "user_version", 99)).await.unwrap();
    drop(store);
    assert_eq!(
        given.refusal().await,
        "STORE was written by a newer azdo-broker (schema 99, this one knows 2): run that one"
    );
}

#[tokio::test]
async fn a_store_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let given = Given::a_store();
    assert_eq!(fs::metadata(given.path()).unwrap().mode() & 0o777, 0o600);
    fs::set_permissions(given.path(), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(given.try_open().await, Err(StoreError::File(_))));
}

#[tokio::test]
async fn f02_a_full_disk_leaves_the_old_row_and_writing_resumes() {
    let given = Given::a_store();
    let store = given.open().await;
    let large = write(Some(1), 2, &vec![7; 100_000]);
    assert_eq!(store.commit(write(None, 1, b"old")).await.unwrap(), Cas::Won);
    let shrink = sqlite_of(&store).write("shrink", |at| {
        at.tx.pragma_update_and_check(None, "max_page_count", 1, |row| row.get::<_, i64>(0))
    });
    shrink.await.unwrap();

    let full = store.commit(large.clone()).await.unwrap_err();

    assert!(matches!(full, StoreError::Full { .. }), "{full:?}");
    assert_eq!(store.connection(&key()).await.unwrap().row.unwrap().sealed, b"old");
    // The limit was the connection's, and that one is not used again.
    assert_eq!(store.commit(large).await.unwrap(), Cas::Won);
}

#[tokio::test]
async fn f03_a_store_whose_file_was_exchanged_is_not_gone_on_with() {
    let (given, other) = (Given::a_store(), tempfile::tempdir().unwrap());
    let store = given.open().await;
    let other = other.path().join("other.db");
    sqlite::create(&other, &"store-2".parse().unwrap(), b"keyring", &Relocation::Home).unwrap();
    let doubt =
        sqlite_of(&store).write("doubt", |_| Err::<(), _>(rusqlite_error(rusqlite::ffi::SQLITE_IOERR_FSYNC)));
    doubt.await.unwrap_err();
    fs::rename(&other, given.path()).unwrap();

    let refused = store.probe().await.unwrap_err();

    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused:?}");
}

fn rusqlite_error(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
}

#[tokio::test]
async fn a18_replaced_records_are_gone_from_all_files_after_compacting() {
    let given = Given::a_store();
    let store = given.open().await;
    let found = |text: &str| {
        [given.path(), given.beside("-wal")].iter().any(|path| {
            let bytes = fs::read(path).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    };
    let sealed = |generation: i64| {
        let len =
            [1, 150, 300, 450, 600].into_iter().cycle().nth(usize::try_from(generation).unwrap()).unwrap();
        format!("canary-{generation:04}-").repeat(len)
    };
    assert_eq!(store.commit(write(None, 1, sealed(1).as_bytes())).await.unwrap(), Cas::Won);
    for generation in 2..=40 {
        let write = write(Some(generation - 1), generation, sealed(generation).as_bytes());
        assert_eq!(store.commit(write).await.unwrap(), Cas::Won);
    }
    assert!(found("canary-0039-"), "the search itself finds nothing");

    store.compact().await.unwrap();

    for generation in 1..40 {
        assert!(!found(&format!("canary-{generation:04}-")), "generation {generation} stayed");
    }
    assert!(found("canary-0040-"));
}

#[tokio::test]
async fn a_panic_in_the_store_does_not_end_it() {
    let given = Given::a_store();
    let store = given.open().await;
    let panicking = store.clone();
    let task = tokio::spawn(async move {
        sqlite_of(&panicking).write("panic", |_| -> rusqlite::Result<()> { panic!("planted") }).await
    });
    assert!(task.await.is_err());
    store.probe().await.unwrap();
}
