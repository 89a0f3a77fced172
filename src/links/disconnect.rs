//! Ending a connection: a person's act, in force at once.

use std::sync::Arc;

use super::look::{ConnectionView, never_linked};
use super::{Links, Parts, lost, refused};
use crate::connection::{ConnectionKey, Role};
use crate::event::Outcome;
use crate::gate::Asking;
use crate::ids::AccountId;
use crate::policy::Permission;
use crate::reason::Refused;

impl Links {
    /// Wipes the grant and ends the role's open links. Repeating it answers the tombstone.
    pub async fn disconnect(
        &self,
        asking: Asking,
        account: AccountId,
        role: Role,
    ) -> Result<ConnectionView, Refused> {
        let parts = self.0.clone();
        let work = async move { parts.disconnect(asking, ConnectionKey { account, role }).await };
        self.0.tasks.run(work).await.unwrap_or_else(|_| Err(lost()))
    }
}

impl Parts {
    async fn disconnect(
        self: Arc<Self>,
        asking: Asking,
        key: ConnectionKey,
    ) -> Result<ConnectionView, Refused> {
        let allowed = self.gate.allow(&asking, Permission::Disconnect, &key.account).await?;
        let key = ConnectionKey { account: allowed.account().clone(), role: key.role };
        let event = asking.event(Outcome::Done).about(&key);
        self.gate.record(event.clone()).await?;
        if let Some((generation, identity)) = self.vault.disconnect(&key).await.map_err(refused)? {
            self.tokens.end(&key, generation);
            let mut done = event;
            done.generation = Some(generation);
            done.object_id = Some(identity.object_id);
            // The generation helps to see a rollback later (design.md 6.13); the act is on record.
            let _recorded = self.gate.record(done).await;
            tracing::info!(connection.key = %key, connection.generation = generation.0, "disconnected");
        }
        let opened = self.vault.connection(&key).await.map_err(refused)?;
        opened.as_ref().map(ConnectionView::of).ok_or_else(|| never_linked(&key))
    }
}
