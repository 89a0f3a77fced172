//! Random-looking values that follow from a seed, so that a run can be repeated.
//!
//! Not for secrets: whoever knows the seed knows every token. That is the point of an emulator.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

#[derive(Debug)]
pub(crate) struct Random {
    seed: u64,
    counter: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, counter: 0 }
    }

    pub(crate) fn make_bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 32);
        while bytes.len() < length {
            self.counter += 1;
            let input = [self.seed.to_be_bytes(), self.counter.to_be_bytes()].concat();
            bytes.extend_from_slice(digest(&SHA256, &input).as_ref());
        }
        bytes.truncate(length);
        bytes
    }

    /// `length` random bytes as base64url.
    pub(crate) fn make_text(&mut self, length: usize) -> String {
        URL_SAFE_NO_PAD.encode(self.make_bytes(length))
    }

    pub(crate) fn make_guid(&mut self) -> String {
        derive_guid(&self.make_text(16))
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn make_number(&mut self, low: u64, high: u64) -> u64 {
        let bytes: [u8; 8] = self.make_bytes(8).try_into().expect("eight bytes were asked for");
        low + u64::from_be_bytes(bytes) % (high - low + 1)
    }
}

/// Always the same GUID (version 4 in form) for the same text.
pub(crate) fn derive_guid(text: &str) -> String {
    let hex = hex(&digest(&SHA256, text.as_bytes()).as_ref()[..16]);
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// What stands for a token in records: the first 16 bytes of its SHA-256, in hex.
pub fn fingerprint(token: &str) -> String {
    hex(&digest(&SHA256, token.as_bytes()).as_ref()[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_values() {
        let (mut one, mut two, mut other) = (Random::new(7), Random::new(7), Random::new(8));
        let value = one.make_text(48);

        assert_eq!(value, two.make_text(48));
        assert_ne!(value, other.make_text(48));
        assert_ne!(value, one.make_text(48));
        assert_eq!(one.make_guid().len(), 36);
    }
}
