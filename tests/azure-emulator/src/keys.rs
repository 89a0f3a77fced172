//! The key that signs tokens, and what the world may know of it.
//!
//! RS256 only, as Entra. The first key is shared by all emulators of a process, because making
//! one takes longer than everything else; no token outlives the process.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The published keys; the newest one signs.
pub(crate) struct Keys(Mutex<Vec<Arc<SigningKey>>>);

impl Keys {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(vec![Arc::clone(&FIRST)]))
    }

    /// Signs with a new key from now on. The old ones stay published.
    pub(crate) fn rotate(&self) {
        self.list().push(Arc::new(SigningKey::make()));
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let newest = self.list().last().map(Arc::clone);
        newest.expect("the first key is never removed").sign(claims)
    }

    /// The key set, in which a key names its issuer.
    pub(crate) fn jwks(&self, issuer: &str) -> Value {
        let keys: Vec<Value> = self.list().iter().map(|key| key.public(issuer)).collect();
        json!({ "keys": keys })
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<SigningKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static FIRST: LazyLock<Arc<SigningKey>> = LazyLock::new(|| Arc::new(SigningKey::make()));

struct SigningKey {
    pair: KeyPair,
    id: String,
}

impl SigningKey {
    fn make() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("the library knows this size");
        let public = pair.public_key().as_der().expect("a key that was made can be written");
        let id = URL_SAFE_NO_PAD.encode(&digest(&SHA256, public.as_ref()).as_ref()[..20]);
        Self { pair, id }
    }

    /// The claims as a signed compact JWT.
    fn sign(&self, claims: &Value) -> String {
        let header = json!({ "typ": "JWT", "alg": "RS256", "x5t": self.id, "kid": self.id });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .expect("the buffer has the size of the modulus");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn public(&self, issuer: &str) -> Value {
        let public = self.pair.public_key();
        let modulus = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
        let exponent = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
        json!({
            "kty": "RSA", "use": "sig", "kid": self.id, "x5t": self.id,
            "n": modulus, "e": exponent, "issuer": issuer,
        })
    }
}
