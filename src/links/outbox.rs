//! Keeps the outbox in order: deletes changes that are a day old, or too many, and tells what nobody else tells.
//!
//! Housekeeping only: how old a cursor may be is checked at use, and what is told late was so before.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::vault::{Vault, VaultError};

/// An actor for the app to run.
pub struct OutboxSweeper {
    pub vault: Arc<Vault>,
    pub clock: Arc<dyn Clock>,
}

impl OutboxSweeper {
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(EVERY) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                swept = self.sweep() => if let Err(error) = swept {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the outbox was not swept"
                    );
                }
            }
        }
    }

    async fn sweep(&self) -> Result<(), VaultError> {
        self.vault.tell_losses().await?;
        while self.vault.prune_outbox().await? {
            // Others want to write, too.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

const EVERY: Duration = Duration::from_mins(1);
