//! The key that signs tokens, and what the world may know of it.
//!
//! RS256 only, as Entra. Made at start, so no token outlives the emulator.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

pub(crate) struct SigningKey {
    pair: KeyPair,
    id: String,
}

impl SigningKey {
    pub(crate) fn make() -> Result<Self, Unspecified> {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        let public = pair.public_key().as_der()?;
        let id = URL_SAFE_NO_PAD.encode(&digest(&SHA256, public.as_ref()).as_ref()[..20]);
        Ok(Self { pair, id })
    }

    /// The claims as a signed compact JWT.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({ "typ": "JWT", "alg": "RS256", "x5t": self.id, "kid": self.id });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .expect("the buffer has the size of the modulus");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The key set, in which a key names its issuer.
    pub(crate) fn jwks(&self, issuer: &str) -> Value {
        let public = self.pair.public_key();
        let modulus = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
        let exponent = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
        json!({ "keys": [{
            "kty": "RSA", "use": "sig", "kid": self.id, "x5t": self.id,
            "n": modulus, "e": exponent, "issuer": issuer,
        }]})
    }
}
