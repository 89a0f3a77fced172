//! Trying everything that can be tried without a person, and saying for each who must do what (P10).
//!
//! # Invariants
//!
//! 1. What is wrong with an account is in the report, not an error.
//! 2. Nothing is spent but one token request a credential and one refresh; at most one run a minute and account.
//! 3. What is asked in the name of the headless identity is asked at its pace, and its list has a place among
//!    those that may be made at once (P8).
//! 4. What Entra tells nobody, such as the registered redirect URIs, is shown to be compared, not guessed.

mod identity;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;

use crate::accounts::{Accounts, warnings_of_credential};
use crate::clock::{Clock, between};
use crate::devops::{Devops, DevopsError, Directory, Paces};
use crate::entra::{Entra, EntraError, TokenEndpoint as _, Verdict};
use crate::event::Outcome;
use crate::gate::{Asking, Gate};
use crate::ids::AccountId;
use crate::policy::Permission;
use crate::reason::{Problem, Reason, Refused, Warning};
use crate::tokens::Tokens;
use crate::vault::{ClientCredential, Integration, Vault};

/// What a check needs.
#[derive(Clone)]
pub struct Checks {
    pub gate: Gate,
    pub vault: Arc<Vault>,
    pub accounts: Arc<Accounts>,
    pub tokens: Tokens,
    pub entra: Arc<Entra>,
    pub devops: Arc<Devops>,
    pub paces: Arc<Paces>,
    pub clock: Arc<dyn Clock>,
    /// When the key file was made, as its file system tells.
    pub key_made_at: Option<Timestamp>,
    pub runs: Runs,
}

/// When accounts were last checked, by the monotonic clock.
#[derive(Clone, Default)]
pub struct Runs(Arc<Mutex<HashMap<AccountId, Duration>>>);

/// One thing that was tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    pub name: &'static str,
    pub found: Found,
    /// What was seen, and who must do what.
    pub message: String,
}

/// How it came out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    Passed,
    Warned,
    Failed(Reason),
    Skipped,
}

/// All of a run, in the order in which it was tried.
#[derive(Debug)]
pub struct Report {
    pub checks: Vec<Check>,
    pub at: Timestamp,
}

impl Checks {
    /// Checks an account's integration.
    pub async fn check(&self, asking: Asking, account: AccountId) -> Result<Report, Refused> {
        let allowed = self.gate.allow(&asking, Permission::IntegrationsRead, &account).await?;
        let Some(integration) = self.accounts.integration(allowed.account()).await? else {
            return Err(self.gate.denied(&asking, Some(&account)).await);
        };
        let now = self.clock.now();
        self.runs.take_turn(&account, now.monotonic)?;
        let mut event = asking.event(Outcome::Done);
        event.account = Some(account);
        self.gate.record(event).await?;
        let mut checks = self.own().await;
        checks.extend(self.of_entra(&integration, now.wall).await);
        checks.extend(self.of_credentials(&integration, now.wall).await);
        checks.extend(self.of_organization(&integration).await);
        checks.push(redirect_uris(&integration));
        checks.extend(self.of_identity(&allowed, &integration).await);
        Ok(Report { checks, at: now.wall })
    }

    /// The broker's own footing.
    async fn own(&self) -> Vec<Check> {
        let store = match self.vault.probe().await {
            Ok(()) => passed("store", "the store takes writes".to_owned()),
            Err(error) => of_problem("store", &error.problem()),
        };
        let age = self.key_made_at.map(|at| between(at, self.clock.now().wall));
        let key = match age {
            None => skipped("key", "the age of the key file is not known".to_owned()),
            Some(age) if KEY_AGE_MAX < age => warned(
                "key",
                format!("the key file is {} days old: the operator should plan a new one", days(age)),
            ),
            Some(age) => passed("key", format!("the key file is {} days old", days(age))),
        };
        vec![store, key]
    }

    async fn of_entra(&self, integration: &Integration, now: Timestamp) -> Vec<Check> {
        let seen = match self.entra.look(&integration.tenant).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "Entra was not reached by a check");
                let message =
                    "Entra does not answer over TLS: the operator must look at proxy, CA bundle and network";
                return vec![
                    failed("entra", Reason::UpstreamUnavailable, message.to_owned()),
                    skipped("clock", "Entra's clock was not seen".to_owned()),
                    skipped("tenant", "Entra was not asked".to_owned()),
                ];
            }
        };
        let entra = passed("entra", "Entra answers over TLS".to_owned());
        let clock = match seen.at {
            None => skipped("clock", "Entra told no time".to_owned()),
            Some(at) => {
                let apart = between(at, now).max(between(now, at));
                if apart <= CLOCK_APART_MAX {
                    passed("clock", format!("the broker's clock and Entra's are {} s apart", apart.as_secs()))
                } else {
                    let message = format!(
                        "the broker's clock and Entra's are {} s apart: the operator must set the broker's",
                        apart.as_secs()
                    );
                    warned("clock", message)
                }
            }
        };
        let tenant = if seen.is_there {
            passed("tenant", format!("Entra knows the tenant {}", integration.tenant))
        } else {
            let message = format!(
                "Entra knows no tenant {}: whoever registered the integration must enter the Directory (tenant) ID",
                integration.tenant
            );
            failed("tenant", Reason::IntegrationMisconfigured, message)
        };
        vec![entra, clock, tenant]
    }

    /// Each client credential by a real token request.
    async fn of_credentials(&self, integration: &Arc<Integration>, now: Timestamp) -> Vec<Check> {
        if integration.credentials.is_empty() {
            let message = "there is no client credential: whoever registered the integration must enter one";
            return vec![failed("client_credential", Reason::ClientCredentialRejected, message.to_owned())];
        }
        let mut checks = Vec::new();
        for credential in &integration.credentials {
            checks.push(self.of_credential(integration, credential, now).await);
        }
        checks
    }

    async fn of_credential(
        &self,
        integration: &Arc<Integration>,
        credential: &ClientCredential,
        now: Timestamp,
    ) -> Check {
        let name = "client_credential";
        let which = format!("{} {}", credential.kind(), credential.fingerprint());
        let chosen = match self.accounts.choose(integration, credential).await {
            Ok(chosen) => chosen,
            Err(problem) => {
                let message = format!("{which}: {}. {}", problem.detail, problem.what_to_do());
                return failed(name, problem.reason, message);
            }
        };
        let refused = match self.entra.client_credentials(&chosen.app()).await {
            Ok(_) => None,
            Err(error) if error.is_past_client_authentication() => None,
            Err(error) => Some(error),
        };
        let problem = match refused {
            None => {
                // What waited for it need not wait for its probe.
                if self.accounts.accept(&integration.account, &credential.id).await {
                    self.tokens.forgive(&integration.account);
                }
                let accepted = ClientCredential { rejected_at: None, ..chosen.credential };
                let expiring = warnings_of_credential(&accepted, now).into_iter().next();
                return match expiring {
                    Some(Warning { text, .. }) => warned(name, format!("{which}: {text}")),
                    None => passed(name, format!("{which}: Entra accepts it")),
                };
            }
            Some(error) => entra_problem(&error),
        };
        failed(name, problem.reason, format!("{which}: {}. {}", problem.detail, problem.what_to_do()))
    }

    async fn of_organization(&self, integration: &Integration) -> Vec<Check> {
        let organization = &integration.organization;
        let directory = match self.devops.directory(organization).await {
            Ok(directory) => directory,
            Err(DevopsError::NotFound) => {
                let message = format!(
                    "Azure DevOps knows no organization {organization}: whoever registered the integration must correct the name"
                );
                return vec![
                    failed("organization", Reason::IntegrationMisconfigured, message),
                    skipped("directory", "there is no organization to ask".to_owned()),
                ];
            }
            Err(error) => {
                let message = format!("Azure DevOps does not answer for {organization}; try again later");
                return vec![
                    failed("organization", error.reason(), message),
                    skipped("directory", "the organization was not asked".to_owned()),
                ];
            }
        };
        let found = passed("organization", format!("Azure DevOps knows the organization {organization}"));
        let wrong = |message: String| failed("directory", Reason::IntegrationMisconfigured, message);
        let directory = match directory {
            Directory::Connected(tenant) if tenant == integration.tenant => {
                passed("directory", "the organization is connected to the integration's tenant".to_owned())
            }
            Directory::Connected(tenant) => wrong(format!(
                "the organization is connected to the tenant {tenant}, not the integration's: correct the tenant id, or connect the directory in Azure DevOps"
            )),
            Directory::NotConnected => wrong(
                "the organization is connected to no Entra tenant: its administrator must connect the directory under Organization settings, Microsoft Entra"
                    .to_owned(),
            ),
            Directory::Untold => skipped("directory", "the organization does not tell its tenant".to_owned()),
        };
        vec![found, directory]
    }
}

impl Runs {
    /// Notes that the account is checked now, or says when it may be again.
    fn take_turn(&self, account: &AccountId, now: Duration) -> Result<(), Refused> {
        let mut runs = self.0.lock().expect("no panic while held");
        runs.retain(|_, last| now.saturating_sub(*last) < RUN_EVERY);
        let Some(last) = runs.get(account) else {
            runs.insert(account.clone(), now);
            return Ok(());
        };
        let wait = RUN_EVERY.saturating_sub(now.saturating_sub(*last));
        let detail = "the account was checked less than a minute ago";
        Err(Problem::new(Reason::RateLimited, detail).retry_after(wait).into())
    }
}

/// Entra tells nobody which are registered.
fn redirect_uris(integration: &Integration) -> Check {
    let base = integration.public_url.as_str().trim_end_matches('/');
    let message = format!(
        "compare by eye, since Entra does not tell: the app's Authentication, platform Web, must have {base}/complete/azure_active_directory and {base}/complete/azure_active_directory_service_user"
    );
    skipped("redirect_uris", message)
}

fn entra_problem(error: &EntraError) -> Problem {
    let detail = match error.verdict {
        Verdict::ClientCredential => "Entra rejects it",
        Verdict::Throttled | Verdict::Transient | Verdict::Unknown => "Entra does not answer now",
        Verdict::Admin | Verdict::AppConfig | Verdict::Consent | Verdict::Relink { .. } => {
            "Entra refuses the app"
        }
    };
    Problem::new(error.verdict.reason(), detail).entra_code(error.code)
}

fn of_problem(name: &'static str, problem: &Problem) -> Check {
    failed(name, problem.reason, format!("{}. {}", problem.detail, problem.what_to_do()))
}

fn passed(name: &'static str, message: String) -> Check {
    Check { name, found: Found::Passed, message }
}

fn warned(name: &'static str, message: String) -> Check {
    Check { name, found: Found::Warned, message }
}

fn failed(name: &'static str, reason: Reason, message: String) -> Check {
    Check { name, found: Found::Failed(reason), message }
}

fn skipped(name: &'static str, message: String) -> Check {
    Check { name, found: Found::Skipped, message }
}

fn days(age: Duration) -> u64 {
    age.as_secs() / (24 * 3600)
}

/// Tokens and assertions are refused beyond five minutes (azure.md 2.4); half of it is worth a word.
const CLOCK_APART_MAX: Duration = Duration::from_secs(150);
const KEY_AGE_MAX: Duration = Duration::from_hours(365 * 24);
/// The proto's promise.
const RUN_EVERY: Duration = Duration::from_mins(1);
