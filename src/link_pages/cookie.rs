//! The one cookie: 256 random bits that tell this browser from others. Reused by all its links.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};

/// `__Host-` makes browsers insist on Secure, path `/` and no domain.
const NAME: &str = "__Host-azdo-broker-link";
/// A link lives ten minutes and ten more.
const MAX_AGE_S: u32 = 1200;
/// What we make is 43 characters of base64url.
const VALUE_LEN: usize = 43;

/// The cookie's value, if the browser sent one that can be ours.
pub(super) fn read(headers: &HeaderMap) -> Option<String> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    let value = pairs
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == NAME).then_some(value))?;
    let shaped = value.len() == VALUE_LEN
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    shaped.then(|| value.to_owned())
}

/// Lax, because Entra's redirect comes from another site by GET.
pub(super) fn write(value: &str) -> HeaderValue {
    let cookie = format!("{NAME}={value}; Path=/; Max-Age={MAX_AGE_S}; Secure; HttpOnly; SameSite=Lax");
    let mut header = HeaderValue::try_from(cookie).expect("base64url is a header value");
    header.set_sensitive(true);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a33_the_cookie_is_host_bound_and_comes_back() {
        let value = crate::secret::make_random_text();
        let written = write(&value);
        let text = written.to_str().unwrap();
        for part in ["__Host-", "Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(text.contains(part), "{text}");
        }
        let mut headers = HeaderMap::new();
        let sent = format!("other=1; {NAME}={value}");
        headers.insert(COOKIE, HeaderValue::try_from(sent).unwrap());
        assert_eq!(read(&headers), Some(value));
    }

    #[test]
    fn what_cannot_be_ours_is_no_cookie() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_static("__Host-azdo-broker-link=short"));
        assert_eq!(read(&headers), None);
    }
}
