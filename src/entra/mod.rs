//! Entra ID: sends browsers to sign in, exchanges codes and refresh tokens, and knows who signed in.
//!
//! # Invariants
//!
//! 1. What Entra refused is judged by one pure function ([`judge`], azure.md 1.8): no second opinion
//!    elsewhere.
//! 2. A refresh token that came with an otherwise unusable answer is not lost: it is in
//!    [`EntraError::rescued`] (P4).
//! 3. Endpoints follow from the configured authority and the tenant; nothing Entra sends names a URL
//!    we then ask (threat T10). Only the signing keys are fetched.
//! 4. No error shows an upstream's text: only the numeric code and the request id.
//!
//! Nothing is remembered here but signing keys, and nothing retried but what [`again`] says; pauses,
//! confirmation of verdicts and the choice of the client credential belong to the floors above.

mod again;
mod authorize;
mod certificate;
mod discovery;
mod id_token;
mod judge;
mod signing_keys;
mod token;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

pub use self::authorize::AuthorizeRequest;
pub use self::certificate::{CertificateError, CertificateFacts, read_certificate};
pub use self::id_token::{Expected, IdTokenError};
pub use self::judge::{Declined, Redirect, judge_redirect};
use self::signing_keys::SigningKeys;
pub use self::token::{DEADLINE, unverified_object_id};
use crate::clock::Clock;
use crate::connection::Identity;
use crate::ids::{ClientId, DevopsScope, TenantId};
use crate::outgoing::{Outgoing, OutgoingError};
use crate::reason::Reason;
use crate::secret::{
    AccessToken, AuthorizationCode, ClientAssertion, ClientSecret, PkceVerifier, PrivateKey, RawIdToken,
    RefreshToken,
};

/// Where Entra is.
#[derive(Clone, Debug)]
pub struct EntraConfig {
    /// Asked by us, and the beginning of every issuer: `https://login.microsoftonline.com`.
    pub authority: Url,
    /// Where browsers are sent, if elsewhere; whoever reads the configuration allows it on loopback
    /// only.
    pub browser_authority: Option<Url>,
    pub rotation: Rotation,
}

/// What becomes of a refresh token that was used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Rotation {
    /// It goes on working, as Entra's do (azure.md 2.2).
    #[default]
    Lenient,
    /// Each works once, and using one again revokes all that came from the same sign-in (RFC 9700,
    /// 4.14.2).
    Strict,
}

/// Our app in a tenant, with one of its client credentials.
pub struct App<'a> {
    pub tenant: &'a TenantId,
    pub client_id: &'a ClientId,
    pub proof: Proof<'a>,
    /// What users are asked for; `user_impersonation` if empty.
    pub scopes: &'a [DevopsScope],
}

/// What shows Entra that it is our app (azure.md 1.6).
pub enum Proof<'a> {
    Secret(&'a ClientSecret),
    /// An assertion is signed with the key for each request. `fingerprint`: SHA-256 of the
    /// certificate's DER, in hex.
    Certificate {
        fingerprint: &'a str,
        key: &'a PrivateKey,
    },
    /// Of an issuer that the app trusts (workload identity federation).
    Assertion(&'a ClientAssertion),
}

/// What Entra gave.
#[derive(Debug)]
pub struct Answered {
    pub access: AccessToken,
    /// From the moment of the answer; at most a day.
    pub lifetime: Duration,
    /// What was granted, which may be other than what was asked. Never to be sent back (azure.md 1.4).
    pub scopes: Vec<String>,
    /// The grant from now on; `None` means that the old one goes on.
    pub refresh: Option<RefreshToken>,
    pub id_token: Option<RawIdToken>,
}

/// Entra, reached over the network.
pub struct Entra {
    config: EntraConfig,
    outgoing: Outgoing,
    clock: Arc<dyn Clock>,
    signing_keys: SigningKeys,
}

/// What spends a refresh token.
#[async_trait]
pub trait TokenEndpoint: Send + Sync + 'static {
    /// Spends `token`. Once sent it may have been acted on, so that dropping the future may lose a
    /// grant: call it in a task of the broker (P4).
    async fn refresh(&self, app: &App<'_>, token: &RefreshToken) -> Result<Answered, EntraError>;

    /// A token of the app itself: its service principal in the tenant. Spends nothing.
    async fn client_credentials(&self, app: &App<'_>) -> Result<Answered, EntraError>;

    fn rotation(&self) -> Rotation;
}

/// Why Entra gave no usable token.
#[derive(Debug, thiserror::Error)]
#[error("Entra gave no token: {verdict:?}{}", code.map(|code| format!(", AADSTS{code}")).unwrap_or_default())]
pub struct EntraError {
    pub verdict: Verdict,
    /// The AADSTS number, for people.
    pub code: Option<u32>,
    /// At most ten minutes; throttling always has one.
    pub retry_after: Option<Duration>,
    /// The refresh token of an answer that was unusable otherwise: the grant from now on.
    pub rescued: Option<RefreshToken>,
    /// Microsoft's name of this request, which its support asks for.
    pub request_id: Option<String>,
    /// No answer told that no token was given: one may have been, and be lost.
    pub may_have_acted: bool,
    pub source: Option<OutgoingError>,
}

/// Who or what is at fault (azure.md 1.8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The customer's Entra tenant forbids it: account, Conditional Access, assignment.
    Admin,
    /// Tenant, client id, permissions or our request are wrong.
    AppConfig,
    /// The client credential that was used is bad; says nothing about any connection.
    ClientCredential,
    /// Consent is missing or was revoked.
    Consent,
    /// The grant is used up. Believed only when confirmed, unless unmistakable (design.md 6.7).
    Relink { unmistakable: bool },
    /// We ask too often.
    Throttled,
    /// Entra, or the way to it, is down.
    Transient,
    /// An answer nobody understands.
    Unknown,
}

impl Entra {
    pub fn new(config: EntraConfig, outgoing: Outgoing, clock: Arc<dyn Clock>) -> Self {
        Self { config, outgoing, clock, signing_keys: SigningKeys::default() }
    }

    /// Where a browser goes to sign in.
    pub fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Url {
        authorize::url(self.browser_authority(), request)
    }

    /// The origin browsers are sent to, for the `form-action` of our pages.
    pub fn browser_origin(&self) -> String {
        self.browser_authority().origin().ascii_serialization()
    }

    /// Exchanges the code of a sign-in. A code works once: never repeat this.
    pub async fn redeem(
        &self,
        app: &App<'_>,
        code: &AuthorizationCode,
        verifier: &PkceVerifier,
        redirect_uri: &Url,
    ) -> Result<Answered, EntraError> {
        let grant = token::Grant::Code { code, verifier, redirect_uri };
        self.ask(app, &grant, token::DEADLINE).await
    }

    /// Checks who signed in (azure.md 2.4, threat T17).
    pub async fn verify_id_token(
        &self,
        unverified: &RawIdToken,
        expected: &Expected<'_>,
    ) -> Result<Identity, IdTokenError> {
        let issuer = id_token::issuer(&self.config.authority, expected.tenant);
        let key_id = id_token::parse_key_id(unverified)?;
        let source = signing_keys::Source {
            outgoing: &self.outgoing,
            authority: &self.config.authority,
            tenant: expected.tenant,
            issuer: &issuer,
        };
        let key = self.signing_keys.find(&source, &key_id, self.clock.now()).await?;
        id_token::verify(unverified, &key, expected, &issuer, self.clock.now().wall)
    }

    async fn ask(
        &self,
        app: &App<'_>,
        grant: &token::Grant<'_>,
        deadline: Duration,
    ) -> Result<Answered, EntraError> {
        let reach = token::Reach { outgoing: &self.outgoing, authority: &self.config.authority, deadline };
        token::ask(&reach, self.clock.now().wall, app, grant).await
    }

    fn browser_authority(&self) -> &Url {
        self.config.browser_authority.as_ref().unwrap_or(&self.config.authority)
    }
}

#[async_trait]
impl TokenEndpoint for Entra {
    async fn refresh(&self, app: &App<'_>, token: &RefreshToken) -> Result<Answered, EntraError> {
        let grant = token::Grant::Refresh(token);
        match self.config.rotation {
            Rotation::Lenient => self.ask_twice(app, &grant).await,
            // Whatever the answer was, the grant may be used up.
            Rotation::Strict => self.ask(app, &grant, token::DEADLINE).await,
        }
    }

    async fn client_credentials(&self, app: &App<'_>) -> Result<Answered, EntraError> {
        self.ask_twice(app, &token::Grant::ClientCredentials).await
    }

    fn rotation(&self) -> Rotation {
        self.config.rotation
    }
}

impl EntraError {
    /// Whether Entra had accepted the client credential before it refused for another reason (azure.md 6.3):
    /// no service principal in the tenant, scope or resource, assignment, Conditional Access.
    pub fn is_past_client_authentication(&self) -> bool {
        matches!(
            self.code,
            Some(
                7_000_229 | 70_011 | 1_002_012 | 50_001 | 500_011 | 650_052 | 50_105 | 53_000
                    ..=53_004 | 530_034
            )
        )
    }

    /// How long whoever answered "not now", most of all by 429 and 503, wants to be left alone by all of the tenant
    /// (azure.md 1.10). That one grant is asked too often is a word on that grant.
    pub fn wish_of_tenant(&self) -> Option<Duration> {
        let is_of_all = matches!(self.verdict, Verdict::Throttled | Verdict::Transient);
        self.retry_after.filter(|_| is_of_all && self.code != Some(judge::LOOP_DETECTED))
    }

    /// Whether a request was sent, so that something could answer.
    pub fn was_asked(&self) -> bool {
        !matches!(
            self.source,
            Some(OutgoingError::Setup(_) | OutgoingError::Unsendable(_) | OutgoingError::CaBundle)
        )
    }

    /// Whether nothing answered.
    pub fn is_silence(&self) -> bool {
        matches!(
            self.source,
            Some(OutgoingError::Connect(_) | OutgoingError::Timeout { .. } | OutgoingError::Transport(_))
        )
    }

    pub fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            code: None,
            retry_after: None,
            rescued: None,
            request_id: None,
            may_have_acted: false,
            source: None,
        }
    }
}

impl From<OutgoingError> for EntraError {
    fn from(source: OutgoingError) -> Self {
        let was_sent = match source {
            OutgoingError::Connect(_)
            | OutgoingError::Setup(_)
            | OutgoingError::Unsendable(_)
            | OutgoingError::CaBundle => false,
            OutgoingError::BodyTooLarge { .. }
            | OutgoingError::Timeout { .. }
            | OutgoingError::Transport(_) => true,
        };
        Self { may_have_acted: was_sent, source: Some(source), ..Self::new(Verdict::Transient) }
    }
}

impl Verdict {
    pub fn reason(self) -> Reason {
        match self {
            Self::Admin => Reason::AdminActionRequired,
            Self::AppConfig => Reason::IntegrationMisconfigured,
            Self::ClientCredential => Reason::ClientCredentialRejected,
            Self::Consent => Reason::ConsentRequired,
            Self::Relink { .. } => Reason::RelinkRequired,
            Self::Throttled => Reason::UpstreamThrottled,
            Self::Transient | Self::Unknown => Reason::UpstreamUnavailable,
        }
    }
}

/// Whether granted scopes give access to Azure DevOps; Entra may change their order and content, so
/// any scope of the resource will do (azure.md 1.4).
pub fn are_for_devops(scopes: &[String]) -> bool {
    scopes.iter().any(|scope| scope.starts_with(DEVOPS_RESOURCE))
}

/// The scope parameter of a user's requests: delegated access to Azure DevOps, a refresh token, and who
/// it is (azure.md 1.5). The same text on every request, never what an answer said.
fn scope_text(scopes: &[DevopsScope]) -> String {
    let scope = |name: &str| format!("{DEVOPS_RESOURCE}{name} ");
    let devops: String = match scopes {
        [] => scope("user_impersonation"),
        scopes => scopes.iter().map(|name| scope(name.as_str())).collect(),
    };
    devops + "offline_access openid profile email"
}

/// The app id of Azure DevOps (azure.md 0).
const DEVOPS_RESOURCE: &str = "499b84ac-1321-427f-aa17-267ca6975798/";
/// The one scope of an app that speaks for itself (azure.md 5.4).
const APP_SCOPE: &str = "499b84ac-1321-427f-aa17-267ca6975798/.default";
