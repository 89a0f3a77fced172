//! What an answer of Azure DevOps means (azure.md 3.7, 3.8).
//!
//! Matched by exception type, then by the TF or VS code the message begins with, then by status:
//! statuses differ between routes. Messages are looked at and never kept.

use serde_json::{Map, Value};

use super::DevopsError;
use crate::outgoing::Answer;

/// The body of an answer that is one.
pub(super) fn read(answer: &Answer) -> Result<&[u8], DevopsError> {
    // The trap: a sign-in page, answered with success.
    let is_sign_in = answer.status == 203
        || (300..400).contains(&answer.status)
        || (answer.is_success() && answer.is_html());
    if is_sign_in {
        return Err(DevopsError::Unauthenticated);
    }
    if answer.is_success() {
        return if answer.is_json() { Ok(answer.text_bytes()) } else { Err(DevopsError::Unparseable) };
    }
    Err(refused(answer))
}

fn refused(answer: &Answer) -> DevopsError {
    if answer.status == 429 {
        return DevopsError::Throttled { retry_after: answer.retry_after };
    }
    if answer.is_html() {
        return refused_by_page(answer.status);
    }
    let (kind, message) = parse(answer);
    by_kind(&kind).or_else(|| by_code(&message, answer)).unwrap_or_else(|| by_status(answer.status))
}

fn by_kind(kind: &str) -> Option<DevopsError> {
    match kind {
        "GitNeedsPermissionException" => Some(DevopsError::Forbidden),
        "GitRepositoryNotFoundException"
        | "ProjectDoesNotExistException"
        | "ProjectDoesNotExistWithNameException" => Some(DevopsError::NotFound),
        _ => None,
    }
}

fn by_code(message: &str, answer: &Answer) -> Option<DevopsError> {
    match message.split([':', ' ']).next().unwrap_or_default() {
        // With the anonymous identity in quotes it is not about a person: there was no token.
        "TF400813" if message.contains(ANONYMOUS) => Some(DevopsError::Unauthenticated),
        "TF400813" | "TF401444" => Some(DevopsError::NotAMember),
        "TF401027" | "VS403463" => Some(DevopsError::Forbidden),
        "TF200016" | "TF401019" | "VS800075" => Some(DevopsError::NotFound),
        "TF400733" => Some(DevopsError::Throttled { retry_after: answer.retry_after }),
        "TF400324" | "VS402335" => Some(DevopsError::Unavailable),
        _ => None,
    }
}

fn by_status(status: u16) -> DevopsError {
    match status {
        401 => DevopsError::Unauthenticated,
        403 => DevopsError::Forbidden,
        404 => DevopsError::NotFound,
        408 | 500.. => DevopsError::Unavailable,
        _ => DevopsError::Unparseable,
    }
}

/// A page comes from what stands before Azure DevOps: a 403 there is the edge, not a permission.
fn refused_by_page(status: u16) -> DevopsError {
    match status {
        403 => DevopsError::Unavailable,
        _ => by_status(status),
    }
}

/// Exception type and message, in any of the shapes they come in.
fn parse(answer: &Answer) -> (String, String) {
    let Ok(body) = serde_json::from_slice::<Map<String, Value>>(answer.text_bytes()) else {
        return (String::new(), String::from_utf8_lossy(answer.text_bytes()).trim().to_owned());
    };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let wrapped = body.get("value").and_then(|value| value.get("Message"));
    let message = body.get("message").or_else(|| body.get("Message")).or(wrapped);
    (text(body.get("typeKey")), text(message))
}

/// The identity of whoever is not signed in (azure.md 3.2).
pub(super) const ANONYMOUS: &str = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8; api-version=7.1");
    const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");
    const TEXT: (&str, &str) = ("content-type", "text/plain");

    fn error(status: u16, header: (&'static str, &str), body: &str) -> DevopsError {
        read(&Answer::made(status, &[header], body)).unwrap_err()
    }

    fn wrapped(message: &str, kind: &str) -> String {
        serde_json::json!({"$id": "1", "message": message, "typeKey": kind, "errorCode": 0}).to_string()
    }

    #[test]
    fn a28_a_sign_in_page_is_a_refused_token_whatever_its_status() {
        for status in [200, 203, 302, 307] {
            let page = error(status, HTML, "<title>Azure DevOps Services | Sign In</title>");
            assert!(matches!(page, DevopsError::Unauthenticated), "{status}");
        }
        assert!(matches!(error(203, JSON, "{}"), DevopsError::Unauthenticated));
        assert!(matches!(error(401, TEXT, ""), DevopsError::Unauthenticated));
    }

    #[test]
    fn success_is_json_and_nothing_else() {
        assert_eq!(read(&Answer::made(200, &[JSON], "\u{feff}{}")).unwrap(), b"{}");
        assert!(matches!(error(200, TEXT, "{}"), DevopsError::Unparseable));
    }

    #[test]
    fn each_refusal_is_recognized_by_type_then_code_then_status() {
        type Is = fn(&DevopsError) -> bool;
        let member: Is = |e| matches!(e, DevopsError::NotAMember);
        let unauthenticated: Is = |e| matches!(e, DevopsError::Unauthenticated);
        let forbidden: Is = |e| matches!(e, DevopsError::Forbidden);
        let not_found: Is = |e| matches!(e, DevopsError::NotFound);
        let throttled: Is = |e| matches!(e, DevopsError::Throttled { .. });
        let unavailable: Is = |e| matches!(e, DevopsError::Unavailable);
        let anonymous =
            format!("TF400813: The user '{ANONYMOUS}' is not authorized to access this resource.");
        for (status, message, kind, is) in [
            (401, "TF400813: The user 'svc' is not authorized", "UnauthorizedRequestException", member),
            (401, anonymous.as_str(), "UnauthorizedRequestException", unauthenticated),
            (
                401,
                "Resource not available for anonymous access.",
                "UnauthorizedRequestException",
                unauthenticated,
            ),
            (403, "TF401444: Please sign-in at least once as", "", member),
            (403, "VS403463: The conditional access policy", "VssServiceException", forbidden),
            (403, "whatever", "", forbidden),
            (400, "", "GitNeedsPermissionException", forbidden),
            (404, "TF401019: The Git repository", "GitRepositoryNotFoundException", not_found),
            (400, "VS800075: The project", "ProjectDoesNotExistException", not_found),
            (404, "", "", not_found),
            (400, "TF400733: The request has been blocked", "", throttled),
            (400, "VS402335: The timeout period", "", unavailable),
            (503, "TF400324: services are not available", "", unavailable),
            (500, "", "", unavailable),
        ] {
            let error = error(status, JSON, &wrapped(message, kind));
            assert!(is(&error), "{status} {message} {kind}: {error:?}");
        }
    }

    #[test]
    fn other_shapes_of_errors_are_read_too() {
        let improper = r#"{"count":1,"value":{"Message":"TF400813: The user 'x' is not authorized"}}"#;
        assert!(matches!(error(401, JSON, improper), DevopsError::NotAMember));
        let system = r#"{"ClassName":"X","Message":"VS403463: policy","InnerException":null}"#;
        assert!(matches!(error(403, JSON, system), DevopsError::Forbidden));
        assert!(matches!(error(401, TEXT, "TF400813: The user 'x' is not"), DevopsError::NotAMember));
    }

    #[test]
    fn the_edge_is_no_permission() {
        assert!(matches!(error(403, HTML, "The request is blocked. Ref A: x"), DevopsError::Unavailable));
        assert!(matches!(error(404, HTML, "<html>"), DevopsError::NotFound));
        assert!(matches!(error(503, HTML, "<html>"), DevopsError::Unavailable));
    }

    #[test]
    fn throttling_tells_how_long() {
        let answer = Answer::made(429, &[HTML, ("retry-after", "30")], "");
        let Err(DevopsError::Throttled { retry_after }) = read(&answer) else { panic!("not throttled") };
        assert_eq!(retry_after, Some(Duration::from_secs(30)));
    }
}
