//! The documents by which clients find endpoints and keys.
//!
//! They name the real hosts: clients reach the emulator under these names, through the proxy.

use serde_json::json;

use super::errors::Refusal;
use super::{segment, unknown_tenant};
use crate::call::{Answer, Call, json as answer_json};
use crate::hosts::LOGIN;
use crate::state::{Segment, Shared};

/// The issuer of v2.0 tokens: of one tenant, or the template of all.
pub(super) fn issuer(segment: &Segment) -> String {
    match segment {
        Segment::Tenant(id) => format!("https://{LOGIN}/{id}/v2.0"),
        Segment::Any(_) => format!("https://{LOGIN}/{{tenantid}}/v2.0"),
    }
}

pub(super) fn configuration(shared: &Shared, call: &Call, tenant: &str) -> Answer {
    let Some(segment) = segment(&shared.state().world, tenant) else {
        return unknown(shared, call, tenant);
    };
    let name = match &segment {
        Segment::Tenant(name) | Segment::Any(name) => name,
    };
    let base = format!("https://{LOGIN}/{name}");
    answer_json(
        200,
        &json!({
            "token_endpoint": format!("{base}/oauth2/v2.0/token"),
            "token_endpoint_auth_methods_supported":
                ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": format!("{base}/discovery/v2.0/keys"),
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": issuer(&segment),
            "request_uri_parameter_supported": false,
            "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
            "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
            "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
            "http_logout_supported": true,
            "frontchannel_logout_supported": true,
            "end_session_endpoint": format!("{base}/oauth2/v2.0/logout"),
            "tenant_region_scope": "NA",
            "cloud_instance_name": "microsoftonline.com",
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": "graph.microsoft.com",
            "rbac_url": "https://pas.windows.net",
        }),
    )
}

pub(super) fn keys(shared: &Shared, call: &Call, tenant: &str) -> Answer {
    let segment = segment(&shared.state().world, tenant);
    match segment {
        Some(segment) => answer_json(200, &shared.keys.jwks(&issuer(&segment))),
        None => unknown(shared, call, tenant),
    }
}

pub(super) fn instance() -> Answer {
    let endpoint = format!("https://{LOGIN}/common/v2.0/.well-known/openid-configuration");
    let aliases = [LOGIN, "login.windows.net", "login.microsoft.com", "sts.windows.net"];
    answer_json(
        200,
        &json!({
            "tenant_discovery_endpoint": endpoint,
            "api-version": "1.1",
            "metadata": [{
                "preferred_network": LOGIN, "preferred_cache": "login.windows.net", "aliases": aliases,
            }],
        }),
    )
}

fn unknown(shared: &Shared, call: &Call, tenant: &str) -> Answer {
    let refusal =
        Refusal { error: "invalid_tenant".to_owned(), ..Refusal::request(90_002, &unknown_tenant(tenant)) };
    refusal.into_answer(shared, call)
}
