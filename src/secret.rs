//! Secrets that cannot be printed, logged or serialized by accident.
//!
//! Each kind has its own type. `expose` is the one way to the text; the architecture test lists the
//! files that may call it. What long-lived secrets (refresh tokens, client secrets, verifiers) are
//! is wiped on drop and cannot be cloned. Buffers of the HTTP and JSON libraries are out of reach:
//! wiping is best effort, and we say so.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(SecretString);

        impl $name {
            pub fn new(text: String) -> Self {
                Self(text.into())
            }

            /// The text itself. Every call of this is a place a reviewer looks at.
            pub fn expose(&self) -> &str {
                self.0.expose_secret()
            }
        }
    };
}

secret!(
    /// What keeps a connection alive for 90 days. Only the broker ever holds it.
    RefreshToken
);
secret!(
    /// What proves our app to Entra.
    ClientSecret
);
secret!(
    /// The private key of a client certificate: PKCS #8, PEM.
    PrivateKey
);
secret!(
    /// A signed assertion of who our app is: for minutes as good as a client secret.
    ClientAssertion
);
secret!(
    /// The PKCE verifier of one link (RFC 7636).
    PkceVerifier
);
secret!(
    /// What Entra's redirect carries; worth a grant together with verifier and client credential.
    AuthorizationCode
);
secret!(
    /// An `id_token` as Entra sent it. No credential for us, but it names a person.
    RawIdToken
);

impl RefreshToken {
    /// Tells whether two are the same without holding either: SHA-256 of far more than 128 random bits.
    pub fn hash(&self) -> String {
        hash_text(self.expose())
    }
}

/// A bearer token for Azure DevOps. Cheap to clone, because many callers get the same one.
#[derive(Clone, Debug)]
pub struct AccessToken(Arc<SecretString>);

/// Names an access token without being one: the first 16 bytes of its SHA-256, in hex.
#[derive(Clone, Debug, Eq, Hash, PartialEq, serde::Serialize)]
pub struct Fingerprint(String);

impl AccessToken {
    pub fn new(text: String) -> Self {
        Self(Arc::new(text.into()))
    }

    /// The text itself. Every call of this is a place a reviewer looks at.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.expose())
    }
}

impl Fingerprint {
    fn of(text: &str) -> Self {
        let hash = digest(&SHA256, text.as_bytes());
        Self(hex(&hash.as_ref()[..FINGERPRINT_LEN]))
    }

    /// Takes what a caller reported, if it has the shape of a fingerprint.
    pub fn parse(text: &str) -> Option<Self> {
        let shaped = text.len() == 2 * FINGERPRINT_LEN && text.bytes().all(|b| b.is_ascii_hexdigit());
        shaped.then(|| Self(text.to_ascii_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A random number in 0..1, for jitter.
pub fn make_luck() -> f64 {
    #[cfg(test)]
    if let Some(luck) = foreseen::luck() {
        return luck;
    }
    f64::from(u16::from_be_bytes(make_random())) / f64::from(u16::MAX)
}

/// 256 random bits as base64url: link ids, states, cookies, nonces, verifiers.
pub fn make_random_text() -> String {
    URL_SAFE_NO_PAD.encode(make_random::<32>())
}

/// Random bytes.
pub fn make_random<const LEN: usize>() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the kernel's random source does not fail once the system is up");
    bytes
}

/// A random GUID (version 4), where others want one.
pub fn make_random_guid() -> String {
    let text = hex(&make_random::<16>());
    format!("{}-{}-4{}-a{}-{}", &text[..8], &text[8..12], &text[13..16], &text[17..20], &text[20..])
}

/// SHA-256 in hex: how values that only ever need comparing are kept.
pub fn hash_text(text: &str) -> String {
    hash_bytes(text.as_bytes())
}

/// The same of bytes, such as a certificate's.
pub fn hash_bytes(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String does not fail");
        text
    })
}

const FINGERPRINT_LEN: usize = 16;

/// Luck that follows from a seed, for tests that must run the same way again.
#[cfg(test)]
pub(crate) mod foreseen {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// From now on this thread's luck follows from `seed`; with `None` it is luck again.
    pub(crate) fn seed(seed: Option<u64>) {
        STATE.set(seed);
    }

    pub(super) fn luck() -> Option<f64> {
        let mut state = STATE.get()?;
        let drawn = draw(&mut state);
        STATE.set(Some(state));
        Some(f64::from(u16::try_from(drawn >> 48).unwrap_or(u16::MAX)) / f64::from(u16::MAX))
    }

    /// The next number of a sequence (`SplitMix64`).
    pub(crate) fn draw(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P1: no format of a secret shows it.
    #[test]
    fn secrets_do_not_show_themselves() {
        let shown = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            AccessToken::new("canary".into()),
            RefreshToken::new("canary".into()),
            ClientSecret::new("canary".into()),
            PkceVerifier::new("canary".into()),
            AuthorizationCode::new("canary".into()),
            RawIdToken::new("canary".into()),
        );
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn a_fingerprint_names_a_token_and_parses_back() {
        let fingerprint = AccessToken::new("abc".into()).fingerprint();
        assert_eq!(fingerprint.as_str(), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(Fingerprint::parse(fingerprint.as_str()), Some(fingerprint));
        assert_eq!(Fingerprint::parse("short"), None);
    }

    #[test]
    fn random_texts_differ_and_are_long_enough_for_pkce() {
        let (one, other) = (make_random_text(), make_random_text());
        assert_ne!(one, other);
        assert!(43 <= one.len());
    }
}
