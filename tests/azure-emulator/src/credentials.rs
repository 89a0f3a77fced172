//! Certificates and public keys, by which assertions are verified.
//!
//! RSA only, as Entra. Where a text is read, anything unexpected is no certificate and no key.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::Value;
use x509_parser::parse_x509_certificate;

/// An RSA key of somebody who signs assertions.
#[derive(Clone, Debug)]
pub(crate) enum PublicKey {
    /// As a certificate carries it.
    Der(Vec<u8>),
    Components {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

/// A certificate an app may sign its assertions with.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// SHA-256 of the certificate, base64url.
    pub(crate) thumbprint: String,
    /// The same with SHA-1.
    pub(crate) legacy_thumbprint: String,
    pub(crate) not_after: Timestamp,
    pub(crate) key: PublicKey,
}

impl Certificate {
    /// PEM, or base64 of DER.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let der = pem_body(text, "CERTIFICATE").unwrap_or_else(|| text.to_owned());
        let compact: String = der.split_whitespace().collect();
        let der = STANDARD.decode(compact).ok()?;
        let (rest, certificate) = parse_x509_certificate(&der).ok()?;
        let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?;
        rest.is_empty().then(|| Self {
            thumbprint: URL_SAFE_NO_PAD.encode(digest(&SHA256, &der)),
            legacy_thumbprint: URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &der)),
            not_after,
            key: PublicKey::Der(certificate.public_key().raw.to_vec()),
        })
    }
}

/// A JWK, or the PEM of a public key or certificate.
pub(crate) fn read_key(key: &Value) -> Option<PublicKey> {
    if let Some(text) = key.as_str() {
        if let Some(body) = pem_body(text, "PUBLIC KEY") {
            let compact: String = body.split_whitespace().collect();
            return Some(PublicKey::Der(STANDARD.decode(compact).ok()?));
        }
        return text.contains("-----BEGIN").then(|| Certificate::read(text)).flatten().map(|it| it.key);
    }
    if key.get("kty")? != "RSA" {
        return None;
    }
    let number = |name: &str| URL_SAFE_NO_PAD.decode(key.get(name)?.as_str()?.trim_end_matches('=')).ok();
    Some(PublicKey::Components { modulus: number("n")?, exponent: number("e")? })
}

impl PublicKey {
    /// `algorithm` is that of the header of a JWT.
    pub(crate) fn verifies(&self, algorithm: &str, signed: &str, signature: &[u8]) -> bool {
        let parameters: &RsaParameters = match algorithm {
            "PS256" => &RSA_PSS_2048_8192_SHA256,
            "RS256" => &RSA_PKCS1_2048_8192_SHA256,
            _ => return false,
        };
        let outcome = match self {
            Self::Der(der) => UnparsedPublicKey::new(parameters, der).verify(signed.as_bytes(), signature),
            Self::Components { modulus, exponent } => PublicKeyComponents { n: modulus, e: exponent }.verify(
                parameters,
                signed.as_bytes(),
                signature,
            ),
        };
        outcome.is_ok()
    }
}

/// What stands between the first pair of lines with this name.
fn pem_body(text: &str, name: &str) -> Option<String> {
    let (_, after) = text.split_once(&format!("-----BEGIN {name}-----"))?;
    let (body, _) = after.split_once(&format!("-----END {name}-----"))?;
    Some(body.to_owned())
}
