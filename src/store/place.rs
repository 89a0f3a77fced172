//! Where a store is: what the configuration names and messages show.

use std::fmt;
use std::path::{Path, PathBuf};

use super::PostgresPlace;

/// Where a store is.
#[derive(Clone, Debug)]
pub enum StorePlace {
    /// A file, for one process.
    File(PathBuf),
    /// A database, for any number of replicas.
    Postgres(Box<PostgresPlace>),
}

impl From<PathBuf> for StorePlace {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&Path> for StorePlace {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

/// As messages show it.
impl fmt::Display for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(place) => place.fmt(f),
        }
    }
}
