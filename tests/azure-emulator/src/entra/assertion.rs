//! Client assertions: of a certificate of the app, or of an issuer the app trusts.
//!
//! Who issued an assertion decides how it is judged: the app itself signs with a certificate,
//! anybody else must match a federated credential. The same `jti` may come again, because
//! clients send one assertion several times.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;

use super::errors::Refusal;
use crate::credentials::{Certificate, PublicKey, read_key};
use crate::hosts::LOGIN;
use crate::world::{App, World, same};

/// A JWT, taken apart and not verified.
pub(super) struct Assertion<'a> {
    header: Value,
    claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Assertion<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, Refusal> {
        let malformed = || Refusal::request(50_027, "JWT token is invalid or malformed.");
        let (signed, signature) = text.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok();
        let object = |part: &str| {
            let value: Value = serde_json::from_slice(&decode(part)?).ok()?;
            value.is_object().then_some(value)
        };
        Ok(Self {
            header: object(header).ok_or_else(malformed)?,
            claims: object(claims).ok_or_else(malformed)?,
            signed,
            signature: decode(signature).ok_or_else(malformed)?,
        })
    }

    fn claim(&self, name: &str) -> &str {
        self.claims.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A header, without the padding that some clients leave.
    fn header(&self, name: &str) -> Option<&str> {
        self.header.get(name).and_then(Value::as_str).map(|text| text.trim_end_matches('='))
    }

    fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.verifies(self.header("alg").unwrap_or_default(), self.signed, &self.signature)
    }

    fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one],
            _ => Vec::new(),
        }
    }

    /// Clients write times as numbers, as floats and as texts.
    fn time(&self, name: &str) -> Option<Timestamp> {
        let seconds = match self.claims.get(name)? {
            Value::Number(number) => number.as_f64()?,
            Value::String(text) => text.parse::<f64>().ok()?,
            _ => return None,
        };
        #[expect(clippy::cast_possible_truncation, reason = "too large a number saturates and is no time")]
        Timestamp::from_second(seconds as i64).ok()
    }

    fn check_time(&self, now: Timestamp) -> Result<(), Refusal> {
        let (from, until) = (self.time("nbf").or_else(|| self.time("iat")), self.time("exp"));
        let is_begun = from.is_none_or(|from| from.as_second() <= now.as_second() + SKEW);
        let is_over = until.is_none_or(|until| until.as_second() + SKEW <= now.as_second());
        if is_begun && !is_over {
            return Ok(());
        }
        let written =
            |time: Option<Timestamp>| time.map_or_else(|| "unknown".to_owned(), |time| time.to_string());
        let text = format!(
            "Client assertion is not within its valid time range. Current time: {now}, assertion \
             valid from {}, expiry time of assertion {}.",
            written(from),
            written(until),
        );
        Err(Refusal::client(700_024, &text))
    }
}

/// What the assertion proves that `app` has, in the form of the record.
pub(super) fn check(
    world: &World,
    app: &App,
    (text, tenant): (&str, &str),
    now: Timestamp,
) -> Result<String, Refusal> {
    let assertion = Assertion::read(text)?;
    let (issuer, subject) = (assertion.claim("iss"), assertion.claim("sub"));
    if same(issuer, &app.client_id) {
        if !same(subject, &app.client_id) {
            return Err(Refusal::client(700_021, OTHER_CLIENT));
        }
        return by_certificate(world, app, &assertion, (tenant, now));
    }
    if world.app(issuer).is_some() {
        return Err(Refusal::client(700_021, OTHER_CLIENT));
    }
    federated(world, app, &assertion, now)
}

fn by_certificate(
    world: &World,
    app: &App,
    assertion: &Assertion<'_>,
    (tenant, now): (&str, Timestamp),
) -> Result<String, Refusal> {
    let modern = assertion.header("x5t#S256");
    let legacy = assertion.header("x5t");
    let mut known = app.certificates.iter().filter_map(|text| Certificate::read(text));
    let found = known.find(|certificate| match modern {
        Some(thumbprint) => certificate.thumbprint == thumbprint,
        None => legacy == Some(certificate.legacy_thumbprint.as_str()),
    });
    let Some(certificate) = found else {
        let thumbprint = modern.or(legacy).unwrap_or("none");
        return Err(unverified(&format!(
            "The key was not found, Thumbprint of key used by client: '{thumbprint}'"
        )));
    };
    if certificate.not_after <= now {
        return Err(unverified("The key used is expired"));
    }
    if !assertion.is_signed_by(&certificate.key) {
        return Err(unverified("The provided signature value did not match the expected signature value"));
    }
    // The tenant may be named by id or by domain, whichever way the request names it.
    let is_here = |audience: &str| {
        let name = audience.strip_prefix(&format!("https://{LOGIN}/")).unwrap_or_default();
        let name = name.strip_suffix("/oauth2/v2.0/token").or_else(|| name.strip_suffix("/v2.0"));
        name.is_some_and(|name| {
            let (meant, asked) = (world.tenant(name), world.tenant(tenant));
            same(name, tenant) || meant.is_some_and(|meant| asked.is_some_and(|asked| asked.id == meant.id))
        })
    };
    if !assertion.audiences().into_iter().any(is_here) {
        let text = "Client assertion audience claim does not match Realm issuer.";
        return Err(Refusal::client(700_023, text));
    }
    assertion.check_time(now)?;
    Ok(format!("certificate:{}", certificate.thumbprint))
}

fn federated(world: &World, app: &App, assertion: &Assertion<'_>, now: Timestamp) -> Result<String, Refusal> {
    let (issuer, subject) = (assertion.claim("iss"), assertion.claim("sub"));
    let audiences = assertion.audiences();
    let is_trusted = app.federated.iter().any(|trusted| {
        let has_audience = trusted.audiences.iter().any(|audience| audiences.contains(&audience.as_str()));
        trusted.issuer == issuer && trusted.subject == subject && has_audience
    });
    if !is_trusted {
        let text = format!(
            "No matching federated identity record found for presented assertion. Assertion Issuer: \
             '{issuer}'. Assertion Subject: '{subject}'. Assertion Audience: '{}'.",
            audiences.join(" "),
        );
        return Err(Refusal::client(70_021, &text));
    }
    let Some(published) = world.issuers.iter().find(|published| published.issuer == issuer) else {
        let text = format!("Request to External OIDC endpoint of issuer '{issuer}' failed.");
        return Err(Refusal::request(50_166, &text));
    };
    // Entra takes only RS256 from others.
    let mut keys = published.keys.iter().filter_map(read_key);
    if assertion.header("alg") != Some("RS256") || !keys.any(|key| assertion.is_signed_by(&key)) {
        return Err(unverified("No key of the issuer verifies the signature"));
    }
    assertion.check_time(now)?;
    Ok(format!("federated:{issuer} {subject}"))
}

fn unverified(reason: &str) -> Refusal {
    let text = format!("Client assertion failed signature validation. [Reason - {reason}.]");
    Refusal::client(700_027, &text)
}

/// Seconds by which the clocks of client and server may differ.
const SKEW: i64 = 300;
const OTHER_CLIENT: &str = "Client assertion application identifier doesn't match 'client_id' parameter.";
pub(super) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
