//! The URL that sends a browser to sign in (azure.md 1.3).
//!
//! PKCE is always S256, whatever metadata says (threat T16), and the verifier itself never stands in
//! a URL. `select_account`, so that an administrator's own session is not taken silently.

use std::borrow::Cow;

use oauth2::basic::BasicClient;
use oauth2::{AuthUrl, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope};
use url::Url;

use super::scope_text;
use crate::ids::{ClientId, DevopsScope, TenantId};
use crate::outgoing::under;
use crate::secret::PkceVerifier;

/// One sign-in to ask for.
pub struct AuthorizeRequest<'a> {
    pub tenant: &'a TenantId,
    pub client_id: &'a ClientId,
    pub redirect_uri: &'a Url,
    /// `user_impersonation` if empty.
    pub scopes: &'a [DevopsScope],
    /// Comes back with the browser. Base64url only: Entra strips what looks like HTML.
    pub state: &'a str,
    /// Comes back in the `id_token`.
    pub nonce: &'a str,
    /// 43 to 128 characters (RFC 7636), as `make_random_text` makes them.
    pub verifier: &'a PkceVerifier,
}

pub(super) fn url(authority: &Url, request: &AuthorizeRequest<'_>) -> Url {
    let endpoint = under(authority, &[request.tenant.as_str(), "oauth2", "v2.0", "authorize"]);
    let client = BasicClient::new(oauth2::ClientId::new(request.client_id.to_string()))
        .set_auth_uri(AuthUrl::from_url(endpoint));
    let verifier = PkceCodeVerifier::new(request.verifier.expose().to_owned());
    let (url, _) = client
        .authorize_url(|| CsrfToken::new(request.state.to_owned()))
        .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
        .set_redirect_uri(Cow::Owned(RedirectUrl::from_url(request.redirect_uri.clone())))
        .add_scopes(scope_text(request.scopes).split(' ').map(|scope| Scope::new(scope.to_owned())))
        .add_extra_param("nonce", request.nonce)
        .add_extra_param("prompt", "select_account")
        .add_extra_param("response_mode", "query")
        .url();
    url
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::secret::make_random_text;

    fn make(verifier: String) -> Url {
        url(
            &"https://login.microsoftonline.com".parse().unwrap(),
            &AuthorizeRequest {
                tenant: &"11111111-1111-1111-1111-111111111111".parse().unwrap(),
                client_id: &"22222222-2222-2222-2222-222222222222".parse().unwrap(),
                redirect_uri: &"https://a.example/complete/azure_active_directory".parse().unwrap(),
                scopes: &[],
                state: "the-state",
                nonce: "the-nonce",
                verifier: &PkceVerifier::new(verifier),
            },
        )
    }

    #[test]
    fn a_sign_in_asks_for_everything_it_needs() {
        let url = make("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into());
        assert_eq!(url.path(), "/11111111-1111-1111-1111-111111111111/oauth2/v2.0/authorize");
        let query: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        for (name, value) in [
            ("client_id", "22222222-2222-2222-2222-222222222222"),
            ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            ("code_challenge_method", "S256"),
            ("nonce", "the-nonce"),
            ("prompt", "select_account"),
            ("redirect_uri", "https://a.example/complete/azure_active_directory"),
            ("response_mode", "query"),
            ("response_type", "code"),
            (
                "scope",
                "499b84ac-1321-427f-aa17-267ca6975798/user_impersonation offline_access openid profile email",
            ),
            ("state", "the-state"),
        ] {
            assert_eq!(query.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(query.len(), 10);
    }

    #[test]
    fn a36_the_verifier_never_stands_in_the_url() {
        let verifier = make_random_text();
        assert!(!make(verifier.clone()).as_str().contains(&verifier));
    }
}
