//! The token endpoint: evaluates a request in the order of the contract.
//!
//! Invariants:
//!
//! 1. Every request is recorded with its outcome before it is answered, also while the answer
//!    is held back.
//! 2. A request that hangs is not evaluated before it is released.

use super::client::{basic_credentials, check_client};
use super::errors::{Ids, Refusal, with_ids};
use super::grants::{by_client, by_code, by_refresh_token, check_consent, check_user};
use super::issue::{Grant, Issued, issue};
use super::{segment, unknown_tenant};
use crate::call::{Answer, Call, html, json as answer_json, text, value_of, with_header};
use crate::cut::cut_answer;
use crate::fault::Fault;
use crate::random::fingerprint;
use crate::record::TokenRequest;
use crate::state::{Segment, Shared, State, Subject};
use crate::world::App;

/// The fields of a request, after client authentication was found wherever it was.
pub(super) struct Request {
    form: Vec<(String, String)>,
    pub(super) client_id: String,
    pub(super) secret: Option<String>,
    pub(super) is_twice_authenticated: bool,
}

impl Request {
    fn read(call: &Call) -> Self {
        let form = call.form();
        let basic = call.header("authorization").and_then(basic_credentials);
        let ways = ["client_secret", "client_assertion"];
        let ways = ways.into_iter().filter(|name| field(&form, name).is_some()).count();
        let is_twice_authenticated = ways + usize::from(basic.is_some()) > 1;
        let (client_id, secret) = basic.map_or_else(
            || (value_of(&form, "client_id").unwrap_or_default().to_owned(), field(&form, "client_secret")),
            |(id, secret)| (id, Some(secret)),
        );
        Self { form, client_id, secret, is_twice_authenticated }
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        value_of(&self.form, name).filter(|value| !value.is_empty())
    }

    pub(super) fn need(&self, name: &str) -> Result<&str, Refusal> {
        self.field(name).ok_or_else(|| {
            let text = format!("The request body must contain the following parameter: '{name}'.");
            Refusal::request(900_144, &text)
        })
    }
}

pub(super) async fn answer(shared: &Shared, call: &Call, tenant: &str) -> Answer {
    if shared.take_fault(|fault| matches!(fault, Fault::EntraHang { .. })).is_some() {
        shared.gate.wait().await;
    }
    let request = Request::read(call);
    let is_within_limit = shared.state().let_through();
    let beyond = || Fault::EntraThrottle { retry_after: Some(1), count: None };
    let fault = if is_within_limit { shared.take_fault(is_answer_fault) } else { Some(beyond()) };
    let outcome = match fault {
        Some(fault) => Err(forced(fault)),
        None => evaluate(shared, call, tenant, &request).map_err(Failure::Refused),
    };
    let record = recorded(shared, tenant, &request, &outcome);
    shared.state().log.token(call.n, record);
    let answer = match outcome {
        Ok((_, issued)) => {
            let ids = Ids::make(shared, call);
            with_ids(answer_json(200, &issued.body), call, &ids)
        }
        Err(Failure::Refused(refusal)) => refusal.into_answer(shared, call),
        Err(Failure::Broken(answer)) => *answer,
    };
    if shared.take_fault(|fault| matches!(fault, Fault::EntraHold { .. })).is_some() {
        shared.gate.wait().await;
    }
    match shared.take_fault(|fault| matches!(fault, Fault::EntraCut { .. })) {
        Some(_) => cut_answer(answer, ENOUGH_TO_BEGIN, false).await,
        None => answer,
    }
}

/// Bytes of an answer that breaks off: none of its tokens is whole.
const ENOUGH_TO_BEGIN: usize = 20;

enum Failure {
    Refused(Refusal),
    /// Not the answer of a token endpoint.
    Broken(Box<Answer>),
}

fn is_answer_fault(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::EntraError { .. }
            | Fault::EntraThrottle { .. }
            | Fault::EntraOutage { .. }
            | Fault::EntraHtml { .. }
            | Fault::EntraNothing { .. }
    )
}

fn forced(fault: Fault) -> Failure {
    let broken = |answer: Answer, retry_after: Option<u64>| {
        Failure::Broken(Box::new(match retry_after {
            Some(seconds) => with_header(answer, "retry-after", &seconds.to_string()),
            None => answer,
        }))
    };
    match fault {
        Fault::EntraError { code, error, suberror, claims, http, .. } => {
            let usual = Refusal::of_code(code);
            let http = http
                .unwrap_or_else(|| if error.as_deref() == Some("invalid_client") { 401 } else { usual.http });
            Failure::Refused(Refusal {
                error: error.unwrap_or(usual.error),
                suberror: suberror.or(usual.suberror),
                claims,
                http,
                ..Refusal::of_code(code)
            })
        }
        Fault::EntraNothing { .. } => broken(text(404, ""), None),
        Fault::EntraThrottle { retry_after, .. } => broken(text(429, "Too many requests"), retry_after),
        Fault::EntraOutage { status, retry_after, .. } => {
            broken(text(status.unwrap_or(503), "The service is unavailable"), retry_after)
        }
        _ => broken(
            html(200, "<!doctype html><title>Proxy</title><p>Sign in to this network.".to_owned()),
            None,
        ),
    }
}

/// Steps 1 to 12 of the contract's order.
fn evaluate(
    shared: &Shared,
    call: &Call,
    tenant: &str,
    request: &Request,
) -> Result<(Grant, Issued), Refusal> {
    if request.form.is_empty() {
        return Err(Refusal::request(
            900_144,
            "The request body must contain the following parameter: 'grant_type'.",
        ));
    }
    let now = shared.clock.now();
    let mut state = shared.state();
    let segment =
        segment(&state.world, tenant).ok_or_else(|| Refusal::request(90_002, &unknown_tenant(tenant)))?;
    let grant_type = request.need("grant_type")?;
    if !matches!(grant_type, "authorization_code" | "refresh_token" | "client_credentials") {
        let text = format!("The app requested an unsupported grant type '{grant_type}'.");
        return Err(Refusal::new(70_003, "unsupported_grant_type", &text));
    }
    let app = known_app(&state, &segment, request)?;
    check_shape(request, grant_type)?;
    let credential = check_client(&state.world, call, request, (&app, tenant), now)?;
    let grant = match grant_type {
        "authorization_code" => by_code(&mut state, request, &segment, now)?,
        "refresh_token" => by_refresh_token(&mut state, request, &segment, now)?,
        _ => by_client(&state, request, &segment, &app)?,
    };
    check_user(&state, &grant.subject)?;
    check_consent(&state, &grant, &app)?;
    drop(state);
    let issued = issue(shared, &grant, &app, credential);
    Ok((grant, issued))
}

/// Step 4.
fn known_app(state: &State, segment: &Segment, request: &Request) -> Result<App, Refusal> {
    if request.client_id.is_empty() {
        request.need("client_id")?;
    }
    let client_id = &request.client_id;
    let home = |app: &App| state.world.tenant(&app.home_tenant).map(|tenant| tenant.id.clone());
    let is_here = |app: &&App| match segment {
        Segment::Tenant(id) => app.multitenant || home(app).as_ref() == Some(id),
        Segment::Any(_) => true,
    };
    let app = state.world.app(client_id).filter(is_here).ok_or_else(|| {
        let text = format!("Application with identifier '{client_id}' was not found in the directory.");
        Refusal::new(700_016, "unauthorized_client", &text)
    })?;
    if !app.enabled {
        let text = format!("Application '{client_id}' is disabled.");
        return Err(Refusal::new(7_000_112, "unauthorized_client", &text));
    }
    Ok(app.clone())
}

/// Step 5: the shape of a code or refresh token, before the secret is looked at.
fn check_shape(request: &Request, grant_type: &str) -> Result<(), Refusal> {
    let name = match grant_type {
        "authorization_code" => "code",
        "refresh_token" => "refresh_token",
        _ => return Ok(()),
    };
    let value = request.need(name)?;
    let is_token =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let is_well_formed = value.strip_prefix("1.").is_some_and(|rest| rest.len() > 100 && is_token(rest));
    if is_well_formed {
        Ok(())
    } else {
        Err(Refusal::grant(9_002_313, "Invalid request. Request is malformed or invalid."))
    }
}

fn recorded(
    shared: &Shared,
    tenant: &str,
    request: &Request,
    outcome: &Result<(Grant, Issued), Failure>,
) -> TokenRequest {
    let (subject, issued) = match outcome {
        Ok((grant, issued)) => (Some(grant.subject.clone()), Some(issued)),
        Err(_) => (owner(shared, request), None),
    };
    let refresh_token = issued.and_then(|issued| issued.refresh_token.clone());
    let access_token = issued.map(|issued| issued.access_token.clone());
    TokenRequest {
        n: 0,
        time: shared.clock.now(),
        tenant: tenant.to_owned(),
        client_id: request.client_id.clone(),
        grant_type: request.field("grant_type").unwrap_or_default().to_owned(),
        scope: request.field("scope").unwrap_or_default().to_owned(),
        outcome: match outcome {
            Ok(_) => Ok(()),
            Err(Failure::Refused(refusal)) => Err(refusal.code),
            Err(Failure::Broken(_)) => Err(0),
        },
        user_oid: subject.as_ref().map(|subject| subject.oid.clone()),
        user_upn: subject.map(|subject| subject.name),
        rt_used: request.field("refresh_token").map(fingerprint),
        rt_issued: refresh_token.as_deref().map(fingerprint),
        at_issued: access_token.as_deref().map(fingerprint),
        code: request.field("code").map(str::to_owned),
        code_verifier: request.field("code_verifier").map(str::to_owned),
        refresh_token,
        access_token,
        expires_in: issued.map(|issued| issued.expires_in),
        credential: issued.map(|issued| issued.credential.clone()),
    }
}

/// Whose code or refresh token a refused request came with.
fn owner(shared: &Shared, request: &Request) -> Option<Subject> {
    let state = shared.state();
    let by_code = || state.codes.get(request.field("code")?).map(|code| code.subject.clone());
    let by_token =
        || state.refresh_tokens.get(request.field("refresh_token")?).map(|token| token.subject.clone());
    by_code().or_else(by_token)
}

fn field(form: &[(String, String)], name: &str) -> Option<String> {
    value_of(form, name).filter(|value| !value.is_empty()).map(str::to_owned)
}
