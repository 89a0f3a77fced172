//! Opened records over store and seal: the only place that seals or opens one.
//!
//! # Invariants
//!
//! 1. What the store keeps is sealed to its place: store, table, key and generation. A row copied,
//!    edited or swapped does not open, and fails alone (P9).
//! 2. The sealed record is the truth; a column that says otherwise is damage.
//! 3. A record is written by compare-and-swap only: whoever lost reads again.
//!
//! It knows nothing of Entra, of policy, or of who is waiting.

mod changes;
mod connection;
mod connections;
mod integration_record;
mod integrations;
mod leases;
mod links;
mod marks;
mod record;
mod rollback;

pub use changes::{Changed, Changes, Cursor};
pub use connection::{Connection, Ended, Held, Imported, Live, Opened, Standing, StoredToken};
pub use connections::{SealedRefresh, make_keep_alive_at};
pub use integrations::{ClientCredential, Integration, Means, Suspension};
pub use leases::{Claimed, Hold, ImportLease, Lease, Leased, NEVER};
pub use links::{Front, Link, LinkEnd, LinkPhase, LinkSecrets, Replaced};
pub use marks::Rollback;

use std::time::Duration;

use tokio::sync::watch;

use crate::reason::{Problem, Reason, Refused};
use crate::seal::{SealError, Sealer};
pub use crate::store::{Compared, News, StoreNews};

use crate::store::{Store, StoreError};

/// Cheap to share behind an `Arc`.
pub struct Vault {
    store: Store,
    sealer: Sealer,
    marks: marks::Marks,
    /// Wakes who watches connections.
    changed: watch::Sender<()>,
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Somebody else wrote it first: read again and decide anew.
    #[error("{0} was changed meanwhile")]
    Changed(String),
    /// It does not open, or says something else than its columns.
    #[error("the record of {0} is damaged")]
    Damaged(String),
    #[error("the record of {key} does not open")]
    Sealed {
        key: String,
        #[source]
        source: SealError,
    },
    /// It is older than a link or disconnect that was seen: a backup was restored, or somebody put it back.
    #[error(
        "the store holds {} at generation {}, and {} was seen: a restore must be accepted", .0.key,
        .0.found.unwrap_or_default().0, .0.seen.generation.0
    )]
    RolledBack(Rollback),
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl Vault {
    /// `ended_kept`: how long tombstones stay before they are erased.
    pub fn new(store: Store, sealer: Sealer, ended_kept: Duration) -> Self {
        Self { store, sealer, marks: marks::Marks::new(ended_kept), changed: watch::Sender::default() }
    }

    /// What other replicas write from now on.
    pub fn news(&self) -> StoreNews {
        self.store.news()
    }

    /// Whether the store takes writes.
    pub async fn probe(&self) -> Result<(), VaultError> {
        Ok(self.store.probe().await?)
    }
}

impl VaultError {
    /// One record is at fault, and fails alone (P9).
    pub fn is_of_one_record(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Sealed { .. } | Self::RolledBack(_))
    }

    /// The same, for a caller. The cause is logged where this is made.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Changed(_) => {
                Problem::new(Reason::StoreUnavailable, "the record is changing").retry_after(RETRY)
            }
            Self::Damaged(_) | Self::Sealed { .. } => {
                tracing::error!(error = self as &dyn std::error::Error, "a record is damaged");
                Problem::new(Reason::RecordDamaged, "the record does not pass its integrity check")
            }
            Self::RolledBack(_) => {
                tracing::error!(error = self as &dyn std::error::Error, "a rollback is suspected");
                let detail = "the store holds an older state of this connection than was seen";
                Problem::new(Reason::RollbackSuspected, detail)
            }
            Self::Store(_) => {
                tracing::error!(error = self as &dyn std::error::Error, "the store failed");
                Problem::new(Reason::StoreUnavailable, "the store does not answer").retry_after(RETRY)
            }
        }
    }
}

impl From<VaultError> for Refused {
    fn from(error: VaultError) -> Self {
        error.problem().into()
    }
}

/// A busy or restarting store is mostly back by then.
const RETRY: Duration = Duration::from_secs(2);
