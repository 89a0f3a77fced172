//! What other replicas did, learned in time: a disconnect, a link, a refresh, a suspension.
//!
//! # Invariants
//!
//! 1. News only makes this process look: what a slot learns is what the row says (P7, P9).
//! 2. News may be lost. After each gap, and now and then without one, the generations of all that is held
//!    are compared; that alone suffices, only later (design.md 6.3).
//! 3. Nothing is looked at that nobody here asked for: a million connections of others cost nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Refresh;
use crate::connection::{ConnectionKey, Seen};
use crate::ids::Generation;
use crate::vault::{Connection, News, Opened, VaultError};

/// An actor for the app to run.
pub struct Follower {
    refresh: Arc<Refresh>,
    /// A comparison that did not come to its end.
    is_owed: bool,
}

impl Follower {
    pub(super) fn new(refresh: Arc<Refresh>) -> Self {
        Self { refresh, is_owed: false }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let refresh = self.refresh.clone();
        let mut news = refresh.vault.news();
        loop {
            let heard = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                heard = news.next() => heard,
                () = refresh.clock.sleep(COMPARE_AGAIN), if self.is_owed => News::Anything,
            };
            // Whatever it is: who watches looks for itself.
            refresh.vault.wake_watchers();
            let followed = match heard {
                News::Connection(key, generation) => refresh.follow(&key, generation).await,
                News::Integration(account) => refresh.accounts.reload(&account).await,
                News::Anything => refresh.compare().await.inspect(|()| self.is_owed = false),
            };
            if let Err(error) = followed {
                self.is_owed = true;
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot follow the other replicas");
            }
        }
    }
}

impl Refresh {
    /// Reads the row of a connection that somebody here asked for, if it is newer than what is known.
    async fn follow(&self, key: &ConnectionKey, generation: Generation) -> Result<(), VaultError> {
        if self.slots.find(key).is_none_or(|slot| generation <= slot.generation()) {
            return Ok(());
        }
        match self.read(key).await {
            Ok(Some((opened, store))) => {
                self.note_if_new(&opened).await;
                self.learn(key, opened.generation, &opened.connection, &store);
                // Whoever waits for the lease of the replica that wrote this need not wait on.
                self.slots.slot(key).return_lease();
            }
            Ok(None) => {}
            // A damaged row fails alone (P9), and what was known before it is not released on.
            Err(error @ (VaultError::Damaged(_) | VaultError::Sealed { .. })) => {
                tracing::error!(connection.key = %key, error = &error as &dyn std::error::Error, "damaged");
                self.slots.slot(key).learn(generation, None);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Remembers a link or a disconnect of another replica: of one that died since, nobody else might know.
    async fn note_if_new(&self, opened: &Opened) {
        let Some(known) = self.slots.find(&opened.key).and_then(|slot| slot.linked_at()) else { return };
        let is_end = match &opened.connection {
            Connection::Live(live) if live.linked_at == known => return,
            Connection::Live(_) => false,
            Connection::Imported(_) => return,
            Connection::Ended(_) => true,
        };
        self.note_seen(&opened.key, Seen { generation: opened.generation, is_end }).await;
    }

    pub(super) async fn note_seen(&self, key: &ConnectionKey, seen: Seen) {
        self.vault.note_seen(key, seen);
        self.gate.note_seen(self.vault.store_id(), key, seen).await;
    }

    /// Compares all that is held with the store.
    async fn compare(&self) -> Result<(), VaultError> {
        for keys in self.slots.keys().chunks(COMPARED_AT_ONCE) {
            for (key, generation) in self.vault.generations(keys.to_vec()).await? {
                if generation < self.slots.find(&key).map_or(generation, |slot| slot.generation()) {
                    // A failover that lost its last commits. Links and disconnects among them are refused by
                    // the vault; of a refresh the older grant goes on.
                    tracing::error!(connection.key = %key, "the store went back behind what was seen of a connection");
                }
                self.follow(&key, generation).await?;
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
        Ok(())
    }
}

/// A statement of this many keys takes some milliseconds.
const COMPARED_AT_ONCE: usize = 2_000;
const COMPARE_AGAIN: Duration = Duration::from_millis(500);
