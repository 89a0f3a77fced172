//! `ConnectServicePrincipal`: the account's app itself becomes a connection; no person is involved.
//!
//! There is no grant: its tokens come by `client_credentials`, on demand (azure.md 5.4). What makes it a
//! connection is the proof that the organization knows it, and that somebody allowed to do so wanted it.

use std::sync::Arc;
use std::time::Duration;

use super::look::ConnectionView;
use super::{Links, Parts, lost};
use crate::clock::later;
use crate::connection::{ConnectionKey, Identity, Role, Seen};
use crate::devops::DevopsError;
use crate::entra::{Answered, EntraError, TokenEndpoint as _, Verdict, unverified_object_id};
use crate::event::Outcome;
use crate::gate::Asking;
use crate::ids::AccountId;
use crate::policy::Permission;
use crate::reason::{Problem, Reason, Refused};
use crate::vault::{Connection, Integration, Live, Opened, Standing, StoredToken, VaultError};

impl Links {
    /// Connects the service principal, or proves again that it is connected.
    pub async fn connect_service_principal(
        &self,
        asking: Asking,
        account: AccountId,
    ) -> Result<ConnectionView, Refused> {
        let parts = self.0.clone();
        let work = async move { parts.connect_app(asking, account).await };
        self.0.tasks.run(work).await.unwrap_or_else(|_| Err(lost()))
    }
}

impl Parts {
    async fn connect_app(
        self: Arc<Self>,
        asking: Asking,
        account: AccountId,
    ) -> Result<ConnectionView, Refused> {
        let allowed = self.gate.allow(&asking, Permission::ConnectServicePrincipal, &account).await?;
        let key = ConnectionKey { account: allowed.account().clone(), role: Role::ServicePrincipal };
        let Some(integration) = self.accounts.integration(&key.account).await? else {
            return Err(self.gate.denied(&asking, Some(&key.account)).await);
        };
        let mut event = asking.event(Outcome::Done).about(&key);
        let proven = self.prove_app(&integration, &key).await.map_err(Refused::from);
        event.object_id = proven.as_ref().ok().map(|(identity, _)| identity.object_id.clone());
        // Before it is made: a connection nobody recorded must not be.
        let (identity, token) = self.gate.conclude(event.clone(), proven).await?;
        let made = self.make_app(&asking, key, &integration, (&identity, &token)).await;
        if let Err(refused) = &made {
            event.outcome = Outcome::Refused { reason: refused.as_str() };
            // The caller learns of the first failure; this second one is the operator's.
            let _recorded = self.gate.record(event).await;
        }
        made
    }

    /// Makes it of the app that the integration names: what was proven may be of one that it named.
    async fn make_app(
        &self,
        asking: &Asking,
        key: ConnectionKey,
        integration: &Integration,
        (identity, token): (&Identity, &StoredToken),
    ) -> Result<ConnectionView, Refused> {
        for _ in 0..RACES_MAX {
            self.still_of_the_app(integration).await?;
            let (standing, store_clock) = self.standing(&key).await?;
            let live = self.live_app(asking, &key, &standing, (identity, token)).await?;
            let (generation, since) = match self.vault.connect_app(&key, &standing, &live).await {
                Err(VaultError::Changed(_)) => continue, // A refresh landed: look again.
                connected => connected?,
            };
            if let Err(refused) = self.still_of_the_app(integration).await {
                // Whoever changed it ended what stood there, perhaps before this one did.
                if let Some((generation, _)) = self.vault.disconnect(&key).await? {
                    self.tokens.end(&key, generation);
                    self.gate.record_seen(self.vault.store_id(), &key, Seen::end(generation)).await;
                }
                return Err(refused);
            }
            let (store_now, connection) = (standing.store_now, Connection::Live(live));
            let opened = Opened::made(key, (generation, since), connection, store_now);
            self.tokens.publish(&opened, &store_clock);
            tracing::info!(connection.key = %opened.key, connection.generation = generation.0, "connected");
            self.gate.record_seen(self.vault.store_id(), &opened.key, opened.seen()).await;
            return Ok(ConnectionView::of(&opened));
        }
        Err(VaultError::Changed(key.to_string()).into())
    }

    /// As the store has it now; what is held in memory may be older.
    async fn still_of_the_app(&self, proven: &Integration) -> Result<(), Refused> {
        let stands = self.vault.integration(&proven.account).await?;
        let is_same = |now: &Integration| now.tenant == proven.tenant && now.client_id == proven.client_id;
        if stands.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let detail = "the integration was changed or deleted meanwhile: look at it, then connect again";
        Err(Refused::Precondition(detail.into()))
    }

    /// Who the app is in the organization, with the token that proved it.
    async fn prove_app(
        &self,
        integration: &Arc<Integration>,
        key: &ConnectionKey,
    ) -> Result<(Identity, StoredToken), Problem> {
        let (_, store_clock) = self.standing(key).await.map_err(|error| error.problem())?;
        let mut attempts = self.accounts.attempts(integration.clone());
        let (answered, asked_at, accepted) = loop {
            let chosen = attempts.next().await?;
            let asked_at = store_clock.at(self.clock.now());
            match self.entra.client_credentials(&chosen.app()).await {
                Ok(answered) => break (answered, asked_at, chosen.credential.id),
                Err(error) if error.verdict == Verdict::ClientCredential => {
                    attempts.rejected(&chosen, &error).await;
                }
                Err(error) => return Err(no_token(&error)),
            }
        };
        if self.accounts.accept(&integration.account, &accepted).await {
            self.tokens.forgive(&integration.account);
        }
        let Answered { access, lifetime, scopes, .. } = answered;
        // Not paced: whose pace it is, nobody can say before it is answered.
        let member = self.identifier.devops.who_am_i(&integration.organization, &access).await;
        let member = member.map_err(|error| not_admitted(&error))?.value;
        let object_id = unverified_object_id(&access).or(member.object_id).ok_or_else(|| {
            let detail = "neither Entra's token nor Azure DevOps tells the service principal's object id";
            Problem::new(Reason::UpstreamUnavailable, detail)
        })?;
        let identity = Identity {
            tenant: integration.tenant.clone(),
            object_id,
            // It has none: what Azure DevOps shows in its place is a name or an id.
            login: String::new(),
            display_name: member.display_name,
        };
        let expires_at = later(asked_at, lifetime);
        Ok((identity, StoredToken { access, expires_at, lifetime, scopes }))
    }

    /// The connection to be made. Connecting the same again keeps when and by whom it was made.
    async fn live_app(
        &self,
        asking: &Asking,
        key: &ConnectionKey,
        standing: &Standing,
        (identity, token): (&Identity, &StoredToken),
    ) -> Result<Live, VaultError> {
        let before = match &standing.identity {
            Some(before) if before.is_same_as(identity) => self.vault.connection(key).await?,
            _ => None,
        };
        let (linked_at, linked_by) = match before.map(|opened| opened.connection) {
            Some(Connection::Live(live)) => (live.linked_at, live.linked_by),
            _ => (standing.store_now, asking.actor.clone()),
        };
        Ok(Live {
            identity: identity.clone(),
            grant: None,
            token: Some(token.clone()),
            linked_at,
            linked_by,
            refreshed_at: Some(self.clock.now().wall),
            origin: None,
        })
    }
}

fn no_token(error: &EntraError) -> Problem {
    let detail = match error.verdict {
        Verdict::Admin => {
            "Entra knows no service principal of the app in this tenant, or forbids its sign-in"
        }
        Verdict::Throttled | Verdict::Transient | Verdict::Unknown => "Entra does not answer now",
        Verdict::AppConfig | Verdict::ClientCredential | Verdict::Consent | Verdict::Relink { .. } => {
            "Entra refuses the app a token of its own"
        }
    };
    let mut problem = Problem::new(error.verdict.reason(), detail);
    if problem.reason.is_transient() {
        problem = problem.retry_after(error.retry_after.unwrap_or(RETRY));
    }
    problem.entra_code(error.code)
}

fn not_admitted(error: &DevopsError) -> Problem {
    let problem = error.problem();
    if problem.reason != Reason::NotAMember {
        return problem;
    }
    let detail = "the Azure DevOps organization does not know the service principal: its enterprise application must be added under Organization settings, Users";
    Problem { detail: detail.into(), ..problem }
}

/// Refreshes of the connection land between read and write at most this often in a row.
const RACES_MAX: usize = 5;
const RETRY: Duration = Duration::from_secs(30);
