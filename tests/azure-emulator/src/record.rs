//! What was asked and how it was answered, for tests to look at afterwards.
//!
//! Records for the control API carry fingerprints; the raw tokens of a [`TokenRequest`] never
//! leave the process unless they are asked for (`/_emu/tokens?reveal=1`).

use jiff::Timestamp;
use serde::Serialize;

/// One request, in the order of arrival.
#[derive(Clone, Debug, Serialize)]
pub struct Recorded {
    pub n: usize,
    pub time: Timestamp,
    /// The door it came through: `proxy`, `https` or `browser`.
    pub door: &'static str,
    pub host: String,
    pub method: String,
    pub path: String,
    /// Values of secret parameters are replaced by `…`.
    pub query: Vec<(String, String)>,
    pub user_agent: Option<String>,
    /// `Bearer`, `Basic`, …
    pub authorization: Option<String>,
    /// The fingerprint of the access token in it.
    pub access_token: Option<String>,
    pub grant_type: Option<String>,
    pub client_id: Option<String>,
    /// `None` while no answer was sent.
    pub status: Option<u16>,
    /// What became of a token request.
    pub token: Option<TokenRequest>,
}

/// One request to the token endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct TokenRequest {
    pub n: usize,
    pub time: Timestamp,
    pub tenant: String,
    pub client_id: String,
    pub grant_type: String,
    pub scope: String,
    /// `Err` is the AADSTS code, or 0 when the answer was none of a token endpoint.
    pub outcome: Result<(), u32>,
    pub user_oid: Option<String>,
    pub user_upn: Option<String>,
    /// The fingerprint of the refresh token it was asked with.
    pub rt_used: Option<String>,
    /// The fingerprint of `refresh_token`.
    pub rt_issued: Option<String>,
    /// The fingerprint of `access_token`.
    pub at_issued: Option<String>,
    /// The authorization code it was asked with.
    #[serde(skip)]
    pub code: Option<String>,
    /// The PKCE verifier it was asked with.
    #[serde(skip)]
    pub code_verifier: Option<String>,
    /// The refresh token itself.
    #[serde(skip)]
    pub refresh_token: Option<String>,
    /// The access token itself.
    #[serde(skip)]
    pub access_token: Option<String>,
    pub expires_in: Option<u64>,
    /// What the client authenticated with: `secret:` and the first three characters,
    /// `certificate:` and the thumbprint, or `federated:` with issuer and subject. `None` when
    /// the request was refused.
    pub credential: Option<String>,
}

/// The list of all requests.
#[derive(Debug, Default)]
pub(crate) struct Log(Vec<Recorded>);

impl Log {
    /// Its number, by which [`Log::answered`] finds it.
    pub(crate) fn arrived(&mut self, mut recorded: Recorded) -> usize {
        recorded.n = self.0.len();
        self.0.push(recorded);
        self.0.len() - 1
    }

    pub(crate) fn answered(&mut self, n: usize, status: u16) {
        if let Some(recorded) = self.0.get_mut(n) {
            recorded.status = Some(status);
        }
    }

    pub(crate) fn token(&mut self, n: usize, request: TokenRequest) {
        if let Some(recorded) = self.0.get_mut(n) {
            recorded.token = Some(TokenRequest { n, ..request });
        }
    }

    pub(crate) fn all(&self) -> &[Recorded] {
        &self.0
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
