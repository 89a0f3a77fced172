//! Watching: how connections are now, and from then on what happens to them.
//!
//! # Invariants
//!
//! 1. Policy is asked before anything is read, for the watch and for each account that it meets (P2). Policy does
//!    not change while a broker runs; if ever it does, the second question is asked anew with each change.
//! 2. Where reading begins is fixed before the present is told, so that what happens meanwhile is told after it:
//!    at least once. What is told of a connection is its record, as it is by then: its generations only grow.
//! 3. A watcher costs a bounded amount (P8): a short queue, and a page of changes in memory. Who does not take
//!    what is told within [`SLOW_AFTER`] is let go, and reads on from its cursor when it likes.
//! 4. A wake that is lost only delays: the outbox is looked at every [`LOOK_EVERY`] anyway.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::look::ConnectionView;
use super::{Links, Parts};
use crate::caller::Caller;
use crate::clock::between;
use crate::connection::{Change, ConnectionKey};
use crate::event::Outcome;
use crate::gate::Asking;
use crate::ids::AccountId;
use crate::policy::Permission;
use crate::reason::{Problem, Reason, Refused};
use crate::vault::{Changed, Changes, Cursor};

/// One thing that a watcher is told.
#[derive(Clone, Debug)]
pub struct Told {
    pub what: What,
    pub happened_at: Timestamp,
    /// To go on from with this one told; none before everything present is.
    pub cursor: Option<String>,
}

#[derive(Clone, Debug)]
pub enum What {
    /// How it is as the watch begins.
    Present(ConnectionView),
    /// Everything before the cursor has been told.
    Synced,
    /// What happened to it, and how it is by now.
    Changed(Change, ConnectionView),
}

/// What is told, and then why no more is. Dropping it ends the watch.
pub struct Watching {
    told: mpsc::Receiver<Told>,
    ended: oneshot::Receiver<Refused>,
}

/// How many there may be in this process, and how many of them ask the store at once.
pub struct Watches {
    places: Arc<Semaphore>,
    turns: Semaphore,
}

struct Watch {
    parts: Arc<Parts>,
    caller: Caller,
    /// None: every account that policy allows the caller.
    account: Option<AccountId>,
    tell: mpsc::Sender<Told>,
    _place: OwnedSemaphorePermit,
}

impl Links {
    /// Watches an account's connections, or those of every account that policy allows, from a cursor on or from
    /// the present; until `stop`.
    pub async fn watch(
        &self,
        asking: Asking,
        account: Option<AccountId>,
        cursor: Option<String>,
        stop: CancellationToken,
    ) -> Result<Watching, Refused> {
        let parts = self.0.clone();
        match &account {
            Some(account) => drop(parts.gate.allow(&asking, Permission::ConnectionsRead, account).await?),
            None => parts.gate.allow_list(&asking, Permission::ConnectionsRead).await?,
        }
        let mut event = asking.event(Outcome::Done);
        event.account.clone_from(&account);
        let begun = parts.begin_watch(account.as_ref(), cursor.as_deref());
        let (place, from) = parts.gate.conclude(event, begun).await?;
        let (tell, told) = mpsc::channel(QUEUED_MAX);
        let (end, ended) = oneshot::channel();
        let watch = Watch { parts, caller: asking.caller, account, tell, _place: place };
        drop(self.0.tasks.run(async move {
            // Nobody hears it if the watcher went away.
            let _ = end.send(watch.run(from, &stop).await);
        }));
        Ok(Watching { told, ended })
    }
}

impl Watching {
    /// The next one, or why there is none.
    pub async fn next(&mut self) -> Result<Told, Refused> {
        match self.told.recv().await {
            Some(told) => Ok(told),
            None => Err((&mut self.ended).await.unwrap_or_else(|_| shutting_down())),
        }
    }

    /// One that tells what a test says, for tests of what carries it.
    #[cfg(any(test, feature = "testing"))]
    pub fn of(told: mpsc::Receiver<Told>, ended: oneshot::Receiver<Refused>) -> Self {
        Self { told, ended }
    }
}

impl Default for Watches {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(WATCHES_MAX)), turns: Semaphore::new(READING_MAX) }
    }
}

impl Parts {
    fn begin_watch(
        &self,
        account: Option<&AccountId>,
        cursor: Option<&str>,
    ) -> Result<(OwnedSemaphorePermit, Option<Cursor>), Refused> {
        let open = |text| self.vault.open_cursor(account, text).ok_or_else(gone);
        let from = cursor.map(open).transpose()?;
        let place = self.watches.places.clone().try_acquire_owned().map_err(|_| {
            let problem = Problem::new(Reason::RateLimited, "too many watch connections here");
            Problem { remedy: Some(WATCH_LESS), ..problem.retry_after(CROWDED_RETRY) }
        })?;
        Ok((place, from))
    }
}

impl Watch {
    /// Tells until it must end, and says why.
    async fn run(self, from: Option<Cursor>, stop: &CancellationToken) -> Refused {
        tokio::select! {
            biased;
            () = stop.cancelled() => shutting_down(),
            // Nobody hears why.
            () = self.tell.closed() => shutting_down(),
            told = self.tell_all(from) => match told {
                Ok(never) => match never {},
                Err(refused) => refused,
            },
        }
    }

    async fn tell_all(&self, from: Option<Cursor>) -> Result<std::convert::Infallible, Refused> {
        let Parts { vault, clock, .. } = &*self.parts;
        let mut bell = vault.watchers_bell();
        let mut told = if let Some(cursor) = from {
            cursor
        } else {
            let begin = self.read(vault.cursor_now()).await?;
            self.tell_present(begin.at).await?;
            self.tell_synced(&begin).await?;
            begin
        };
        let mut read = told.clone();
        loop {
            bell.mark_unchanged();
            let is_more_coming = loop {
                let Changes { changes, cursor, is_last, is_more_coming } =
                    self.read(vault.changes_after(&read, CHANGES_AT_ONCE)).await?.ok_or_else(gone)?;
                if let Some(last) = self.tell_changes(changes).await? {
                    told = last;
                }
                read = cursor;
                if is_last {
                    break is_more_coming;
                }
            };
            // What was passed over need not be read again by a watch that goes on from here.
            if RENEW_AFTER <= between(told.at, read.at) {
                self.tell_synced(&read).await?;
                told = read.clone();
            }
            tokio::select! {
                _ = bell.changed() => {}
                () = clock.sleep(LOOK_EVERY) => {}
                () = tokio::time::sleep(LOOK_AGAIN), if is_more_coming => {}
            }
            // What happens together is read together.
            tokio::time::sleep(GATHER).await;
        }
    }

    fn may_see(&self, account: &AccountId) -> bool {
        self.account.as_ref().is_none_or(|watched| watched == account)
            && self.parts.gate.may_see(&self.caller, Permission::ConnectionsRead, account)
    }

    async fn tell_present(&self, now: Timestamp) -> Result<(), Refused> {
        if let Some(account) = &self.account {
            return self.tell_account(account, now).await;
        }
        let (mut after, mut is_last) = (None, false);
        while !is_last {
            let page = self.parts.vault.integrations(after.as_ref(), ACCOUNTS_AT_ONCE, |_| false);
            let page = self.read(page).await?;
            is_last = page.len() < ACCOUNTS_AT_ONCE;
            for (account, _) in page {
                if self.may_see(&account) {
                    self.tell_account(&account, now).await?;
                }
                after = Some(account);
            }
        }
        Ok(())
    }

    /// Who is disconnected is not told of, as in a list.
    async fn tell_account(&self, account: &AccountId, now: Timestamp) -> Result<(), Refused> {
        let warnings = self.parts.warnings(account).await;
        let (mut after, mut is_last) = (None, false);
        while !is_last {
            let page = self.parts.vault.connections(account, after.as_deref(), CONNECTIONS_AT_ONCE);
            let page = self.read(page).await?;
            is_last = page.len() < CONNECTIONS_AT_ONCE;
            after = page.last().map(|(key, _)| key.role.to_string());
            for (key, opened) in page {
                let view = ConnectionView::found(key, opened);
                if view.live {
                    let view = view.warned(warnings.clone(), self.parts.clock.now().wall);
                    self.hand(Told { what: What::Present(view), happened_at: now, cursor: None }).await?;
                }
            }
        }
        Ok(())
    }

    /// Tells those that the watcher may see, and returns the last one's cursor.
    async fn tell_changes(&self, changes: Vec<Changed>) -> Result<Option<Cursor>, Refused> {
        let mut views: HashMap<ConnectionKey, ConnectionView> = HashMap::new();
        let mut last = None;
        for Changed { key, generation, change, happened_at, cursor } in changes {
            if !self.may_see(&key.account) {
                continue;
            }
            // Looked at after the page was read: it is as young as each change in it.
            let view = match views.get(&key) {
                Some(view) => view.clone(),
                None => self.look(&key).await?,
            };
            // Of one that does not open, or is no more, only this is known.
            let view = ConnectionView { generation: view.generation.max(generation), ..view };
            views.insert(key, view.clone());
            let sealed = self.parts.vault.seal_cursor(self.account.as_ref(), &cursor);
            let what = What::Changed(change, view);
            self.hand(Told { what, happened_at, cursor: Some(sealed) }).await?;
            last = Some(cursor);
        }
        Ok(last)
    }

    /// Others need the store too: watches take turns.
    async fn read<T>(&self, asking: impl Future<Output = T>) -> T {
        let _turn = self.parts.watches.turns.acquire().await.expect("the semaphore is never closed");
        asking.await
    }

    async fn look(&self, key: &ConnectionKey) -> Result<ConnectionView, Refused> {
        let view = match self.read(self.parts.vault.connection(key)).await {
            Ok(Some(opened)) => ConnectionView::of(&opened),
            Ok(None) => ConnectionView::nobody(key.clone()),
            Err(error) if error.is_of_one_record() => {
                ConnectionView::damaged(key.clone(), error.problem().reason)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(view.warned(self.parts.warnings(&key.account).await, self.parts.clock.now().wall))
    }

    async fn tell_synced(&self, cursor: &Cursor) -> Result<(), Refused> {
        let sealed = self.parts.vault.seal_cursor(self.account.as_ref(), cursor);
        self.hand(Told { what: What::Synced, happened_at: cursor.at, cursor: Some(sealed) }).await
    }

    /// Waits for a place in the queue, but not for ever.
    async fn hand(&self, told: Told) -> Result<(), Refused> {
        let place = tokio::select! {
            biased;
            place = self.tell.reserve() => place,
            () = self.parts.clock.sleep(SLOW_AFTER) => {
                let detail = "the watch was ended: what it told was not taken in time";
                let problem = Problem::new(Reason::RateLimited, detail).retry_after(RESUME_AFTER);
                return Err(Problem { remedy: Some(TAKE_FASTER), ..problem }.into());
            }
        };
        place.map_err(|_| shutting_down())?.send(told);
        Ok(())
    }
}

fn gone() -> Refused {
    let detail = "what came after the cursor is no longer known: watch without one, from the present on";
    Problem::new(Reason::SnapshotGone, detail).into()
}

/// Also what a watch hears that became too old for its connection: it goes on elsewhere, or anew.
pub fn shutting_down() -> Refused {
    let detail = "the watch ends here: go on with its last cursor, on another connection";
    Problem::new(Reason::ShuttingDown, detail).retry_after(RESUME_AFTER).into()
}

/// Each holds a few hundred kilobytes at most; a platform needs one or two for each of its services.
const WATCHES_MAX: usize = 64;
const READING_MAX: usize = 4;
const WATCH_LESS: &str = "End watches that nobody needs: one may watch every account.";
const TAKE_FASTER: &str = "Take what is told faster, and go on with the last cursor.";
const CROWDED_RETRY: Duration = Duration::from_secs(30);
/// On top of what the transport holds for a watcher that takes its time.
const QUEUED_MAX: usize = 64;
/// Whoever keeps up takes what is told within milliseconds.
const SLOW_AFTER: Duration = Duration::from_secs(30);
const RESUME_AFTER: Duration = Duration::from_secs(1);
/// If no wake came: it may have been lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Transactions last milliseconds; this is for what one of them keeps back.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Bounds how often one watch asks the store, whatever happens.
const GATHER: Duration = Duration::from_millis(50);
/// So often at least a watcher gets a younger cursor.
const RENEW_AFTER: Duration = Duration::from_hours(1);
/// Rows of a hundred bytes.
const CHANGES_AT_ONCE: usize = 500;
/// Rows of some kilobytes.
const CONNECTIONS_AT_ONCE: usize = 100;
const ACCOUNTS_AT_ONCE: usize = 200;
