//! Ends links that ran out, wiping their secrets, and deletes those that are long over.
//!
//! Housekeeping only: expiry is checked at use, so a sweeper that is late lets nobody in (finding 13).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, earlier};
use crate::vault::{Vault, VaultError};

/// An actor for the app to run.
pub struct LinkSweeper {
    pub vault: Arc<Vault>,
    pub clock: Arc<dyn Clock>,
}

impl LinkSweeper {
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(EVERY) => {}
            }
            if let Err(error) = self.sweep().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "links that are over were not swept"
                );
            }
        }
    }

    async fn sweep(&self) -> Result<(), VaultError> {
        let ended = self.vault.end_expired_links().await?;
        let deleted = self.vault.delete_links(earlier(self.clock.now().wall, KEEP)).await?;
        if 0 < ended + deleted {
            tracing::info!(ended, deleted, "swept links");
        }
        Ok(())
    }
}

const EVERY: Duration = Duration::from_mins(1);
/// `GetLink` answers for this long why a link ended.
const KEEP: Duration = Duration::from_hours(1);
