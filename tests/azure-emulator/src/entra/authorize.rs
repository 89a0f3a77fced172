//! The authorize endpoint: shows the page, redirects with a code or an error.
//!
//! Invariant: only an [`Asked`] has an address to redirect to.

use url::Url;

use super::admission::{Asked, admit, check};
use super::errors::{Ids, Refusal};
use super::scope::Scope;
use super::{pages, unknown_tenant};
use crate::call::{Answer, Call, html, redirect, value_of};
use crate::fault::Fault;
use crate::state::{Code, Segment, Shared, Subject};
use crate::world::User;

enum Decision {
    Accept(String),
    Decline,
}

/// GET: the page, or in automatic mode the redirect at once.
pub(super) fn show(shared: &Shared, call: &Call, tenant: &str) -> Answer {
    let hint = call.query("login_hint");
    let is_automatic = shared.find_fault(|fault| matches!(fault, Fault::AutomaticSignIn {})).is_some();
    if let Some(user) = call.header("x-emu-user") {
        let is_decline = call.header("x-emu-decline").is_some();
        let decision = if is_decline { Decision::Decline } else { Decision::Accept(user.to_owned()) };
        return conclude(shared, call, tenant, Some(&decision));
    }
    if let Some(user) = hint.filter(|_| is_automatic) {
        return conclude(shared, call, tenant, Some(&Decision::Accept(user.to_owned())));
    }
    conclude(shared, call, tenant, None)
}

/// POST: what the person chose on the page.
pub(super) fn decide(shared: &Shared, call: &Call, tenant: &str) -> Answer {
    let form = call.form();
    let user = value_of(&form, "user").unwrap_or_default().to_owned();
    let decision = match value_of(&form, "action") {
        Some("accept") => Decision::Accept(user),
        _ => Decision::Decline,
    };
    conclude(shared, call, tenant, Some(&decision))
}

fn conclude(shared: &Shared, call: &Call, tenant: &str, decision: Option<&Decision>) -> Answer {
    let asked = match admit(shared, call, tenant) {
        Ok(asked) => asked,
        Err(refusal) => return show_refusal(shared, call, &refusal),
    };
    let outcome = check(call, &asked).and_then(|scope| match decision {
        None => Ok(Outcome::Page(scope)),
        Some(Decision::Decline) => {
            let text = "User declined to consent to access the app.";
            Err(Refusal::new(65_004, "access_denied", text))
        }
        Some(Decision::Accept(user)) => accept(shared, call, &asked, user),
    });
    match outcome {
        Ok(Outcome::Page(scope)) => {
            let hint = call.query("login_hint");
            let state = shared.state();
            html(200, pages::sign_in(&state.world, &asked.app.name, &shown(&scope), hint))
        }
        Ok(Outcome::Code(fields)) => send_on(call, &asked.redirect_uri, &fields),
        Ok(Outcome::Stop(refusal)) => show_refusal(shared, call, &refusal),
        Err(refusal) => {
            let ids = Ids::make(shared, call);
            let mut fields = vec![
                ("error", refusal.error.clone()),
                ("error_description", refusal.description(&ids)),
                ("error_uri", refusal.error_uri()),
            ];
            if refusal.code == 65_004 {
                fields.push(("error_subcode", "cancel".to_owned()));
            }
            send_on(call, &asked.redirect_uri, &fields)
        }
    }
}

enum Outcome {
    Page(Scope),
    Code(Vec<(&'static str, String)>),
    /// The sign-in itself fails; the person sees it and the application does not.
    Stop(Refusal),
}

fn accept(shared: &Shared, call: &Call, asked: &Asked, upn: &str) -> Result<Outcome, Refusal> {
    let mut state = shared.state();
    let Some(user) = state.world.user(upn).cloned() else {
        let text = format!("The user account {upn} does not exist.");
        return Ok(Outcome::Stop(Refusal::grant(50_034, &text)));
    };
    if !user.enabled {
        return Ok(Outcome::Stop(Refusal::grant(50_057, "The user account is disabled.")));
    }
    let Some(tenant) = state.world.tenant(&user.tenant).cloned() else {
        return Ok(Outcome::Stop(Refusal::request(90_002, &unknown_tenant(&user.tenant))));
    };
    if matches!(&asked.segment, Segment::Tenant(id) if *id != tenant.id) {
        let text = format!(
            "User account '{upn}' from identity provider does not exist in the tenant and cannot access the application."
        );
        return Err(Refusal::new(50_020, "access_denied", &text));
    }
    let consented = asked
        .app
        .admin_consent
        .iter()
        .any(|name| state.world.tenant(name).is_some_and(|consenting| consenting.id == tenant.id));
    if !tenant.user_consent_allowed && !consented {
        let text = "An administrator must consent to the application before it can be used.";
        return Err(Refusal::new(90_094, "interaction_required", text));
    }
    let session = state.random.make_guid();
    let code = format!("1.{}", state.random.make_text(600));
    state.consents.insert((user.oid.clone(), asked.app.client_id.to_lowercase()));
    let issued = new_code(shared, call, asked, (&user, &tenant.id));
    state.codes.insert(code.clone(), issued);
    let mut fields = vec![("code", code), ("session_state", session)];
    if call.query("client_info") == Some("1") {
        fields.push(("client_info", super::issue::client_info(&user.oid, &tenant.id)));
    }
    Ok(Outcome::Code(fields))
}

fn new_code(shared: &Shared, call: &Call, asked: &Asked, (user, tenant_id): (&User, &str)) -> Code {
    let is_s256 = call.query("code_challenge_method") == Some("S256");
    Code {
        segment: asked.segment.clone(),
        client_id: asked.app.client_id.clone(),
        redirect_uri: asked.redirect_uri.clone(),
        subject: Subject {
            oid: user.oid.clone(),
            name: user.upn.clone(),
            display_name: user.name.clone(),
            tenant_id: tenant_id.to_owned(),
            is_app: false,
        },
        scope: call.query("scope").unwrap_or_default().to_owned(),
        nonce: call.query("nonce").map(str::to_owned),
        challenge: call.query("code_challenge").map(|text| (text.to_owned(), is_s256)),
        issued_at: shared.clock.now(),
        is_used: false,
    }
}

fn shown(scope: &Scope) -> Vec<String> {
    let service = if scope.is_devops() { "Azure DevOps" } else { "Microsoft Graph" };
    let permissions = scope.permissions.iter().map(|permission| format!("{service}: {permission}"));
    permissions.chain(scope.oidc.iter().cloned()).collect()
}

fn show_refusal(shared: &Shared, call: &Call, refusal: &Refusal) -> Answer {
    let description = refusal.description(&Ids::make(shared, call));
    html(400, pages::message("Sorry, but we’re having trouble signing you in.", &description))
}

/// Answers to the application by way of the browser.
fn send_on(call: &Call, redirect_uri: &str, fields: &[(&'static str, String)]) -> Answer {
    let mut fields = fields.to_vec();
    if let Some(state) = call.query("state") {
        fields.push(("state", state.to_owned()));
    }
    let Ok(mut location) = Url::parse(redirect_uri) else {
        return html(400, pages::message("Sorry", "The redirect URI is no address."));
    };
    // After a form the browser must come with GET, before it came with GET anyway.
    let status = if call.method == "POST" { 303 } else { 302 };
    match call.query("response_mode") {
        Some("form_post") => html(200, pages::form_post(redirect_uri, &fields)),
        Some("fragment") => {
            let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
            location.set_fragment(Some(&text));
            redirect(status, location.as_str())
        }
        _ => {
            location.query_pairs_mut().extend_pairs(&fields);
            redirect(status, location.as_str())
        }
    }
}
