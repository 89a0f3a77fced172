//! Azure DevOps' REST API: who a token is there, which repositories it sees, which of them it reads.
//!
//! # Invariants
//!
//! 1. Only JSON in a 2xx that is not 203 is an answer; sign-in pages and redirects are a refusal
//!    (azure.md 3.8, [`answer`]).
//! 2. A list is complete or an error (P7): nothing here shortens, pages or skips.
//! 3. Names go into URLs as whole path segments (threat T11); upstream text goes nowhere but into
//!    names people see, stripped of control characters.
//!
//! Nothing is retried or cached here, and a refused token is not refreshed: the floors above do.

mod answer;
mod challenge;
mod repositories;
mod who_am_i;

use std::time::Duration;

use reqwest::RequestBuilder;
use url::Url;

pub use self::challenge::Directory;
pub use self::repositories::{Repository, RepositoryId};
pub use self::who_am_i::Member;
use crate::ids::Organization;
use crate::outgoing::{Answer, Limits, Outgoing, OutgoingError, under};
use crate::reason::Reason;
use crate::secret::AccessToken;

/// Where Azure DevOps is.
#[derive(Clone, Debug)]
pub struct DevopsConfig {
    /// `https://dev.azure.com`
    pub base: Url,
}

/// Azure DevOps, reached over the network.
#[derive(Clone, Debug)]
pub struct Devops {
    config: DevopsConfig,
    outgoing: Outgoing,
}

/// Why Azure DevOps gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum DevopsError {
    #[error("Azure DevOps forbids it")]
    Forbidden,
    /// The organization, or what was asked for in it; Azure DevOps does not tell missing from hidden.
    #[error("Azure DevOps knows no such organization")]
    NotFound,
    #[error("the identity is not a member of the organization")]
    NotAMember,
    #[error("Azure DevOps is throttling")]
    Throttled { retry_after: Option<Duration> },
    /// The token was not accepted: expired, of another tenant, or never one.
    #[error("Azure DevOps does not accept the token")]
    Unauthenticated,
    #[error("Azure DevOps does not answer")]
    Unavailable,
    #[error("Azure DevOps' answer is not understood")]
    Unparseable,
}

impl Devops {
    pub fn new(config: DevopsConfig, outgoing: Outgoing) -> Self {
        Self { config, outgoing }
    }

    /// Who `token` is in `organization`.
    pub async fn who_am_i(
        &self,
        organization: &Organization,
        token: &AccessToken,
    ) -> Result<Member, DevopsError> {
        let url = self.url(organization, &["connectionData"]);
        let request = self.outgoing.get(url).query(&[("connectOptions", "none")]);
        let answer = self.ask(request, token, CONNECTION_DATA_VERSION, CALL_LIMITS).await?;
        who_am_i::parse(answer::read(&answer)?)
    }

    /// Which directory the organization is connected to: it tells everybody who brings no token.
    pub async fn directory(&self, organization: &Organization) -> Result<Directory, DevopsError> {
        let url = self.url(organization, &["connectionData"]);
        let accept = format!("application/json;api-version={CONNECTION_DATA_VERSION}");
        let request =
            self.outgoing.get(url).header("accept", accept).header("x-tfs-fedauthredirect", "Suppress");
        challenge::read(&self.outgoing.send(request, CALL_LIMITS).await?)
    }

    /// All repositories the token sees in `organization`, in no particular order. Seeing is not
    /// reading: ask [`Self::may_read`].
    pub async fn repositories(
        &self,
        organization: &Organization,
        token: &AccessToken,
    ) -> Result<Vec<Repository>, DevopsError> {
        let request = self.outgoing.get(self.url(organization, &["git", "repositories"]));
        let answer = self.ask(request, token, VERSION, LIST_LIMITS).await?;
        // Of a large organization this is seconds of work, which the other tasks should not wait for.
        tokio::task::spawn_blocking(move || repositories::parse(answer::read(&answer)?))
            .await
            .unwrap_or(Err(DevopsError::Unparseable))
    }

    /// For each of `repos`, in order, whether the token may read it (azure.md 3.6).
    pub async fn may_read(
        &self,
        organization: &Organization,
        token: &AccessToken,
        repos: &[RepositoryId],
    ) -> Result<Vec<bool>, DevopsError> {
        let mut readable = Vec::with_capacity(repos.len());
        let mut wait = None;
        for batch in repos.chunks(BATCH_LEN_MAX) {
            if let Some(wait) = wait.take() {
                tokio::time::sleep(wait).await;
            }
            let url = self.url(organization, &["security", "permissionevaluationbatch"]);
            let request = self.outgoing.post(url).json(&repositories::read_questions(batch));
            let answer = self.ask(request, token, VERSION, CALL_LIMITS).await?;
            readable.extend(repositories::parse_read_answers(answer::read(&answer)?, batch)?);
            // On a good answer this means: slow down (azure.md 3.10).
            wait = answer.retry_after.map(|wait| wait.min(SLOW_DOWN_MAX));
        }
        Ok(readable)
    }

    fn url(&self, organization: &Organization, path: &[&str]) -> Url {
        let url = under(&self.config.base, &[organization.as_str(), "_apis"]);
        under(&url, path)
    }

    async fn ask(
        &self,
        request: RequestBuilder,
        token: &AccessToken,
        version: &str,
        limits: Limits,
    ) -> Result<Answer, DevopsError> {
        let request = request
            .bearer_auth(token.expose())
            .header("accept", format!("application/json;api-version={version}"))
            // Else a bad token is answered with a sign-in page (azure.md 3.8).
            .header("x-tfs-fedauthredirect", "Suppress");
        Ok(self.outgoing.send(request, limits).await?)
    }
}

impl DevopsError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Forbidden => Reason::AdminActionRequired,
            // A token Entra has just made is refused where its tenant or identity is not known.
            Self::NotAMember | Self::Unauthenticated => Reason::NotAMember,
            Self::NotFound => Reason::IntegrationMisconfigured,
            Self::Throttled { .. } => Reason::UpstreamThrottled,
            Self::Unavailable | Self::Unparseable => Reason::UpstreamUnavailable,
        }
    }
}

impl From<OutgoingError> for DevopsError {
    fn from(error: OutgoingError) -> Self {
        // The cause ends here: what the floors above do about it does not depend on it.
        tracing::warn!(error = &error as &dyn std::error::Error, "Azure DevOps did not answer");
        Self::Unavailable
    }
}

const VERSION: &str = "7.1";
/// Never left preview (azure.md 3.2).
const CONNECTION_DATA_VERSION: &str = "7.1-preview.1";
/// Azure DevOps may hold a request for 30 s before it answers (azure.md 3.10).
const CALL_LIMITS: Limits = Limits { deadline: Duration::from_secs(40), body_bytes_max: 4 * 1024 * 1024 };
/// One answer holds all repositories: 20 000 took 6 s (azure.md 3.5), plus the 30 s of above, within
/// the 90 s a list may take. A repository is about 1 KiB, so this is far beyond any organization.
const LIST_LIMITS: Limits = Limits { deadline: Duration::from_secs(75), body_bytes_max: 256 * 1024 * 1024 };
/// What is known to work (azure.md, U10).
const BATCH_LEN_MAX: usize = 200;
/// Long enough to be polite, short enough to end within the deadline of a list.
const SLOW_DOWN_MAX: Duration = Duration::from_secs(5);
