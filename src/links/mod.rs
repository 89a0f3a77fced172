//! Linking: begin, complete, confirm, disconnect, and looking at what came of it (design.md 4.2).
//!
//! # Invariants
//!
//! 1. A linked connection arises only by [`confirm`](Links::confirm), from the caller that began the
//!    link. A link is otherwise a bearer invitation: whoever signs in lands in the beginner's slot.
//! 2. A code is taken once, and only for the role, the browser and the time it was meant for.
//! 3. What a code bought is sealed into the link's row before anything else that could fail (P4).
//! 4. What spends a code or writes what it bought runs in a task of ours, not in a request.
//!
//! Two fronts, one core: our own pages ([`complete`](Links::complete)) and the platform's
//! ([`receive`](Links::receive)) differ only in how it is known that the callback is the beginner's.

mod begin;
mod check;
mod complete;
mod confirm;
mod disconnect;
mod import;
mod look;
mod service_principal;
mod sweep;
mod target;
mod watch;

use std::sync::Arc;

use jiff::Timestamp;

pub use begin::{Begun, Door, Entered, Shown, Wanted};
pub use complete::{Callback, Completed, Completion, PageProblem, Received};
pub use import::{ImportItem, ImportOutcome};
pub use look::{ConnectionView, LinkView};
pub use sweep::Sweeper;
pub use target::ReturnTargets;
pub use watch::{Told, Watches, Watching, What, shutting_down};

use crate::accounts::Accounts;
use crate::clock::{Clock, Moment, StoreClock};
use crate::connection::{ConnectionKey, Role, Seen};
use crate::entra::Entra;
use crate::gate::Gate;
use crate::identify::Identifier;
use crate::ids::{AccountId, LinkId};
use crate::policy::Allowed;
use crate::reason::{Problem, Reason, Refused};
use crate::tasks::Tasks;
use crate::tokens::Tokens;
use crate::vault::{Integration, Link, Opened, Standing, Vault, VaultError};

/// The use cases of linking. Cheap to clone.
#[derive(Clone)]
pub struct Links(Arc<Parts>);

/// What they need.
pub struct Parts {
    pub gate: Gate,
    pub vault: Arc<Vault>,
    pub accounts: Arc<Accounts>,
    pub tokens: Tokens,
    pub entra: Arc<Entra>,
    pub identifier: Arc<Identifier>,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
    pub return_targets: ReturnTargets,
    pub watches: Watches,
}

/// A link with what is needed to save it.
struct Found {
    link: Link,
    version: i64,
    store_now: Timestamp,
    store_clock: StoreClock,
}

impl Links {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Where the pages' forms may send a browser, for their Content-Security-Policy: to Entra, and by its
    /// redirect and ours to a return target.
    pub fn form_origins(&self) -> Vec<String> {
        let mut origins = vec![self.0.entra.browser_origin()];
        origins.extend(self.0.return_targets.origins());
        origins.sort();
        origins.dedup();
        origins
    }
}

impl Parts {
    /// The link, for the caller that began it. Everybody else learns nothing.
    async fn own_link(&self, allowed: &Allowed, id: &LinkId) -> Result<Found, Refused> {
        let found = self.link(id).await?;
        found.filter(|found| found.is_of(allowed)).ok_or(Refused::Denied)
    }

    async fn link(&self, id: &LinkId) -> Result<Option<Found>, VaultError> {
        let asked = self.clock.now();
        let found = self.vault.link(id).await?;
        Ok(found.map(|found| self.found(found, asked)))
    }

    fn found(&self, (link, version, store_now): (Link, i64, Timestamp), asked: Moment) -> Found {
        let store_clock = StoreClock::new(store_now, asked, self.clock.now());
        Found { link, version, store_now, store_clock }
    }

    /// Who stands in the place, and what the store's clock says.
    async fn standing(&self, key: &ConnectionKey) -> Result<(Standing, StoreClock), VaultError> {
        let asked = self.clock.now();
        let standing = self.vault.standing(key).await?;
        let store_clock = StoreClock::new(standing.store_now, asked, self.clock.now());
        Ok((standing, store_clock))
    }

    /// What the row says, to whoever asks and to the releases of this process: who repeats an act did not hear
    /// that it was done, and neither did they.
    async fn published(&self, key: &ConnectionKey) -> Result<Option<Opened>, VaultError> {
        let asked = self.clock.now();
        let opened = self.vault.connection(key).await?;
        if let Some(opened) = &opened {
            let store_clock = StoreClock::new(opened.store_now, asked, self.clock.now());
            self.tokens.publish(opened, &store_clock);
        }
        Ok(opened)
    }

    /// Whoever repeats an act did not hear that it was done, and neither, perhaps, did the record.
    async fn note_again(&self, key: &ConnectionKey, seen: Seen) {
        self.vault.note_seen(key, seen);
        // What was remembered may not have been recorded.
        self.gate.record_seen(self.vault.store_id(), key, seen).await;
    }

    async fn integration(&self, account: &AccountId) -> Result<Arc<Integration>, Refused> {
        self.accounts.integration(account).await?.ok_or(Refused::Denied)
    }

    async fn save(&self, found: &mut Found) -> Result<(), VaultError> {
        found.version = self.vault.save_link(&found.link, found.version).await?;
        Ok(())
    }
}

impl Found {
    /// Whether this caller began it, for this account.
    fn is_of(&self, allowed: &Allowed) -> bool {
        self.link.begun_by == *allowed.caller() && self.link.key.account == *allowed.account()
    }

    /// Expired is what its time says, whether or not anybody swept.
    fn has_expired(&self) -> bool {
        self.link.phase.is_open() && self.link.expires_at <= self.store_now
    }
}

/// The path of the role's redirect URI, below the public URL (azure.md 1.3).
pub fn redirect_path(role: &Role) -> &'static str {
    match role {
        Role::Developer(_) => "complete/azure_active_directory",
        Role::ServiceUser | Role::ServicePrincipal => "complete/azure_active_directory_service_user",
    }
}

/// `public_url` with `path` below it.
pub fn below(public_url: &url::Url, path: &str) -> url::Url {
    let mut url = public_url.clone();
    url.set_path(path);
    url
}

fn lost() -> Refused {
    Problem::new(Reason::StoreUnavailable, "the work did not come to its end; look at what came of it").into()
}
