//! Ending a connection: a person's act, in force at once.

use std::sync::Arc;

use super::look::{ConnectionView, never_linked};
use super::{Links, Parts, lost};
use crate::connection::{ConnectionKey, Identity, Role, Seen};
use crate::event::Outcome;
use crate::gate::Asking;
use crate::ids::{AccountId, Generation};
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
        let mut event = asking.event(Outcome::Done).about(&key);
        let mut is_repeated = false;
        // Done first, recorded then: an audit that fails must not keep a grant alive.
        let disconnected = self.disconnect_allowed(&key).await.map(|done| {
            is_repeated = done.is_none();
            event.generation = done.as_ref().map(|(generation, _)| *generation);
            event.object_id = done.and_then(|(_, identity)| identity).map(|identity| identity.object_id);
        });
        self.gate.conclude(event, disconnected).await?;
        let opened = self.published(&key).await?;
        if let Some(opened) = opened.as_ref().filter(|_| is_repeated) {
            self.note_again(&opened.key, opened.seen()).await;
        }
        opened.as_ref().map(ConnectionView::of).ok_or_else(|| never_linked(&key))
    }

    async fn disconnect_allowed(
        &self,
        key: &ConnectionKey,
    ) -> Result<Option<(Generation, Option<Identity>)>, Refused> {
        let done = self.vault.disconnect(key).await?;
        if let Some((generation, _)) = &done {
            self.tokens.end(key, *generation);
            tracing::info!(connection.key = %key, connection.generation = generation.0, "disconnected");
            self.gate.record_seen(self.vault.store_id(), key, Seen::end(*generation)).await;
        }
        Ok(done)
    }
}
