//! Every use case's first and last step: may this caller, and is it on record?
//!
//! # Invariants
//!
//! 1. A use case gets its [`Allowed`] here, before store, cache or upstream is touched (P2).
//! 2. A refusal is recorded too; that its record fails does not turn it into anything else.
//! 3. What was asked to be recorded and was not is an error the caller must see (P3).

use std::sync::Arc;

use crate::audit::{Audit, END_SEEN, LINK_SEEN};
use crate::caller::Caller;
use crate::connection::{ConnectionKey, Seen};
use crate::event::{By, Event, Outcome};
use crate::ids::{AccountId, Label, StoreId};
use crate::policy::{Allowed, Permission, Policy};
use crate::reason::{Problem, Reason, Refused};

/// Policy and audit, asked as one.
#[derive(Clone)]
pub struct Gate {
    policy: Arc<Policy>,
    audit: Audit,
}

/// Who asks, through which method, and what they say about it for the record.
#[derive(Clone, Debug)]
pub struct Asking {
    pub act: &'static str,
    pub caller: Caller,
    pub actor: Option<Label>,
    pub purpose: Option<Label>,
}

impl Gate {
    pub fn new(policy: Arc<Policy>, audit: Audit) -> Self {
        Self { policy, audit }
    }

    /// Decides about an account.
    pub async fn allow(
        &self,
        asking: &Asking,
        permission: Permission,
        account: &AccountId,
    ) -> Result<Allowed, Refused> {
        self.allow_any(asking, &[permission], account).await
    }

    /// Decides about an account for a caller who has any of `permissions`.
    pub async fn allow_any(
        &self,
        asking: &Asking,
        permissions: &[Permission],
        account: &AccountId,
    ) -> Result<Allowed, Refused> {
        let decide = |permission: &Permission| self.policy.decide(&asking.caller, *permission, account);
        if let Some(allowed) = permissions.iter().find_map(decide) {
            return Ok(allowed);
        }
        Err(self.denied(asking, Some(account)).await)
    }

    /// Decides about the broker itself.
    pub async fn allow_operate(&self, asking: &Asking) -> Result<(), Refused> {
        if self.policy.allows_about_broker(&asking.caller, Permission::Operate) {
            return Ok(());
        }
        Err(self.denied(asking, None).await)
    }

    /// Whether the caller may see the account in a list. Not recorded: the list itself is.
    pub fn may_see(&self, caller: &Caller, permission: Permission, account: &AccountId) -> bool {
        self.policy.decide(caller, permission, account).is_some()
    }

    /// Records, or fails the wish.
    pub async fn record(&self, event: Event) -> Result<(), Refused> {
        Ok(self.try_record(event).await?)
    }

    /// The same for the broker's own acts, which nobody wished for.
    pub async fn try_record(&self, event: Event) -> Result<(), Problem> {
        self.audit.record(event).await.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the audit cannot be written");
            Problem::new(Reason::AuditUnavailable, "the audit cannot be written, so nothing is released")
                .retry_after(AUDIT_RETRY)
        })
    }

    /// Records for later starts that a link or disconnect was seen (design.md 6.13). Done
    /// already, so a failure is the operator's alone.
    pub async fn record_seen(&self, store: &StoreId, key: &ConnectionKey, seen: Seen) {
        let act = if seen.is_end { END_SEEN } else { LINK_SEEN };
        let mut event = Event::new(act, By::Broker, Outcome::Done).about(key);
        (event.generation, event.store) = (Some(seen.generation), Some(store.clone()));
        let _recorded = self.try_record(event).await;
    }

    /// Records how a wish ended, and hands the end on. A failure is recorded as well as can be.
    pub async fn conclude<T>(&self, event: Event, ended: Result<T, Refused>) -> Result<T, Refused> {
        match ended {
            Ok(value) => {
                self.record(event).await?;
                Ok(value)
            }
            Err(refused) => {
                let mut event = event;
                event.outcome = Outcome::Refused { reason: refused.as_str() };
                // The caller learns of the first failure; this second one is the operator's.
                let _recorded = self.record(event).await;
                Err(refused)
            }
        }
    }

    /// Decides whether the caller may ask for a list of accounts; which of them it holds,
    /// [`may_see`](Self::may_see) says one by one.
    pub async fn allow_list(&self, asking: &Asking, permission: Permission) -> Result<(), Refused> {
        if self.policy.allows_some_account(&asking.caller, permission) {
            return Ok(());
        }
        Err(self.denied(asking, None).await)
    }

    /// Records a denial and is it: for use cases that find out late, such as that nobody registered the
    /// account, which must look the same (P2).
    pub async fn denied(&self, asking: &Asking, account: Option<&AccountId>) -> Refused {
        let mut event = asking.event(Outcome::Denied);
        event.account = account.cloned();
        if let Err(error) = self.audit.record(event).await {
            tracing::error!(error = &error as &dyn std::error::Error, "a denial could not be recorded");
        }
        Refused::Denied
    }
}

impl Asking {
    pub fn event(&self, outcome: Outcome) -> Event {
        let mut event = Event::new(self.act, By::Caller(self.caller.clone()), outcome);
        event.actor.clone_from(&self.actor);
        event.purpose.clone_from(&self.purpose);
        event
    }
}

/// A full disk is rarely mended sooner.
const AUDIT_RETRY: std::time::Duration = std::time::Duration::from_secs(5);
