//! Why the store did not do what it was asked, in words for the operator (P10).

use std::io;
use std::path::PathBuf;

use crate::files::FileProblem;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("there is no store at {0}: run `azdo-broker store init`")]
    NoStore(String),
    #[error("{0} exists already: a new store never replaces what is there")]
    Exists(String),
    #[error(
        "another azdo-broker uses {}: stop it first, or give each process a store of its own", .0.display()
    )]
    InUse(PathBuf),
    #[error("{0} is not a store of azdo-broker: correct the path, or restore a backup")]
    NotAStore(String),
    #[error("{place} is damaged ({what}): restore a backup")]
    Damaged { place: String, what: String },
    #[error(
        "{place} was written by a newer azdo-broker (schema {found}, this one knows {known}): run that one"
    )]
    Newer { place: String, found: i64, known: i64 },
    #[error("this build has SQLite {found}, which can corrupt stores: build with 3.51.3 or later")]
    OldSqlite { found: &'static str },
    #[error("{} allows no write-ahead log: a store needs a local file system", .0.display())]
    NotLocal(PathBuf),
    #[error("the file of the store cannot be used")]
    File(#[from] FileProblem),
    #[error("could not {doing} at {0}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("could not {doing}: no space is left for {place}")]
    Full { doing: &'static str, place: String },
    #[error("could not {doing}: somebody else keeps {place} locked")]
    Busy { doing: &'static str, place: String },
    #[error("could not {doing}")]
    Sqlite { doing: &'static str, source: rusqlite::Error },
    #[error("could not {doing} at {place}")]
    Postgres { doing: &'static str, place: String, source: tokio_postgres::Error },
    #[error("could not {doing}: {place} cannot be reached: check that PostgreSQL runs and takes connections")]
    Unreachable {
        doing: &'static str,
        place: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("could not {doing}: {place} did not answer within {within:?}")]
    TooSlow { doing: &'static str, place: String, within: std::time::Duration },
    #[error(
        "{place} loses what it confirmed ({setting} is {value}): set it to on, or to remote_apply with standbys"
    )]
    Forgetful { place: String, setting: &'static str, value: String },
    #[error("{place} is being filled: run `azdo-broker store copy` to its end, or drop what is there")]
    Arriving { place: String },
    #[error("{place} is being copied to {to}: run `azdo-broker store copy` to its end")]
    Leaving { place: String, to: String },
    #[error("{place} was moved to {to}: serve that one, and delete this one when you trust it")]
    Moved { place: String, to: String },
    #[error("could not {0}: the broker is shutting down")]
    ShuttingDown(&'static str),
}
