//! The store in one file, by `SQLite`, for one process.
//!
//! One connection, used in blocking threads only. A lock file beside the store keeps a second
//! process out, which is what makes it right to void all leases at start.
//!
//! After an error of the disk the connection is not used again: the kernel may have marked pages as
//! written that never were, and a connection that cached them would go on as if they were (F03). The
//! next call opens the file anew.

pub(super) mod connections;
pub(super) mod integrations;
pub(super) mod leases;
pub(super) mod links;

mod columns;
mod files;
mod moving;
mod operations;
mod outbox;
mod schema;

use std::fs::File;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::time::Instant;

use super::error::StoreError;
use super::rows::Cas;
use crate::clock::Clock;
use crate::ids::StoreId;

pub(super) use files::create;
#[cfg(test)]
pub(super) use schema::BUSY_TIMEOUT;

/// The open file. Clones share it.
#[derive(Clone)]
pub(super) struct Sqlite(Arc<Shared>);

struct Shared {
    path: PathBuf,
    store_id: StoreId,
    holder: String,
    clock: Arc<dyn Clock>,
    /// `None` after an error that leaves the connection in doubt. Locked in blocking threads only.
    connection: Mutex<Option<Connection>>,
    /// Held as long as we live.
    _lock: File,
}

/// A transaction, and what the clock says in it.
pub(super) struct At<'a> {
    pub(super) tx: &'a Transaction<'a>,
    pub(super) now: Timestamp,
    holder: &'a str,
}

impl Sqlite {
    pub(super) async fn open(
        path: PathBuf,
        clock: Arc<dyn Clock>,
        holder: String,
    ) -> Result<Self, StoreError> {
        blocking("open the store", move || {
            let (lock, connection, store_id) = files::open(&path)?;
            let connection = Mutex::new(Some(connection));
            Ok(Self(Arc::new(Shared { path, store_id, holder, clock, connection, _lock: lock })))
        })
        .await
    }

    pub(super) fn store_id(&self) -> &StoreId {
        &self.0.store_id
    }

    /// Reads one state of the store; goes on while another program writes.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&At<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transact(doing, TransactionBehavior::Deferred, move |at| Ok((work(at)?, Cas::Won))).await
    }

    /// All of `work`, durably, or nothing.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&At<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transact(doing, TransactionBehavior::Immediate, move |at| Ok((work(at)?, Cas::Won))).await
    }

    /// All of `work` if it won, nothing if it lost.
    pub(super) async fn swap(
        &self,
        doing: &'static str,
        work: impl FnOnce(&At<'_>) -> rusqlite::Result<Cas> + Send + 'static,
    ) -> Result<Cas, StoreError> {
        self.transact(doing, TransactionBehavior::Immediate, move |at| work(at).map(|cas| (cas, cas))).await
    }

    pub(super) async fn wrapped_keyring(&self) -> Result<Vec<u8>, StoreError> {
        let keyring = |at: &At<'_>| at.tx.query_row("SELECT keyring FROM store", [], |row| row.get(0));
        self.read("read the keyring", keyring).await
    }

    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let probe = |at: &At<'_>| {
            at.tx.execute("UPDATE store SET probed_at = ?1", [columns::micros(at.now)]).map(drop)
        };
        self.write("write to the store", probe).await
    }

    pub(super) async fn compact(&self) -> Result<(), StoreError> {
        let doing = "compact the store";
        let (shared, asked_at) = (Arc::clone(&self.0), Instant::now());
        blocking(doing, move || {
            let busy: bool = shared.use_connection(doing, asked_at, |connection| {
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            })?;
            if busy { Err(StoreError::Busy { doing, place: named(&shared.path) }) } else { Ok(()) }
        })
        .await
    }

    async fn transact<T: Send + 'static>(
        &self,
        doing: &'static str,
        behavior: TransactionBehavior,
        work: impl FnOnce(&At<'_>) -> rusqlite::Result<(T, Cas)> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (shared, asked_at) = (Arc::clone(&self.0), Instant::now());
        blocking(doing, move || {
            shared.use_connection(doing, asked_at, |connection| {
                let tx = connection.transaction_with_behavior(behavior)?;
                let now = shared.clock.now().wall;
                let (result, cas) = work(&At { tx: &tx, now, holder: &shared.holder })?;
                match cas {
                    Cas::Won => tx.commit()?,
                    Cas::Lost => tx.rollback()?,
                }
                Ok(result)
            })
        })
        .await
    }
}

impl Shared {
    fn use_connection<T>(
        &self,
        doing: &'static str,
        asked_at: Instant,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut held = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out, so that a panic leaves none behind either.
        let mut connection = match held.take() {
            Some(connection) => connection,
            None => files::reconnect(&self.path, &self.store_id)?,
        };
        // Whoever stood in line for those before has that much less left: a file that another program keeps locked
        // costs all of them one wait, not one after another.
        let left = schema::BUSY_TIMEOUT.saturating_sub(asked_at.elapsed());
        let result = connection.busy_timeout(left).and_then(|()| work(&mut connection));
        if !result.as_ref().is_err_and(leaves_doubt) {
            *held = Some(connection);
        }
        result.map_err(|error| explain(&self.path, doing, error))
    }
}

static THREADS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(8);

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    // There is one connection, so more than a few threads would only wait for it, and the audit needs one
    // too: a store that stalls must not cost a token at hand (P6).
    let _place = THREADS.acquire().await.expect("the semaphore is never closed");
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(StoreError::ShuttingDown(doing)),
        },
    }
}

/// Whether what the connection remembers may differ from what the disk has.
fn leaves_doubt(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory
        )
    )
}

/// What an error means to the operator.
fn explain(path: &Path, doing: &'static str, error: rusqlite::Error) -> StoreError {
    let place = named(path);
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { doing, place },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy { doing, place },
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Damaged { place, what: error.to_string() },
        Some(ErrorCode::NotADatabase) => StoreError::NotAStore(place),
        _ => StoreError::Sqlite { doing, source: error },
    }
}

fn named(path: &Path) -> String {
    path.display().to_string()
}
