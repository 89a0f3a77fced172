//! What switches put in place of an answer, or do to one.

use super::errors;
use crate::call::{Answer, Call, html, json};
use crate::cut::cut_answer;
use crate::fault::Fault;
use crate::state::Shared;

/// The oldest switch that concerns every answer.
pub(super) fn take(shared: &Shared) -> Option<Fault> {
    shared.take_fault(|fault| {
        let is_refusal = matches!(fault, Fault::ConditionalAccess { .. } | Fault::EdgeBlocked { .. });
        let is_error = matches!(fault, Fault::DevopsOutage { .. } | Fault::DevopsError { .. });
        is_refusal || is_error || matches!(fault, Fault::DevopsThrottle { .. })
    })
}

/// The answer that such a switch gives, whatever was asked.
pub(super) fn instead(fault: Fault) -> Answer {
    match fault {
        Fault::ConditionalAccess { .. } => errors::conditional_access(),
        Fault::EdgeBlocked { .. } => errors::blocked(),
        Fault::DevopsError { status, message, type_key, .. } => {
            json(status, &errors::body(&message, &type_key))
        }
        Fault::DevopsThrottle { retry_after, .. } => errors::slow_down(errors::throttled(), retry_after),
        Fault::DevopsOutage { status, .. } => {
            html(status.unwrap_or(503), "<title>Service unavailable</title>".to_owned())
        }
        other => json(500, &errors::body(&format!("{other:?} gives no answer"), "EmulatorException")),
    }
}

/// Whether this request's answer is to wait.
pub(super) fn holds(shared: &Shared, call: &Call) -> bool {
    let is_meant =
        |fault: &Fault| matches!(fault, Fault::DevopsHold { path, .. } if concerns(path.as_ref(), call));
    shared.take_fault(is_meant).is_some()
}

/// Ends an answer too early, if a switch says so.
pub(super) async fn cut(shared: &Shared, call: &Call, answer: Answer) -> Answer {
    let is_meant =
        |fault: &Fault| matches!(fault, Fault::Truncate { path, .. } if concerns(path.as_ref(), call));
    let is_git = call.segments().contains(&"_git");
    let fault = if is_git { None } else { shared.take_fault(is_meant) };
    let Some(Fault::Truncate { bytes, cleanly, .. }) = fault else {
        return answer;
    };
    cut_answer(answer, bytes, cleanly).await
}

fn concerns(path: Option<&String>, call: &Call) -> bool {
    path.is_none_or(|path| call.path.contains(path.as_str()))
}
