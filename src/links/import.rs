//! Taking over grants that another system holds: sealed at once, released only when proven.
//!
//! # Invariants
//!
//! 1. Nothing is imported over a live connection unless the caller says so; what a person disconnected
//!    does not come back by the same import again.
//! 2. Each item is recorded before it is made, and succeeds or fails by itself.
//! 3. Whose a grant is, only a refresh can tell: [`tokens`](crate::tokens) proves it at its own pace.

use super::{Links, Parts, lost};
use crate::connection::{ConnectionKey, Role, Seen};
use crate::event::Outcome;
use crate::gate::Asking;
use crate::ids::{AccountId, ObjectId};
use crate::policy::Permission;
use crate::reason::Refused;
use crate::secret::RefreshToken;
use crate::vault::{Imported, Standing, VaultError};

/// One grant to take over.
pub struct ImportItem {
    pub role: Role,
    pub grant: RefreshToken,
    pub expected_object_id: Option<ObjectId>,
    pub last_used_at: Option<jiff::Timestamp>,
}

/// What became of one item.
#[derive(Debug)]
pub enum ImportOutcome {
    /// It is sealed, or was by the same import before.
    Imported,
    /// Another connection stands there, or stood there until a person ended it.
    Stands(&'static str),
    Failed(Refused),
}

impl Links {
    /// Takes over grants. What was taken over is finished whether or not the caller waits.
    pub async fn import(
        &self,
        asking: Asking,
        account: AccountId,
        items: Vec<ImportItem>,
        replace: bool,
    ) -> Result<Vec<ImportOutcome>, Refused> {
        let allowed = self.0.gate.allow(&asking, Permission::Import, &account).await?;
        if self.0.accounts.integration(allowed.account()).await?.is_none() {
            return Err(self.0.gate.denied(&asking, Some(&account)).await);
        }
        let parts = self.0.clone();
        let work = async move {
            let mut outcomes = Vec::with_capacity(items.len());
            for item in items {
                outcomes.push(parts.import_one(&asking, &account, item, replace).await);
            }
            Ok(outcomes)
        };
        self.0.tasks.run(work).await.unwrap_or_else(|_| Err(lost()))
    }
}

impl Parts {
    async fn import_one(
        &self,
        asking: &Asking,
        account: &AccountId,
        item: ImportItem,
        replace: bool,
    ) -> ImportOutcome {
        let key = ConnectionKey { account: account.clone(), role: item.role.clone() };
        match self.try_import(asking, &key, item, replace).await {
            Ok(outcome) => outcome,
            Err(refused) => {
                let event = asking.event(Outcome::Refused { reason: refused.as_str() }).about(&key);
                // The caller learns of the first failure; this second one is the operator's.
                let _recorded = self.gate.record(event).await;
                ImportOutcome::Failed(refused)
            }
        }
    }

    async fn try_import(
        &self,
        asking: &Asking,
        key: &ConnectionKey,
        item: ImportItem,
        replace: bool,
    ) -> Result<ImportOutcome, Refused> {
        if item.role == Role::ServicePrincipal {
            return Err(Refused::invalid("connection.role", "a service principal has no refresh token"));
        }
        let origin = item.grant.hash();
        let mut imported = Imported {
            grant: item.grant,
            origin: origin.clone(),
            expected_object_id: item.expected_object_id,
            imported_at: jiff::Timestamp::UNIX_EPOCH,
            imported_by: asking.actor.clone(),
            last_used_at: item.last_used_at,
            held: None,
        };
        let mut is_recorded = false;
        for _ in 0..RACES_MAX {
            let standing = self.vault.standing(key).await?;
            if let Some(outcome) = already(&standing, &origin, replace) {
                if let (ImportOutcome::Imported, Some(since)) = (&outcome, standing.since) {
                    self.note_again(key, Seen::link(since)).await;
                }
                return Ok(outcome);
            }
            if !std::mem::replace(&mut is_recorded, true) {
                self.gate.record(asking.event(Outcome::Done).about(key)).await?;
            }
            imported.imported_at = standing.store_now;
            match self.vault.import(key, &standing, &imported).await {
                Ok(generation) => {
                    self.tokens.hold_back(key, generation);
                    tracing::info!(connection.key = %key, connection.generation = generation.0, "imported");
                    self.gate.record_seen(self.vault.store_id(), key, Seen::link(generation)).await;
                    return Ok(ImportOutcome::Imported);
                }
                Err(VaultError::Changed(_)) => {} // A refresh or a link landed: look again.
                Err(error) => return Err(error.into()),
            }
        }
        Err(VaultError::Changed(key.to_string()).into())
    }
}

/// What there is to say if nothing is to be done.
fn already(standing: &Standing, origin: &str, replace: bool) -> Option<ImportOutcome> {
    let is_the_same = standing.origin.as_deref() == Some(origin);
    match (standing.is_live, is_the_same) {
        (true, true) if standing.since.is_some() => Some(ImportOutcome::Imported),
        // One that is refused, such as for a store that went back, is mended by being replaced.
        (true, _) if !replace => Some(ImportOutcome::Stands("a live connection stands there")),
        (false, true) if !replace => Some(ImportOutcome::Stands(
            "this import was ended, by a person or because it was somebody else's",
        )),
        _ => None,
    }
}

/// Refreshes of the replaced connection land between read and write at most this often in a row.
const RACES_MAX: usize = 5;
