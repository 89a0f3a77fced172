//! Taking an older state of the store for good, because an operator restored it on purpose (design.md 6.13).

use super::Operations;
use crate::connection::Role;
use crate::event::Outcome;
use crate::gate::Asking;
use crate::ids::AccountId;
use crate::reason::Refused;
use crate::vault::Rollback;

/// Which connections are meant.
#[derive(Clone, Debug)]
pub enum RestoreScope {
    All,
    Account(AccountId),
    Connection(AccountId, Role),
}

/// What was accepted, or would be.
#[derive(Clone, Debug)]
pub struct Restored {
    pub rollbacks: Vec<Rollback>,
}

impl Operations {
    /// Accepts what went back in `scope`; with `dry_run` only tells.
    pub async fn accept_restore(
        &self,
        asking: Asking,
        scope: RestoreScope,
        dry_run: bool,
    ) -> Result<Restored, Refused> {
        self.gate.allow_operate(&asking).await?;
        let mut rollbacks = self.vault.rollbacks().await?;
        rollbacks.retain(|rollback| scope.has(rollback));
        if dry_run {
            return Ok(Restored { rollbacks });
        }
        for rollback in &rollbacks {
            let mut event = asking.event(Outcome::Done).about(&rollback.key);
            event.generation = rollback.found;
            self.gate.record(event).await?;
            self.vault.accept_restore(rollback).await?;
            self.vault.resume_restored(&rollback.key.account).await?;
            self.tokens.forgive(&rollback.key.account);
        }
        Ok(Restored { rollbacks })
    }
}

impl RestoreScope {
    fn has(&self, rollback: &Rollback) -> bool {
        match self {
            Self::All => true,
            Self::Account(account) => rollback.key.account == *account,
            Self::Connection(account, role) => rollback.key.account == *account && rollback.key.role == *role,
        }
    }
}
