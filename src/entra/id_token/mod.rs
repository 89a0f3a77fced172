//! Checks an `id_token` (azure.md 2.4): who signed in, told by Entra, for us, just now.
//!
//! # Invariants
//!
//! 1. RS256 and nothing else, whatever the header says (threat T17).
//! 2. The issuer is the configured authority's for the configured tenant; `tid` must agree.
//! 3. `(tid, oid)` is the identity. Names and addresses are for people and checked by nobody.
//!
//! Time is read from the caller's clock and not from `jsonwebtoken`'s, because tests move it.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use url::Url;

use crate::connection::Identity;
use crate::ids::{ClientId, ObjectId, TenantId};
use crate::outgoing::{OutgoingError, shown};
use crate::secret::RawIdToken;

/// What the sign-in was begun with.
pub struct Expected<'a> {
    pub tenant: &'a TenantId,
    pub client_id: &'a ClientId,
    /// `None`: nobody signed in just now, as with a refresh.
    pub nonce: Option<&'a str>,
}

/// Why nobody knows who signed in.
#[derive(Debug, thiserror::Error)]
pub enum IdTokenError {
    #[error("the id_token is for another app")]
    Audience,
    #[error("the id_token has expired")]
    Expired,
    #[error("the id_token is of another issuer")]
    Issuer,
    #[error("the signing keys could not be fetched")]
    KeysUnreachable(#[source] OutgoingError),
    #[error("the answer with the signing keys is unusable")]
    KeysUnusable,
    #[error("the id_token is not readable")]
    Malformed,
    #[error("the id_token is of another sign-in")]
    Nonce,
    #[error("the id_token is not valid yet")]
    NotYetValid,
    #[error("the id_token names no object id")]
    ObjectId,
    #[error("the id_token is not signed by its key, or not with RS256")]
    Signature,
    #[error("the id_token is of another tenant")]
    Tenant,
    #[error("the id_token is signed with an unknown key")]
    UnknownKey,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    tid: String,
    oid: Option<String>,
    nonce: Option<String>,
    exp: i64,
    nbf: Option<i64>,
    iat: i64,
    preferred_username: Option<String>,
    email: Option<String>,
    name: Option<String>,
}

pub(super) fn issuer(authority: &Url, tenant: &TenantId) -> String {
    format!("{}/{tenant}/v2.0", authority.as_str().trim_end_matches('/'))
}

/// Which key the token claims to be signed with. Nothing of this is believed yet.
pub(super) fn parse_key_id(unverified: &RawIdToken) -> Result<String, IdTokenError> {
    let header = jsonwebtoken::decode_header(unverified.expose()).map_err(|_| IdTokenError::Malformed)?;
    match header.alg {
        Algorithm::RS256 => header.kid.ok_or(IdTokenError::UnknownKey),
        _ => Err(IdTokenError::Signature),
    }
}

pub(super) fn verify(
    unverified: &RawIdToken,
    key: &DecodingKey,
    expected: &Expected<'_>,
    issuer: &str,
    now: Timestamp,
) -> Result<Identity, IdTokenError> {
    let signed = jsonwebtoken::decode(unverified.expose(), key, &signature_only());
    let claims: Claims = signed.map_err(|error| refused(&error))?.claims;
    check(&claims, expected, issuer)?;
    check_time(&claims, now)?;
    let object_id: Option<ObjectId> = claims.oid.and_then(|text| text.parse().ok());
    let login = claims.preferred_username.or(claims.email).unwrap_or_default();
    Ok(Identity {
        tenant: expected.tenant.clone(),
        object_id: object_id.ok_or(IdTokenError::ObjectId)?,
        login: shown(&login),
        display_name: shown(&claims.name.unwrap_or_default()),
    })
}

/// `jsonwebtoken` checks the signature; what is signed is checked here, where the clock is.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn refused(error: &jsonwebtoken::errors::Error) -> IdTokenError {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::Json(_) | ErrorKind::Base64(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidToken => {
            IdTokenError::Malformed
        }
        _ => IdTokenError::Signature,
    }
}

fn check(claims: &Claims, expected: &Expected<'_>, issuer: &str) -> Result<(), IdTokenError> {
    // First: whose it is ends an import, while another name of the same issuer is a mistake of ours.
    if claims.tid != expected.tenant.as_str() {
        return Err(IdTokenError::Tenant);
    }
    if claims.iss != issuer {
        return Err(IdTokenError::Issuer);
    }
    if claims.aud != expected.client_id.as_str() {
        return Err(IdTokenError::Audience);
    }
    let Some(expected) = expected.nonce else { return Ok(()) };
    let nonce = claims.nonce.as_deref().ok_or(IdTokenError::Nonce)?;
    aws_lc_rs::constant_time::verify_slices_are_equal(nonce.as_bytes(), expected.as_bytes())
        .map_err(|_| IdTokenError::Nonce)
}

fn check_time(claims: &Claims, now: Timestamp) -> Result<(), IdTokenError> {
    let (now, leeway) = (now.as_second(), LEEWAY.as_secs().cast_signed());
    if claims.exp.saturating_add(leeway) <= now {
        return Err(IdTokenError::Expired);
    }
    let begins = claims.nbf.unwrap_or(claims.iat).max(claims.iat);
    if now < begins.saturating_sub(leeway) {
        return Err(IdTokenError::NotYetValid);
    }
    Ok(())
}

/// How far two well-kept clocks may be apart (azure.md 2.4).
const LEEWAY: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests;
