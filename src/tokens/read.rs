//! Reading a connection's row: what its slot learns of it, and that it went back.
//!
//! # Invariants
//!
//! 1. A row that was read after a newer one was known, and of somebody else, is of a store that went back: it
//!    is refused here, and by every replica that reads it (P9, design.md 6.13). An older row of the same link
//!    is none: a refresh was lost, and its older grant goes on.
//! 2. Who was linked or disconnected is remembered and recorded once it is learned, whichever replica did it:
//!    that one may be gone when it is needed.

use super::Refresh;
use super::slot::{Known, Stands, token_of};
use crate::clock::StoreClock;
use crate::connection::{ConnectionKey, Seen};
use crate::ids::Generation;
use crate::vault::{Connection, Hold, Leased, Opened, VaultError};

impl Refresh {
    /// The row, once its slot has learned what it says, and the store's clock. A slot that knows better withholds
    /// what it has.
    pub(super) async fn read(&self, key: &ConnectionKey) -> Result<Option<(Opened, StoreClock)>, VaultError> {
        let slot = self.slots.slot(key);
        // Before it is asked: what is learned meanwhile may be newer than what is read, and nothing wrong.
        let known = slot.known();
        let asked = self.clock.now();
        let opened = match self.vault.connection(key).await {
            Ok(Some(opened)) if known.is_ahead_of(opened.generation, Stands::of(&opened.connection)) => {
                Err(self.went_back(key, known).await?)
            }
            Ok(None) if known.is_ahead_of(Generation::default(), Stands::Nobody) => {
                self.note_seen(key, known.seen()).await;
                self.vault.connection(key).await
            }
            read => read,
        };
        let opened = opened.inspect_err(|error| {
            if error.is_of_one_record() {
                slot.withhold(known.generation);
            }
        })?;
        let Some(opened) = opened else {
            slot.withhold(known.generation);
            return Ok(None);
        };
        let store = StoreClock::new(opened.store_now, asked, self.clock.now());
        self.learn(key, opened.generation, &opened.connection, &store);
        self.note_if_new(known, &opened).await;
        Ok(Some((opened, store)))
    }

    /// Whether this lease is of somebody who stands there no more: then nothing of theirs is spent.
    pub(super) fn is_outdated(&self, leased: &Leased) -> bool {
        let stands = Stands::Since(match leased {
            Leased::Live(lease) => lease.live.linked_at,
            Leased::Imported(lease) => lease.imported.imported_at,
        });
        let Hold { key, generation, .. } = leased.hold();
        self.slots.slot(key).known().is_ahead_of(*generation, stands)
    }

    /// What a connection's row says, for its slot.
    pub(super) fn learn(
        &self,
        key: &ConnectionKey,
        generation: Generation,
        connection: &Connection,
        store: &StoreClock,
    ) {
        let token = match connection {
            Connection::Live(live) => token_of(live, generation, store),
            Connection::Imported(_) | Connection::Ended(_) => None,
        };
        self.slots.slot(key).learn(generation, Stands::of(connection), token);
    }

    /// Remembers and records a link or a disconnect, unless that was done.
    pub(super) async fn note_seen(&self, key: &ConnectionKey, seen: Seen) {
        if self.vault.note_seen(key, seen) {
            self.gate.record_seen(self.vault.store_id(), key, seen).await;
        }
    }

    /// Has the row refused by everybody. What it says of itself then is the error.
    async fn went_back(&self, key: &ConnectionKey, known: Known) -> Result<VaultError, VaultError> {
        self.note_seen(key, known.seen()).await;
        self.vault.suspect(key, &*self.clock).await?;
        // Written anew meanwhile: whoever asked asks again.
        let changed = || VaultError::Changed(key.to_string());
        Ok(self.vault.connection(key).await.err().unwrap_or_else(changed))
    }

    /// A tombstone always tells something; a link only to who knew another one.
    async fn note_if_new(&self, known: Known, opened: &Opened) {
        let stands = Stands::of(&opened.connection);
        let is_end = stands == Stands::Nobody;
        let is_new = is_end || known.stands != Stands::Unknown;
        if known.stands != stands && is_new {
            self.note_seen(&opened.key, Seen { generation: opened.generation, is_end }).await;
        }
    }
}

impl Known {
    /// Whether a row is older than what is known, and of somebody else.
    fn is_ahead_of(self, generation: Generation, stands: Stands) -> bool {
        generation < self.generation && self.stands != stands && self.stands != Stands::Unknown
    }

    fn seen(self) -> Seen {
        Seen { generation: self.generation, is_end: self.stands == Stands::Nobody }
    }
}
