//! Azure DevOps: REST and git of the organizations in the world.
//!
//! A call arrives as `/{org}/…`, also that of a legacy host. Deliberately absent: personal
//! access tokens, the location service of the SDKs, and everything but code.

mod access;
mod errors;
mod git;
mod locations;
mod permissions;
mod profile;
mod refs;
mod repositories;

use self::access::Caller;
use crate::call::{Answer, Call, html, json, text, with_header};
use crate::fault::Fault;
use crate::state::Shared;

pub(crate) use self::access::credential;
pub(crate) use self::profile::answer_profile;

pub(crate) async fn answer(shared: &Shared, call: &Call) -> Answer {
    if shared.take_fault(|fault| matches!(fault, Fault::DevopsHang { .. })).is_some() {
        shared.gate.wait().await;
    }
    if let Some(Fault::DevopsOutage { status, .. }) =
        shared.take_fault(|fault| matches!(fault, Fault::DevopsOutage { .. }))
    {
        return html(status.unwrap_or(503), "<title>Service unavailable</title>".to_owned());
    }
    if let Some(Fault::DevopsError { status, message, type_key, .. }) =
        shared.take_fault(|fault| matches!(fault, Fault::DevopsError { .. }))
    {
        return json(status, &errors::body(&message, &type_key));
    }
    let throttle = shared.take_fault(|fault| matches!(fault, Fault::DevopsThrottle { .. }));
    let Some(Fault::DevopsThrottle { retry_after, delayed, .. }) = throttle else {
        return admitted(shared, call).await;
    };
    let answer = if delayed { admitted(shared, call).await } else { errors::throttled() };
    let seconds = retry_after.unwrap_or(DEFAULT_RETRY_AFTER).to_string();
    let answer = with_header(answer, "retry-after", &seconds);
    with_header(answer, "x-ratelimit-remaining", "0")
}

async fn admitted(shared: &Shared, call: &Call) -> Answer {
    let segments = call.segments();
    let Some(organization) = segments.first() else {
        return text(404, "");
    };
    let organization = shared.state().world.organization(organization).cloned();
    let Some(organization) = organization else {
        return errors::unknown_organization();
    };
    if segments.contains(&"_git") {
        return git::answer(shared, call, &organization).await;
    }
    if call.method == "OPTIONS" && segments[1..] == ["_apis"] {
        return locations::routes();
    }
    match access::admit(shared, call, &organization) {
        Ok(caller) => route(shared, call, &caller).await,
        Err(refused) => refused.into_answer(shared, call, &organization),
    }
}

/// `{project}/_apis/…` and `_apis/…`, the areas of code and of organizations.
async fn route(shared: &Shared, call: &Call, caller: &Caller) -> Answer {
    let segments = call.segments();
    let (project, rest) = match &segments[1..] {
        ["_apis", rest @ ..] => (None, rest),
        [project, "_apis", rest @ ..] => (Some(*project), rest),
        _ => return errors::no_resource(),
    };
    // Names of areas and resources are compared without regard to case.
    let names: Vec<String> = rest.iter().take(2).map(|name| name.to_lowercase()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match (call.method.as_str(), names.as_slice(), rest) {
        ("GET", ["git", "repositories"], [_, _]) => repositories::list(shared, caller, project),
        ("GET", ["git", "repositories"], [_, _, id]) => repositories::single(caller, project, id),
        ("GET", ["git", "repositories"], [_, _, id, "refs"]) => {
            refs::list(shared, call, caller, (project, id)).await
        }
        _ if project.is_some() => errors::no_resource(),
        ("GET" | "HEAD", ["connectiondata"], _) => profile::connection_data(caller),
        ("GET", ["resourceareas"], _) => locations::areas(caller),
        ("GET", ["resourceareas", _], [_, id]) => locations::area(caller, id),
        ("GET", ["projects"], _) => repositories::projects(call, caller),
        ("GET", ["projects", _], [_, project]) => repositories::project(caller, project),
        ("GET", ["permissions", _], [_, namespace, bits]) => permissions::list(call, caller, namespace, bits),
        ("POST", ["security", "permissionevaluationbatch"], [_, _]) => permissions::batch(call, caller),
        _ => errors::no_resource(),
    }
}

const DEFAULT_RETRY_AFTER: u64 = 30;
