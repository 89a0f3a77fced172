//! A running emulator, a client which goes through its proxy, and the steps tests share.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use azure_emulator::{Emulator, Options};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Proxy, RequestBuilder, Response};
use serde_json::Value;
use url::Url;

pub(crate) const TENANT: &str = "10000000-0000-4000-a000-000000000001";
pub(crate) const CLIENT: &str = "ac3e0000-0000-4000-a000-000000000001";
pub(crate) const SECRET: &str = "emu8Q~acme-secret.value+one/x=";
pub(crate) const CALLBACK: &str = "http://localhost:9/complete/azure_active_directory";
pub(crate) const SCOPE: &str =
    "499b84ac-1321-427f-aa17-267ca6975798/user_impersonation offline_access openid profile email";
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(crate) const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

pub(crate) struct Given {
    pub(crate) emulator: Emulator,
    pub(crate) client: Client,
}

/// What the token endpoint answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn text(&self, name: &str) -> String {
        self.body[name].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn code(&self) -> u64 {
        self.body["error_codes"][0].as_u64().unwrap_or(0)
    }
}

impl Given {
    pub(crate) async fn an_emulator() -> Self {
        let clock_start = Some("2026-01-01T00:00:00Z".parse().unwrap());
        Self::with(Options { clock_start, ..Options::default() }).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let emulator = Emulator::start(options).await.unwrap();
        let authority = Certificate::from_pem(emulator.ca_pem().as_bytes()).unwrap();
        let client = Client::builder()
            .proxy(Proxy::all(emulator.proxy_url()).unwrap())
            .tls_certs_only([authority])
            .redirect(Policy::none())
            .build()
            .unwrap();
        Self { emulator, client }
    }

    pub(crate) fn authorize_url(changes: &[(&str, &str)]) -> String {
        let mut pairs = vec![
            ("client_id", CLIENT),
            ("response_type", "code"),
            ("redirect_uri", CALLBACK),
            ("scope", SCOPE),
            ("state", "state-1"),
            ("nonce", "nonce-1"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        for (name, value) in changes {
            pairs.retain(|(existing, _)| existing != name);
            pairs.push((name, value));
        }
        let base = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/authorize");
        Url::parse_with_params(&base, pairs).unwrap().into()
    }

    /// The code of somebody who signed in and accepted.
    pub(crate) async fn a_code_of(&self, upn: &str) -> String {
        let location = self.emulator.sign_in(&Self::authorize_url(&[]), upn).await.unwrap();
        parameter(&location, "code").unwrap()
    }

    pub(crate) async fn redeem(&self, code: &str, changes: &[(&str, &str)]) -> Answer {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", CALLBACK),
            ("scope", SCOPE),
        ];
        self.token(&form, changes).await
    }

    pub(crate) async fn refresh(&self, refresh_token: &str) -> Answer {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token), ("scope", SCOPE)];
        self.token(&form, &[]).await
    }

    /// Posts to the token endpoint as the example's app; `changes` replace fields.
    pub(crate) async fn token(&self, form: &[(&str, &str)], changes: &[(&str, &str)]) -> Answer {
        let mut fields = vec![("client_id", CLIENT), ("client_secret", SECRET)];
        fields.extend_from_slice(form);
        for (name, value) in changes {
            fields.retain(|(existing, _)| existing != name);
            fields.push((name, value));
        }
        let url = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token");
        let response = self.client.post(url).form(&fields).send().await.unwrap();
        let status = response.status().as_u16();
        Answer { status, body: response.json().await.unwrap_or_default() }
    }

    pub(crate) async fn tokens_of(&self, upn: &str) -> Answer {
        let answer = self.redeem(&self.a_code_of(upn).await, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    pub(crate) async fn access_token_of(&self, upn: &str) -> String {
        self.tokens_of(upn).await.text("access_token")
    }

    /// A GET to Azure DevOps, which asks for 401 rather than a sign-in page.
    pub(crate) fn get(&self, path: &str, access_token: &str) -> RequestBuilder {
        self.client
            .get(format!("https://dev.azure.com{path}"))
            .bearer_auth(access_token)
            .header("X-TFS-FedAuthRedirect", "Suppress")
    }

    pub(crate) async fn control(&self, method: reqwest::Method, path: &str, body: &Value) -> Response {
        let client = Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/_emu/{path}", self.emulator.control_url());
        client.request(method, url).json(body).send().await.unwrap()
    }
}

/// A parameter of an address.
pub(crate) fn parameter(address: &str, name: &str) -> Option<String> {
    let url = Url::parse(address).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
