//! Readable repositories: what an identity of an account may clone, whole or not at all.
//!
//! # Invariants
//!
//! 1. Decided first (P2); recorded before it is answered.
//! 2. A list is complete or an error (P7): nothing upstream that breaks off becomes a short list.
//! 3. All pages come from one [`snapshot`]. A snapshot serves the connection it was made for, while
//!    that one lives: each answer, the last thing, asks for a token of it again.
//! 4. Whoever asks meanwhile waits for the list that is being made ([`fetch`]), and whoever goes away
//!    stops nothing.
//! 5. A token that Azure DevOps refuses is replaced once and it is asked again; never a loop.
//!
//! Snapshots live in this process alone: a page token of another one names nothing here ([`page`]).

mod fetch;
mod page;
mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::fetch::Flights;
use self::page::{Bound, PageTokens, Place};
use self::snapshot::{Snapshot, Snapshots};
use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::connection::{ConnectionKey, Identity, Role};
use crate::devops::{Devops, Paces, Repository};
use crate::event::Outcome;
use crate::gate::{Asking, Gate};
use crate::ids::{AccountId, Organization};
use crate::policy::{Allowed, Permission};
use crate::reason::{Class, Problem, Reason, Refused, Warning};
use crate::tasks::Tasks;
use crate::tokens::{Token, Tokens};

/// The use case of listing. Cheap to clone.
#[derive(Clone)]
pub struct Repos(Arc<Shared>);

/// What listing needs.
pub struct Parts {
    pub gate: Gate,
    pub accounts: Arc<Accounts>,
    pub tokens: Tokens,
    pub devops: Arc<Devops>,
    pub paces: Arc<Paces>,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
}

struct Shared {
    parts: Parts,
    snapshots: Snapshots,
    flights: Flights,
    page_tokens: PageTokens,
    stop: CancellationToken,
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct Wish {
    pub asking: Asking,
    pub account: AccountId,
    /// Whose list; the headless identity's if nobody is named.
    pub role: Option<Role>,
    pub filter: Filter,
    pub page_size: usize,
    pub start: Start,
}

#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The name or id of one project; all if empty.
    pub project: String,
    /// Show disabled and denied ones too, marked as such.
    pub include_unreadable: bool,
}

/// Where a page begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// With the first repository, of a snapshot at most so old. Zero: made for this call.
    First { max_age: Duration },
    /// Where the page before ended.
    At { page_token: String },
}

/// One page.
pub struct Listed {
    snapshot: Arc<Snapshot>,
    rows: Vec<(usize, Readability)>,
    pub next_page_token: Option<String>,
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Readability {
    Readable,
    Disabled,
    NoPermission,
}

/// What a connection is now: what a snapshot must agree with to be shown.
struct Standing {
    token: Arc<Token>,
    organization: Organization,
}

impl Repos {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            parts,
            snapshots: Snapshots::default(),
            flights: Flights::default(),
            page_tokens: PageTokens::make(),
            stop: CancellationToken::new(),
        }))
    }

    /// A page of the repositories that an identity of the account may read. A developer's list needs the
    /// permission to have that developer's token too.
    pub async fn page(&self, wish: &Wish) -> Result<Listed, Refused> {
        let Shared { parts: Parts { gate, accounts, .. }, .. } = &*self.0;
        let allowed = gate.allow(&wish.asking, Permission::Repos, &wish.account).await?;
        let allowed = match wish.role {
            Some(Role::Developer(_)) => {
                gate.allow(&wish.asking, Permission::ReleaseDeveloper, &wish.account).await?
            }
            Some(Role::ServiceUser | Role::ServicePrincipal) | None => allowed,
        };
        let Some(integration) = accounts.integration(allowed.account()).await? else {
            return Err(gate.denied(&wish.asking, Some(&wish.account)).await);
        };
        let role = wish.role.clone().unwrap_or_else(|| Role::from(integration.headless));
        let key = ConnectionKey { account: wish.account.clone(), role };
        let listed = match Accounts::check_active(&integration) {
            Ok(()) => self.0.page(&allowed, &key, wish).await,
            Err(problem) => Err(problem.into()),
        };
        if let Err(Refused::Problem(problem)) = &listed
            && problem.reason.class() == Class::Precondition
        {
            // Whoever is no longer connected, or no longer a member, leaves nothing behind.
            self.0.snapshots.forget(&key);
        }
        gate.conclude(wish.asking.event(Outcome::Done).about(&key), listed).await
    }

    /// Gives up the lists that are being made: nothing is lost with them.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }
}

impl Shared {
    async fn page(
        self: &Arc<Self>,
        allowed: &Allowed,
        key: &ConnectionKey,
        wish: &Wish,
    ) -> Result<Listed, Refused> {
        let bound = Bound { caller: &wish.asking.caller, key, filter: &wish.filter };
        let (snapshot, from, mut warnings) = match &wish.start {
            Start::First { max_age } => {
                let (snapshot, warnings) = self.first(allowed, key, *max_age).await?;
                (snapshot, 0, warnings)
            }
            Start::At { page_token } => {
                let Place { snapshot, from } =
                    self.page_tokens.open(page_token, &bound, self.parts.clock.now())?;
                let standing = self.standing(allowed, key).await?;
                let named = self.snapshots.named(key, snapshot).filter(|it| it.fits(&standing));
                (named.ok_or_else(gone)?, from, Vec::new())
            }
        };
        snapshot.note_use(self.parts.clock.now());
        let wanted = snapshot.matching(&wish.filter, from);
        let (shown, rest) = wanted.split_at(wish.page_size.min(wanted.len()));
        self.learn_permissions(allowed, key, &snapshot, (shown, rest)).await?;
        // All that took its time: is it still the same connection?
        let standing = self.standing(allowed, key).await?;
        if !snapshot.fits(&standing) {
            return Err(gone());
        }
        if snapshot.repos.is_empty() {
            warnings.push(Warning { code: "NO_REPOSITORY_VISIBLE", text: NO_REPOSITORY_VISIBLE.to_owned() });
        }
        let readability = |at: &usize| Some((*at, snapshot.readability(*at)?));
        let is_shown = |(_, readability): &(usize, Readability)| {
            wish.filter.include_unreadable || *readability == Readability::Readable
        };
        let rows = shown.iter().filter_map(readability).filter(is_shown).collect();
        let next_page_token = rest.first().map(|next| {
            let place = Place { snapshot: snapshot.id, from: *next };
            self.page_tokens.seal(&place, &bound, self.parts.clock.now())
        });
        Ok(Listed { snapshot, rows, next_page_token, warnings })
    }

    /// The snapshot of a first page: one that is young enough, or a new one, or with a warning the last
    /// one while Azure DevOps does not answer.
    async fn first(
        self: &Arc<Self>,
        allowed: &Allowed,
        key: &ConnectionKey,
        max_age: Duration,
    ) -> Result<(Arc<Snapshot>, Vec<Warning>), Refused> {
        let asked = self.parts.clock.now();
        let standing = self.standing(allowed, key).await?;
        let held = self.snapshots.latest(key).filter(|held| !max_age.is_zero() && held.fits(&standing));
        let now = self.parts.clock.now();
        if let Some(held) = held.as_ref().filter(|held| held.age(now) <= max_age) {
            return Ok((held.clone(), Vec::new()));
        }
        match self.fetch(allowed, key, asked, max_age).await {
            // Else it was linked anew meanwhile, and the list is of who was linked before, or after.
            Ok(made) if made.fits(&standing) => Ok((made, Vec::new())),
            Ok(_) => Err(gone()),
            Err(problem) => {
                let held = held.filter(|held| held.age(self.parts.clock.now()) <= STALE_MAX);
                match held {
                    Some(held) if problem.reason.is_transient() => Ok((held, vec![stale(&problem)])),
                    _ => Err(problem.into()),
                }
            }
        }
    }

    /// What the connection is now; the reason if it is none.
    async fn standing(&self, allowed: &Allowed, key: &ConnectionKey) -> Result<Standing, Problem> {
        let integration = self.parts.accounts.integration(allowed.account()).await?;
        let organization = integration.ok_or_else(gone_problem)?.organization.clone();
        let token = self.parts.tokens.token(allowed, key, TOKEN_TTL).await?;
        Ok(Standing { token, organization })
    }
}

impl Listed {
    pub fn repos(&self) -> impl Iterator<Item = (&Repository, Readability)> {
        self.rows.iter().map(|(at, readability)| (&self.snapshot.repos[*at], *readability))
    }

    pub fn organization(&self) -> &Organization {
        &self.snapshot.organization
    }

    pub fn identity(&self) -> &Identity {
        &self.snapshot.identity
    }

    pub fn as_of(&self) -> Timestamp {
        self.snapshot.taken.wall
    }
}

fn gone_problem() -> Problem {
    Problem::new(Reason::SnapshotGone, "the list this page belongs to is not at hand (any more)")
}

fn gone() -> Refused {
    gone_problem().into()
}

fn stale(problem: &Problem) -> Warning {
    Warning {
        code: "LIST_STALE",
        text: format!("the list could not be made anew and is as old as it says: {}", problem.detail),
    }
}

const NO_REPOSITORY_VISIBLE: &str = "the identity sees no repository in the organization: it needs at least Basic access and a project that lets it read code";
/// Azure DevOps looks at a token when a request arrives, and a list is a few of them.
const TOKEN_TTL: Duration = Duration::from_mins(2);
/// The oldest list that is shown while Azure DevOps does not answer.
const STALE_MAX: Duration = Duration::from_hours(1);
