//! Handing a token to a caller: decide, fetch, record, answer. The only maker of a token that may leave.
//!
//! # Invariants
//!
//! 1. Decided before anything else is touched (P2), recorded before it is answered (P3).
//! 2. [`Released`] is made here alone, after the record was written; faces encode nothing else.
//! 3. A git credential is for URLs of the integration's own organization: a hostile submodule gets
//!    nothing (design.md 4.1).
//!
//! Entra cannot narrow a token to one repository; this does not pretend to.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::accounts::{Accounts, warnings_of};
use crate::clock::Clock;
use crate::connection::{ConnectionKey, Role};
use crate::event::Outcome;
use crate::gate::{Asking, Gate};
use crate::git_url::GitUrl;
use crate::ids::{AccountId, DeveloperId};
use crate::policy::{Allowed, Permission};
use crate::reason::{Problem, Reason, Refused, Warning};
use crate::secret::Fingerprint;
use crate::tokens::{Token, Tokens};
use crate::vault::Integration;

/// The use cases of a release.
#[derive(Clone)]
pub struct Release {
    pub gate: Gate,
    pub accounts: Arc<Accounts>,
    pub tokens: Tokens,
    pub clock: Arc<dyn Clock>,
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct Wish {
    pub asking: Asking,
    pub account: AccountId,
    /// How long the token must stay valid at least.
    pub min_ttl: Duration,
}

/// A token that may leave: it is on record.
pub struct Released {
    pub token: Arc<Token>,
    pub key: ConnectionKey,
    pub warnings: Vec<Warning>,
}

impl Release {
    /// A token of the account's headless identity.
    pub async fn service_user_token(&self, wish: Wish) -> Result<Released, Refused> {
        let allowed = self.gate.allow(&wish.asking, Permission::ReleaseServiceUser, &wish.account).await?;
        let integration = self.integration(&wish.asking, &allowed).await?;
        self.release(&wish, &allowed, &integration, None).await
    }

    /// A token of one developer. It never answers with anybody else's (P7).
    pub async fn developer_token(&self, wish: Wish, developer: DeveloperId) -> Result<Released, Refused> {
        let allowed = self.gate.allow(&wish.asking, Permission::ReleaseDeveloper, &wish.account).await?;
        let integration = self.integration(&wish.asking, &allowed).await?;
        self.release(&wish, &allowed, &integration, Some(developer)).await
    }

    /// A credential for git, if the URL is of the account's organization: the headless identity's, or the
    /// developer's for a caller that may have their token.
    pub async fn git_credential(
        &self,
        wish: Wish,
        developer: Option<DeveloperId>,
        url: &GitUrl,
    ) -> Result<Released, Refused> {
        let allowed = self.gate.allow(&wish.asking, Permission::Git, &wish.account).await?;
        let allowed = match developer {
            None => allowed,
            Some(_) => self.gate.allow(&wish.asking, Permission::ReleaseDeveloper, &wish.account).await?,
        };
        let integration = self.integration(&wish.asking, &allowed).await?;
        if url.organization != integration.organization {
            let event = wish.asking.event(Outcome::Done).about(&key_of(&integration, developer));
            let detail = "the URL is of another Azure DevOps organization than the account's";
            let refused = Problem::new(Reason::OrganizationMismatch, detail).into();
            return self.gate.conclude(event, Err(refused)).await;
        }
        self.release(&wish, &allowed, &integration, developer).await
    }

    /// A holder was refused with a token. Who may release may report; an unknown fingerprint changes
    /// nothing and is not told from a known one.
    pub async fn report_rejected(
        &self,
        asking: Asking,
        account: AccountId,
        role: Option<Role>,
        fingerprint: &Fingerprint,
    ) -> Result<(), Refused> {
        let may_report = match role {
            Some(Role::Developer(_)) => &MAY_REPORT_DEVELOPERS[..],
            Some(Role::ServiceUser | Role::ServicePrincipal) | None => &MAY_REPORT_HEADLESS[..],
        };
        let allowed = self.gate.allow_any(&asking, may_report, &account).await?;
        let integration = self.integration(&asking, &allowed).await?;
        let key = role.map_or_else(|| key_of(&integration, None), |role| ConnectionKey { account, role });
        let reported = self.tokens.report(&allowed, &key, fingerprint);
        tracing::info!(connection.key = %key, ?reported, "a token was reported as rejected");
        self.gate.record(asking.event(Outcome::Done).about(&key)).await
    }

    /// The integration of an allowed account; an account nobody registered is as good as forbidden.
    async fn integration(&self, asking: &Asking, allowed: &Allowed) -> Result<Arc<Integration>, Refused> {
        match self.accounts.integration(allowed.account()).await? {
            Some(integration) => Ok(integration),
            None => Err(self.gate.denied(asking, Some(allowed.account())).await),
        }
    }

    /// Recording may take two seconds, and no token leaves with less life than was asked for (P7): one that
    /// ran short meanwhile stays here, and its successor is recorded instead.
    async fn release(
        &self,
        wish: &Wish,
        allowed: &Allowed,
        integration: &Integration,
        developer: Option<DeveloperId>,
    ) -> Result<Released, Refused> {
        let key = key_of(integration, developer);
        for _ in 0..RECORDS_MAX {
            let token = self.recorded_token(wish, allowed, integration, &key).await?;
            if wish.min_ttl < token.validity.left(self.clock.now()) {
                let warnings = self.warnings(&key, integration);
                return Ok(Released { token, key, warnings });
            }
        }
        let detail = "tokens run short while they are recorded";
        Err(Problem::new(Reason::UpstreamUnavailable, detail).retry_after(RAN_SHORT_RETRY).into())
    }

    async fn recorded_token(
        &self,
        wish: &Wish,
        allowed: &Allowed,
        integration: &Integration,
        key: &ConnectionKey,
    ) -> Result<Arc<Token>, Refused> {
        let token = self.active_token(wish, allowed, integration, key).await.map_err(Refused::from);
        let outcome = match &token {
            Ok(token) => Outcome::Released {
                fingerprint: token.fingerprint.clone(),
                expires_at: token.validity.expires_at,
            },
            Err(_) => Outcome::Done,
        };
        let mut event = wish.asking.event(outcome).about(key);
        event.generation = token.as_ref().ok().map(|token| token.generation);
        self.gate.conclude(event, token).await
    }

    /// The connection's token, unless the integration is suspended, before or while it was waited for.
    async fn active_token(
        &self,
        wish: &Wish,
        allowed: &Allowed,
        integration: &Integration,
        key: &ConnectionKey,
    ) -> Result<Arc<Token>, Problem> {
        Accounts::check_active(integration)?;
        let token = self.tokens.token(allowed, key, wish.min_ttl).await?;
        if let Some(integration) = self.accounts.integration(&key.account).await? {
            Accounts::check_active(&integration)?;
        }
        Ok(token)
    }

    fn warnings(&self, key: &ConnectionKey, integration: &Integration) -> Vec<Warning> {
        let credentials = warnings_of(integration, self.clock.now().wall);
        let failing = self.tokens.obstacle(key).map(|problem| Warning {
            code: "REFRESH_FAILING",
            text: format!("the last refresh failed: {}", problem.detail),
        });
        credentials.into_iter().chain(failing).collect()
    }
}

/// Which connection answers: the developer's, or the headless one when none is named.
fn key_of(integration: &Integration, developer: Option<DeveloperId>) -> ConnectionKey {
    let role = developer.map_or_else(|| Role::from(integration.headless), Role::Developer);
    ConnectionKey { account: integration.account.clone(), role }
}

/// Who may release may report.
const MAY_REPORT_HEADLESS: [Permission; 3] =
    [Permission::Report, Permission::ReleaseServiceUser, Permission::Git];
const MAY_REPORT_DEVELOPERS: [Permission; 2] = [Permission::Report, Permission::ReleaseDeveloper];
/// A token and its successor: a third would run short as they did.
const RECORDS_MAX: u32 = 2;
const RAN_SHORT_RETRY: Duration = Duration::from_secs(1);
