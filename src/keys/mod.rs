//! Key providers: what wraps the store's keyring, so that a stolen store is worth nothing without them.
//!
//! # Invariants
//!
//! 1. What was wrapped for one context (a store id) does not unwrap for another.
//! 2. A wrong key is told from damage, by name of both keys (A19).
//!
//! A provider knows no keyring: it wraps bytes. It is asked at start and when keys change, never for
//! a single record, so an outage of a remote one costs no read.

mod file;

use zeroize::Zeroizing;

pub use file::FileKey;

use crate::files::FileProblem;
use crate::ids::KeyId;

/// What the configuration names as key provider.
#[derive(Debug)]
pub enum KeyProvider {
    File(FileKey),
}

/// Why there is no key, or why it does not open what it should.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("the key file cannot be used")]
    File(#[from] FileProblem),
    #[error("{0} is no key file: it must be the one line that `azdo-broker keys new` wrote")]
    NotAKeyFile(String),
    #[error(
        "cannot unwrap the keyring: it was wrapped by key {wrapped_by}, the configured key is {configured}; name the file of the first in keys.file"
    )]
    WrongKey { wrapped_by: KeyId, configured: KeyId },
    #[error(
        "cannot unwrap the keyring: it is damaged, or wrapped for another store, \
         or key {configured} is another one of the same id"
    )]
    Damaged { configured: KeyId },
    #[error("cannot unwrap the keyring: its format is unknown to this version, or it is damaged")]
    Format,
}

impl KeyProvider {
    /// Encrypts `plain` so that only this key, named with the same `context`, opens it.
    pub fn wrap(&self, context: &str, plain: &[u8]) -> Vec<u8> {
        match self {
            Self::File(key) => key.wrap(context, plain),
        }
    }

    pub fn unwrap(&self, context: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        match self {
            Self::File(key) => key.unwrap(context, wrapped),
        }
    }

    /// The name of the key that `wrap` uses.
    pub fn key_id(&self) -> &KeyId {
        match self {
            Self::File(key) => key.id(),
        }
    }
}
