//! Azure DevOps: REST and git of the organizations in the world.
//!
//! A call arrives as `/{org}/…`, also that of a legacy host. Of the SDKs' location service there is what
//! finds the routes ([`locations`]). Deliberately absent: personal access tokens, and everything but code.

mod access;
mod errors;
mod faults;
mod git;
mod locations;
mod permissions;
mod profile;
mod refs;
mod repositories;
mod usage;

use self::access::{Caller, Refused};
use crate::call::{Answer, Call, text};
use crate::fault::Fault;
use crate::state::Shared;

pub(crate) use self::access::credential;
pub(crate) use self::profile::answer_profile;
pub(crate) use self::usage::Usage;

pub(crate) async fn answer(shared: &Shared, call: &Call) -> Answer {
    if shared.take_fault(|fault| matches!(fault, Fault::DevopsHang { .. })).is_some() {
        shared.gate.wait().await;
    }
    let answer = match faults::take(shared) {
        Some(Fault::DevopsThrottle { retry_after, delayed: true, .. }) => {
            errors::slow_down(admitted(shared, call).await, retry_after)
        }
        Some(fault) => faults::instead(fault),
        None => admitted(shared, call).await,
    };
    let answer = faults::cut(shared, call, answer).await;
    if faults::holds(shared, call) {
        shared.gate.wait().await;
    }
    answer
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
    let caller = match access::admit(shared, call, &organization) {
        Ok(caller) => caller,
        Err(refused) => return refused.into_answer(shared, call, &organization),
    };
    match usage::count(shared, &caller.subject.oid) {
        Ok(left) => usage::say(left, route(shared, call, &caller).await),
        Err(refused) => *refused,
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
    if names == ["git", "repositories"] && !caller.has_scope_of_code(false) {
        let refused = Refused::NotAuthorized(caller.subject.name.clone());
        return refused.into_answer(shared, call, &caller.organization);
    }
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
        ("GET", ["projects"], _) => repositories::projects(shared, call, caller),
        ("GET", ["projects", _], [_, project]) => repositories::project(caller, project),
        ("GET", ["permissions", _], [_, namespace, bits]) => permissions::list(call, caller, namespace, bits),
        ("POST", ["security", "permissionevaluationbatch"], [_, _]) => permissions::batch(call, caller),
        _ => errors::no_resource(),
    }
}
