//! The files of a store: made whole or not at all, opened only if they are what they should be.
//!
//! Nothing here ever makes a store where one was expected (F05): whoever has lost a store must learn
//! of it, not go on with an empty one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};
use rustix::fs::{FlockOperation, OFlags, flock};

use super::{explain, leases, named, schema};
use crate::files;
use crate::ids::StoreId;
use crate::store::error::StoreError;
use crate::store::rows::Relocation;

/// Makes a store under another name and gives it its own when it is whole.
pub(in crate::store) fn create(
    path: &Path,
    store_id: &StoreId,
    keyring: &[u8],
    relocation: &Relocation,
) -> Result<(), StoreError> {
    check_version(rusqlite::version_number())?;
    // Before the lock too: whoever would replace a store in use must not be told to stop it first.
    refuse_existing(path)?;
    let _lock = lock(path)?;
    refuse_existing(path)?;
    let new = beside(path, ".new");
    if let Err(source) = fs::remove_file(&new)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(StoreError::Io { doing: "remove a half-made store", path: new, source });
    }
    files::create_secret(&new, b"")?;
    let made = fill(&new, store_id, keyring, relocation).and_then(|()| {
        fs::rename(&new, path).and_then(|()| files::sync_parent(path)).map_err(|source| StoreError::Io {
            doing: "name the new store",
            path: path.into(),
            source,
        })
    });
    if made.is_err() {
        // What stays is removed by the next attempt.
        fs::remove_file(&new).ok();
    }
    made
}

/// Opens the store for this process alone.
pub(super) fn open(path: &Path) -> Result<(File, Connection, StoreId), StoreError> {
    let doing = "open the store";
    check_version(rusqlite::version_number())?;
    refuse_missing(path)?;
    let lock = lock(path)?;
    files::check_secret(path)?;
    let (mut connection, store_id) = connect(path)?;
    check_pages(&connection, path)?;
    clear_leases(&mut connection).map_err(|error| explain(path, doing, error))?;
    Ok((lock, connection, store_id))
}

/// Opens the file again, if it is still the same store.
pub(super) fn reconnect(path: &Path, store_id: &StoreId) -> Result<Connection, StoreError> {
    refuse_missing(path)?;
    let (connection, found) = connect(path)?;
    if found == *store_id {
        Ok(connection)
    } else {
        Err(StoreError::Damaged { place: named(path), what: format!("store {found} took its place") })
    }
}

fn fill(path: &Path, store_id: &StoreId, keyring: &[u8], relocation: &Relocation) -> Result<(), StoreError> {
    let explain = |error| explain(path, "make the store", error);
    let mut connection = Connection::open_with_flags(path, FLAGS).map_err(explain)?;
    if !schema::set_up(&connection).map_err(explain)? {
        return Err(StoreError::NotLocal(path.into()));
    }
    let fill = |tx: Transaction<'_>| {
        schema::create(&tx)?;
        tx.execute(
            "INSERT INTO store (id, store_id, keyring, relocation) VALUES (1, ?1, ?2, ?3)",
            params![store_id.as_str(), keyring, relocation.text()],
        )?;
        tx.commit()
    };
    connection.transaction().and_then(fill).map_err(explain)?;
    // The last connection takes the write-ahead log with it, so that the file alone is the store.
    connection.close().map_err(|(_, error)| explain(error))
}

fn connect(path: &Path) -> Result<(Connection, StoreId), StoreError> {
    let explain = |error| explain(path, "open the store", error);
    let mut connection = Connection::open_with_flags(path, FLAGS).map_err(explain)?;
    // Looked at before anything is set: setting the journal's mode would change a foreign file.
    if read_pragma(&connection, "application_id").map_err(explain)? != schema::APPLICATION_ID {
        return Err(StoreError::NotAStore(named(path)));
    }
    let found = read_pragma(&connection, "user_version").map_err(explain)?;
    if schema::SCHEMA < found {
        return Err(StoreError::Newer { place: named(path), found, known: schema::SCHEMA });
    }
    if found < schema::FIRST {
        return Err(StoreError::Damaged {
            place: named(path),
            what: format!("schema {found} never existed"),
        });
    }
    if !schema::set_up(&connection).map_err(explain)? {
        return Err(StoreError::NotLocal(path.into()));
    }
    if found < schema::SCHEMA {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(explain)?;
        schema::migrate(&tx, found).and_then(|()| tx.commit()).map_err(explain)?;
        tracing::info!(store.path = %path.display(), from = found, to = schema::SCHEMA, "the store was brought up to date");
    }
    let store_id: String =
        connection.query_row("SELECT store_id FROM store", [], |row| row.get(0)).map_err(explain)?;
    let store_id = store_id
        .parse()
        .map_err(|_| StoreError::Damaged { place: named(path), what: "its id is no name".to_owned() })?;
    Ok((connection, store_id))
}

fn read_pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// Finds damaged pages before they are needed, where that does not keep the start waiting.
fn check_pages(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let len = fs::metadata(path)
        .map_err(|source| StoreError::Io { doing: "look at the store", path: path.into(), source })?
        .len();
    if CHECKED_AT_START_MAX < len {
        tracing::info!(store.bytes = len, "the store is too large to check all its pages at start");
        return Ok(());
    }
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| explain(path, "check the store", error))?;
    if found == "ok" {
        Ok(())
    } else {
        Err(StoreError::Damaged { place: named(path), what: one_line(&found) })
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn clear_leases(connection: &mut Connection) -> rusqlite::Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    leases::clear(&tx)?;
    tx.commit()
}

/// Held by the operating system for as long as the file is open, however the process ends. The lock
/// file stays: removing it would let two processes lock two files of one name.
fn lock(path: &Path) -> Result<File, StoreError> {
    let io = |source| StoreError::Io { doing: "lock the store", path: path.into(), source };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(LOCK_MODE)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(beside(path, ".lock"))
        .map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(path.into())),
        Err(error) => Err(io(error.into())),
    }
}

/// The log of a store that was removed counts too: it would be played into the new one.
fn refuse_existing(path: &Path) -> Result<(), StoreError> {
    for path in [path.to_owned(), beside(path, "-wal"), beside(path, "-journal")] {
        if path.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(named(&path)));
        }
    }
    Ok(())
}

fn refuse_missing(path: &Path) -> Result<(), StoreError> {
    match path.symlink_metadata() {
        // No links: a store must not change under an open connection because a link does.
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(StoreError::NotAStore(named(path))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::NoStore(named(path))),
        Err(source) => Err(StoreError::Io { doing: "find the store", path: path.into(), source }),
    }
}

fn check_version(number: i32) -> Result<(), StoreError> {
    if number < schema::SQLITE_MIN {
        return Err(StoreError::OldSqlite { found: rusqlite::version() });
    }
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Never creates, never takes the path for a URI; one thread at a time is our own mutex's business.
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);
const LOCK_MODE: u32 = 0o600;
/// About a second of reading on a slow disk.
const CHECKED_AT_START_MAX: u64 = 1 << 29;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_that_can_corrupt_stores_is_refused() {
        assert!(check_version(rusqlite::version_number()).is_ok());
        assert!(matches!(check_version(3_051_002), Err(StoreError::OldSqlite { .. })));
    }
}
