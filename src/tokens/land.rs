//! Landing what Entra answered: commit it, publish it, and what becomes of it while the store is away.
//!
//! # Invariants
//!
//! 1. A new grant exists only here until it is committed. It is tried until then, or until another write
//!    won: a store that fails costs no grant, and neither does a shutdown while it lasts (P4, design.md 6.6).
//! 2. The same sealed bytes are written each time, so that a write whose answer was lost is not taken for
//!    somebody else's.
//! 3. A token that is not committed after [`LEND_AFTER`], be it that the database refuses or that it hangs, is lent
//!    to the slot: an outage of the database costs no read (P6). Whatever is committed later ousts it; a token whose swap was lost goes with it (P7).
//!    Not where each grant works once: there it waits for the commit.

use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;

use super::metrics::Outcome;
use super::refresh::RETRY_STORE;
use super::setback::Setback;
use super::slot::token_of;
use super::{Refresh, not_linked};
use crate::backoff::Backoff;
use crate::connection::ConnectionKey;
use crate::ids::{CredentialId, Generation};
use crate::secret::{RefreshToken, make_luck};
use crate::vault::{Connection, Hold, Lease, Live, StoredToken, VaultError};

/// What a refresh brought, ready to be committed.
pub(super) struct Landing {
    pub(super) grant: Option<RefreshToken>,
    pub(super) token: Option<StoredToken>,
    /// `None`: on demand only.
    pub(super) refresh_at: Option<Timestamp>,
    /// The credential that Entra took, to be noted once the grant is safe.
    pub(super) accepted: Option<CredentialId>,
    /// What is told and remembered instead of success, when only the grant was usable.
    pub(super) setback: Option<Setback>,
}

impl Refresh {
    /// Commits what Entra answered, and publishes it.
    pub(super) async fn land(&self, lease: Lease, landing: Landing) {
        let Lease { mut hold, live } = lease;
        if landing.setback.is_some() {
            hold = hold.untold();
        }
        let connection = Connection::Live(Live {
            // No new grant in the answer: the old one goes on (azure.md 5.5).
            grant: landing.grant.or(live.grant),
            token: landing.token,
            refreshed_at: Some(self.store_now(&hold)),
            ..live
        });
        let committed = self.commit(&hold, &connection, landing.refresh_at).await;
        let Some(generation) = committed else {
            // What it says of the credential is true whoever won.
            let setback = landing.setback.and_then(|setback| setback.accepted);
            if let Some(credential) = landing.accepted.or(setback) {
                self.note_accepted(&hold, &credential).await;
            }
            return;
        };
        if let Some(setback) = landing.setback {
            self.learn(&hold.key, (generation, hold.link()), &connection, &hold.store_clock);
            return self.set_back(&hold.at(generation), setback).await;
        }
        self.committed(&hold, generation, &connection);
        if let Some(credential) = &landing.accepted {
            self.note_accepted(&hold, credential).await;
        }
    }

    /// Commits, and tells why while it cannot. `None`: another write won, and what it made is published.
    pub(super) async fn commit(
        &self,
        hold: &Hold,
        connection: &Connection,
        refresh_at: Option<Timestamp>,
    ) -> Option<Generation> {
        let sealed = self.vault.seal_refresh(hold, connection, refresh_at);
        let began = self.clock.now().monotonic;
        let mut kept = None;
        let mut failures = 0;
        loop {
            // A store that went back would take it.
            if self.is_outdated(hold) {
                self.lost(&hold.key).await;
                return None;
            }
            let may_lend = !self.is_strict() && matches!(connection, Connection::Live(_));
            let waited = self.clock.now().monotonic.saturating_sub(began);
            let mut write = pin!(self.vault.commit_refresh(&sealed));
            let written = tokio::select! {
                biased;
                written = &mut write => written,
                // A store that hangs says nothing at all.
                () = self.clock.sleep(LEND_AFTER.saturating_sub(waited)), if may_lend && kept.is_none() => {
                    tracing::error!(
                        connection.key = %hold.key,
                        "a new grant is not written yet; it is kept in memory meanwhile"
                    );
                    kept = Some(self.metrics.keep_uncommitted());
                    self.lend(hold, connection);
                    self.slots.slot(&hold.key).settle();
                    write.await
                }
            };
            let error = match written {
                Ok(generation) => return Some(generation),
                Err(VaultError::Changed(_)) => {
                    if kept.is_some() {
                        // What was lent went with it, whether the row can be read or not (P7).
                        self.slots.slot(&hold.key).withhold(hold.generation);
                    }
                    self.lost(&hold.key).await;
                    return None;
                }
                Err(error) => error,
            };
            failures += 1;
            let waited = self.clock.now().monotonic.saturating_sub(began);
            if !may_lend || LEND_AFTER <= waited {
                kept.get_or_insert_with(|| {
                    tracing::error!(
                        connection.key = %hold.key, error = &error as &dyn std::error::Error,
                        "a new grant cannot be written; it is kept in memory and tried again"
                    );
                    self.metrics.keep_uncommitted()
                });
                if may_lend {
                    self.lend(hold, connection);
                }
                // Whoever the lent token serves gets it; others learn at once what they wait for.
                self.tell(&hold.key, error.problem(), RETRY_STORE);
            }
            self.clock.sleep(RETRY_COMMIT.wait(failures, make_luck())).await;
        }
    }

    fn lend(&self, hold: &Hold, connection: &Connection) {
        let Connection::Live(live) = connection else { return };
        if let Some(token) = token_of(live, hold.generation, &hold.store_clock) {
            self.slots.slot(&hold.key).lend(hold.generation, hold.link(), token);
        }
    }

    pub(super) fn committed(&self, hold: &Hold, generation: Generation, connection: &Connection) {
        let key = &hold.key;
        self.metrics.count(Outcome::Committed);
        tracing::info!(connection.key = %key, connection.generation = generation.0, "refreshed");
        self.learn(key, (generation, hold.link()), connection, &hold.store_clock);
        self.slots.slot(key).settle();
    }

    /// The row changed while Entra was asked: our token is dropped, the row decides (P7).
    pub(super) async fn lost(&self, key: &ConnectionKey) {
        self.metrics.count(Outcome::Dropped);
        tracing::info!(connection.key = %key, "the connection changed during its refresh; the answer was dropped");
        self.show_row(key).await;
    }

    /// What the row says is what whoever waits is told.
    pub(super) async fn show_row(&self, key: &ConnectionKey) {
        match self.read(key).await {
            Ok(Some((opened, _))) => match opened.connection {
                Connection::Live(_) | Connection::Imported(_) => self.slots.slot(key).settle(),
                Connection::Ended(_) => self.tell(key, not_linked(key), Duration::ZERO),
            },
            Ok(None) => self.tell(key, not_linked(key), Duration::ZERO),
            Err(error) => self.tell(key, error.problem(), RETRY_STORE),
        }
    }
}

/// Long enough for a failover of the store that goes well, short enough for who waits.
const LEND_AFTER: Duration = Duration::from_secs(2);
pub(super) const RETRY_COMMIT: Backoff =
    Backoff { min: Duration::from_millis(100), max: Duration::from_secs(2) };
