//! The end of a link: the caller that began it says yes, and the grant moves to the connection.

use std::sync::Arc;

use super::look::{ConnectionView, are_same};
use super::{Found, Links, Parts, lost};
use crate::clock::StoreClock;
use crate::connection::{Identity, Seen};
use crate::event::Outcome;
use crate::gate::Asking;
use crate::ids::{AccountId, LinkId};
use crate::policy::{Allowed, Permission};
use crate::reason::{Problem, Reason, Refused};
use crate::secret::hash_text;
use crate::vault::{Connection, LinkPhase, LinkSecrets, Live, Opened, Standing, VaultError};

impl Links {
    /// Makes the connection of a verified link. Repeating it gets the first answer.
    pub async fn confirm(
        &self,
        asking: Asking,
        account: AccountId,
        id: LinkId,
        confirmation: Option<String>,
    ) -> Result<ConnectionView, Refused> {
        let parts = self.0.clone();
        let work = async move { parts.confirm(asking, &account, &id, confirmation).await };
        self.0.tasks.run(work).await.unwrap_or_else(|_| Err(lost()))
    }
}

impl Parts {
    async fn confirm(
        self: Arc<Self>,
        asking: Asking,
        account: &AccountId,
        id: &LinkId,
        confirmation: Option<String>,
    ) -> Result<ConnectionView, Refused> {
        let allowed = self.gate.allow(&asking, Permission::Link, account).await?;
        let confirmed = self.confirm_allowed(&asking, &allowed, id, confirmation.as_deref()).await;
        if let Err(refused) = &confirmed {
            let mut event = asking.event(Outcome::Refused { reason: refused.as_str() });
            event.account = Some(account.clone());
            event.link = Some(id.clone());
            // The caller learns of the first failure; this second one is the operator's.
            let _recorded = self.gate.record(event).await;
        }
        confirmed
    }

    async fn confirm_allowed(
        &self,
        asking: &Asking,
        allowed: &Allowed,
        id: &LinkId,
        confirmation: Option<&str>,
    ) -> Result<ConnectionView, Refused> {
        let mut is_recorded = false;
        for _ in 0..RACES_MAX {
            let found = self.own_link(allowed, id).await?;
            if found.link.phase == LinkPhase::Connected {
                let opened = self.published(&found.link.key).await?;
                if let Some(opened) = &opened {
                    self.note_again(&opened.key, opened.seen()).await;
                }
                return opened.as_ref().map(ConnectionView::of).ok_or(Refused::NotFound("the connection"));
            }
            confirmable(&found)?;
            carries_confirmation(&found, confirmation)?;
            self.still_of_the_integration(&found).await?;
            let (standing, store_clock) = self.standing(&found.link.key).await?;
            still_replaces(&found, &standing)?;
            if !std::mem::replace(&mut is_recorded, true) {
                // Before it is made: a connection nobody recorded must not be.
                let mut event = asking.event(Outcome::Done).about(&found.link.key);
                event.link = Some(id.clone());
                event.object_id = found.link.identity.as_ref().map(|identity| identity.object_id.clone());
                self.gate.record(event).await?;
            }
            match self.connect(found, &standing, &store_clock).await {
                Err(VaultError::Changed(_)) => {} // A refresh or another link landed: look again.
                connected => return Ok(connected?),
            }
        }
        Err(VaultError::Changed(format!("link {id}")).into())
    }

    /// The grant is of the tenant and the app that the integration names now: it may have changed since.
    async fn still_of_the_integration(&self, found: &Found) -> Result<(), Refused> {
        let integration = self.integration(&found.link.key.account).await?;
        let tenant = found.link.identity.as_ref().map(|identity| &identity.tenant);
        if tenant == Some(&integration.tenant) && found.link.client_id == integration.client_id {
            return Ok(());
        }
        let detail = "the integration's tenant or client id changed since the link was begun";
        Err(Problem::new(Reason::LinkExpired, detail).into())
    }

    /// Moves the grant, publishes the token.
    async fn connect(
        &self,
        found: Found,
        standing: &Standing,
        store_clock: &StoreClock,
    ) -> Result<ConnectionView, VaultError> {
        let Found { mut link, version, store_now, .. } = found;
        let damaged = || VaultError::Damaged(format!("link {}", link.id));
        let identity = link.identity.clone().ok_or_else(damaged)?;
        let Some(LinkSecrets { grant: Some(grant), token, .. }) = link.secrets.take() else {
            return Err(damaged());
        };
        link.phase = LinkPhase::Connected;
        let connection = Connection::Live(Live {
            identity,
            grant: Some(grant),
            token,
            linked_at: store_now,
            linked_by: link.actor.clone(),
            refreshed_at: None,
            // The import that stood here stays known: it does not come back by being repeated.
            origin: standing.origin.clone(),
        });
        let generation = self.vault.connect((&link, version), standing, &connection).await?;
        tracing::info!(connection.key = %link.key, connection.generation = generation.0, "connected");
        let opened = Opened::made(link.key, (generation, generation), connection, store_now);
        self.tokens.publish(&opened, store_clock);
        self.gate.record_seen(self.vault.store_id(), &opened.key, Seen::link(generation)).await;
        Ok(ConnectionView::of(&opened))
    }
}

/// Nobody else stands in the place than the one the caller was shown.
fn still_replaces(found: &Found, standing: &Standing) -> Result<(), Refused> {
    let shown = found.link.replaces.as_ref().and_then(|replaced| replaced.identity.as_ref());
    let same_as_linked =
        |identity: &&Identity| found.link.identity.as_ref().is_some_and(|own| own.is_same_as(identity));
    if are_same(shown, standing.identity.as_ref().filter(|identity| !same_as_linked(identity))) {
        return Ok(());
    }
    let detail = "the identity that would be replaced is not the one that was shown";
    Err(Problem::new(Reason::LinkMismatch, detail).into())
}

/// The person whose browser came back to the platform is the one who signed in.
fn carries_confirmation(found: &Found, confirmation: Option<&str>) -> Result<(), Refused> {
    let hash = found.link.secrets.as_ref().and_then(|secrets| secrets.confirmation_hash.as_ref());
    match (&found.link.return_to, confirmation) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Refused::invalid("confirmation", "is not needed for this link")),
        (Some(_), None) => {
            let problem = "is required: the person's browser brings it to the return target";
            Err(Refused::invalid("confirmation", problem))
        }
        // Hashes of 256 random bits: comparing them leaks nothing that helps.
        (Some(_), Some(confirmation)) if hash == Some(&hash_text(confirmation)) => Ok(()),
        (Some(_), Some(_)) => {
            let detail = "the confirmation is not the one this link's browser was given";
            Err(Problem::new(Reason::LinkMismatch, detail).into())
        }
    }
}

fn confirmable(found: &Found) -> Result<(), Refused> {
    if found.has_expired() {
        return Err(Problem::new(Reason::LinkExpired, "the link was not confirmed in time").into());
    }
    match found.link.phase {
        LinkPhase::Verified => Ok(()),
        LinkPhase::Begun | LinkPhase::Taken | LinkPhase::Held => {
            Err(Refused::Precondition("the link is not verified yet: look at it again".into()))
        }
        LinkPhase::Connected | LinkPhase::Ended => {
            let message = found.link.ended.as_ref().map_or("the link is over", |end| end.message.as_str());
            Err(Problem::new(Reason::LinkExpired, message.to_owned()).into())
        }
    }
}

/// Refreshes of the replaced connection land between read and write at most this often in a row.
const RACES_MAX: usize = 5;
