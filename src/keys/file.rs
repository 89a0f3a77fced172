//! A key in a file: `azdo-broker-key-v1 {id} {256 bits in base64}`, one line.
//!
//! Wrapped bytes are `1 | id length | id | nonce | ciphertext and tag` (AES-256-GCM-SIV); context and
//! key id are bound as associated data.

use std::fmt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::KeysError;
use crate::files;
use crate::ids::KeyId;

/// A key that lies beside the configuration, never beside the store.
pub struct FileKey {
    id: KeyId,
    key: RandomizedNonceKey,
}

impl FileKey {
    /// Writes a new key to a new file.
    pub fn create(path: &Path) -> Result<Self, KeysError> {
        let id = make_id();
        let mut key = Zeroizing::new([0; KEY_LEN]);
        fill(key.as_mut_slice());
        // Sized once: a growing text would leave parts of the key behind.
        let mut line = Zeroizing::new(String::with_capacity(FILE_LEN_MAX));
        line.push_str(HEADER);
        line.push(' ');
        line.push_str(id.as_str());
        line.push(' ');
        STANDARD.encode_string(key.as_slice(), &mut line);
        line.push('\n');
        files::create_secret(path, line.as_bytes())?;
        Ok(Self::new(id, &key))
    }

    pub fn open(path: &Path) -> Result<Self, KeysError> {
        let content = files::read_secret(path, FILE_LEN_MAX)?;
        parse(&content).ok_or_else(|| KeysError::NotAKeyFile(path.display().to_string()))
    }

    pub(super) fn id(&self) -> &KeyId {
        &self.id
    }

    pub(super) fn wrap(&self, context: &str, plain: &[u8]) -> Vec<u8> {
        let id = self.id.as_str().as_bytes();
        let start = 2 + id.len() + NONCE_LEN;
        let mut wrapped = Vec::with_capacity(start + plain.len() + AES_256_GCM_SIV.tag_len());
        wrapped.push(FORMAT);
        wrapped.push(u8::try_from(id.len()).expect("a name is at most 128 bytes long"));
        wrapped.extend_from_slice(id);
        wrapped.extend_from_slice(&[0; NONCE_LEN]);
        wrapped.extend_from_slice(plain);
        let (nonce, tag) = self
            .key
            .seal_in_place_separate_tag(Aad::from(bound(context, &self.id)), &mut wrapped[start..])
            .expect("a keyring is far below the cipher's limit");
        wrapped[start - NONCE_LEN..start].copy_from_slice(nonce.as_ref());
        wrapped.extend_from_slice(tag.as_ref());
        wrapped
    }

    pub(super) fn unwrap(&self, context: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        let (wrapped_by, nonce, sealed) = split(wrapped).ok_or(KeysError::Format)?;
        if wrapped_by != self.id {
            return Err(KeysError::WrongKey { wrapped_by, configured: self.id.clone() });
        }
        let mut plain = Zeroizing::new(sealed.to_vec());
        let len = self
            .key
            .open_in_place(Nonce::from(&nonce), Aad::from(bound(context, &self.id)), &mut plain)
            .map_err(|_| KeysError::Damaged { configured: self.id.clone() })?
            .len();
        plain.truncate(len);
        Ok(plain)
    }

    fn new(id: KeyId, key: &[u8; KEY_LEN]) -> Self {
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, key).expect("the key has the cipher's length");
        Self { id, key }
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey").field("id", &self.id).finish_non_exhaustive()
    }
}

fn parse(content: &[u8]) -> Option<FileKey> {
    let text = std::str::from_utf8(content).ok()?;
    // Whoever pastes a key into a Kubernetes secret loses the newline.
    let mut words = text.strip_suffix('\n').unwrap_or(text).split(' ');
    let (header, id, key, None) = (words.next()?, words.next()?, words.next()?, words.next()) else {
        return None;
    };
    if header != HEADER {
        return None;
    }
    // The decoder wants room for whole groups of four letters.
    let mut bytes = Zeroizing::new([0; KEY_LEN + 1]);
    let len = STANDARD.decode_slice(key, bytes.as_mut_slice()).ok()?;
    let key: &[u8; KEY_LEN] = bytes[..len].try_into().ok()?;
    Some(FileKey::new(id.parse().ok()?, key))
}

fn split(wrapped: &[u8]) -> Option<(KeyId, [u8; NONCE_LEN], &[u8])> {
    let [FORMAT, id_len, rest @ ..] = wrapped else { return None };
    let (id, rest) = rest.split_at_checked(usize::from(*id_len))?;
    let (nonce, sealed) = rest.split_first_chunk()?;
    Some((std::str::from_utf8(id).ok()?.parse().ok()?, *nonce, sealed))
}

/// The associated data; lengths keep one field from growing into the next.
fn bound(context: &str, id: &KeyId) -> Vec<u8> {
    let mut bound = Vec::new();
    for field in [PURPOSE, context, id.as_str()] {
        bound.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        bound.extend_from_slice(field.as_bytes());
    }
    bound
}

fn make_id() -> KeyId {
    let mut bytes = [0; ID_LEN];
    fill(&mut bytes);
    format!("{:08x}", u32::from_be_bytes(bytes)).parse().expect("hex digits are a name")
}

fn fill(bytes: &mut [u8]) {
    rand::fill(bytes).expect("the kernel's random source does not fail once the system is up");
}

const HEADER: &str = "azdo-broker-key-v1";
const PURPOSE: &str = "azdo-broker-key-wrap-v1";
const FORMAT: u8 = 1;
const KEY_LEN: usize = 32;
const ID_LEN: usize = 4;
/// Header, the longest name and the key with room to spare.
const FILE_LEN_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyProvider;

    fn provider(directory: &tempfile::TempDir, name: &str) -> KeyProvider {
        KeyProvider::File(FileKey::create(&directory.path().join(name)).unwrap())
    }

    #[test]
    fn a_key_from_its_file_opens_what_the_new_key_wrapped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let created = KeyProvider::File(FileKey::create(&path).unwrap());

        let wrapped = created.wrap("store-1", b"keyring");
        let opened = KeyProvider::File(FileKey::open(&path).unwrap());

        assert_eq!(opened.key_id(), created.key_id());
        assert_eq!(opened.unwrap("store-1", &wrapped).unwrap().as_slice(), b"keyring");
        assert_ne!(created.wrap("store-1", b"keyring"), wrapped, "a nonce was used twice");
    }

    #[test]
    fn a19_a_wrong_key_names_both_keys() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (provider(&directory, "one"), provider(&directory, "other"));

        let refused = other.unwrap("store-1", &one.wrap("store-1", b"keyring")).unwrap_err();

        let expected = format!(
            "cannot unwrap the keyring: it was wrapped by key {}, the configured key is {}; name the file of the first in keys.file",
            one.key_id(),
            other.key_id()
        );
        assert_eq!(refused.to_string(), expected);
    }

    #[test]
    fn f05_another_store_or_any_changed_byte_does_not_unwrap() {
        let directory = tempfile::tempdir().unwrap();
        let key = provider(&directory, "key");
        let wrapped = key.wrap("store-1", b"keyring");

        assert!(matches!(key.unwrap("store-2", &wrapped), Err(KeysError::Damaged { .. })));
        for at in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert!(key.unwrap("store-1", &changed).is_err(), "byte {at}");
            assert!(key.unwrap("store-1", &wrapped[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn what_is_no_key_file_is_refused_without_repeating_it() {
        let directory = tempfile::tempdir().unwrap();
        let short = STANDARD.encode([7; KEY_LEN - 1]);
        let long = STANDARD.encode([7; KEY_LEN + 1]);
        let right = STANDARD.encode([7; KEY_LEN]);
        let contents = [
            String::new(),
            "canary\n".to_owned(),
            format!("{HEADER} 00000001 {short}\n"),
            format!("{HEADER} 00000001 {long}\n"),
            format!("{HEADER} 00000001 {right} more\n"),
            format!("{HEADER} 00000001 {right}\n\n"),
            format!("azdo-broker-key-v2 00000001 {right}\n"),
        ];
        for (at, content) in contents.iter().enumerate() {
            let path = directory.path().join(at.to_string());
            files::create_secret(&path, content.as_bytes()).unwrap();
            let refused = FileKey::open(&path).unwrap_err();
            assert!(matches!(refused, KeysError::NotAKeyFile(_)), "{content:?}");
            assert!(!format!("{refused} {refused:?}").contains("canary"));
        }
    }

    /// P1: no format of a key shows it.
    #[test]
    fn a_key_does_not_show_itself() {
        let key = FileKey::new("00000001".parse().unwrap(), &[65; KEY_LEN]);
        assert_eq!(format!("{key:?}"), r#"FileKey { id: "00000001", .. }"#);
    }
}
