//! Makes tokens: access tokens in v1.0 format, id tokens in v2.0, refresh tokens opaque.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::discovery::issuer;
use super::scope::Scope;
use crate::fault::Fault;
use crate::random::derive_guid;
use crate::state::{AccessToken, RefreshToken, Segment, Shared, Subject};
use crate::world::App;

/// What a request to the token endpoint has earned.
pub(super) struct Grant {
    /// What all refresh tokens of one sign-in share.
    pub(super) family: String,
    pub(super) subject: Subject,
    pub(super) client_id: String,
    pub(super) scope: Scope,
    /// The scopes that were consented to; a refresh token is for all of them.
    pub(super) scope_text: String,
    pub(super) nonce: Option<String>,
    pub(super) wants_client_info: bool,
}

impl Grant {
    /// What the token is for, with `.default` spelled out.
    pub(super) fn permissions(&self, app: &App) -> Vec<String> {
        let is_default = self.scope.is_devops() && self.scope.permissions == [".default"];
        if is_default { app.permissions.clone() } else { self.scope.permissions.clone() }
    }
}

/// The tokens, and the body of the answer.
pub(super) struct Issued {
    pub(super) body: Value,
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
    pub(super) expires_in: u64,
    /// How the client proved who it is.
    pub(super) credential: String,
}

pub(super) fn issue(shared: &Shared, grant: &Grant, app: &App, credential: String) -> Issued {
    let permissions = grant.permissions(app);
    let now = shared.clock.now();
    let expires_in = lifetime(shared);
    let access_token = access_token(shared, grant, &permissions, (now, expires_in), &credential);
    let mut body = json!({
        "token_type": "Bearer",
        "expires_in": expires_in,
        "ext_expires_in": expires_in,
        "access_token": access_token,
    });
    let mut refresh_token = None;
    if !grant.subject.is_app {
        let reordered = shared.find_fault(|fault| matches!(fault, Fault::ScopeReordered {}));
        body["scope"] = json!(grant.scope.granted(&permissions, reordered.is_some()));
        refresh_token = make_refresh_token(shared, grant, now);
        if let Some(token) = &refresh_token {
            body["refresh_token"] = json!(token);
        }
        if grant.scope.has("openid") {
            body["id_token"] = json!(id_token(shared, grant, now));
        }
        if grant.wants_client_info {
            body["client_info"] = json!(client_info(&grant.subject.oid, &grant.subject.tenant_id));
        }
    }
    if let Some(Fault::RefreshIn { seconds }) =
        shared.find_fault(|fault| matches!(fault, Fault::RefreshIn { .. }))
    {
        body["refresh_in"] = json!(seconds);
    } else if expires_in >= LONG_LIVED {
        body["refresh_in"] = json!(expires_in / 2);
    }
    let as_text = shared.find_fault(|fault| matches!(fault, Fault::ExpiresInText {}));
    if as_text.is_some() {
        body["expires_in"] = json!(expires_in.to_string());
    }
    Issued { body, access_token, refresh_token, expires_in, credential }
}

pub(super) fn client_info(oid: &str, tenant_id: &str) -> String {
    URL_SAFE_NO_PAD.encode(json!({ "uid": oid, "utid": tenant_id }).to_string())
}

fn lifetime(shared: &Shared) -> u64 {
    match shared.find_fault(|fault| matches!(fault, Fault::ExpiresIn { .. })) {
        Some(Fault::ExpiresIn { seconds }) => seconds,
        _ => shared.state().random.make_number(SHORTEST, LONGEST),
    }
}

fn access_token(
    shared: &Shared,
    grant: &Grant,
    permissions: &[String],
    (now, expires_in): (Timestamp, u64),
    credential: &str,
) -> String {
    // "1" is a secret, "2" a certificate or a federated assertion.
    let appidacr = if credential.starts_with("secret:") { "1" } else { "2" };
    let subject = &grant.subject;
    let expires_at = later(now, expires_in);
    let mut claims = json!({
        "aud": grant.scope.resource,
        "iss": format!("https://sts.windows.net/{}/", subject.tenant_id),
        "iat": now.as_second(),
        "nbf": now.as_second(),
        "exp": expires_at.as_second(),
        "aio": shared.state().random.make_text(24),
        "appid": grant.client_id,
        "appidacr": appidacr,
        "idp": format!("https://sts.windows.net/{}/", subject.tenant_id),
        "oid": subject.oid,
        "rh": "1.EMULATOR.",
        "sub": subject.oid,
        "tid": subject.tenant_id,
        "uti": shared.state().random.make_text(16),
        "ver": "1.0",
    });
    if !subject.is_app {
        claims["sub"] = json!(derive_guid(&format!("{}/{}", subject.oid, grant.scope.resource)));
        claims["scp"] = json!(permissions.join(" "));
        claims["upn"] = json!(subject.name);
        claims["unique_name"] = json!(subject.name);
        claims["name"] = json!(subject.display_name);
        claims["amr"] = json!(["pwd"]);
        claims["ipaddr"] = json!("127.0.0.1");
    }
    let token = shared.keys.sign(&claims);
    let record = AccessToken {
        subject: subject.clone(),
        client_id: grant.client_id.clone(),
        audience: grant.scope.resource.clone(),
        permissions: if subject.is_app { Vec::new() } else { permissions.to_vec() },
        expires_at,
    };
    shared.state().access_tokens.insert(token.clone(), record);
    token
}

/// None without `offline_access`, or when a switch withholds it.
fn make_refresh_token(shared: &Shared, grant: &Grant, now: Timestamp) -> Option<String> {
    let withheld = |fault: &Fault| matches!(fault, Fault::NoRefreshToken { .. });
    if !grant.scope.has("offline_access") || shared.take_fault(withheld).is_some() {
        return None;
    }
    let mut state = shared.state();
    let token = format!("1.{}", state.random.make_text(750));
    let record = RefreshToken {
        subject: grant.subject.clone(),
        client_id: grant.client_id.clone(),
        scope: grant.scope_text.clone(),
        issued_at: now,
        family: grant.family.clone(),
        is_rotated: false,
        is_revoked: false,
    };
    state.refresh_tokens.insert(token.clone(), record);
    Some(token)
}

fn id_token(shared: &Shared, grant: &Grant, now: Timestamp) -> String {
    let subject = &grant.subject;
    let mut claims = json!({
        "aud": grant.client_id,
        "iss": issuer(&Segment::Tenant(subject.tenant_id.clone())),
        "iat": now.as_second(),
        "nbf": now.as_second(),
        "exp": later(now, ID_TOKEN_LIFETIME).as_second(),
        "rh": "1.EMULATOR.",
        "sub": derive_guid(&format!("{}/{}", subject.oid, grant.client_id)),
        "tid": subject.tenant_id,
        "uti": shared.state().random.make_text(16),
        "ver": "2.0",
    });
    if grant.scope.has("profile") {
        claims["oid"] = json!(subject.oid);
        claims["name"] = json!(subject.display_name);
        claims["preferred_username"] = json!(subject.name);
    }
    let email = shared.state().world.user(&subject.oid).and_then(|user| user.email.clone());
    if let Some(email) = email.filter(|_| grant.scope.has("email")) {
        claims["email"] = json!(email);
    }
    if let Some(nonce) = &grant.nonce {
        claims["nonce"] = json!(nonce);
    }
    let forged = shared.take_fault(|fault| matches!(fault, Fault::IdToken { .. }));
    if let Some(Fault::IdToken { tid, aud, nonce, iss, exp, bad_signature, .. }) = forged {
        let texts = [("tid", tid), ("aud", aud), ("nonce", nonce), ("iss", iss)];
        for (name, value) in texts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            claims[name] = json!(value);
        }
        if let Some(exp) = exp {
            claims["exp"] = json!(exp);
        }
        if bad_signature {
            let token = shared.keys.sign(&claims);
            let (signed, _) = token.rsplit_once('.').expect("a JWT has three parts");
            return format!("{signed}.{}", shared.state().random.make_text(256));
        }
    }
    shared.keys.sign(&claims)
}

fn later(now: Timestamp, seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// Access tokens live 60 to 90 minutes.
const SHORTEST: u64 = 3_600;
const LONGEST: u64 = 5_400;

/// From this lifetime on the answer says when to refresh.
const LONG_LIVED: u64 = 7_200;

const ID_TOKEN_LIFETIME: u64 = 3_600;
