//! Client authentication: a secret, a certificate, or an assertion of a trusted issuer.
//!
//! Step 6 of the contract's order. Says which credential it was, for the record.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::assertion::{self, ASSERTION_TYPE};
use super::errors::Refusal;
use super::token::Request;
use crate::call::Call;
use crate::world::{App, World};

pub(super) fn check_client(
    world: &World,
    call: &Call,
    request: &Request,
    (app, tenant): (&App, &str),
    now: Timestamp,
) -> Result<String, Refusal> {
    if call.header("origin").is_some() {
        let text =
            "Cross-origin token redemption is permitted only for the 'Single-Page Application' client-type.";
        return Err(Refusal::request(9_002_326, text));
    }
    if request.is_twice_authenticated {
        return Err(Refusal::request(90_013, "The client is authenticated in two ways at once."));
    }
    if let Some(text) = request.field("client_assertion") {
        if request.need("client_assertion_type")? != ASSERTION_TYPE {
            return Err(Refusal::request(90_013, "The client_assertion_type is not supported."));
        }
        return assertion::check(world, app, (text, tenant), now);
    }
    let Some(secret) = &request.secret else {
        let text =
            "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
        return Err(Refusal::client(7_000_218, text));
    };
    let Some(known) = app.secrets.iter().find(|known| known.value == *secret) else {
        let text = "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID.";
        return Err(Refusal::client(7_000_215, text));
    };
    if known.expires_at.is_some_and(|end| end <= now) {
        return Err(Refusal::client(7_000_222, "The provided client secret keys for app are expired."));
    }
    // As much as Entra's portal shows of a secret.
    let hint: String = secret.chars().take(3).collect();
    Ok(format!("secret:{hint}"))
}

pub(super) fn basic_credentials(header: &str) -> Option<(String, String)> {
    let encoded = header.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let decode = |text: &str| {
        url::form_urlencoded::parse(format!("={text}").as_bytes()).next().map(|(_, value)| value.into_owned())
    };
    Some((decode(id)?, decode(secret)?))
}
