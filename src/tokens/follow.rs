//! What other replicas did, learned in time: a disconnect, a link, a refresh, a suspension.
//!
//! # Invariants
//!
//! 1. News only makes this process look: what a slot learns is what the row says (P7, P9).
//! 2. News may be lost. After each gap, and now and then without one, the generations of all that is held
//!    are compared; that alone suffices, only later (design.md 6.3).
//! 3. Nothing is looked at that nobody here asked for: a million connections of others cost nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Refresh;
use crate::connection::ConnectionKey;
use crate::ids::Generation;
use crate::vault::{News, VaultError};

/// An actor for the app to run.
pub struct Follower {
    refresh: Arc<Refresh>,
    owed: Option<Owed>,
}

/// A comparison that did not come to its end.
#[derive(Clone, Copy)]
struct Owed {
    /// The store was away meanwhile: it may have gone back.
    after_return: bool,
    again_at: Duration,
}

impl Follower {
    pub(super) fn new(refresh: Arc<Refresh>) -> Self {
        Self { refresh, owed: None }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let refresh = self.refresh.clone();
        let mut news = refresh.vault.news();
        loop {
            let left = self.owed.map(|owed| owed.again_at.saturating_sub(refresh.clock.now().monotonic));
            let heard = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Before the news: however many there are, what is owed has its turn.
                () = refresh.clock.sleep(left.unwrap_or_default()), if left.is_some() => News::Anything,
                heard = news.next() => heard,
            };
            // Whatever it is: who watches looks for itself.
            refresh.vault.wake_watchers();
            let was_owed = self.owed.is_some_and(|owed| owed.after_return);
            let after_return = heard == News::StoreReturned || was_owed;
            let followed = match heard {
                News::Connection(key, generation) => refresh.follow(&key, generation).await,
                News::Integration(account) => refresh.accounts.reload(&account).await,
                News::Anything | News::StoreReturned => {
                    self.owed = None;
                    refresh.compare(after_return).await
                }
            };
            if let Err(error) = followed {
                let again_at = refresh.clock.now().monotonic + COMPARE_AGAIN;
                let again_at = self.owed.map_or(again_at, |owed| owed.again_at);
                self.owed = Some(Owed { after_return, again_at });
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot follow the other replicas");
            }
        }
    }
}

impl Refresh {
    /// Reads the row of a connection that somebody here asked for, if it is newer than what is known.
    async fn follow(&self, key: &ConnectionKey, generation: Generation) -> Result<(), VaultError> {
        if self.slots.find(key).is_none_or(|slot| generation <= slot.known().generation) {
            return Ok(());
        }
        self.look_again(key).await?;
        // Whoever waits for the lease of the replica that wrote this need not wait on.
        self.slots.slot(key).return_lease();
        Ok(())
    }

    /// A record that is at fault fails alone (P9), and what was known before it is not released on.
    async fn look_again(&self, key: &ConnectionKey) -> Result<(), VaultError> {
        match self.read(key).await {
            Err(error) if error.is_of_one_record() => {
                tracing::error!(
                    connection.key = %key, error = &error as &dyn std::error::Error,
                    "a connection is released no more"
                );
                Ok(())
            }
            read => read.map(drop),
        }
    }

    /// Compares all that is held with the store.
    async fn compare(&self, after_return: bool) -> Result<(), VaultError> {
        for keys in self.slots.keys().chunks(COMPARED_AT_ONCE) {
            let compared = self.vault.generations(keys.to_vec()).await?;
            let there: HashSet<&ConnectionKey> = compared.iter().map(|one| &one.key).collect();
            for key in keys.iter().filter(|key| !there.contains(key)) {
                if self.slots.find(key).is_some_and(|slot| slot.has_token()) {
                    self.look_again(key).await?;
                }
            }
            for one in compared {
                let Some(slot) = self.slots.find(&one.key).filter(|slot| !slot.was_looked_at(&one)) else {
                    continue;
                };
                let went_back = one.generation < slot.known().generation;
                if (went_back || one.is_suspected) && slot.has_token() {
                    // A failover that lost its last commits. Of a refresh the older grant goes on.
                    let key = &one.key;
                    tracing::error!(connection.key = %key, "the store went back behind what was seen of a connection");
                    self.look_again(key).await?;
                } else {
                    self.follow(&one.key, one.generation).await?;
                }
                slot.note_look(one);
            }
        }
        for accounts in self.accounts.held().chunks(COMPARED_AT_ONCE) {
            let named = accounts.iter().map(|(account, _)| account.clone()).collect();
            let stored: HashMap<_, _> = self.vault.integration_versions(named).await?.into_iter().collect();
            for (account, version) in accounts {
                if stored.get(account) != Some(version) {
                    self.accounts.reload(account).await?;
                }
            }
        }
        // Last: there may be many.
        if after_return {
            self.vault.suspect_rollbacks(&*self.clock).await?;
        }
        Ok(())
    }
}

/// A statement of this many keys takes some milliseconds.
const COMPARED_AT_ONCE: usize = 2_000;
const COMPARE_AGAIN: Duration = Duration::from_millis(500);
