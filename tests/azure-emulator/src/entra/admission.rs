//! What is checked before a person is asked.
//!
//! Invariant: nothing is redirected to an address that is not registered. Problems with the
//! client or the address are shown on a page and the application never hears of them.

use url::Url;

use super::errors::Refusal;
use super::scope::Scope;
use super::{segment, unknown_tenant};
use crate::call::Call;
use crate::state::{Segment, Shared};
use crate::world::{App, same};

/// A request that may be answered by a redirect.
pub(super) struct Asked {
    pub(super) segment: Segment,
    pub(super) app: App,
    pub(super) redirect_uri: String,
}

/// What must hold before anything may be redirected.
pub(super) fn admit(shared: &Shared, call: &Call, tenant: &str) -> Result<Asked, Refusal> {
    let state = shared.state();
    let segment =
        segment(&state.world, tenant).ok_or_else(|| Refusal::request(90_002, &unknown_tenant(tenant)))?;
    let client_id = call.query("client_id").unwrap_or_default();
    let unknown = || {
        let text =
            format!("Application with identifier '{client_id}' was not found in the directory '{tenant}'.");
        Refusal::new(700_016, "unauthorized_client", &text)
    };
    let app = state.world.app(client_id).ok_or_else(unknown)?.clone();
    if !app.enabled {
        let text = format!("Application '{client_id}' is disabled.");
        return Err(Refusal::new(7_000_112, "unauthorized_client", &text));
    }
    let home = state.world.tenant(&app.home_tenant).map(|tenant| tenant.id.clone());
    match &segment {
        Segment::Any(_) if !app.multitenant => {
            let text = format!("Application '{client_id}' is not configured as a multi-tenant application.");
            return Err(Refusal::request(50_194, &text));
        }
        Segment::Tenant(id) if !app.multitenant && Some(id) != home.as_ref() => {
            return Err(unknown());
        }
        Segment::Any(_) | Segment::Tenant(_) => {}
    }
    let redirect_uri = call.query("redirect_uri").unwrap_or_default().to_owned();
    if !app.redirect_uris.iter().any(|registered| is_registered(registered, &redirect_uri)) {
        let text = format!(
            "The redirect URI '{redirect_uri}' specified in the request does not match the redirect \
             URIs configured for the application '{client_id}'."
        );
        return Err(Refusal::request(50_011, &text));
    }
    Ok(Asked { segment, app, redirect_uri })
}

/// What may be wrong with the rest; the application is told by a redirect.
pub(super) fn check(call: &Call, asked: &Asked) -> Result<Scope, Refusal> {
    if call.query("response_type") != Some("code") {
        let text = "The emulator knows only response_type=code.";
        return Err(Refusal::new(700_054, "unsupported_response_type", text));
    }
    let scope = call.query("scope").filter(|scope| !scope.is_empty()).ok_or_else(|| {
        Refusal::request(900_144, "The request body must contain the following parameter: 'scope'.")
    })?;
    if !matches!(call.query("response_mode"), None | Some("query" | "fragment" | "form_post")) {
        return Err(Refusal::request(70_007, "The response_mode is not supported."));
    }
    if !matches!(call.query("prompt"), None | Some("login" | "none" | "consent" | "select_account")) {
        return Err(Refusal::request(90_023, "The prompt value is not supported."));
    }
    if call.query("prompt") == Some("none") {
        return Err(Refusal::new(50_058, "login_required", "No session exists for a silent sign-in."));
    }
    let challenge = call.query("code_challenge");
    if challenge.is_some_and(|challenge| !(43..=128).contains(&challenge.len())) {
        return Err(Refusal::request(50_147, "The size of the code challenge parameter is not valid."));
    }
    if !matches!(call.query("code_challenge_method"), None | Some("S256" | "plain")) {
        return Err(Refusal::request(90_013, "The code_challenge_method is not supported."));
    }
    let scope = Scope::parse(scope)?;
    for permission in scope.permissions.iter().filter(|permission| *permission != ".default") {
        if !scope.is_devops() && permission == "user_impersonation" {
            let text = "The scope 'user_impersonation' does not exist on the resource '00000003-0000-0000-c000-000000000000'.";
            return Err(Refusal::new(650_053, "invalid_scope", text));
        }
        if scope.is_devops() && !asked.app.permissions.contains(permission) {
            let text = "The client has requested access to a resource which is not listed in the requested permissions in the client's application registration.";
            return Err(Refusal::client(650_057, text));
        }
    }
    Ok(scope)
}

/// Exact, but for the port of localhost. Paths are case-sensitive.
fn is_registered(registered: &str, asked: &str) -> bool {
    let (Ok(registered_url), Ok(asked_url)) = (Url::parse(registered), Url::parse(asked)) else {
        return false;
    };
    let is_local = |url: &Url| url.scheme() == "http" && url.host_str() == Some("localhost");
    if is_local(&registered_url) && is_local(&asked_url) {
        return registered_url.path() == asked_url.path() && registered_url.query() == asked_url.query();
    }
    let is_allowed =
        asked_url.scheme() == "https" || asked_url.host_str().is_some_and(|host| same(host, "127.0.0.1"));
    is_allowed && registered_url == asked_url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_port_of_localhost_is_ignored() {
        let registered = "http://localhost/complete/a";

        assert!(is_registered(registered, "http://localhost:8080/complete/a"));
        assert!(!is_registered(registered, "http://localhost:8080/complete/A"));
        assert!(!is_registered(registered, "http://localhost:8080/complete/a/"));
        assert!(!is_registered(registered, "http://evil.example/complete/a"));
        assert!(!is_registered("https://a.example/x", "https://a.example:8443/x"));
    }
}
