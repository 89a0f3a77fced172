//! Readable repositories: what an account's headless identity may clone, whole or not at all.
//!
//! # Invariants
//!
//! 1. Decided first (P2); recorded before it is answered.
//! 2. A list is complete or an error (P7): nothing upstream that breaks off becomes a short list.
//! 3. A token that Azure DevOps refuses is replaced once and the list asked for again; never a loop.
//!
//! Pages from a snapshot, and lists of developers, come with the next step: here all is one page.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::connection::{ConnectionKey, Identity, Role};
use crate::devops::{Devops, DevopsError, Repository, RepositoryId};
use crate::event::Outcome;
use crate::gate::{Asking, Gate};
use crate::ids::{AccountId, Organization};
use crate::policy::{Allowed, Permission};
use crate::reason::{Problem, Reason, Refused};
use crate::tokens::{Reported, Token, Tokens};

/// The use case of listing.
#[derive(Clone)]
pub struct Repos {
    pub gate: Gate,
    pub accounts: Arc<Accounts>,
    pub tokens: Tokens,
    pub devops: Arc<Devops>,
    pub clock: Arc<dyn Clock>,
    pub lists: Arc<Semaphore>,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The name or id of one project; all if empty.
    pub project: String,
    /// Show disabled and denied ones too, marked as such.
    pub include_unreadable: bool,
}

/// All of it, as it was at one moment.
#[derive(Debug)]
pub struct Listed {
    pub repos: Vec<(Repository, Readability)>,
    pub as_of: Timestamp,
    pub identity: Identity,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Readability {
    Readable,
    Disabled,
    NoPermission,
}

impl Repos {
    /// The repositories the account's headless identity may read.
    pub async fn readable(
        &self,
        asking: Asking,
        account: AccountId,
        filter: &Filter,
    ) -> Result<Listed, Refused> {
        let allowed = self.gate.allow(&asking, Permission::Repos, &account).await?;
        let Some(integration) = self.accounts.integration(allowed.account()).await? else {
            return Err(self.gate.denied(&asking, Some(&account)).await);
        };
        // A list of a large organization is tens of megabytes; a few at once are what memory bears (P8).
        let Ok(_place) = self.lists.clone().try_acquire_owned() else {
            let detail = "too many lists are being made at once";
            return Err(Problem::new(Reason::RateLimited, detail).retry_after(RETRY).into());
        };
        let key = ConnectionKey { account, role: Role::from(integration.headless) };
        if let Err(problem) = Accounts::check_active(&integration) {
            return self.gate.conclude(asking.event(Outcome::Done).about(&key), Err(problem.into())).await;
        }
        let listed = self.list(&allowed, &key, &integration.organization, filter).await;
        self.gate.conclude(asking.event(Outcome::Done).about(&key), listed).await
    }

    async fn list(
        &self,
        allowed: &Allowed,
        key: &ConnectionKey,
        organization: &Organization,
        filter: &Filter,
    ) -> Result<Listed, Refused> {
        let token = self.tokens.token(allowed, key, LIST_TTL).await?;
        match self.list_with(&token, organization, filter).await {
            Err(DevopsError::Unauthenticated) => {}
            listed => return listed.map_err(|error| refused(&error)),
        }
        if self.tokens.report(allowed, key, &token.fingerprint) != Reported::Replacing {
            return Err(refused(&DevopsError::Unauthenticated));
        }
        let token = self.tokens.token_other_than(allowed, key, &token.fingerprint).await?;
        self.list_with(&token, organization, filter).await.map_err(|error| refused(&error))
    }

    async fn list_with(
        &self,
        token: &Token,
        organization: &Organization,
        filter: &Filter,
    ) -> Result<Listed, DevopsError> {
        let as_of = self.clock.now().wall;
        let mut repos = self.devops.repositories(organization, &token.access).await?;
        repos.retain(|repo| filter.matches(repo));
        // Disabled ones answer 404 to a clone, whatever the permission says (azure.md 3.5).
        let (closed, open): (Vec<_>, Vec<_>) =
            repos.into_iter().partition(|repo| repo.is_disabled || repo.is_in_maintenance);
        let ids: Vec<RepositoryId> = open.iter().map(Repository::repository_id).collect();
        let may_read = self.devops.may_read(organization, &token.access, &ids).await?;
        let open = open.into_iter().zip(may_read).map(|(repo, may_read)| {
            (repo, if may_read { Readability::Readable } else { Readability::NoPermission })
        });
        let closed = closed.into_iter().map(|repo| (repo, Readability::Disabled));
        let mut repos: Vec<_> = open
            .chain(closed)
            .filter(|(_, readability)| filter.include_unreadable || *readability == Readability::Readable)
            .collect();
        repos.sort_by(|(a, _), (b, _)| (&a.project, &a.name, &a.id).cmp(&(&b.project, &b.name, &b.id)));
        Ok(Listed { repos, as_of, identity: token.identity.clone() })
    }
}

impl Filter {
    fn matches(&self, repo: &Repository) -> bool {
        self.project.is_empty()
            || repo.project.to_lowercase() == self.project.to_lowercase()
            || repo.project_id.eq_ignore_ascii_case(&self.project)
    }
}

fn refused(error: &DevopsError) -> Refused {
    let detail = match error {
        DevopsError::Unauthenticated | DevopsError::NotAMember => {
            "Azure DevOps does not admit this identity to the organization"
        }
        DevopsError::Forbidden => "Azure DevOps forbids the list by policy",
        DevopsError::NotFound => "Azure DevOps knows no such organization",
        DevopsError::Throttled { .. } => "Azure DevOps is throttling this identity",
        DevopsError::Unavailable => "Azure DevOps does not answer",
        DevopsError::Unparseable => "Azure DevOps' answer is incomplete or not understood",
    };
    let mut problem = Problem::new(error.reason(), detail);
    if problem.reason.is_transient() {
        problem.retry_after = Some(match error {
            DevopsError::Throttled { retry_after: Some(wait) } => *wait,
            _ => RETRY,
        });
    }
    problem.into()
}

/// How many lists may be in the making at once.
pub const LISTS_MAX: usize = 8;
/// A list may take 90 s; the token must outlive it.
const LIST_TTL: Duration = Duration::from_mins(5);
const RETRY: Duration = Duration::from_secs(30);
