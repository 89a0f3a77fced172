//! The tables, and what is checked before they are used.
//!
//! Everything is in one schema of its own, so that a database may hold other things beside it.

use super::lent::Lent;
use crate::ids::StoreId;
use crate::store::error::StoreError;
use crate::store::rows::Relocation;

/// Makes the tables and the store's one row, all or nothing.
pub(super) async fn create(
    lent: &Lent,
    place: &str,
    store_id: &StoreId,
    keyring: &[u8],
    relocation: &Relocation,
) -> Result<(), StoreError> {
    lent.batch("BEGIN").await?;
    // Two at once: one waits here for the other, and then finds its store.
    lent.batch(ONE_AT_A_TIME).await?;
    let exists = "SELECT 1 FROM pg_namespace WHERE nspname = 'azdo_broker'";
    if lent.row(exists, &[]).await?.is_some() {
        return Err(StoreError::Exists(format!("the schema azdo_broker in {place}")));
    }
    lent.batch(TABLES).await?;
    let insert = "INSERT INTO azdo_broker.store (id, schema, store_id, keyring) VALUES (1, $1, $2, $3)";
    lent.execute(insert, &[&FIRST, &store_id.as_str(), &keyring]).await?;
    migrate(lent, FIRST).await?;
    lent.execute("UPDATE azdo_broker.store SET relocation = $1", &[&relocation.text()]).await?;
    lent.batch("COMMIT").await
}

/// Brings the tables of an older schema up to this one, in the transaction that is open. Only adds, so that a
/// replica of the version before goes on meanwhile, and rows are never rewritten.
async fn migrate(lent: &Lent, found: i64) -> Result<(), StoreError> {
    for (schema, migration) in (FIRST + 1..).zip(MIGRATIONS) {
        if found < schema {
            lent.batch(migration).await?;
        }
    }
    lent.execute("UPDATE azdo_broker.store SET schema = $1", &[&SCHEMA]).await.map(drop)
}

/// Looks whether this is a store that this program knows, in a database that keeps what it confirms.
pub(super) async fn check(lent: &Lent, place: &str) -> Result<StoreId, StoreError> {
    let store = lent.row("SELECT schema, store_id FROM azdo_broker.store", &[]).await?;
    let Some(store) = store else {
        return Err(StoreError::Damaged { place: place.to_owned(), what: "its table store is empty".into() });
    };
    let found: i64 = store.get(0);
    refuse_newer(found, place)?;
    if found < FIRST {
        let what = format!("schema {found} never existed");
        return Err(StoreError::Damaged { place: place.to_owned(), what });
    }
    if found < SCHEMA {
        lent.batch("BEGIN").await?;
        // Of two replicas that start at once one waits here, and finds it done. Not on the row: whoever waits
        // for that holds the table, which the other wants to alter.
        lent.batch(ONE_AT_A_TIME).await?;
        let now = lent.row("SELECT schema FROM azdo_broker.store", &[]).await?;
        let now = now.map_or(SCHEMA, |row| row.get(0));
        // Or that one was of a newer version.
        refuse_newer(now, place)?;
        migrate(lent, now).await?;
        lent.batch("COMMIT").await?;
        tracing::info!(store = place, from = found, to = SCHEMA, "the store was brought up to date");
    }
    let settings = "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes')";
    for row in lent.rows(settings, &[]).await? {
        let (name, value): (String, String) = (row.get(0), row.get(1));
        let setting = *FORGETFUL.iter().find(|known| **known == name).unwrap_or(&"fsync");
        if value == "off" {
            return Err(StoreError::Forgetful { place: place.to_owned(), setting, value });
        }
    }
    let store_id: String = store.get(1);
    store_id
        .parse()
        .map_err(|_| StoreError::Damaged { place: place.to_owned(), what: "its id is no name".to_owned() })
}

fn refuse_newer(found: i64, place: &str) -> Result<(), StoreError> {
    if SCHEMA < found {
        return Err(StoreError::Newer { place: place.to_owned(), found, known: SCHEMA });
    }
    Ok(())
}

const SCHEMA: i64 = 2;
const FIRST: i64 = 1;
/// Until the transaction ends.
const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(1635410546)";
const FORGETFUL: [&str; 3] = ["fsync", "synchronous_commit", "full_page_writes"];

/// To schema 2, and so on.
const MIGRATIONS: [&str; 1] = [
    // Where the store stands in a move to another place; when each grant dies of idleness, which a connection
    // has from its next refresh on; which tombstones are old; changes of connections, for those who watch.
    r#"
ALTER TABLE azdo_broker.store ADD COLUMN relocation text;

ALTER TABLE azdo_broker.connections ADD COLUMN grant_until bigint;
CREATE INDEX connections_expiring ON azdo_broker.connections (grant_until)
    WHERE live AND grant_until IS NOT NULL;
CREATE INDEX connections_ended ON azdo_broker.connections (generation) WHERE NOT live;

CREATE TABLE azdo_broker.outbox (
    xact bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    id bigint GENERATED ALWAYS AS IDENTITY,
    account text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    change text NOT NULL,
    happened_at bigint NOT NULL,
    PRIMARY KEY (xact, id)
);

CREATE TABLE azdo_broker.outbox_state (
    id integer PRIMARY KEY CHECK (id = 1),
    name text NOT NULL,
    gone_xact bigint NOT NULL DEFAULT 0,
    gone_id bigint NOT NULL DEFAULT 0
);
CREATE INDEX connections_lost ON azdo_broker.connections (lease_until)
    WHERE live AND lease_until IS NOT NULL AND strpos(failure, '"lost":true') > 0;
INSERT INTO azdo_broker.outbox_state (id, name) VALUES (1, replace(gen_random_uuid()::text, '-', ''));
"#,
];

/// Times are microseconds. `due_at` is null where nothing is to be refreshed. Names sort by their bytes, as
/// everywhere else in the broker.
const TABLES: &str = r#"
CREATE SCHEMA azdo_broker;

CREATE FUNCTION azdo_broker.store_now() RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

CREATE TABLE azdo_broker.store (
    id integer PRIMARY KEY CHECK (id = 1),
    schema bigint NOT NULL,
    store_id text NOT NULL,
    keyring bytea NOT NULL,
    probed_at bigint
);

CREATE TABLE azdo_broker.connections (
    account text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    live boolean NOT NULL,
    refresh_at bigint,
    retry_at bigint,
    failure text,
    lease_holder text,
    lease_until bigint,
    fence bigint NOT NULL DEFAULT 0,
    sealed bytea NOT NULL,
    due_at bigint GENERATED ALWAYS AS
        (CASE WHEN refresh_at IS NOT NULL THEN greatest(refresh_at, retry_at, lease_until) END) STORED,
    PRIMARY KEY (account, role)
);
CREATE INDEX connections_due ON azdo_broker.connections (due_at) WHERE live;

CREATE TABLE azdo_broker.links (
    id text COLLATE "C" PRIMARY KEY,
    account text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    state_hash text NOT NULL UNIQUE,
    version bigint NOT NULL,
    open boolean NOT NULL,
    expires_at bigint NOT NULL,
    sealed bytea NOT NULL
);
CREATE INDEX links_open ON azdo_broker.links (account, role) WHERE open;
CREATE INDEX links_expiring ON azdo_broker.links (expires_at);

CREATE TABLE azdo_broker.integrations (
    account text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    sealed bytea NOT NULL
);
"#;
