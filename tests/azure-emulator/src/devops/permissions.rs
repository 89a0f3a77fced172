//! The permission check, for the caller itself.
//!
//! Only the bits Read (2) and Contribute (4) of the Git namespace have a meaning here.

use serde_json::{Value, json};

use super::access::Caller;
use super::errors;
use super::repositories::visible_project;
use crate::call::{Answer, Call, json as answer_json};
use crate::world::Licence;

/// GET: several tokens in the query, several booleans in the answer.
pub(super) fn list(call: &Call, caller: &Caller, namespace: &str, bits: &str) -> Answer {
    let Ok(bits) = bits.parse::<u32>() else {
        return malformed();
    };
    let delimiter = call.query("delimiter").filter(|text| !text.is_empty()).unwrap_or(",");
    let tokens = call.query("tokens").unwrap_or_default();
    let value: Vec<bool> =
        tokens.split(delimiter).map(|token| is_allowed(caller, namespace, token, bits)).collect();
    answer_json(200, &json!({ "count": value.len(), "value": value }))
}

/// POST: the request itself, with a value in every evaluation.
pub(super) fn batch(call: &Call, caller: &Caller) -> Answer {
    let Ok(mut body) = serde_json::from_slice::<Value>(&call.body) else {
        return malformed();
    };
    let Some(evaluations) = body.get_mut("evaluations").and_then(Value::as_array_mut) else {
        return malformed();
    };
    for evaluation in evaluations {
        let text = |name: &str| evaluation.get(name).and_then(Value::as_str).unwrap_or_default();
        let bits = evaluation.get("permissions").and_then(Value::as_u64).unwrap_or(0);
        let bits = u32::try_from(bits).unwrap_or(0);
        let value = is_allowed(caller, text("securityNamespaceId"), text("token"), bits);
        evaluation["value"] = json!(value);
    }
    answer_json(200, &body)
}

fn is_allowed(caller: &Caller, namespace: &str, token: &str, bits: u32) -> bool {
    if !namespace.eq_ignore_ascii_case(GIT_NAMESPACE) || caller.licence != Licence::Basic || bits == 0 {
        return false;
    }
    let user = &caller.subject.name;
    let known = bits & !(READ | CONTRIBUTE) == 0;
    match token.split('/').collect::<Vec<_>>().as_slice() {
        ["repoV2"] => known && bits == READ,
        ["repoV2", project] => known && bits == READ && visible_project(caller, project).is_some(),
        ["repoV2", project, repository, ..] => {
            let project = visible_project(caller, project);
            let Some(repository) = project.and_then(|project| project.repository(repository)) else {
                return false;
            };
            let may_read = bits & READ == 0 || repository.is_readable_by(user);
            let may_write = bits & CONTRIBUTE == 0 || repository.is_writable_by(user);
            known && may_read && may_write
        }
        _ => false,
    }
}

fn malformed() -> Answer {
    answer_json(400, &errors::body("The request is not valid.", "VssPropertyValidationException"))
}

const GIT_NAMESPACE: &str = "2e9eb7ed-3c0a-47d4-87c1-0ffdd275fd87";
const READ: u32 = 2;
const CONTRIBUTE: u32 = 4;
