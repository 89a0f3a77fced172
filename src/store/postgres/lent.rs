//! A connection of the pool, lent for one piece of work.
//!
//! # Invariants
//!
//! 1. All of the work has one deadline: a database that stalls costs its caller [`WORK_MAX`] and no more.
//! 2. What ends otherwise than by [`Lent::done`] (an error, a deadline, a caller that went away) closes the
//!    connection: nobody knows what state it is in, and closing it rolls back what was begun.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, Pool, PoolError};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::rows::time;
use crate::store::error::StoreError;
use crate::store::rows::Relocation;

pub(super) struct Lent {
    /// Taken by `done`.
    object: Option<Object>,
    place: Arc<str>,
    doing: &'static str,
    until: Instant,
}

pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Lent {
    pub(super) async fn from(pool: &Pool, place: &Arc<str>, doing: &'static str) -> Result<Self, StoreError> {
        let until = Instant::now() + WORK_MAX;
        let object = match pool.get().await {
            Ok(object) => object,
            Err(PoolError::Backend(source)) => return Err(explain(doing, place, source)),
            Err(PoolError::Timeout(_)) => {
                return Err(StoreError::TooSlow { doing, place: place.to_string(), within: WAIT_MAX });
            }
            Err(error) => {
                let source = Box::new(error);
                return Err(StoreError::Unreachable { doing, place: place.to_string(), source });
            }
        };
        Ok(Self { object: Some(object), place: place.clone(), doing, until })
    }

    pub(super) async fn rows(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, StoreError> {
        let object = self.object();
        self.in_time(async {
            let statement = object.prepare_cached(sql).await?;
            object.query(&statement, parameters).await
        })
        .await
    }

    /// The only row, or none.
    pub(super) async fn row(&self, sql: &str, parameters: Parameters<'_>) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, parameters).await?.pop())
    }

    pub(super) async fn clock(&self) -> Result<Timestamp, StoreError> {
        let now = self.row("SELECT azdo_broker.store_now()", &[]).await?;
        Ok(time(now.expect("the clock always answers").get(0)))
    }

    /// How many rows changed.
    pub(super) async fn execute(&self, sql: &str, parameters: Parameters<'_>) -> Result<u64, StoreError> {
        let object = self.object();
        self.in_time(async {
            let statement = object.prepare_cached(sql).await?;
            object.execute(&statement, parameters).await
        })
        .await
    }

    /// Several statements without parameters.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), StoreError> {
        self.in_time(self.object().batch_execute(sql)).await
    }

    /// The work ended well: others may have the connection.
    pub(super) fn done(mut self) {
        self.object.take();
    }

    fn object(&self) -> &Object {
        self.object.as_ref().expect("is there until the work is done")
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout_at(self.until, work).await {
            Ok(done) => done.map_err(|source| explain(self.doing, &self.place, source)),
            Err(_) => Err(StoreError::TooSlow {
                doing: self.doing,
                place: self.place.to_string(),
                within: WORK_MAX,
            }),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

/// What an error means to the operator.
pub(super) fn explain(doing: &'static str, place: &str, source: tokio_postgres::Error) -> StoreError {
    let place = place.to_owned();
    match source.code() {
        Some(code) if code.code() == LEFT => {
            match Relocation::parse(source.as_db_error().map(tokio_postgres::error::DbError::message)) {
                Relocation::Moved(to) => StoreError::Moved { place, to },
                Relocation::Leaving(to) => StoreError::Leaving { place, to },
                Relocation::Home | Relocation::Arriving => StoreError::Postgres { doing, place, source },
            }
        }
        Some(code) if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME => {
            StoreError::NoStore(place)
        }
        Some(code) if *code == SqlState::DISK_FULL => StoreError::Full { doing, place },
        Some(code)
            if *code == SqlState::T_R_DEADLOCK_DETECTED
                || *code == SqlState::T_R_SERIALIZATION_FAILURE
                || *code == SqlState::LOCK_NOT_AVAILABLE =>
        {
            StoreError::Busy { doing, place }
        }
        Some(_) => StoreError::Postgres { doing, place, source },
        None => StoreError::Unreachable { doing, place, source: Box::new(source) },
    }
}

/// What a write fails with in a store that is on its way to another place: `store copy` sees to that.
const LEFT: &str = "AZ001";
/// For a connection of the pool, one that must be made included.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(2);
/// Below a caller's ten seconds, so that the reason is told, and far above what any statement takes.
const WORK_MAX: Duration = Duration::from_secs(5);
