//! The tables, and how a connection to them is set up.

use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction};

/// Sets up a connection; tells whether the write-ahead log is in force.
pub(super) fn set_up(connection: &Connection) -> rusqlite::Result<bool> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    for (name, value) in PRAGMAS {
        connection.pragma_update(None, name, value)?;
    }
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    Ok(mode == "wal")
}

/// Makes the tables in an empty file.
pub(super) fn create(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute_batch(TABLES)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    migrate(tx, FIRST)
}

/// Brings the tables of an older schema up to this one. Only adds, so that rows are never rewritten.
pub(super) fn migrate(tx: &Transaction<'_>, found: i64) -> rusqlite::Result<()> {
    for (schema, migration) in (FIRST + 1..).zip(MIGRATIONS) {
        if found < schema {
            tx.execute_batch(migration)?;
        }
    }
    tx.pragma_update(None, "user_version", SCHEMA)
}

/// `azbr`: tells our files from those of others.
pub(super) const APPLICATION_ID: i64 = 0x617a_6272;
pub(super) const SCHEMA: i64 = 2;
/// What `TABLES` make.
pub(super) const FIRST: i64 = 1;
/// The first release without the write-ahead log's corruption race (security.md, finding 8).
pub(super) const SQLITE_MIN: i32 = 3_051_003;

/// FULL: with less, a power cut takes the last grants. The page cache's temporary data stays in
/// memory, replaced bytes are wiped, and a log of 256 pages (1 MB) is moved into the file.
const PRAGMAS: [(&str, &str); 7] = [
    ("synchronous", "FULL"),
    ("secure_delete", "ON"),
    ("foreign_keys", "ON"),
    ("trusted_schema", "OFF"),
    ("cell_size_check", "ON"),
    ("temp_store", "MEMORY"),
    ("wal_autocheckpoint", "256"),
];
/// Another process has no business here; this is for an operator's look with `sqlite3`. Three in a row (two looks,
/// then a write) stay below a caller's ten seconds, so that the reason is told.
pub(in crate::store) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// More than there are statements.
const STATEMENTS_KEPT: usize = 64;

/// To schema 2, and so on.
const MIGRATIONS: [&str; 1] = [
    // Where the store stands in a move to another place; when each grant dies of idleness, which a connection
    // has from its next refresh on; which tombstones are old; changes of connections, for those who watch.
    "
ALTER TABLE store ADD COLUMN relocation TEXT;

ALTER TABLE connections ADD COLUMN grant_until INTEGER;
CREATE INDEX connections_expiring ON connections (grant_until) WHERE live = 1 AND grant_until IS NOT NULL;
CREATE INDEX connections_ended ON connections (generation) WHERE live = 0;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    role TEXT NOT NULL,
    generation INTEGER NOT NULL,
    change TEXT NOT NULL,
    happened_at INTEGER NOT NULL
) STRICT;

CREATE TABLE outbox_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL,
    gone INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO outbox_state (id, name) VALUES (1, lower(hex(randomblob(16))));
",
];

/// Times are microseconds. `due_at` is null where nothing is to be refreshed.
const TABLES: &str = "
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    store_id TEXT NOT NULL,
    keyring BLOB NOT NULL,
    probed_at INTEGER
) STRICT;

CREATE TABLE connections (
    account TEXT NOT NULL,
    role TEXT NOT NULL,
    generation INTEGER NOT NULL,
    live INTEGER NOT NULL,
    refresh_at INTEGER,
    retry_at INTEGER,
    failure TEXT,
    lease_holder TEXT,
    lease_until INTEGER,
    fence INTEGER NOT NULL DEFAULT 0,
    sealed BLOB NOT NULL,
    due_at INTEGER AS (max(refresh_at, coalesce(retry_at, refresh_at), coalesce(lease_until, refresh_at))),
    PRIMARY KEY (account, role)
) STRICT;
CREATE INDEX connections_due ON connections (due_at) WHERE live = 1;
CREATE INDEX connections_leased ON connections (lease_until) WHERE lease_until IS NOT NULL;

CREATE TABLE links (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    role TEXT NOT NULL,
    state_hash TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    open INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    sealed BLOB NOT NULL
) STRICT;
CREATE INDEX links_open ON links (account, role) WHERE open = 1;
CREATE INDEX links_expiring ON links (expires_at);

CREATE TABLE integrations (
    account TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL
) STRICT;
";
