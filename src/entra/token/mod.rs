//! The token request and its one tolerant parser (azure.md 1.4).
//!
//! Liberal in what it reads (numbers as text, odd fields, a byte order mark, the last of duplicate
//! keys), strict in what it believes (threat T35): no token without a positive lifetime, no foreign
//! token type, nothing that would not fit a header. What looks like a refresh token is taken out
//! first, before anything else can fail (P4).
//!
//! `Origin` is never sent: Entra would take us for a browser app (9002326).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Map, Value};
use url::Url;

use super::judge::{Facts, judge};
use super::{APP_SCOPE, Answered, App, EntraError, Proof, Verdict, certificate, scope_text};
use crate::ids::ObjectId;
use crate::outgoing::{Answer, Limits, Outgoing, under};
use crate::secret::{
    AccessToken, AuthorizationCode, ClientAssertion, PkceVerifier, RawIdToken, RefreshToken, make_random_guid,
};

/// What is exchanged for a token.
pub(super) enum Grant<'a> {
    Code { code: &'a AuthorizationCode, verifier: &'a PkceVerifier, redirect_uri: &'a Url },
    Refresh(&'a RefreshToken),
    ClientCredentials,
}

/// The way to Entra, and how long it may take.
pub(super) struct Reach<'a> {
    pub(super) outgoing: &'a Outgoing,
    pub(super) authority: &'a Url,
    pub(super) deadline: Duration,
}

pub(super) async fn ask(
    reach: &Reach<'_>,
    now: Timestamp,
    app: &App<'_>,
    grant: &Grant<'_>,
) -> Result<Answered, EntraError> {
    let Reach { outgoing, authority, deadline } = *reach;
    let endpoint = under(authority, &[app.tenant.as_str(), "oauth2", "v2.0", "token"]);
    let signed = match &app.proof {
        Proof::Certificate { fingerprint, key } => {
            Some(certificate::sign(app.client_id, endpoint.as_str(), fingerprint, key, now)?)
        }
        Proof::Secret(_) | Proof::Assertion(_) => None,
    };
    let scope = match grant {
        Grant::Code { .. } | Grant::Refresh(_) => scope_text(app.scopes),
        Grant::ClientCredentials => APP_SCOPE.to_owned(),
    };
    let request = outgoing
        .post(endpoint)
        .header("accept", "application/json")
        .header("client-request-id", make_random_guid())
        .header("return-client-request-id", "true")
        .form(&form(app, grant, &scope, signed.as_ref()));
    let limits = Limits { deadline, body_bytes_max: BODY_BYTES_MAX };
    let mut answered = read(&outgoing.send(request, limits).await?)?;
    if let Grant::ClientCredentials = grant {
        // Entra names none here (azure.md 1.4), and nothing less can be had.
        answered.scopes = vec![scope];
    }
    Ok(answered)
}

fn form<'a>(
    app: &'a App<'_>,
    grant: &'a Grant<'_>,
    scope: &'a str,
    signed: Option<&'a ClientAssertion>,
) -> Vec<(&'static str, &'a str)> {
    let mut fields = match grant {
        Grant::Code { code, verifier, redirect_uri } => vec![
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("code_verifier", verifier.expose()),
            ("redirect_uri", redirect_uri.as_str()),
        ],
        Grant::Refresh(token) => vec![("grant_type", "refresh_token"), ("refresh_token", token.expose())],
        Grant::ClientCredentials => vec![("grant_type", "client_credentials")],
    };
    fields.push(("client_id", app.client_id.as_str()));
    fields.push(("scope", scope));
    let assertion = match &app.proof {
        Proof::Secret(secret) => {
            fields.push(("client_secret", secret.expose()));
            None
        }
        Proof::Certificate { .. } => signed,
        Proof::Assertion(assertion) => Some(*assertion),
    };
    if let Some(assertion) = assertion {
        fields.push(("client_assertion_type", ASSERTION_TYPE));
        fields.push(("client_assertion", assertion.expose()));
    }
    fields
}

fn read(answer: &Answer) -> Result<Answered, EntraError> {
    if !answer.is_success() {
        return Err(judge(Facts::of(answer)));
    }
    let mut body: Map<String, Value> = serde_json::from_slice(answer.text_bytes()).unwrap_or_default();
    let refresh = take_text(&mut body, "refresh_token").map(RefreshToken::new);
    let usable = if answer.is_json() { take_access(&mut body) } else { None };
    let Some((access, lifetime)) = usable else {
        // A page is not the token endpoint's; JSON is, and may have held more than we can read.
        let may_have_acted = answer.is_json();
        return Err(EntraError { rescued: refresh, may_have_acted, ..EntraError::new(Verdict::Unknown) });
    };
    Ok(Answered {
        access,
        lifetime,
        scopes: parse_scopes(body.get("scope")),
        refresh,
        id_token: take_text(&mut body, "id_token").map(RawIdToken::new),
    })
}

fn take_access(body: &mut Map<String, Value>) -> Option<(AccessToken, Duration)> {
    let access = AccessToken::new(take_text(body, "access_token")?);
    let fits_a_header = access.expose().bytes().all(|byte| byte.is_ascii_graphic());
    let is_bearer = body.get("token_type")?.as_str()?.eq_ignore_ascii_case("bearer");
    let lifetime = parse_lifetime(body.get("expires_in")?)?;
    (fits_a_header && is_bearer).then_some((access, lifetime))
}

/// An empty text is as good as none: it must not replace a good refresh token.
fn take_text(body: &mut Map<String, Value>, name: &str) -> Option<String> {
    match body.remove(name)? {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn parse_lifetime(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    // Also false for what is no number at all. A fraction of a second is no lifetime.
    let is_positive = 1.0 <= seconds;
    is_positive.then(|| Duration::from_secs_f64(seconds.min(LIFETIME_MAX.as_secs_f64()).floor()))
}

fn parse_scopes(value: Option<&Value>) -> Vec<String> {
    let texts: Vec<&str> = match value {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    texts.iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect()
}

/// Whose token it says it is. Not verified, and a client should not look inside (azure.md 2.1): only for a
/// token that Entra itself has just given us, whose service principal nothing else names.
pub fn unverified_object_id(token: &AccessToken) -> Option<ObjectId> {
    let payload = token.expose().split('.').nth(1)?;
    let claims: Map<String, Value> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    claims.get("oid")?.as_str()?.parse().ok()
}

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How long a request may take, its second try included. Shorter than the lease of a refresh (design.md 6.1).
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Far above any real answer (threat T10).
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longer than what Entra gives users (azure.md 2.1), and short enough that a wrong number does no harm.
const LIFETIME_MAX: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests;
