//! The format of a sealed record: `1 | 1 | key id length | key id | nonce | ciphertext and tag`.
//!
//! The first byte is the version, the second the cipher (AES-256-GCM-SIV). Both have one value, so
//! they need no binding; everything else is bound as associated data, each field with its length as
//! four bytes: `"azdo-broker-envelope-v1"`, store id, table, key, generation (eight bytes, big
//! endian), key id. `vectors.json` holds records made by an independent implementation.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use super::{Place, SealError};
use crate::ids::{KeyId, StoreId};

/// A sealed record, taken apart but not opened.
pub(super) struct Envelope<'a> {
    pub(super) key_id: KeyId,
    nonce: [u8; NONCE_LEN],
    sealed: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, SealError> {
        Self::split(bytes).ok_or(SealError::Format)
    }

    pub(super) fn open(
        &self,
        key: &RandomizedNonceKey,
        bound: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let mut plain = Zeroizing::new(self.sealed.to_vec());
        let len = key
            .open_in_place(Nonce::from(&self.nonce), Aad::from(bound), &mut plain)
            .map_err(|_| SealError::Damaged)?
            .len();
        plain.truncate(len);
        Ok(plain)
    }

    fn split(bytes: &'a [u8]) -> Option<Self> {
        let [VERSION, CIPHER, key_id_len, rest @ ..] = bytes else { return None };
        let (key_id, rest) = rest.split_at_checked(usize::from(*key_id_len))?;
        let (nonce, sealed) = rest.split_first_chunk()?;
        let key_id = std::str::from_utf8(key_id).ok()?.parse().ok()?;
        (AES_256_GCM_SIV.tag_len() <= sealed.len()).then_some(Self { key_id, nonce: *nonce, sealed })
    }
}

pub(super) fn seal(key: &RandomizedNonceKey, id: &KeyId, bound: &[u8], plain: &[u8]) -> Vec<u8> {
    let id = id.as_str().as_bytes();
    let start = 3 + id.len() + NONCE_LEN;
    // Sized once: a growing buffer would leave plaintext behind.
    let mut sealed = Vec::with_capacity(start + plain.len() + AES_256_GCM_SIV.tag_len());
    let id_len = u8::try_from(id.len()).expect("a name is at most 128 bytes long");
    sealed.extend_from_slice(&[VERSION, CIPHER, id_len]);
    sealed.extend_from_slice(id);
    sealed.extend_from_slice(&[0; NONCE_LEN]);
    sealed.extend_from_slice(plain);
    let (nonce, tag) = key
        .seal_in_place_separate_tag(Aad::from(bound), &mut sealed[start..])
        .expect("a record is far below the cipher's limit");
    sealed[start - NONCE_LEN..start].copy_from_slice(nonce.as_ref());
    sealed.extend_from_slice(tag.as_ref());
    sealed
}

/// The associated data; lengths keep one field from growing into the next.
pub(super) fn bound(store: &StoreId, place: &Place<'_>, key_id: &KeyId) -> Vec<u8> {
    let generation = place.generation.to_be_bytes();
    let fields: [&[u8]; 6] = [
        PURPOSE,
        store.as_str().as_bytes(),
        place.table.as_bytes(),
        place.key.as_bytes(),
        &generation,
        key_id.as_str().as_bytes(),
    ];
    let mut bound = Vec::with_capacity(BOUND_LEN_USUAL);
    for field in fields {
        let len = u32::try_from(field.len()).expect("names are short");
        bound.extend_from_slice(&len.to_be_bytes());
        bound.extend_from_slice(field);
    }
    bound
}

const VERSION: u8 = 1;
const CIPHER: u8 = 1;
const PURPOSE: &[u8] = b"azdo-broker-envelope-v1";
/// What store, table and key names come to as a rule.
const BOUND_LEN_USUAL: usize = 256;
