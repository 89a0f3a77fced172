//! The end of an integration, and of the connections that cannot outlive what they were made with.

use super::Integrations;
use crate::connection::Seen;
use crate::event::Outcome;
use crate::gate::Asking;
use crate::ids::AccountId;
use crate::policy::Permission;
use crate::reason::Refused;
use crate::vault::VaultError;

impl Integrations {
    /// Deletes settings and client credentials and ends every connection; tombstones without secrets stay.
    /// Refused under live connections, unless forced. Repeating it changes nothing.
    pub async fn delete(&self, asking: Asking, account: AccountId, force: bool) -> Result<(), Refused> {
        let this = self.clone();
        let work = async move {
            let allowed = this.gate.allow(&asking, Permission::IntegrationsWrite, &account).await?;
            let mut event = asking.event(Outcome::Done);
            event.account = Some(allowed.account().clone());
            let deleted = this.delete_allowed(&asking, allowed.account(), force).await;
            this.gate.conclude(event, deleted).await
        };
        self.in_task(work).await
    }

    async fn delete_allowed(&self, asking: &Asking, account: &AccountId, force: bool) -> Result<(), Refused> {
        if !force {
            self.refuse_under_live_connections(account).await?;
        }
        self.end_connections(asking, account).await?;
        for _ in 0..RACES_MAX {
            let Some(integration) = self.vault.integration(account).await? else { break };
            match self.vault.delete_integration(&integration).await {
                Err(VaultError::Changed(_)) => {} // A verdict on a credential landed: look again.
                deleted => {
                    deleted?;
                    self.accounts.forget(&integration);
                    tracing::info!(account = %account, "integration deleted");
                    break;
                }
            }
        }
        if self.vault.integration(account).await?.is_some() {
            return Err(VaultError::Changed(format!("integration {account}")).into());
        }
        // After the deletion, so that no link begins in between; and what was confirmed before it.
        self.vault.end_links(account, None, "The integration was deleted.").await?;
        self.end_connections(asking, account).await
    }

    pub(super) async fn refuse_under_live_connections(&self, account: &AccountId) -> Result<(), Refused> {
        let live = self.vault.live_connections(account, LIVE_SHOWN_MAX + 1).await?;
        if live.is_empty() {
            return Ok(());
        }
        let mut names: Vec<String> =
            live.iter().take(LIVE_SHOWN_MAX).map(|key| key.role.to_string()).collect();
        if LIVE_SHOWN_MAX < live.len() {
            names.push("and others".to_owned());
        }
        let detail =
            format!("live connections would end: {}; disconnect them, or force it", names.join(", "));
        Err(Refused::Precondition(detail.into()))
    }

    /// Ends every live connection of the account, each on record.
    pub(super) async fn end_connections(&self, asking: &Asking, account: &AccountId) -> Result<(), Refused> {
        loop {
            let live = self.vault.live_connections(account, ENDED_AT_ONCE).await?;
            if live.is_empty() {
                return Ok(());
            }
            for key in live {
                let Some((generation, identity)) = self.vault.disconnect(&key).await? else { continue };
                self.tokens.end(&key, generation);
                self.gate.record_seen(self.vault.store_id(), &key, Seen::end(generation)).await;
                tracing::info!(connection.key = %key, connection.generation = generation.0, "disconnected");
                let mut event = asking.event(Outcome::Done).about(&key);
                event.generation = Some(generation);
                event.object_id = identity.map(|identity| identity.object_id);
                // Done first: an audit that fails must not keep a grant alive.
                self.gate.record(event).await?;
            }
        }
    }
}

/// Verdicts on credentials land between read and write at most this often in a row.
const RACES_MAX: usize = 8;
/// Enough names to tell a person what is in the way.
const LIVE_SHOWN_MAX: usize = 20;
const ENDED_AT_ONCE: usize = 100;
