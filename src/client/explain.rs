//! Refusals and errors in words for a person (P10), safe to print.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::reason::{Actor, Reason};

/// A refusal in words for a person (P10): what, who must act, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explained {
    pub code: &'static str,
    pub reason: Option<String>,
    pub message: String,
    pub who_acts: Option<&'static str>,
    pub what_to_do: Option<String>,
    pub retry_after: Option<Duration>,
    /// Each malformed field, each connection in the way.
    pub particulars: Vec<String>,
    pub links: Vec<String>,
}

/// Puts a refusal into words.
pub fn explain(status: &Status) -> Explained {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    let known = reason.as_deref().and_then(|name| Reason::ALL.into_iter().find(|r| r.as_str() == name));
    // What the broker says of this case; an older one says nothing.
    let told = details.error_info().and_then(|info| info.metadata.get("what_to_do"));
    let who = details.error_info().and_then(|info| info.metadata.get("who_acts"));
    let who = who.and_then(|who| Actor::ALL.into_iter().find(|actor| actor.as_str() == who));
    let mut particulars = Vec::new();
    if let Some(bad) = details.bad_request() {
        particulars.extend(bad.field_violations.iter().map(|v| format!("{}: {}", v.field, v.description)));
    }
    if let Some(failed) = details.precondition_failure() {
        particulars.extend(failed.violations.iter().map(|v| format!("{}: {}", v.subject, v.description)));
    }
    let links = details.help().map(|help| help.links.as_slice()).unwrap_or_default();
    Explained {
        code: name_code(status.code()),
        message: known_or_own_words(status, reason.is_some()),
        reason: reason.map(|name| printable(&name)),
        who_acts: who.or(known.map(Reason::who_acts)).map(Actor::as_str),
        what_to_do: told.map(|act| printable(act)).or(known.map(|reason| reason.what_to_do().to_owned())),
        retry_after: details.retry_info().and_then(|info| info.retry_delay),
        particulars: particulars.iter().map(|text| printable(text)).collect(),
        links: links.iter().map(|link| printable(&format!("{} {}", link.description, link.url))).collect(),
    }
}

fn known_or_own_words(status: &Status, has_reason: bool) -> String {
    // tonic makes such a status itself when the connection breaks; its words help nobody.
    if status.source().is_some() && !has_reason && matches!(status.code(), Code::Unavailable | Code::Unknown)
    {
        return "the connection to the broker broke: is it running, and does it accept this client's certificate?"
            .to_owned();
    }
    match status.message() {
        "" => format!("the broker answered {}", name_code(status.code())),
        message => printable(message),
    }
}

impl Explained {
    /// Whether the same call may be answered later without anybody's help. Of a refusal with a reason the reason
    /// decides; without one somebody in between has spoken, or the connection broke.
    pub fn passes(&self) -> bool {
        let known = |name: &String| Reason::ALL.into_iter().find(|reason| reason.as_str() == name);
        match self.reason.as_ref().map(known) {
            Some(reason) => reason.is_some_and(Reason::is_transient),
            None => PASSING.contains(&self.code),
        }
    }

    /// What, and by which name.
    pub fn in_short(&self) -> String {
        format!("{} [{}]", self.message, self.reason.as_deref().unwrap_or(self.code))
    }

    /// For where one line must do: message, what to do, when.
    pub fn in_a_line(&self) -> String {
        let mut line = self.message.clone();
        if let Some(reason) = &self.reason {
            line = format!("{line} [{reason}]");
        }
        if let Some(act) = &self.what_to_do {
            line = format!("{line} {act}");
        }
        if let Some(wait) = self.retry_after {
            line = format!("{line} Ask again in {} s.", wait.as_secs().max(1));
        }
        line
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_short())?;
        for particular in &self.particulars {
            write!(f, "\n  {particular}")?;
        }
        if let Some(who) = self.who_acts {
            write!(f, "\n  who acts:   {who}")?;
        }
        if let Some(act) = &self.what_to_do {
            write!(f, "\n  what to do: {act}")?;
        }
        if let Some(wait) = self.retry_after {
            write!(f, "\n  ask again:  in {} s", wait.as_secs().max(1))?;
        }
        for link in &self.links {
            write!(f, "\n  see:        {link}")?;
        }
        Ok(())
    }
}

/// An error with its causes, innermost last.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // tonic's own layer says no more than that there was one.
        if words != "transport error" && !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// The text without what a terminal would obey: control characters and turns of direction.
pub fn printable(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect()
}

/// Codes that a transport, a proxy or a broker in trouble gives without a reason.
const PASSING: [&str; 7] =
    ["ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN"];

fn name_code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_names_the_reason_who_acts_what_to_do_links_and_the_wait() {
        let mut details = ErrorDetails::with_error_info(
            "RELINK_REQUIRED",
            "azdo-broker",
            [("code".to_owned(), "50173".to_owned())],
        );
        details.add_help_link("Link again", "https://acme.example/link");
        details.set_retry_info(Some(Duration::from_secs(7)));
        let status = Status::with_error_details(Code::FailedPrecondition, "svc must\x1b[2J link", details);
        let explained = explain(&status);
        let text = explained.to_string();
        for words in [
            "svc must\u{fffd}[2J link [RELINK_REQUIRED]",
            "the linked person",
            "must link again",
            "7 s",
            "https://acme.example/link",
        ] {
            assert!(text.contains(words), "{text}");
        }
        assert!(explained.in_a_line().lines().count() == 1);
    }

    #[test]
    fn what_passes_by_itself_is_told_from_what_needs_somebody() {
        let refused = |reason, code| {
            let details = ErrorDetails::with_error_info(reason, "azdo-broker", []);
            explain(&Status::with_error_details(code, "refused", details)).passes()
        };
        assert!(
            refused("STORE_UNAVAILABLE", Code::Unavailable)
                && refused("RATE_LIMITED", Code::ResourceExhausted)
        );
        assert!(!refused("SNAPSHOT_GONE", Code::Aborted) && !refused("NEWER_THAN_WE", Code::Unavailable));
        let bare = |code| explain(&Status::new(code, "")).passes();
        assert!(bare(Code::Unavailable) && bare(Code::Unknown) && bare(Code::Internal));
        assert!(!bare(Code::PermissionDenied) && !bare(Code::InvalidArgument) && !bare(Code::Unimplemented));
    }
}
