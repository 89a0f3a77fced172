//! Azure DevOps: REST and git of the organizations in the world.
//!
//! A call arrives as `/{org}/…`, also that of a legacy host. Deliberately absent: personal
//! access tokens, the location service of the SDKs, and everything but code.

mod access;
mod errors;
mod git;
mod permissions;
mod profile;
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
    match access::admit(shared, call, &organization) {
        Ok(caller) => route(shared, call, &caller),
        Err(refused) => refused.into_answer(shared, call, &organization),
    }
}

fn route(shared: &Shared, call: &Call, caller: &Caller) -> Answer {
    match (call.method.as_str(), &call.segments()[1..]) {
        ("GET" | "HEAD", ["_apis", "connectionData"]) => profile::connection_data(caller),
        ("GET", ["_apis", "projects"]) => repositories::projects(call, caller),
        ("GET", ["_apis", "projects", project]) => repositories::project(caller, project),
        ("GET", ["_apis", "git", "repositories"]) => repositories::list(shared, caller, None),
        ("GET", [project, "_apis", "git", "repositories"]) => {
            repositories::list(shared, caller, Some(project))
        }
        ("GET", ["_apis", "git", "repositories", id]) => repositories::single(caller, None, id),
        ("GET", [project, "_apis", "git", "repositories", id]) => {
            repositories::single(caller, Some(project), id)
        }
        ("GET", ["_apis", "permissions", namespace, bits]) => {
            permissions::list(call, caller, namespace, bits)
        }
        ("POST", ["_apis", "security", "permissionevaluationbatch"]) => permissions::batch(call, caller),
        _ => json(404, &errors::body("The resource cannot be found.", "ResourceNotFoundException")),
    }
}

const DEFAULT_RETRY_AFTER: u64 = 30;
