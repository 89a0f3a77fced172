//! What other replicas did, learned in time: a disconnect, a link, a refresh, a suspension.
//!
//! # Invariants
//!
//! 1. News only makes this process look: what a slot learns is what the row says (P7, P9).
//! 2. News may be lost. After each gap, and now and then without one, the generations of all that is held
//!    are compared; that alone suffices, only later (design.md 6.3).
//! 3. Nothing is looked at that nobody here asked for: a million connections of others cost nothing. But what this
//!    process saw linked or disconnected is compared at its start and after each gap, beside the news: a store
//!    that was restored, or that failed over, may have gone back behind it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Refresh;
use crate::connection::ConnectionKey;
use crate::ids::Generation;
use crate::vault::{Compared, News, VaultError};

/// An actor for the app to run.
pub struct Follower {
    refresh: Arc<Refresh>,
    /// When a comparison that did not come to its end begins anew.
    owed_at: Option<Duration>,
    /// The look for what went back.
    suspecting: JoinSet<()>,
}

impl Follower {
    pub(super) fn new(refresh: Arc<Refresh>) -> Self {
        Self { refresh, owed_at: None, suspecting: JoinSet::new() }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let refresh = self.refresh.clone();
        let mut news = refresh.vault.news();
        self.look_for_rollbacks();
        loop {
            let left = self.owed_at.map(|again_at| again_at.saturating_sub(refresh.clock.now().monotonic));
            let heard = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Before the news: however many there are, what is owed has its turn.
                () = refresh.clock.sleep(left.unwrap_or_default()), if left.is_some() => News::Anything,
                heard = news.next() => heard,
            };
            // Whatever it is: who watches looks for itself.
            refresh.vault.wake_watchers();
            if heard == News::StoreReturned {
                self.look_for_rollbacks();
            }
            let followed = match heard {
                News::Connection(key, generation) => refresh.follow(&key, generation).await,
                News::Integration(account) => refresh.accounts.reload(&account).await,
                News::Anything | News::StoreReturned => {
                    self.owed_at = None;
                    refresh.compare().await
                }
            };
            if let Err(error) = followed {
                let again_at = refresh.clock.now().monotonic + COMPARE_AGAIN;
                self.owed_at.get_or_insert(again_at);
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot follow the other replicas");
            }
        }
    }

    /// There may be many; news does not wait for them. One that is under way began before the store returned.
    fn look_for_rollbacks(&mut self) {
        let refresh = self.refresh.clone();
        self.suspecting = JoinSet::new();
        self.suspecting.spawn(async move { refresh.suspect_rollbacks().await });
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
    async fn compare(&self) -> Result<(), VaultError> {
        let mut failed = Vec::new();
        for keys in self.slots.keys().chunks(COMPARED_AT_ONCE) {
            // Before it is asked: a refresh may land meanwhile.
            let known = keys.iter().filter_map(|key| Some((key, self.slots.find(key)?.known().generation)));
            let known: HashMap<_, _> = known.collect();
            let compared = self.vault.generations(keys.to_vec()).await?;
            let there: HashSet<&ConnectionKey> = compared.iter().map(|one| &one.key).collect();
            let missed = |key: &&ConnectionKey| {
                !there.contains(key) && self.slots.find(key).is_some_and(|slot| slot.has_token())
            };
            let missed: Vec<_> = keys.iter().filter(missed).collect();
            for some in missed.chunks(LOOKS_AT_ONCE) {
                let looks = some.iter().map(|key| self.look_again(key));
                failed.extend(join_all(looks).await.into_iter().filter_map(Result::err));
                go_on_after(&mut failed)?;
            }
            for some in compared.chunks(LOOKS_AT_ONCE) {
                let looks = some.iter().map(|one| self.compare_one(one, known.get(&one.key).copied()));
                failed.extend(join_all(looks).await.into_iter().filter_map(Result::err));
                go_on_after(&mut failed)?;
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
        failed.pop().map_or(Ok(()), Err)
    }

    async fn compare_one(&self, one: &Compared, known: Option<Generation>) -> Result<(), VaultError> {
        let Some(slot) = self.slots.find(&one.key).filter(|slot| !slot.was_looked_at(one)) else {
            return Ok(());
        };
        if Some(one.generation) < known {
            // A failover that lost its last commits. Of a refresh the older grant goes on.
            tracing::warn!(connection.key = %one.key, "the store went back behind what was read of a connection");
            self.look_again(&one.key).await?;
        } else {
            self.follow(&one.key, one.generation).await?;
        }
        slot.note_look(one.clone());
        Ok(())
    }

    /// Has all that went back refused, however long the store is away meanwhile.
    async fn suspect_rollbacks(&self) {
        while let Err(error) = self.vault.suspect_rollbacks().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what was seen is not compared with the store yet"
            );
            self.clock.sleep(COMPARE_AGAIN).await;
        }
    }
}

/// One that the store is slow over keeps none of the others from being looked at. Several do: news waits meanwhile,
/// and what was looked at already need not be when the comparison begins anew.
fn go_on_after(failed: &mut Vec<VaultError>) -> Result<(), VaultError> {
    if failed.len() < FAILED_MAX { Ok(()) } else { failed.pop().map_or(Ok(()), Err) }
}

/// A statement of this many keys takes some milliseconds.
const COMPARED_AT_ONCE: usize = 2_000;
/// What is looked at is read and opened, each by itself.
const LOOKS_AT_ONCE: usize = 16;
const FAILED_MAX: usize = 4;
const COMPARE_AGAIN: Duration = Duration::from_millis(500);
