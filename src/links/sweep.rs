//! Deletes links that are long over, sealed secrets and all.
//!
//! Housekeeping only: expiry is checked at use, so a sweeper that is late lets nobody in (finding 13).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, earlier};
use crate::vault::Vault;

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
            match self.vault.delete_links(earlier(self.clock.now().wall, KEEP)).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "deleted links that were over"),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "links that are over were not deleted"
                    );
                }
            }
        }
    }
}

const EVERY: Duration = Duration::from_mins(5);
/// `GetLink` answers for this long why a link ended.
const KEEP: Duration = Duration::from_hours(1);
