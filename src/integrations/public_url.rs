//! Public URLs: where browsers reach the platform for an account, and which of them an operator allows.
//!
//! Redirect URIs and link pages lie below them, so that who may register integrations could otherwise
//! send people to a place of their own.

use url::Url;

use crate::reason::Refused;

/// The public URLs that integrations may have; any if the configuration names none.
#[derive(Clone, Debug, Default)]
pub struct PublicUrls(Vec<Pattern>);

/// A public URL, or all hosts one label below its host.
#[derive(Clone, Debug)]
struct Pattern {
    url: Url,
    is_parent: bool,
}

impl PublicUrls {
    /// Adds `https://platform.example` or `https://*.platform.example`.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (scheme, host) = text.split_once("://").unwrap_or_default();
        let is_parent = host.starts_with("*.");
        let text = format!("{scheme}://{}", host.strip_prefix("*.").unwrap_or(host));
        let url = parse_public_url(&text).map_err(|refused| refused.to_string())?;
        self.0.push(Pattern { url, is_parent });
        Ok(())
    }

    pub(super) fn check(&self, url: &Url) -> Result<(), Refused> {
        if self.0.is_empty() || self.0.iter().any(|pattern| pattern.covers(url)) {
            return Ok(());
        }
        Err(Refused::invalid("public_url", "is none of the public URLs that the broker's operator allows"))
    }
}

impl Pattern {
    fn covers(&self, url: &Url) -> bool {
        if !self.is_parent {
            return self.url == *url;
        }
        let (Some(parent), Some(host)) = (self.url.host_str(), url.host_str()) else { return false };
        let label = host.strip_suffix(parent).and_then(|rest| rest.strip_suffix('.'));
        let is_below = label.is_some_and(|label| !label.is_empty() && !label.contains('.'));
        is_below
            && url.scheme() == self.url.scheme()
            && url.port_or_known_default() == self.url.port_or_known_default()
    }
}

/// Checks a public URL: https, or http on localhost as Entra allows (azure.md 1.3).
pub fn parse_public_url(text: &str) -> Result<Url, Refused> {
    let invalid = |problem: &'static str| Refused::invalid("public_url", problem);
    if URL_LEN_MAX < text.len() {
        return Err(invalid("is too long: Entra takes redirect URIs of at most 256 characters"));
    }
    let url = Url::parse(text).map_err(|_| invalid("is not a URL such as https://platform.example"))?;
    let local = url.scheme() == "http" && url.host_str() == Some("localhost");
    if url.scheme() != "https" && !local {
        return Err(invalid("must be https, or http://localhost"));
    }
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.path() == "/";
    if !plain || url.host_str().is_none_or(|host| host.is_empty() || host.contains('*')) {
        return Err(invalid("must be scheme, host and port alone: /link/ and /complete/ come below it"));
    }
    Ok(url)
}

/// Leaves room for `/complete/azure_active_directory_service_user` within Entra's 256.
const URL_LEN_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(patterns: &[&str], url: &str) -> bool {
        let mut urls = PublicUrls::default();
        for pattern in patterns {
            urls.add(pattern).unwrap();
        }
        urls.check(&parse_public_url(url).unwrap()).is_ok()
    }

    #[test]
    fn a_public_url_is_one_of_those_allowed_or_one_label_below() {
        let patterns =
            ["https://platform.example", "https://*.platform.example", "https://acme.example:8443"];
        for url in ["https://platform.example", "https://ACME.platform.example", "https://acme.example:8443"]
        {
            assert!(allowed(&patterns, url), "{url}");
        }
        for url in [
            "https://a.b.platform.example",
            "https://evilplatform.example",
            "https://platform.example.evil.example",
            "https://acme.platform.example:444",
            "https://acme.example",
            "http://localhost:8080",
        ] {
            assert!(!allowed(&patterns, url), "{url}");
        }
        assert!(allowed(&[], "https://anywhere.example"), "no list allows any");
    }

    #[test]
    fn a_pattern_that_is_no_public_url_is_refused() {
        for text in ["platform.example", "https://*", "https://*.", "https://a/*", "http://*.example"] {
            assert!(PublicUrls::default().add(text).is_err(), "{text}");
        }
    }
}
