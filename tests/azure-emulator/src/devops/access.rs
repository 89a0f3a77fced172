//! Who calls, and how callers without a good token are sent away.
//!
//! Invariant: a token is good when this emulator issued it for Azure DevOps, it has not
//! expired, and its tenant is the one the organization is connected to. Whether its user may
//! do anything is asked afterwards, of the membership.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::errors;
use crate::call::{Answer, Call, html, json, redirect, with_header};
use crate::fault::{ChallengeKind, Fault};
use crate::hosts::LOGIN;
use crate::state::{AccessToken, Shared, Subject};
use crate::world::{Licence, Organization};

/// A member of the organization.
pub(super) struct Caller {
    pub(super) subject: Subject,
    pub(super) licence: Licence,
    pub(super) organization: Organization,
    pub(super) tenant_id: String,
    /// Of the token; none for an app, which has them all.
    permissions: Vec<String>,
}

impl Caller {
    /// Whether the token's scope lets it read code, or write it.
    pub(super) fn has_scope_of_code(&self, to_write: bool) -> bool {
        self.subject.is_app
            || self.permissions.iter().any(|permission| match permission.as_str() {
                "user_impersonation" | "vso.code_write" | "vso.code_manage" | "vso.code_full" => true,
                "vso.code" => !to_write,
                _ => false,
            })
    }
}

pub(super) enum Refused {
    /// No token, or none that counts here.
    SignedOut,
    /// A good token of somebody who is not a member.
    NotMember(Subject),
    /// A good token whose scope is too narrow, or which a switch refuses.
    NotAuthorized(String),
    /// A token of another tenant, when a switch says so.
    Throttled(Option<u64>),
}

/// The access token of a request: as a bearer, or as a password.
pub(crate) fn credential(call: &Call) -> Option<String> {
    let header = call.header("authorization")?;
    let (scheme, value) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

/// The token of the request, if it is good for Azure DevOps.
pub(super) fn token(shared: &Shared, call: &Call) -> Option<AccessToken> {
    let is_git = call.segments().contains(&"_git");
    let is_bearer = call.header("authorization")?.to_ascii_lowercase().starts_with("bearer ");
    if !is_git && !is_bearer {
        return None;
    }
    let token = shared.state().access_tokens.get(&credential(call)?)?.clone();
    let is_good = token.audience == crate::entra::DEVOPS_ID && shared.clock.now() < token.expires_at;
    is_good.then_some(token)
}

pub(super) fn admit(shared: &Shared, call: &Call, organization: &Organization) -> Result<Caller, Refused> {
    let token = token(shared, call).ok_or(Refused::SignedOut)?;
    let tenant_id = tenant_id(shared, organization).ok_or(Refused::SignedOut)?;
    if token.subject.tenant_id != tenant_id {
        let throttles = shared.find_fault(|fault| matches!(fault, Fault::ThrottleWrongTenant { .. }));
        return Err(match throttles {
            Some(Fault::ThrottleWrongTenant { retry_after }) => Refused::Throttled(retry_after),
            _ => Refused::SignedOut,
        });
    }
    let Some(member) = organization.member(&token.subject.name) else {
        return Err(Refused::NotMember(token.subject));
    };
    if shared.take_fault(|fault| matches!(fault, Fault::NotAuthorized { .. })).is_some() {
        return Err(Refused::NotAuthorized(token.subject.name));
    }
    Ok(Caller {
        permissions: token.permissions,
        subject: token.subject,
        licence: member.licence,
        organization: organization.clone(),
        tenant_id,
    })
}

impl Refused {
    pub(super) fn into_answer(self, shared: &Shared, call: &Call, organization: &Organization) -> Answer {
        match self {
            Self::SignedOut => signed_out(shared, call, organization),
            Self::NotAuthorized(name) => {
                challenged(shared, organization, json(401, &errors::not_authorized(&name)))
            }
            Self::Throttled(seconds) => errors::slow_down(errors::throttled(), seconds),
            Self::NotMember(subject) => {
                let body = if subject.is_app {
                    errors::never_signed_in(&subject.tenant_id, &subject.oid)
                } else {
                    errors::not_authorized(&subject.name)
                };
                challenged(shared, organization, json(401, &body))
            }
        }
    }
}

/// The trap: 401 to those who know how to ask, a sign-in page or redirect to the others.
fn signed_out(shared: &Shared, call: &Call, organization: &Organization) -> Answer {
    let mode = shared.find_fault(|fault| matches!(fault, Fault::SignInMode { .. }));
    let (status, always) = match mode {
        Some(Fault::SignInMode { status, always }) => (status, always),
        _ => (302, false),
    };
    let suppressed =
        call.header("x-tfs-fedauthredirect").is_some_and(|value| value.eq_ignore_ascii_case("suppress"));
    let is_git = call.segments().contains(&"_git");
    let is_read = matches!(call.method.as_str(), "GET" | "HEAD" | "POST");
    match status {
        203 | 302 if (suppressed || is_git || !is_read) && !always => unauthorized(shared, organization),
        203 => html(203, SIGN_IN_PAGE.to_owned()),
        302 => redirect(302, SIGN_IN_ADDRESS),
        _ => unauthorized(shared, organization),
    }
}

fn unauthorized(shared: &Shared, organization: &Organization) -> Answer {
    challenged(shared, organization, json(401, &errors::not_authorized(ANONYMOUS)))
}

/// Adds the three challenges and the tenant of the organization.
fn challenged(shared: &Shared, organization: &Organization, answer: Answer) -> Answer {
    let kind = match shared.find_fault(|fault| matches!(fault, Fault::Challenge { .. })) {
        Some(Fault::Challenge { kind }) => kind,
        _ => ChallengeKind::Aad,
    };
    let tenant_id = tenant_id(shared, organization).filter(|_| kind != ChallengeKind::Msa);
    let host = if kind == ChallengeKind::Old { "login.windows.net" } else { LOGIN };
    let bearer = tenant_id.as_ref().map(|id| format!("Bearer authorization_uri=https://{host}/{id}"));
    let answer = match &bearer {
        Some(bearer) => with_header(answer, "www-authenticate", bearer),
        None => answer,
    };
    let answer =
        with_header(answer, "www-authenticate", "Basic realm=\"https://tfsprodemu1.visualstudio.com/\"");
    let answer = with_header(answer, "www-authenticate", "TFS-Federated");
    with_header(answer, "x-vss-resourcetenant", tenant_id.as_deref().unwrap_or(NO_TENANT))
}

fn tenant_id(shared: &Shared, organization: &Organization) -> Option<String> {
    let state = shared.state();
    state.world.tenant(organization.tenant.as_ref()?).map(|tenant| tenant.id.clone())
}

/// The identity that Azure DevOps uses for those it does not know.
pub(super) const ANONYMOUS: &str = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";
const NO_TENANT: &str = "00000000-0000-0000-0000-000000000000";
const SIGN_IN_PAGE: &str = "<!doctype html>\n<html><head><title>Azure DevOps Services | Sign In</title></head><body></body></html>\n";
const SIGN_IN_ADDRESS: &str = "https://spsprodemu1.vssps.visualstudio.com/_signin?realm=dev.azure.com&reply_to=https%3A%2F%2Fdev.azure.com%2F&redirect=1";
