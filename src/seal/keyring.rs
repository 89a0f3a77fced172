//! The data keys of a store. Few, each with an id and its place in time; one of them seals.
//!
//! As bytes: `1 | number of keys | index of the active one`, then per key, oldest first,
//! `id length | id | key | commitment`. These bytes leave only wrapped by a key provider.
//!
//! A data key is used for nothing itself. HKDF-SHA-256 derives from it, with the key id in the
//! `info`, the cipher's key (`azdo-broker-seal-v1`) and the commitment (`azdo-broker-commitment-v1`).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, RandomizedNonceKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hkdf, rand};
use zeroize::Zeroizing;

use crate::ids::KeyId;

/// The keys in force and those that only open.
pub struct Keyring {
    /// In the order of their making.
    keys: Vec<DataKey>,
    active: usize,
}

struct DataKey {
    id: KeyId,
    secret: Zeroizing<[u8; KEY_LEN]>,
}

/// Why bytes are no keyring.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyringError {
    #[error("the keyring is not in a format this version knows")]
    Format,
    #[error("data key {0} is not the one the keyring was made with")]
    Commitment(KeyId),
}

impl Keyring {
    /// A new keyring with one key.
    pub fn generate() -> Self {
        Self { keys: vec![DataKey::make()], active: 0 }
    }

    /// Adds a key that opens at once and seals only after [`Keyring::activate`], so that every replica
    /// knows it before the first record needs it.
    ///
    /// `None` when the ring is full: a key must be retired first.
    pub fn announce(&mut self) -> Option<KeyId> {
        if self.keys.len() == KEYS_MAX {
            return None;
        }
        let key = DataKey::make();
        let id = key.id.clone();
        self.keys.push(key);
        Some(id)
    }

    /// Lets this key seal from now on; false if the ring does not have it.
    #[must_use]
    pub fn activate(&mut self, id: &KeyId) -> bool {
        let found = self.keys.iter().position(|key| key.id == *id);
        self.active = found.unwrap_or(self.active);
        found.is_some()
    }

    /// The ids, oldest first.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.iter().map(|key| &key.id)
    }

    pub fn active(&self) -> &KeyId {
        &self.keys[self.active].id
    }

    /// All secrets of the ring, to be wrapped by a key provider and put nowhere else.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let keys_len: usize = self.keys.iter().map(|key| 1 + key.id.as_str().len() + 2 * KEY_LEN).sum();
        // Sized once: a growing buffer would leave keys behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(3 + keys_len));
        bytes.extend_from_slice(&[VERSION, small(self.keys.len()), small(self.active)]);
        for key in &self.keys {
            let id = key.id.as_str().as_bytes();
            bytes.push(small(id.len()));
            bytes.extend_from_slice(id);
            bytes.extend_from_slice(key.secret.as_slice());
            bytes.extend_from_slice(&key.derive(COMMITMENT)[..]);
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyringError> {
        let [VERSION, count, active, rest @ ..] = bytes else { return Err(KeyringError::Format) };
        let (count, active) = (usize::from(*count), usize::from(*active));
        let mut keys: Vec<DataKey> = Vec::with_capacity(count);
        let mut rest = rest;
        for _ in 0..count {
            let (key, after) = DataKey::parse(rest)?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(KeyringError::Format);
            }
            keys.push(key);
            rest = after;
        }
        let whole = rest.is_empty() && active < keys.len() && keys.len() <= KEYS_MAX;
        if whole { Ok(Self { keys, active }) } else { Err(KeyringError::Format) }
    }

    /// The keys as the cipher takes them, the active one first.
    pub(super) fn cipher_keys(&self) -> Vec<(KeyId, RandomizedNonceKey)> {
        let (older, newer) = self.keys.split_at(self.active);
        newer.iter().chain(older).map(|key| (key.id.clone(), key.cipher_key())).collect()
    }
}

/// Ids only.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.ids().collect();
        f.debug_struct("Keyring").field("ids", &ids).field("active", self.active()).finish_non_exhaustive()
    }
}

impl DataKey {
    fn make() -> Self {
        let mut secret = Zeroizing::new([0; KEY_LEN]);
        let mut id = [0; ID_LEN];
        for bytes in [secret.as_mut_slice(), id.as_mut_slice()] {
            rand::fill(bytes).expect("the kernel's random source does not fail once the system is up");
        }
        let id = format!("{:016x}", u64::from_be_bytes(id)).parse().expect("hex digits are a name");
        Self { id, secret }
    }

    /// Takes one key from the front of `bytes`.
    fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), KeyringError> {
        let (key, commitment, rest) = Self::split(bytes).ok_or(KeyringError::Format)?;
        if verify_slices_are_equal(&key.derive(COMMITMENT)[..], commitment).is_err() {
            return Err(KeyringError::Commitment(key.id));
        }
        Ok((key, rest))
    }

    fn split(bytes: &[u8]) -> Option<(Self, &[u8; KEY_LEN], &[u8])> {
        let (id_len, rest) = bytes.split_first()?;
        let (id, rest) = rest.split_at_checked(usize::from(*id_len))?;
        let (secret, rest) = rest.split_first_chunk::<KEY_LEN>()?;
        let (commitment, rest) = rest.split_first_chunk::<KEY_LEN>()?;
        let id = std::str::from_utf8(id).ok()?.parse().ok()?;
        Some((Self { id, secret: Zeroizing::new(*secret) }, commitment, rest))
    }

    fn cipher_key(&self) -> RandomizedNonceKey {
        RandomizedNonceKey::new(&AES_256_GCM_SIV, &self.derive(SEAL)[..])
            .expect("the key has the cipher's length")
    }

    fn derive(&self, purpose: &[u8]) -> Zeroizing<[u8; KEY_LEN]> {
        let mut derived = Zeroizing::new([0; KEY_LEN]);
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(self.secret.as_slice());
        let info = [purpose, self.id.as_str().as_bytes()];
        extracted
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|expanded| expanded.fill(derived.as_mut_slice()))
            .expect("one hash length is within HKDF's limit");
        derived
    }
}

fn small(number: usize) -> u8 {
    u8::try_from(number).expect("a keyring is small and names are short")
}

const VERSION: u8 = 1;
const KEY_LEN: usize = 32;
const ID_LEN: usize = 8;
const SEAL: &[u8] = b"azdo-broker-seal-v1";
const COMMITMENT: &[u8] = b"azdo-broker-commitment-v1";
/// A key a month for five years; re-sealing retires old ones long before.
const KEYS_MAX: usize = 60;
