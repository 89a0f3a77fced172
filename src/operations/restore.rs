//! Taking an older state of the store for good, because an operator restored it on purpose (design.md 6.13).
//!
//! Each connection is recorded before it is taken, and on its own: one that cannot be taken keeps none of the
//! others from it. A caller that goes away does not stop what was begun. Of the whole store only what this
//! replica found out is taken; of one account also what others found out.

use super::Operations;
use crate::connection::Role;
use crate::event::Outcome;
use crate::gate::Asking;
use crate::ids::AccountId;
use crate::reason::{Problem, Reason, Refused};
use crate::vault::Rollback;

/// Which connections are meant.
#[derive(Clone, Debug)]
pub enum RestoreScope {
    All,
    Account(AccountId),
    Connection(AccountId, Role),
}

/// A connection that went back, and why it was not accepted, if it was not.
#[derive(Debug)]
pub struct Restored {
    pub rollback: Rollback,
    pub refused: Option<Refused>,
}

impl Operations {
    /// Accepts what went back in `scope`; with `dry_run` only tells.
    pub async fn accept_restore(
        &self,
        asking: Asking,
        scope: RestoreScope,
        dry_run: bool,
    ) -> Result<Vec<Restored>, Refused> {
        self.gate.allow_operate(&asking).await?;
        let operations = self.clone();
        let work = async move { operations.accept_allowed(&asking, &scope, dry_run).await };
        self.tasks.run(work).await.unwrap_or_else(|_| Err(lost()))
    }

    async fn accept_allowed(
        &self,
        asking: &Asking,
        scope: &RestoreScope,
        dry_run: bool,
    ) -> Result<Vec<Restored>, Refused> {
        let mut rollbacks = self.vault.rollbacks().await?;
        if let Some(account) = scope.account() {
            rollbacks.extend(self.vault.suspected(account).await?);
            // What was seen last counts, whoever saw it.
            rollbacks.sort_by(|one, other| (&one.key, other.seen).cmp(&(&other.key, one.seen)));
            rollbacks.dedup_by(|one, other| one.key == other.key);
        }
        rollbacks.retain(|rollback| scope.has(rollback));
        // What is accepted is recorded one by one.
        if dry_run || rollbacks.is_empty() {
            let mut event = asking.event(Outcome::Done);
            event.account = scope.account().cloned();
            self.gate.record(event).await?;
        }
        let mut restored = Vec::new();
        for rollback in rollbacks {
            let refused = if dry_run { None } else { self.accept(asking, &rollback).await.err() };
            restored.push(Restored { rollback, refused });
        }
        Ok(restored)
    }

    async fn accept(&self, asking: &Asking, rollback: &Rollback) -> Result<(), Refused> {
        let mut event = asking.event(Outcome::Done).about(&rollback.key);
        event.generation = rollback.found;
        // Before it is so: what nobody recorded must not come back (P3).
        self.gate.record(event.clone()).await?;
        if let Err(error) = self.vault.accept_restore(rollback).await {
            return self.gate.conclude(event, Err(error.into())).await;
        }
        self.tokens.forgive(&rollback.key.account);
        Ok(())
    }
}

fn lost() -> Refused {
    let detail = "accepting did not come to its end: ask again what is left";
    Problem::new(Reason::StoreUnavailable, detail).into()
}

impl RestoreScope {
    fn account(&self) -> Option<&AccountId> {
        match self {
            Self::All => None,
            Self::Account(account) | Self::Connection(account, _) => Some(account),
        }
    }

    fn has(&self, rollback: &Rollback) -> bool {
        match self {
            Self::All => true,
            Self::Account(account) => rollback.key.account == *account,
            Self::Connection(account, role) => rollback.key.account == *account && rollback.key.role == *role,
        }
    }
}
