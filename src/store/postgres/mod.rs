//! The store in `PostgreSQL`, for any number of replicas.
//!
//! Its clock is the database's: replicas' clocks differ, and leases are theirs together. No transaction
//! lives across anything but statements, and no connection is held while something else is waited for.
//! A commit whose answer did not arrive is an error like any other: whoever repeats it learns which it was
//! (rule 8 of the [contract](super)).
//!
//! What changes is told to the other replicas by `NOTIFY`; that may be lost, so they also look themselves
//! ([`news`]).

mod connections;
mod integrations;
mod leases;
mod lent;
mod links;
mod moving;
mod news;
mod outbox;
mod place;
mod rows;
mod schema;

use std::sync::Arc;

use deadpool_postgres::Pool;

#[cfg(test)]
pub(super) use self::leases::claim_due_sql;
use self::lent::Lent;
pub(super) use self::news::PostgresNews;
pub use self::place::{InvalidPlace, PostgresPlace};
use super::error::StoreError;
use super::rows::Relocation;
use crate::ids::StoreId;

/// A pool of connections. Clones share it.
#[derive(Clone)]
pub(super) struct Postgres(Arc<Shared>);

struct Shared {
    place: PostgresPlace,
    pool: Pool,
    store_id: StoreId,
    holder: String,
}

/// Makes the tables; refuses where the schema exists.
pub(super) async fn create(
    place: &PostgresPlace,
    store_id: &StoreId,
    keyring: &[u8],
    relocation: &Relocation,
) -> Result<(), StoreError> {
    let lent = Lent::from(&place.pool(), &place.name, "make the store").await?;
    schema::create(&lent, &place.name, store_id, keyring, relocation).await
}

impl Postgres {
    pub(super) async fn open(place: &PostgresPlace, holder: String) -> Result<Self, StoreError> {
        let pool = place.pool();
        let lent = Lent::from(&pool, &place.name, "open the store").await?;
        let store_id = schema::check(&lent, &place.name).await?;
        lent.done();
        Ok(Self(Arc::new(Shared { place: place.clone(), pool, store_id, holder })))
    }

    pub(super) fn store_id(&self) -> &StoreId {
        &self.0.store_id
    }

    pub(super) fn news(&self) -> PostgresNews {
        PostgresNews::new(self.0.place.clone())
    }

    pub(super) async fn wrapped_keyring(&self) -> Result<Vec<u8>, StoreError> {
        let lent = self.lend("read the keyring").await?;
        let row = lent.row("SELECT keyring FROM azdo_broker.store", &[]).await?;
        lent.done();
        row.map(|row| row.get(0)).ok_or_else(|| StoreError::Damaged {
            place: self.0.place.name.to_string(),
            what: "its table store is empty".to_owned(),
        })
    }

    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let lent = self.lend("write to the store").await?;
        lent.execute("UPDATE azdo_broker.store SET probed_at = azdo_broker.store_now()", &[]).await?;
        lent.done();
        Ok(())
    }

    /// Old row versions are removed by autovacuum; there is nothing of ours to do.
    #[expect(clippy::unused_async, reason = "as the other stores answer")]
    pub(super) async fn compact(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn lend(&self, doing: &'static str) -> Result<Lent, StoreError> {
        Lent::from(&self.0.pool, &self.0.place.name, doing).await
    }
}
