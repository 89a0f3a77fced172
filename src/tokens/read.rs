//! Reading a connection's row: what its slot learns of it, and that it went back.
//!
//! # Invariants
//!
//! 1. A row of before a link or disconnect that was known when it was asked for is of a store that went back: it is
//!    refused here, and by every replica that reads it (P9, design.md 6.13). An older row of the same link is
//!    none: a refresh was lost, and its older grant goes on.
//! 2. Who was disconnected, or linked since this process knew the place, is remembered and recorded once that is
//!    learned, whichever replica did it: that one may be gone when it is needed.

use super::Refresh;
use super::slot::{Known, token_of};
use crate::clock::StoreClock;
use crate::connection::{ConnectionKey, Seen};
use crate::ids::Generation;
use crate::vault::{Connection, Hold, Opened, Rollback, VaultError};

impl Refresh {
    /// The row, once its slot has learned what it says, and the store's clock. A slot that knows better withholds
    /// what it has.
    pub(super) async fn read(&self, key: &ConnectionKey) -> Result<Option<(Opened, StoreClock)>, VaultError> {
        let slot = self.slots.slot(key);
        // Before it is asked: what is learned meanwhile may be newer than what is read, and nothing wrong.
        let known = slot.known();
        let asked = self.clock.now();
        let mut read = self.vault.connection(key).await;
        if let (Some(seen), Ok(found)) = (known.seen, &read)
            && found.as_ref().map_or(!seen.is_end, |opened| opened.is_before(seen))
        {
            self.note_seen(key, seen).await;
            read = self.vault.connection(key).await;
        }
        if let Err(error) = &read
            && error.is_of_one_record()
        {
            slot.withhold(known.generation);
        }
        if let Err(VaultError::RolledBack(rollback)) = &read {
            slot.outdate(rollback.seen);
            self.refuse_everywhere(rollback).await?;
        }
        let opened = read?;
        let Some(opened) = opened else {
            slot.withhold(known.generation);
            return Ok(None);
        };
        let store = StoreClock::new(opened.store_now, asked, self.clock.now());
        self.learn(key, (opened.generation, opened.seen()), &opened.connection, &store);
        self.note_if_new(known, &opened).await;
        Ok(Some((opened, store)))
    }

    /// Whether this lease is of somebody who stands there no more: then nothing of theirs is spent or written.
    pub(super) fn is_outdated(&self, hold: &Hold) -> bool {
        Some(hold.link()) < self.slots.slot(&hold.key).known().seen
    }

    /// What a connection's row says, for its slot.
    pub(super) fn learn(
        &self,
        key: &ConnectionKey,
        (generation, seen): (Generation, Seen),
        connection: &Connection,
        store: &StoreClock,
    ) {
        let token = connection.live().and_then(|live| token_of(live, generation, store));
        self.slots.slot(key).learn(generation, seen, token);
    }

    /// Remembers and records a link or a disconnect, unless that was done.
    pub(super) async fn note_seen(&self, key: &ConnectionKey, seen: Seen) {
        if self.vault.note_seen(key, seen) {
            self.gate.record_seen(self.vault.store_id(), key, seen).await;
        }
    }

    /// Has a row that went back refused by everybody, and remembers what it is behind.
    async fn refuse_everywhere(&self, Rollback { key, found, seen }: &Rollback) -> Result<(), VaultError> {
        self.note_seen(key, *seen).await;
        match found {
            Some(_) => self.vault.suspect(key).await,
            None => Ok(()),
        }
    }

    /// A tombstone always tells something; a link only to who knew another one.
    async fn note_if_new(&self, known: Known, opened: &Opened) {
        let seen = opened.seen();
        if known.seen != Some(seen) && (seen.is_end || known.seen.is_some()) {
            self.note_seen(&opened.key, seen).await;
        }
    }
}
