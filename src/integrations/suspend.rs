//! Stopping an account's releases, and letting them go on.

use std::sync::Arc;

use super::Integrations;
use crate::accounts::Edit;
use crate::event::Outcome;
use crate::gate::Asking;
use crate::ids::{AccountId, Label};
use crate::policy::Permission;
use crate::reason::Refused;
use crate::vault::{Integration, Suspension};

impl Integrations {
    /// Releases and lists stand still from now on; refreshes go on. Repeating it changes nothing.
    pub async fn suspend(
        &self,
        asking: Asking,
        account: AccountId,
        note: Option<Label>,
    ) -> Result<Arc<Integration>, Refused> {
        let now = self.clock.now().wall;
        let suspension = Suspension { since: now, actor: asking.actor.clone(), note };
        self.set_suspension(asking, account, Some(suspension)).await
    }

    /// Ends it.
    pub async fn resume(&self, asking: Asking, account: AccountId) -> Result<Arc<Integration>, Refused> {
        self.set_suspension(asking, account, None).await
    }

    async fn set_suspension(
        &self,
        asking: Asking,
        account: AccountId,
        suspension: Option<Suspension>,
    ) -> Result<Arc<Integration>, Refused> {
        let this = self.clone();
        let work = async move {
            let allowed = this.gate.allow(&asking, Permission::Suspend, &account).await?;
            let mut event = asking.event(Outcome::Done);
            event.account = Some(allowed.account().clone());
            let edited = this.accounts.change(allowed.account(), |before| {
                let Some(mut integration) = before else { return Ok(Edit::Leave(())) };
                if integration.suspension.is_some() == suspension.is_some() {
                    return Ok(Edit::Leave(()));
                }
                integration.suspension.clone_from(&suspension);
                Ok(Edit::Write(Box::new(integration), ()))
            });
            // Done first, recorded then: an audit that fails must not keep releases going.
            match edited.await.map(|edited| edited.integration) {
                Ok(None) => Err(this.gate.denied(&asking, Some(allowed.account())).await),
                Ok(Some(integration)) => this.gate.conclude(event, Ok(integration)).await,
                Err(refused) => this.gate.conclude(event, Err(refused)).await,
            }
        };
        self.in_task(work).await
    }
}
