//! The grant objects: codes, refresh tokens, and apps that speak for themselves.
//!
//! Steps 7 to 10 of the contract's order. Invariant: a code is used up when its own checks
//! pass, and not by a failed attempt; a refresh token is never used up.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};

use super::errors::Refusal;
use super::issue::Grant;
use super::scope::{Scope, invalid};
use super::token::Request;
use crate::fault::Fault;
use crate::random::{derive_guid, fingerprint};
use crate::state::{Code, RefreshToken, Segment, State, Subject};
use crate::world::{App, same};

/// Steps 7 and 8 for a code.
pub(super) fn by_code(
    state: &mut State,
    request: &Request,
    segment: &Segment,
    now: Timestamp,
) -> Result<Grant, Refusal> {
    let value = request.need("code")?;
    let redirect_uri = request.need("redirect_uri")?;
    let asked = request.field("scope").map(Scope::parse).transpose()?;
    let code = state.codes.get_mut(value).ok_or_else(|| {
        Refusal::grant(70_000, "The provided value for the input parameter 'code' is not valid.")
    })?;
    if code.is_used {
        let text = "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token.";
        return Err(Refusal::grant(54_005, text));
    }
    if code.issued_at.duration_until(now) > CODE_LIFETIME {
        return Err(Refusal::grant(
            70_008,
            "The provided authorization code or refresh token has expired due to inactivity.",
        ));
    }
    let is_same_place = match (&code.segment, segment) {
        (Segment::Tenant(issued), Segment::Tenant(asked)) => issued == asked,
        (Segment::Any(_), Segment::Any(_)) => true,
        (Segment::Tenant(_), Segment::Any(_)) | (Segment::Any(_), Segment::Tenant(_)) => false,
    };
    if !is_same_place {
        return Err(Refusal::grant(
            700_005,
            "The provided authorization code is intended to be used against another tenant.",
        ));
    }
    if !same(&code.client_id, &request.client_id) {
        return Err(
            Refusal::grant(70_000, "The code was issued to another client.").because("client_mismatch")
        );
    }
    if code.redirect_uri != redirect_uri {
        return Err(Refusal::grant(
            50_011,
            "The redirect URI does not match the one of the authorization request.",
        ));
    }
    check_verifier(code, request)?;
    code.is_used = true;
    let granted = Scope::parse(&code.scope)?;
    Ok(Grant {
        family: fingerprint(value),
        subject: code.subject.clone(),
        client_id: code.client_id.clone(),
        scope: asked.unwrap_or(granted),
        scope_text: code.scope.clone(),
        nonce: code.nonce.clone(),
        wants_client_info: request.field("client_info") == Some("1"),
    })
}

fn check_verifier(code: &Code, request: &Request) -> Result<(), Refusal> {
    let verifier = request.field("code_verifier");
    let Some((challenge, is_s256)) = &code.challenge else {
        return match verifier {
            None => Ok(()),
            Some(_) => Err(Refusal::grant(501_481, "A code_verifier came, but no code_challenge before it.")),
        };
    };
    let derived = verifier.map(|verifier| match is_s256 {
        true => URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes())),
        false => verifier.to_owned(),
    });
    if derived.as_ref() == Some(challenge) {
        return Ok(());
    }
    let text = "The Code_Verifier does not match the code_challenge supplied in the authorization request.";
    Err(Refusal::grant(501_481, text))
}

/// Steps 7 and 8 for a refresh token. The old one stays valid, unless switched.
pub(super) fn by_refresh_token(
    state: &mut State,
    request: &Request,
    segment: &Segment,
    now: Timestamp,
) -> Result<Grant, Refusal> {
    let value = request.need("refresh_token")?;
    let asked = request.field("scope").map(Scope::parse).transpose()?;
    let is_strict = state.faults.find(|fault| matches!(fault, Fault::StrictRotation {}));
    let is_strict = is_strict.is_some();
    let unknown = || Refusal::grant(70_000, "The provided grant is not valid.").because("bad_token");
    let token = state.refresh_tokens.get_mut(value).ok_or_else(unknown)?;
    if token.is_rotated {
        let family = token.family.clone();
        let relatives = state.refresh_tokens.values_mut().filter(|it| it.family == family);
        relatives.for_each(|relative| relative.is_revoked = true);
        return Err(revoked());
    }
    check_refresh_token(token, request, segment, now)?;
    token.is_rotated = is_strict;
    let granted = Scope::parse(&token.scope)?;
    Ok(Grant {
        family: token.family.clone(),
        subject: token.subject.clone(),
        client_id: token.client_id.clone(),
        scope: asked.unwrap_or(granted),
        scope_text: token.scope.clone(),
        nonce: None,
        wants_client_info: request.field("client_info") == Some("1"),
    })
}

fn check_refresh_token(
    token: &RefreshToken,
    request: &Request,
    segment: &Segment,
    now: Timestamp,
) -> Result<(), Refusal> {
    if token.is_revoked {
        return Err(revoked());
    }
    if token.issued_at.duration_until(now) > REFRESH_TOKEN_IDLE {
        let text = "The refresh token has expired due to inactivity. It was inactive for 90.00:00:00.";
        return Err(Refusal::grant(700_082, text).because("bad_token"));
    }
    if !same(&token.client_id, &request.client_id) {
        return Err(Refusal::grant(70_000, "The refresh token was issued to another client.")
            .because("client_mismatch"));
    }
    if matches!(segment, Segment::Tenant(id) if *id != token.subject.tenant_id) {
        return Err(Refusal::grant(
            700_005,
            "The refresh token is intended to be used against another tenant.",
        ));
    }
    Ok(())
}

fn revoked() -> Refusal {
    let text = "The provided grant has expired due to it being revoked, a fresh auth token is needed.";
    Refusal::grant(50_173, text).because("bad_token")
}

/// Steps 7 and 8 for an app that speaks for itself.
pub(super) fn by_client(
    state: &State,
    request: &Request,
    segment: &Segment,
    app: &App,
) -> Result<Grant, Refusal> {
    let Segment::Tenant(tenant_id) = segment else {
        return Err(Refusal::request(
            9_001_023,
            "The grant type is not supported over the /common or /consumers endpoints.",
        ));
    };
    let text = request.need("scope")?;
    let scope = Scope::parse(text)?;
    if scope.permissions != [".default"] {
        return Err(invalid(
            1_002_012,
            "client credential flows need a scope that ends in '/.default'",
            text,
        ));
    }
    if !scope.oidc.is_empty() {
        return Err(invalid(1_002_012, "client credential flows sign nobody in", text));
    }
    Ok(Grant {
        family: String::new(),
        subject: Subject {
            oid: service_principal(state, app, tenant_id)?,
            name: app.client_id.clone(),
            display_name: app.name.clone(),
            tenant_id: tenant_id.clone(),
            is_app: true,
        },
        client_id: app.client_id.clone(),
        scope,
        scope_text: text.to_owned(),
        nonce: None,
        wants_client_info: false,
    })
}

/// The object id of the app's service principal, if the tenant has one.
fn service_principal(state: &State, app: &App, tenant_id: &str) -> Result<String, Refusal> {
    let missing = || {
        let text = format!(
            "The client application {} is missing service principal in the tenant {tenant_id}.",
            app.client_id
        );
        Refusal::client(7_000_229, &text)
    };
    let tenant = state.world.tenant(tenant_id).ok_or_else(missing)?;
    let derived = || derive_guid(&format!("{}/{}", tenant.name(), app.client_id));
    if let Some(principal) = app.service_principal(tenant) {
        let oid = principal.oid.clone().unwrap_or_else(derived);
        return principal.present.then_some(oid).ok_or_else(missing);
    }
    let is = |name: &String| state.world.tenant(name).is_some_and(|it| it.id == tenant.id);
    let client_id = app.client_id.to_lowercase();
    let has_user = || {
        let mut users = state.world.users.iter().filter(|user| is(&user.tenant));
        users.any(|user| state.consents.contains(&(user.oid.clone(), client_id.clone())))
    };
    let is_there = is(&app.home_tenant) || app.admin_consent.iter().any(is) || has_user();
    is_there.then(derived).ok_or_else(missing)
}

/// Step 9.
pub(super) fn check_user(state: &State, subject: &Subject) -> Result<(), Refusal> {
    if subject.is_app {
        return Ok(());
    }
    match state.world.user(&subject.oid) {
        None => {
            Err(Refusal::grant(50_034, "The user account does not exist in the directory.")
                .because("bad_token"))
        }
        Some(user) if !user.enabled => Err(Refusal::grant(50_057, "The user account is disabled.")),
        Some(_) => Ok(()),
    }
}

/// Step 10.
pub(super) fn check_consent(state: &State, grant: &Grant, app: &App) -> Result<(), Refusal> {
    let key = (grant.subject.oid.clone(), app.client_id.to_lowercase());
    let by_admin = app
        .admin_consent
        .iter()
        .any(|name| state.world.tenant(name).is_some_and(|tenant| tenant.id == grant.subject.tenant_id));
    // Nobody can have consented to what the app does not ask for.
    let is_registered =
        grant.permissions(app).iter().all(|it| !grant.scope.is_devops() || app.permissions.contains(it));
    if grant.subject.is_app || (is_registered && (by_admin || state.consents.contains(&key))) {
        return Ok(());
    }
    let text = "The user or administrator has not consented to use the application.";
    Err(Refusal::grant(65_001, text).because("consent_required"))
}

const CODE_LIFETIME: SignedDuration = SignedDuration::from_secs(600);
const REFRESH_TOKEN_IDLE: SignedDuration = SignedDuration::from_hours(90 * 24);
