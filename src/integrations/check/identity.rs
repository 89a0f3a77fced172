//! The headless identity of an account: linked, refreshed, a member, and with something to read.

use std::sync::Arc;
use std::time::Duration;

use super::{Check, Checks, of_problem, passed, skipped, warned};
use crate::connection::{ConnectionKey, Role};
use crate::devops::{BATCH_LEN_MAX, DevopsError, Purpose, RepositoryId};
use crate::ids::Organization;
use crate::policy::Allowed;
use crate::reason::Problem;
use crate::tokens::{Reported, Token};
use crate::vault::Integration;

/// What the identity sees of an organization.
struct Counted {
    seen: usize,
    open: usize,
    /// Whose permission was asked.
    tried: usize,
    readable: usize,
}

impl Checks {
    /// The headless identity: linked, refreshed, a member, and with something to read.
    pub(super) async fn of_identity(&self, allowed: &Allowed, integration: &Integration) -> Vec<Check> {
        let role = Role::from(integration.headless);
        let key = ConnectionKey { account: integration.account.clone(), role };
        let name = match key.role {
            Role::ServicePrincipal => "service_principal",
            Role::ServiceUser | Role::Developer(_) => "service_user",
        };
        let rest = |checks: &mut Vec<Check>, names: &[&'static str]| {
            let why = || "an earlier check failed".to_owned();
            checks.extend(names.iter().map(|name| skipped(name, why())));
        };
        let mut checks = Vec::new();
        let token = match self.fresh(allowed, &key).await {
            Ok(token) => token,
            Err(problem) => {
                checks.push(of_problem(name, &problem));
                rest(&mut checks, &["membership", "repositories"]);
                return checks;
            }
        };
        let who = if token.identity.login.is_empty() {
            &token.identity.display_name
        } else {
            &token.identity.login
        };
        checks.push(passed(name, format!("Entra refreshes the {}, {who}", key.role.kind())));
        let organization = &integration.organization;
        let pace = self.paces.of(&token.identity);
        let member = self.devops.who_am_i(organization, &token.access);
        if let Err(error) = pace.run(Purpose::Membership, member).await {
            let detail = if error.reason().is_transient() {
                format!("Azure DevOps does not tell now whether {who} is a member")
            } else {
                format!("Azure DevOps does not admit {who}")
            };
            let problem = Problem { detail: detail.into(), ..error.problem() };
            checks.push(of_problem("membership", &problem));
            rest(&mut checks, &["repositories"]);
            return checks;
        }
        checks.push(passed("membership", format!("{who} is a member of {organization}")));
        checks.push(self.of_repositories(organization, &token, who).await);
        checks
    }

    async fn of_repositories(&self, organization: &Organization, token: &Token, who: &str) -> Check {
        let name = "repositories";
        let Some(_place) = self.paces.list_place() else {
            return skipped(
                name,
                "the broker is making as many lists as it may: check again later".to_owned(),
            );
        };
        let Counted { seen, open, tried, readable } = match self.count(organization, token).await {
            Ok(counted) => counted,
            Err(error) => return of_problem(name, &error.problem()),
        };
        let nothing = if seen == 0 {
            format!(
                "{who} sees no repository: its access level must be Basic, and a project must have it in a group"
            )
        } else if open == 0 {
            format!(
                "{who} sees {seen} repositories, all of them disabled: their administrators must enable what is to be cloned"
            )
        } else if readable == 0 {
            format!(
                "{who} may read none of the {tried} repositories that were tried, of {seen} it sees: their administrators must allow it Read"
            )
        } else {
            let message = format!(
                "{who} sees {seen} repositories and may read {readable} of the {tried} that were tried"
            );
            return passed(name, message);
        };
        warned(name, nothing)
    }

    /// Seeing is not reading: one batch of permissions tells whether there is anything to clone.
    async fn count(&self, organization: &Organization, token: &Token) -> Result<Counted, DevopsError> {
        let pace = self.paces.of(&token.identity);
        let listed = pace.run(Purpose::List, self.devops.repositories(organization, &token.access)).await?;
        let open = listed.iter().filter(|repo| !repo.is_closed());
        let tried: Vec<_> = open
            .clone()
            .take(BATCH_LEN_MAX)
            .map(|repo| RepositoryId { project_id: &repo.project.id, id: &repo.id })
            .collect();
        let may_read = match tried.as_slice() {
            [] => Vec::new(),
            tried => {
                pace.run(Purpose::List, self.devops.may_read(organization, &token.access, tried)).await?
            }
        };
        let readable = may_read.into_iter().filter(|may| *may).count();
        Ok(Counted { seen: listed.len(), open: open.count(), tried: tried.len(), readable })
    }

    /// A token of a refresh made for this check, unless one was made a moment ago.
    async fn fresh(&self, allowed: &Allowed, key: &ConnectionKey) -> Result<Arc<Token>, Problem> {
        let token = self.tokens.token(allowed, key, Duration::ZERO).await?;
        match self.tokens.report(allowed, key, &token.fingerprint) {
            Reported::Replacing => self.tokens.token_other_than(allowed, key, &token.fingerprint).await,
            Reported::TooSoon | Reported::Unknown => Ok(token),
        }
    }
}
