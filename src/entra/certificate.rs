//! Client certificates: read once when they are added, an assertion signed for each request (azure.md 1.6).
//!
//! # Invariants
//!
//! 1. Key and certificate belong together: checked here, before anything is kept.
//! 2. An assertion is for one tenant's token endpoint, lives [`LIFETIME`], and is never used twice.
//!
//! RSA alone, since Entra takes no other certificates; the certificate itself never leaves, only its hash.

use std::time::Duration;

use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{EntraError, Verdict};
use crate::clock::{earlier, later};
use crate::ids::ClientId;
use crate::secret::{ClientAssertion, PrivateKey, hash_bytes, make_random_guid};

/// What is kept and shown of a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFacts {
    /// SHA-256 of its DER, in hex.
    pub fingerprint: String,
    pub expires_at: Timestamp,
}

/// Why a certificate and its key cannot prove an app.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CertificateError {
    #[error("is not a certificate in PEM")]
    Certificate,
    #[error("is not an unencrypted PKCS #8 key in PEM, RSA of at least 2048 bits")]
    Key,
    #[error("is not the key of this certificate")]
    Mismatch,
}

#[derive(serde::Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    jti: String,
    nbf: i64,
    iat: i64,
    exp: i64,
}

/// Checks that `key` is the key of the certificate, and says what is to be known of it.
pub fn read_certificate(pem: &str, key: &PrivateKey) -> Result<CertificateFacts, CertificateError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertificateError::Certificate)?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| CertificateError::Certificate)?;
    let ends = certificate.validity().not_after.timestamp();
    let expires_at = Timestamp::from_second(ends).map_err(|_| CertificateError::Certificate)?;
    let key =
        PrivatePkcs8KeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| CertificateError::Key)?;
    let pair = KeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| CertificateError::Key)?;
    if certificate.public_key().subject_public_key.data.as_ref() != pair.public_key().as_ref() {
        return Err(CertificateError::Mismatch);
    }
    Ok(CertificateFacts { fingerprint: hash_bytes(&der), expires_at })
}

/// An assertion for one request to `endpoint`.
pub(super) fn sign(
    client_id: &ClientId,
    endpoint: &str,
    fingerprint: &str,
    key: &PrivateKey,
    now: Timestamp,
) -> Result<ClientAssertion, EntraError> {
    let mut header = Header::new(Algorithm::PS256);
    header.x5t_s256 = Some(thumbprint(fingerprint));
    let claims = Claims {
        aud: endpoint,
        iss: client_id.as_str(),
        sub: client_id.as_str(),
        jti: make_random_guid(),
        nbf: earlier(now, SKEW).as_second(),
        iat: now.as_second(),
        exp: later(now, LIFETIME).as_second(),
    };
    // The key was checked when it was added: what fails now is the credential.
    let unusable = |_| EntraError::new(Verdict::ClientCredential);
    let key = EncodingKey::from_rsa_pem(key.expose().as_bytes()).map_err(unusable)?;
    encode(&header, &claims, &key).map(ClientAssertion::new).map_err(unusable)
}

/// From hex to the form of `x5t#S256`.
fn thumbprint(fingerprint: &str) -> String {
    let digits: Vec<char> = fingerprint.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(digits.chunks(2).map(byte).collect::<Vec<u8>>())
}

/// Entra refuses longer ones than ten minutes; half of it outlives every request.
const LIFETIME: Duration = Duration::from_mins(5);
/// Our clock may be a little before Entra's.
const SKEW: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
    use rcgen::{CertificateParams, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};

    use super::*;

    fn made(key: &rcgen::KeyPair) -> String {
        CertificateParams::new(vec!["app".to_owned()]).unwrap().self_signed(key).unwrap().pem()
    }

    fn rsa() -> rcgen::KeyPair {
        rcgen::KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap()
    }

    fn read(certificate: &str, key: &str) -> Result<CertificateFacts, CertificateError> {
        read_certificate(certificate, &PrivateKey::new(key.to_owned()))
    }

    #[test]
    fn a_certificate_is_taken_with_its_own_key_alone() {
        let (key, other) = (rsa(), rsa());
        let certificate = made(&key);
        let facts = read(&certificate, &key.serialize_pem()).unwrap();
        assert_eq!(facts.fingerprint.len(), 64);
        assert!(Timestamp::from_second(4_000_000_000).unwrap() < facts.expires_at, "rcgen's are long-lived");
        assert_eq!(read(&certificate, &other.serialize_pem()), Err(CertificateError::Mismatch));
        assert_eq!(read(&key.serialize_pem(), &key.serialize_pem()), Err(CertificateError::Certificate));
        assert_eq!(read(&certificate, "not a key"), Err(CertificateError::Key));
        let encrypted = key.serialize_pem().replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert_eq!(read(&certificate, &encrypted), Err(CertificateError::Key));
        let curve = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        assert_eq!(read(&made(&curve), &curve.serialize_pem()), Err(CertificateError::Key));
    }

    #[test]
    fn an_assertion_names_app_endpoint_and_certificate_and_no_two_are_alike() {
        let key = rsa();
        let facts = read(&made(&key), &key.serialize_pem()).unwrap();
        let client_id: ClientId = "22222222-2222-2222-2222-222222222222".parse().unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let private = PrivateKey::new(key.serialize_pem());
        let make = || sign(&client_id, "https://e.example/token", &facts.fingerprint, &private, now).unwrap();

        let (assertion, another) = (make(), make());

        let header = decode_header(assertion.expose()).unwrap();
        assert_eq!(header.alg, Algorithm::PS256);
        let expected = URL_SAFE_NO_PAD.encode(
            (0..64)
                .step_by(2)
                .map(|at| u8::from_str_radix(&facts.fingerprint[at..at + 2], 16).unwrap())
                .collect::<Vec<_>>(),
        );
        assert_eq!(header.x5t_s256, Some(expected));
        let mut validation = Validation::new(Algorithm::PS256);
        validation.set_audience(&["https://e.example/token"]);
        validation.validate_exp = false;
        let public = DecodingKey::from_rsa_der(key.public_key_raw());
        let claims = |text: &ClientAssertion| {
            decode::<serde_json::Value>(text.expose(), &public, &validation).unwrap().claims
        };
        let one = claims(&assertion);
        assert_eq!((&one["iss"], &one["sub"]), (&client_id.as_str().into(), &client_id.as_str().into()));
        assert!(one["exp"].as_i64().unwrap() - one["nbf"].as_i64().unwrap() <= 600);
        assert_ne!(one["jti"], claims(&another)["jti"]);
    }
}
