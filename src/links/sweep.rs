//! Housekeeping: ends links that ran out, deletes what nobody needs any more, and tells what nobody else tells.
//!
//! Deleted are links that are long over, changes that are a day old or too many, and the tombstones of connections
//! that ended so long ago that nothing of before can come back (design.md 6.2): with one of those goes the last
//! that the store says of somebody.
//!
//! A sweeper that is late lets nobody in and shows nobody more: expiry and the age of a cursor are checked at use.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, earlier};
use crate::vault::{Vault, VaultError};

/// An actor for the app to run.
pub struct Sweeper {
    pub vault: Arc<Vault>,
    pub clock: Arc<dyn Clock>,
}

impl Sweeper {
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(EVERY) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.sweep() => {}
            }
        }
    }

    async fn sweep(&self) {
        // What one cannot do keeps none of the others from their work.
        for (what, swept) in [
            ("links", self.sweep_links().await),
            ("the outbox", self.sweep_outbox().await),
            ("tombstones", self.sweep_tombstones().await),
        ] {
            if let Err(error) = swept {
                tracing::warn!(what, error = &error as &dyn std::error::Error, "could not be swept");
            }
        }
    }

    /// Deletes a bounded number of them: the next sweep goes on.
    async fn sweep_links(&self) -> Result<(), VaultError> {
        let ended = self.vault.end_expired_links().await?;
        let deleted = self.vault.delete_links(earlier(self.clock.now().wall, LINKS_KEPT)).await?;
        if 0 < ended + deleted {
            tracing::info!(ended, deleted, "swept links");
        }
        Ok(())
    }

    async fn sweep_outbox(&self) -> Result<(), VaultError> {
        self.vault.tell_losses().await?;
        while self.vault.prune_outbox().await? {
            // Others want to write, too.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// A bounded number of them: the next sweep goes on.
    async fn sweep_tombstones(&self) -> Result<(), VaultError> {
        let erased = self.vault.erase_ended().await?;
        if 0 < erased {
            tracing::info!(erased, "erased what was kept of connections that ended long ago");
        }
        Ok(())
    }
}

const EVERY: Duration = Duration::from_mins(1);
/// `GetLink` answers for this long why a link ended.
const LINKS_KEPT: Duration = Duration::from_hours(1);
