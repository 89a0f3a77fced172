//! Which callers and which accounts a rule names.
//!
//! Invariants:
//!
//! 1. A pattern of one kind (URI, DNS, socket) never matches a caller of another kind, whatever the
//!    caller's text looks like: kinds are compared, not texts.
//! 2. `*` in a URI stands for exactly one whole, plain segment of its path; in an account, for any end.
//!    There is no other wildcard, and everything else compares byte by byte, with case.

use crate::caller::Caller;
use crate::ids::AccountId;

/// Callers, as a rule names them.
#[derive(Clone, Debug)]
pub(super) enum CallerPattern {
    Uri(Box<str>),
    Dns(Box<str>),
    Socket(Box<str>),
}

/// Accounts, as a rule names them.
#[derive(Clone, Debug)]
pub(super) enum AccountPattern {
    Exactly(AccountId),
    /// What stands before the `*`; empty for every account.
    BeginningWith(Box<str>),
}

impl CallerPattern {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(name) = text.strip_prefix("socket:") {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let valid = !name.is_empty() && name.bytes().all(plain);
            return valid.then(|| Self::Socket(name.into())).ok_or(SOCKET);
        }
        if let Some(name) = text.strip_prefix("dns:") {
            let plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
            let valid = !name.is_empty() && name.bytes().all(plain);
            return valid.then(|| Self::Dns(name.into())).ok_or(DNS);
        }
        uri(text).map(|()| Self::Uri(text.into()))
    }

    pub(super) fn matches(&self, caller: &Caller) -> bool {
        match (self, caller) {
            (Self::Uri(pattern), Caller::Uri(uri)) => uri_matches(pattern, uri),
            (Self::Dns(pattern), Caller::Dns(name))
            | (Self::Socket(pattern), Caller::Socket { name, uid: _ }) => **pattern == **name,
            (Self::Uri(_) | Self::Dns(_) | Self::Socket(_), _) => false,
        }
    }
}

impl AccountPattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some(prefix) = text.strip_suffix('*') else {
            return if text.contains('*') {
                Err("may have `*` only at its end".to_owned())
            } else {
                text.parse().map(Self::Exactly).map_err(|invalid| invalid.to_string())
            };
        };
        if prefix.contains('*') {
            return Err("may have one `*` only".to_owned());
        }
        if !prefix.is_empty() {
            prefix.parse::<AccountId>().map_err(|invalid| invalid.to_string())?;
        }
        Ok(Self::BeginningWith(prefix.into()))
    }

    pub(super) fn matches(&self, account: &AccountId) -> bool {
        match self {
            Self::Exactly(exactly) => exactly == account,
            Self::BeginningWith(prefix) => account.as_str().starts_with(&**prefix),
        }
    }
}

fn uri(text: &str) -> Result<(), &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or(KIND)?;
    let scheme_is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    if scheme.is_empty() || !scheme.bytes().all(scheme_is_plain) {
        return Err(SCHEME);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CHARACTERS);
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty()
        || authority.contains('*')
        || authority.bytes().any(|byte| byte.is_ascii_uppercase())
    {
        return Err(AUTHORITY);
    }
    if path.split('/').any(|segment| segment.contains('*') && segment != WILDCARD) {
        return Err(SEGMENT);
    }
    Ok(())
}

fn uri_matches(pattern: &str, uri: &str) -> bool {
    let mut wanted = pattern.split('/');
    let mut found = uri.split('/');
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(WILDCARD), Some(segment)) if is_plain_segment(segment) => {}
            (Some(wanted), Some(found)) if wanted == found && wanted != WILDCARD => {}
            (_, _) => return false,
        }
    }
}

/// What SPIFFE allows as one segment: so that a `*` never swallows a query, an escape or a `..` of
/// a URI of another scheme.
fn is_plain_segment(segment: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !matches!(segment, "" | "." | "..") && segment.bytes().all(plain)
}

const WILDCARD: &str = "*";
const KIND: &str = "must be `socket:NAME`, `dns:NAME` or a URI with `://`";
const SOCKET: &str = "must name a socket by letters, digits and -_. and has no wildcard";
const DNS: &str = "must name a host in lower case, without wildcard";
const SCHEME: &str = "must begin with a scheme in lower case";
const CHARACTERS: &str = "may hold only visible ASCII characters";
const AUTHORITY: &str = "must name one trust domain in lower case, without wildcard";
const SEGMENT: &str = "may have `*` only as a whole segment of the path";

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, uri: &str) -> bool {
        CallerPattern::parse(pattern).unwrap().matches(&Caller::Uri(uri.into()))
    }

    #[test]
    fn a_star_stands_for_exactly_one_segment() {
        let pattern = "spiffe://platform.example/ns/*/runner";
        assert!(matches(pattern, "spiffe://platform.example/ns/team-a/runner"));
        for other in [
            "spiffe://platform.example/ns/runner",
            "spiffe://platform.example/ns//runner",
            "spiffe://platform.example/ns/../runner",
            "spiffe://platform.example/ns/a%2fb/runner",
            "spiffe://platform.example/ns/a?b/runner",
            "spiffe://platform.example/ns/a/b/runner",
            "spiffe://platform.example/ns/a/runner/x",
            "spiffe://platform.example/ns/a/runner/",
            "spiffe://platform.example.evil/ns/a/runner",
            "spiffe://PLATFORM.example/ns/a/runner",
        ] {
            assert!(!matches(pattern, other), "{other}");
        }
        assert!(!matches("spiffe://a/*", "spiffe://a/b/c"));
        assert!(!matches("spiffe://a/*", "spiffe://a"));
        assert!(!matches("spiffe://a/*", "spiffe://a/*"));
        assert!(!matches("spiffe://a/b", "spiffe://a/b/c"));
        assert!(!matches("spiffe://a/b/c", "spiffe://a/b"));
    }

    #[test]
    fn a_certificate_that_names_a_socket_is_not_that_socket() {
        let socket = CallerPattern::parse("socket:job-runner").unwrap();
        let dns = CallerPattern::parse("dns:ide.example").unwrap();
        assert!(socket.matches(&Caller::Socket { name: "job-runner".into(), uid: 7 }));
        assert!(dns.matches(&Caller::Dns("ide.example".into())));
        for trick in [
            Caller::Uri("socket:job-runner".into()),
            Caller::Dns("socket:job-runner".into()),
            Caller::Dns("job-runner".into()),
            Caller::Uri("dns:ide.example".into()),
            Caller::Socket { name: "ide.example".into(), uid: 7 },
            Caller::Socket { name: "job-runner2".into(), uid: 7 },
            Caller::Dns("IDE.example".into()),
            Caller::Dns("x.ide.example".into()),
        ] {
            assert!(!socket.matches(&trick) && !dns.matches(&trick), "{trick}");
        }
    }

    #[test]
    fn an_account_pattern_matches_the_whole_name() {
        let account = |text: &str| text.parse::<AccountId>().unwrap();
        let matches = |pattern: &str, of: &str| AccountPattern::parse(pattern).unwrap().matches(&account(of));
        assert!(matches("acme", "acme") && matches("team-*", "team-a") && matches("*", "anything"));
        assert!(!matches("acme", "acme2") && !matches("acme", "acm") && !matches("acme", "Acme"));
        assert!(!matches("team-*", "team") && !matches("team-*", "xteam-a") && !matches("team-*", "TEAM-a"));
    }

    #[test]
    fn patterns_that_would_mean_more_than_they_say_do_not_parse() {
        for caller in [
            "",
            "*",
            "socket:",
            "socket:*",
            "socket:a b",
            "dns:",
            "dns:*.example",
            "dns:IDE.example",
            "ide",
            "spiffe://*/x",
            "spiffe://a*/x",
            "spiffe:///x",
            "spiffe://A/x",
            "Spiffe://a/x",
            "spiffe://a/b*",
            "spiffe://a/**",
            "://a/b",
            "spiffe://a/b c",
            "spiffe://a/\u{e9}",
        ] {
            assert!(CallerPattern::parse(caller).is_err(), "{caller}");
        }
        for account in ["", "a*b", "**", "*a", "a/b", "a/*"] {
            assert!(AccountPattern::parse(account).is_err(), "{account}");
        }
    }
}
