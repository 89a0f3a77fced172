//! Entra ID v2.0: discovery, sign-in and tokens.
//!
//! Deliberately absent: device codes, on-behalf-of,
//! guests, personal accounts, and everything of v1.

mod admission;
mod assertion;
mod authorize;
mod client;
mod discovery;
mod errors;
mod grants;
mod issue;
mod pages;
mod scope;
mod token;

use axum::http::Method;

use self::errors::Refusal;

use crate::call::{Answer, Call, html, text};
use crate::fault::Fault;
use crate::state::{Segment, Shared};
use crate::world::World;

pub(crate) use self::scope::DEVOPS_ID;

pub(crate) async fn answer(shared: &Shared, call: &Call) -> Answer {
    let is_discovery = call.segments().iter().any(|part| matches!(*part, "discovery" | ".well-known"));
    let outage = |fault: &Fault| matches!(fault, Fault::DiscoveryOutage { .. });
    if is_discovery && shared.take_fault(outage).is_some() {
        return text(503, "The service is unavailable");
    }
    match (call.method.as_str(), call.segments().as_slice()) {
        ("POST", [tenant, "oauth2", "v2.0", "token"]) => token::answer(shared, call, tenant).await,
        ("GET", [tenant, "v2.0", ".well-known", "openid-configuration"]) => {
            discovery::configuration(shared, call, tenant)
        }
        ("GET", [tenant, "discovery", "v2.0", "keys"]) => discovery::keys(shared, call, tenant),
        ("GET", ["common", "discovery", "instance"]) => discovery::instance(),
        (_, [_, "oauth2", "v2.0", "token"]) => {
            let refusal = Refusal::request(900_144, "The request must be a POST.");
            refusal.into_answer(shared, call)
        }
        _ => answer_browser(shared, call),
    }
}

/// The pages that a person sees.
pub(crate) fn answer_browser(shared: &Shared, call: &Call) -> Answer {
    match call.segments().as_slice() {
        [tenant, "oauth2", "v2.0", "authorize"] if call.method == Method::GET => {
            authorize::show(shared, call, tenant)
        }
        [tenant, "oauth2", "v2.0", "authorize"] if call.method == Method::POST => {
            authorize::decide(shared, call, tenant)
        }
        [_, "oauth2", "v2.0", "logout"] => html(200, pages::message("Signed out", "You are signed out.")),
        [] if call.door == crate::call::Door::Browser => html(200, pages::front()),
        _ => text(404, ""),
    }
}

/// What a tenant segment means; `None` for an unknown tenant.
fn segment(world: &World, tenant: &str) -> Option<Segment> {
    match tenant {
        "common" | "organizations" | "consumers" => Some(Segment::Any(tenant.to_owned())),
        _ => world.tenant(tenant).map(|tenant| Segment::Tenant(tenant.id.clone())),
    }
}

fn unknown_tenant(tenant: &str) -> String {
    format!(
        "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are \
         signing into the correct cloud."
    )
}
