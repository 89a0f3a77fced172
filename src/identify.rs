//! Who signed in, and do they belong? From what Entra answered to an identity of the organization.
//!
//! # Invariants
//!
//! 1. An identity is what a verified `id_token` says, of a member of the integration's organization.
//! 2. Nothing is spent here: a check that could not be finished is made again, with the same answer.
//!
//! It decides nothing about connections; links and imports do.

use std::sync::Arc;

use async_trait::async_trait;

use crate::connection::Identity;
use crate::devops::{Devops, Paces, Purpose};
use crate::entra::{self, Entra, Expected, IdTokenError};
use crate::reason::{Problem, Reason};
use crate::secret::{AccessToken, RawIdToken};
use crate::vault::Integration;

/// What Entra answered to a code or a refresh.
pub struct SignIn<'a> {
    pub unverified: &'a RawIdToken,
    /// What the sign-in was begun with; none where nobody signed in just now.
    pub nonce: Option<&'a str>,
    pub access: &'a AccessToken,
    pub scopes: &'a [String],
}

/// Why it is nobody of the organization.
#[derive(Debug)]
pub enum Unidentified {
    /// For this reason, until somebody acts.
    No(Problem),
    /// What Entra signed names another tenant: no act makes it one of this.
    Another,
    /// The `id_token` proves nothing, or nothing any more; another one may.
    Unproven(IdTokenError),
    /// Cannot be told now: Microsoft does not answer.
    NotNow,
}

/// Tells who it is.
#[async_trait]
pub trait Identify: Send + Sync {
    async fn identify(
        &self,
        integration: &Integration,
        sign_in: &SignIn<'_>,
    ) -> Result<Identity, Unidentified>;
}

/// Asks Entra for its signing keys and Azure DevOps for the membership.
pub struct Identifier {
    pub entra: Arc<Entra>,
    pub devops: Arc<Devops>,
    pub paces: Arc<Paces>,
}

#[async_trait]
impl Identify for Identifier {
    async fn identify(
        &self,
        integration: &Integration,
        sign_in: &SignIn<'_>,
    ) -> Result<Identity, Unidentified> {
        if !entra::are_for_devops(sign_in.scopes) {
            let detail = "Entra issued no access to Azure DevOps: the app needs the delegated permission user_impersonation of Azure DevOps";
            return Err(Unidentified::No(Problem::new(Reason::IntegrationMisconfigured, detail)));
        }
        let expected =
            Expected { tenant: &integration.tenant, client_id: &integration.client_id, nonce: sign_in.nonce };
        let mut identity = match self.entra.verify_id_token(sign_in.unverified, &expected).await {
            Ok(identity) => identity,
            Err(IdTokenError::KeysUnreachable(_) | IdTokenError::KeysUnusable) => {
                return Err(Unidentified::NotNow);
            }
            Err(error) => {
                tracing::warn!(
                    account = %integration.account, error = &error as &dyn std::error::Error,
                    "an id_token was refused"
                );
                return Err(match error {
                    IdTokenError::Tenant => Unidentified::Another,
                    error => Unidentified::Unproven(error),
                });
            }
        };
        let member = self.devops.who_am_i(&integration.organization, sign_in.access);
        let member = self.paces.of(&identity).run(Purpose::Membership, member).await;
        let member = member.map_err(|error| {
            let problem = error.problem();
            if problem.reason.is_transient() { Unidentified::NotNow } else { Unidentified::No(problem) }
        })?;
        if identity.login.is_empty() {
            identity.login = member.login;
        }
        if identity.display_name.is_empty() {
            identity.display_name = member.display_name;
        }
        Ok(identity)
    }
}
