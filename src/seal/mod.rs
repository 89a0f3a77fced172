//! Seals records, so that a store can be read, copied or edited by others and gives nothing (P9).
//!
//! # Invariants
//!
//! 1. A record opens only at the place it was sealed for: store, table, key and generation are
//!    associated data. Swapped, renamed or aged records are damage to that record alone (A20, A21).
//! 2. There is no plaintext mode, and no way to a data key but [`Keyring::to_bytes`], whose result
//!    goes to a key provider and nowhere else.
//! 3. The newest active key seals; every key of the ring opens.
//! 4. One sealed text fits one key only: AES-GCM-SIV does not commit to its key, so the keyring holds
//!    a commitment to each and refuses a key that is not the one it was made with.
//!
//! This module knows no store and no key provider. What a place means is its caller's business.

mod envelope;
mod keyring;
#[cfg(test)]
mod tests;

use aws_lc_rs::aead::RandomizedNonceKey;
use zeroize::Zeroizing;

pub use keyring::{Keyring, KeyringError};

use crate::ids::{KeyId, StoreId};

/// Where a record lies; it opens nowhere else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place<'a> {
    pub table: &'static str,
    pub key: &'a str,
    /// The generation of a connection, the version of other records.
    pub generation: i64,
}

/// Why a record does not open.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SealError {
    #[error("the record was changed, or moved here from another place")]
    Damaged,
    /// Perhaps a newer keyring has it.
    #[error("the record was sealed with key {0}, which the keyring does not have")]
    UnknownKey(KeyId),
    #[error("the record is not sealed in a format this version knows")]
    Format,
}

/// Seals and opens the records of one store.
pub struct Sealer {
    store: StoreId,
    /// The active key stands first.
    keys: Vec<(KeyId, RandomizedNonceKey)>,
}

impl Sealer {
    #[expect(clippy::needless_pass_by_value, reason = "the keyring's bytes are wiped once they are in use")]
    pub fn new(store: StoreId, keyring: Keyring) -> Self {
        Self { store, keys: keyring.cipher_keys() }
    }

    /// The key that seals now.
    pub fn active_key(&self) -> &KeyId {
        &self.keys[0].0
    }

    pub fn seal(&self, place: &Place<'_>, plain: &[u8]) -> Vec<u8> {
        let (id, key) = &self.keys[0];
        envelope::seal(key, id, &envelope::bound(&self.store, place, id), plain)
    }

    pub fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let envelope = envelope::Envelope::parse(sealed)?;
        let (id, key) = self
            .keys
            .iter()
            .find(|(id, _)| *id == envelope.key_id)
            .ok_or_else(|| SealError::UnknownKey(envelope.key_id.clone()))?;
        envelope.open(key, &envelope::bound(&self.store, place, id))
    }
}
