//! Azure DevOps' REST API: who a token is there, which repositories it sees, which of them it reads.
//!
//! # Invariants
//!
//! 1. Only JSON in a 2xx that is not 203 is an answer; sign-in pages and redirects are a refusal
//!    (azure.md 3.8, [`answer`]).
//! 2. A list is complete or an error (P7): nothing here shortens, pages or skips.
//! 3. Names go into URLs as whole path segments (threat T11); upstream text goes nowhere but into
//!    names people see.
//!
//! Nothing is retried or cached here, and a refused token is not refreshed: the floors above do, at the pace
//! of the identity that asks ([`Paces`]).

mod answer;
mod challenge;
mod pace;
mod permissions;
mod repositories;
mod told;
mod who_am_i;

use std::time::Duration;

use reqwest::RequestBuilder;
use tokio::sync::mpsc;
use url::Url;

pub use self::challenge::Directory;
pub use self::pace::{LISTS_MAX, Pace, Paces, Purpose};
pub use self::permissions::RepositoryId;
use self::repositories::Body;
pub use self::repositories::{Project, Repository};
pub use self::told::Told;
pub use self::who_am_i::Member;
use crate::ids::Organization;
use crate::outgoing::{Answer, Limits, Outgoing, OutgoingError, under};
use crate::reason::{Problem, Reason};
use crate::remedy::Case;
use crate::secret::AccessToken;

/// Where Azure DevOps is.
#[derive(Clone, Debug)]
pub struct DevopsConfig {
    /// `https://dev.azure.com`
    pub base: Url,
    /// What the list of all repositories may cost.
    pub list: Limits,
}

/// Azure DevOps, reached over the network.
#[derive(Clone, Debug)]
pub struct Devops {
    config: DevopsConfig,
    outgoing: Outgoing,
}

/// What was asked for, and how long to wait before asking for more.
#[derive(Debug)]
pub struct Paced<T> {
    pub value: T,
    pub told: Told,
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
    ) -> Result<Paced<Member>, DevopsError> {
        let url = self.url(organization, &["connectionData"]);
        let request = self.outgoing.get(url).query(&[("connectOptions", "none")]);
        let answer = self.ask(request, token, CONNECTION_DATA_VERSION, CALL_LIMITS).await?;
        let value = who_am_i::parse(answer::read(&answer)?)?;
        Ok(Paced { value, told: Told::of(&answer) })
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
    ) -> Result<Paced<Vec<Repository>>, DevopsError> {
        let request = self.outgoing.get(self.url(organization, &["git", "repositories"]));
        let request = dressed(request, token, VERSION);
        let mut arriving = self.outgoing.open(request, self.config.list).await?;
        let head = arriving.head();
        if head.status == 203 || !head.is_success() || !head.is_json() {
            let answer = arriving.read().await?;
            answer::read(&answer)?;
            return Err(DevopsError::Unparseable);
        }
        let told = Told::of(head);
        // Of a large organization this is seconds of work, which the other tasks should not wait for.
        let (pieces, body) = mpsc::channel(PIECES_MAX);
        let parsing = tokio::task::spawn_blocking(move || repositories::parse(Body::new(body)));
        while let Some(piece) = arriving.piece().await? {
            if pieces.send(piece.as_ref().to_vec()).await.is_err() {
                break; // It is no list: the parser says so.
            }
        }
        drop(pieces);
        let value = parsing.await.unwrap_or(Err(DevopsError::Unparseable))?;
        Ok(Paced { value, told })
    }

    /// For each of `repos`, in order, whether the token may read it (azure.md 3.6).
    pub async fn may_read(
        &self,
        organization: &Organization,
        token: &AccessToken,
        repos: &[RepositoryId<'_>],
    ) -> Result<Paced<Vec<bool>>, DevopsError> {
        debug_assert!(repos.len() <= BATCH_LEN_MAX, "BUG: a batch larger than is known to work");
        let url = self.url(organization, &["security", "permissionevaluationbatch"]);
        let request = self.outgoing.post(url).json(&permissions::read_questions(repos));
        let answer = self.ask(request, token, VERSION, CALL_LIMITS).await?;
        let value = permissions::parse_read_answers(answer::read(&answer)?, repos)?;
        Ok(Paced { value, told: Told::of(&answer) })
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
        Ok(self.outgoing.send(dressed(request, token, version), limits).await?)
    }
}

fn dressed(request: RequestBuilder, token: &AccessToken, version: &str) -> RequestBuilder {
    request
        .bearer_auth(token.expose())
        .header("accept", format!("application/json;api-version={version}"))
        // Else a bad token is answered with a sign-in page (azure.md 3.8).
        .header("x-tfs-fedauthredirect", "Suppress")
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

impl DevopsError {
    /// In words for whoever asked.
    pub fn problem(&self) -> Problem {
        let (detail, case) = match self {
            Self::Forbidden => {
                ("Azure DevOps refuses this identity or our address by policy", Some(Case::DevopsPolicy))
            }
            Self::NotAMember | Self::Unauthenticated => {
                ("Azure DevOps says that this identity is not a member of the organization", None)
            }
            Self::NotFound => ("Azure DevOps knows no such organization", Some(Case::Organization)),
            Self::Throttled { .. } => ("Azure DevOps is throttling", None),
            Self::Unavailable => ("Azure DevOps does not answer", None),
            Self::Unparseable => ("Azure DevOps' answer is incomplete or not understood", None),
        };
        let mut problem = Problem::new(self.reason(), detail).case(case);
        if problem.reason.is_transient() {
            problem.retry_after = Some(match self {
                Self::Throttled { retry_after: Some(wait) } => *wait,
                _ => RETRY,
            });
        }
        problem
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
/// What is known to work (azure.md, U10).
pub const BATCH_LEN_MAX: usize = 200;
/// How soon what did not answer is worth asking again.
const RETRY: Duration = Duration::from_secs(30);
/// Pieces of a body that wait to be parsed: a slow parser slows the sender down.
const PIECES_MAX: usize = 16;
