//! One request, read completely, and the answers to it in their common forms.
//!
//! Handlers see a [`Call`] and never hyper: the same code answers the proxy, the doors on
//! localhost and the calls made in-process.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use bytes::Bytes;
use serde_json::Value;

pub(crate) type Answer = Response<Body>;

/// The way a request came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Door {
    Proxy,
    Https,
    Browser,
    Control,
}

impl Door {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Https => "https",
            Self::Browser => "browser",
            Self::Control => "control",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) door: Door,
    /// Lower case, without port.
    pub(crate) host: String,
    pub(crate) method: Method,
    /// As it was sent.
    pub(crate) path: String,
    /// Decoded, without empty ones.
    pub(crate) segments: Vec<String>,
    pub(crate) raw_query: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Its number in the log.
    pub(crate) n: usize,
}

impl Call {
    /// `target` is a path with an optional query.
    pub(crate) fn new(door: Door, host: &str, method: Method, target: &str) -> Self {
        let (path, raw_query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            door,
            host: host.to_lowercase(),
            method,
            path: path.to_owned(),
            segments: path.split('/').filter(|part| !part.is_empty()).map(decode).collect(),
            raw_query: raw_query.to_owned(),
            query: parse_form(raw_query.as_bytes()),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            n: usize::MAX,
        }
    }

    pub(crate) fn segments(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        value_of(&self.query, name)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn form(&self) -> Vec<(String, String)> {
        let content_type = self.header("content-type").unwrap_or_default();
        if content_type.starts_with("application/x-www-form-urlencoded") {
            parse_form(&self.body)
        } else {
            Vec::new()
        }
    }
}

pub(crate) fn value_of<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn parse_form(bytes: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(bytes).into_owned().collect()
}

/// Percent-decodes one path segment; a `+` stays what it is.
fn decode(segment: &str) -> String {
    let plus_kept = segment.replace('+', "%2B");
    let pairs = format!("={plus_kept}").replace('&', "%26");
    url::form_urlencoded::parse(pairs.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

pub(crate) fn answer(status: u16, content_type: &str, body: impl Into<Body>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let content_type = HeaderValue::from_str(content_type).expect("content types are constants");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache"));
    answer
}

pub(crate) fn json(status: u16, body: &Value) -> Answer {
    answer(status, "application/json; charset=utf-8", body.to_string())
}

pub(crate) fn html(status: u16, body: String) -> Answer {
    answer(status, "text/html; charset=utf-8", body)
}

pub(crate) fn text(status: u16, body: impl Into<String>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body.into())
}

pub(crate) fn redirect(status: u16, location: &str) -> Answer {
    with_header(answer(status, "text/html; charset=utf-8", Body::empty()), "location", location)
}

/// Adds (not replaces) a header. A value that cannot be one is left out.
pub(crate) fn with_header(mut answer: Answer, name: &'static str, value: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().append(HeaderName::from_static(name), value);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_segment_by_segment() {
        let call = Call::new(
            Door::Proxy,
            "Dev.Azure.com",
            Method::GET,
            "/contoso/Data%20Platform/_git/a+b%26c/?x=1+2",
        );

        assert_eq!(call.segments(), ["contoso", "Data Platform", "_git", "a+b&c"]);
        assert_eq!(call.query("x"), Some("1 2"));
        assert_eq!(call.host, "dev.azure.com");
    }
}
