//! Error bodies of Azure DevOps.

use serde_json::{Value, json};

use crate::call::{Answer, html, json as answer_json, with_header};

/// The wrapped exception: a message for people and a key for programs.
pub(super) fn body(message: &str, type_key: &str) -> Value {
    json!({
        "$id": "1",
        "innerException": null,
        "message": message,
        "typeName": format!("Microsoft.TeamFoundation.{type_key}, Microsoft.TeamFoundation"),
        "typeKey": type_key,
        "errorCode": 0,
        "eventId": 3000,
    })
}

pub(super) fn not_authorized(user: &str) -> Value {
    let message = format!("TF400813: The user '{user}' is not authorized to access this resource.");
    body(&message, "UnauthorizedRequestException")
}

/// Of a service principal that was not added to the organization.
pub(super) fn never_signed_in(tenant_id: &str, oid: &str) -> Value {
    let message = format!(
        "TF401444: Please sign-in at least once as {tenant_id}\\{tenant_id}\\{oid} in a web browser to \
         enable access to the service."
    );
    body(&message, "UnauthorizedRequestException")
}

pub(super) fn no_repository(name: &str) -> Answer {
    answer_json(404, &body(&no_repository_text(name), "GitRepositoryNotFoundException"))
}

pub(super) fn no_repository_text(name: &str) -> String {
    format!(
        "TF401019: The Git repository with name or identifier {name} does not exist or you do not \
         have permissions for the operation you are attempting."
    )
}

pub(super) fn no_project(name: &str) -> Answer {
    let message = format!(
        "TF200016: The following project does not exist: {name}. Verify that the name of the \
         project is correct and that the project exists on the specified Azure DevOps Server."
    );
    answer_json(404, &body(&message, "ProjectDoesNotExistWithNameException"))
}

pub(super) fn no_push() -> Answer {
    let message = "TF401027: You need the Git 'GenericContribute' permission to perform this action.";
    answer_json(403, &body(message, "GitNeedsPermissionException"))
}

pub(super) fn throttled() -> Answer {
    let message = "TF400733: Request blocked due to exceeding usage of resource 'Concurrency'.";
    answer_json(429, &body(message, "RequestBlockedException"))
}

/// With the headers that ask to slow down.
pub(super) fn slow_down(answer: Answer, retry_after: Option<u64>) -> Answer {
    let seconds = retry_after.unwrap_or(DEFAULT_RETRY_AFTER);
    let answer = with_header(answer, "retry-after", &seconds.to_string());
    with_header(answer, "x-ratelimit-remaining", "0")
}

pub(super) fn conditional_access() -> Answer {
    let message =
        "VS403463: The conditional access policy defined by your Microsoft Entra administrator has failed.";
    answer_json(403, &body(message, "VssServiceException"))
}

/// What the edge in front of the service says.
pub(super) fn blocked() -> Answer {
    let page = "<!doctype html><title>Blocked</title><h2>The request is blocked.</h2>\
                <p>Ref A: 00000000 Ref B: EMULATOR Ref C: 2026-01-01T00:00:00Z</p>";
    html(403, page.to_owned())
}

pub(super) fn no_resource() -> Answer {
    answer_json(404, &body("The resource cannot be found.", "ResourceNotFoundException"))
}

pub(super) fn unknown_organization() -> Answer {
    html(404, "<!doctype html><title>Azure DevOps Services | 404 Not Found</title>".to_owned())
}

const DEFAULT_RETRY_AFTER: u64 = 30;
