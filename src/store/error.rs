//! Why the store did not do what it was asked, in words for the operator (P10).

use std::io;
use std::path::PathBuf;

use crate::files::FileProblem;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("there is no store at {}: run `azdo-broker store init`", .0.display())]
    NoStore(PathBuf),
    #[error("{} exists already: a new store never replaces a file", .0.display())]
    Exists(PathBuf),
    #[error(
        "another azdo-broker uses {}: stop it first, or give each process a store of its own", .0.display()
    )]
    InUse(PathBuf),
    #[error("{} is not a store of azdo-broker: correct the path, or restore a backup", .0.display())]
    NotAStore(PathBuf),
    #[error("{0} is damaged ({what}): restore a backup", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error(
        "{0} was written by a newer azdo-broker (schema {found}, this one knows {known}): run that one",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("this build has SQLite {found}, which can corrupt stores: build with 3.51.3 or later")]
    OldSqlite { found: &'static str },
    #[error("{} allows no write-ahead log: a store needs a local file system", .0.display())]
    NotLocal(PathBuf),
    #[error("the file of the store cannot be used")]
    File(#[from] FileProblem),
    #[error("could not {doing} at {0}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("could not {doing}: no space is left for {0}", path.display())]
    Full { doing: &'static str, path: PathBuf },
    #[error("could not {doing}: another program keeps {0} locked", path.display())]
    Busy { doing: &'static str, path: PathBuf },
    #[error("could not {doing}")]
    Sqlite { doing: &'static str, source: rusqlite::Error },
    #[error("could not {0}: the broker is shutting down")]
    ShuttingDown(&'static str),
}
