//! Proving client credentials: a new one is tried by a real token request before it is tried first.
//!
//! The request is `client_credentials` for Azure DevOps (azure.md 5.4), because it spends nothing and needs no
//! person. A token proves the credential; so does every refusal that comes after client authentication, such
//! as 7000229 (no service principal in the tenant, which a service user does not need). `invalid_client` (7000215,
//! 7000222, a bad assertion) says that Entra does not take it, or not yet: a new secret needs minutes to
//! spread, so it is asked again for [`PROVE_FOR`] before the verdict stands. Anything else proves nothing.
//!
//! # Invariants
//!
//! 1. Nobody waits for a proof, and none outlives the process: what has no verdict is taken up at the next
//!    start, and every [`TAKE_UP_EVERY`] until then. Of one credential there is one at a time.
//! 2. Proven, it is the first one, pauses are lifted, and what waited goes on by itself (P4).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::accounts::Accounts;
use crate::clock::{Clock, between};
use crate::entra::{TokenEndpoint, Verdict};
use crate::ids::{AccountId, CredentialId};
use crate::tokens::Tokens;
use crate::vault::Vault;

/// Takes wishes for proofs. Cheap to clone.
#[derive(Clone)]
pub struct ProofQueue(mpsc::Sender<Wanted>);

/// Runs proofs until told to stop.
pub struct Prover {
    parts: Arc<Parts>,
    wanted: mpsc::Receiver<Wanted>,
}

struct Parts {
    vault: Arc<Vault>,
    accounts: Arc<Accounts>,
    entra: Arc<dyn TokenEndpoint>,
    tokens: Tokens,
    clock: Arc<dyn Clock>,
}

type Wanted = (AccountId, CredentialId);

/// The proofs under way.
#[derive(Default)]
struct Proofs {
    tasks: JoinSet<Told>,
    running: HashMap<Id, Wanted>,
    /// Those that Entra told nothing of, to be taken up again.
    put_off: Vec<Wanted>,
}

/// What a proof came to: a verdict, or nothing that counts.
enum Told {
    Enough,
    TooLittle,
}

/// What one try came to.
enum Tried {
    Proven,
    Refused,
    /// Asks again not before this time, if it is told.
    Unknown(Option<Duration>),
    /// The credential is gone.
    Over,
}

/// Creates the pair: the queue for the use cases and the actor for the app to run.
pub fn make_prover(
    vault: Arc<Vault>,
    accounts: Arc<Accounts>,
    entra: Arc<dyn TokenEndpoint>,
    tokens: Tokens,
    clock: Arc<dyn Clock>,
) -> (ProofQueue, Prover) {
    let (queue, wanted) = mpsc::channel(QUEUED_MAX);
    let parts = Arc::new(Parts { vault, accounts, entra, tokens, clock });
    (ProofQueue(queue), Prover { parts, wanted })
}

impl ProofQueue {
    pub(super) fn ask(&self, account: &AccountId, credential: &CredentialId) {
        if self.0.try_send((account.clone(), credential.clone())).is_err() {
            tracing::warn!(
                account = %account, credential = %credential,
                "too many client credentials wait for their proof; this one is proven by its first use"
            );
        }
    }
}

impl Prover {
    pub async fn run(self, stop: CancellationToken) {
        let Self { parts, mut wanted } = self;
        let clock = parts.clock.clone();
        let mut left = tokio::select! {
            () = stop.cancelled() => return,
            left = parts.left_behind() => left,
        };
        let mut proofs = Proofs::default();
        let mut take_up = clock.sleep(TAKE_UP_EVERY);
        loop {
            let has_room = proofs.tasks.len() < PROOFS_MAX;
            if let Some(one) = left.pop_if(|_| has_room) {
                proofs.start(parts.clone(), one);
                continue;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = proofs.tasks.join_next_with_id() => proofs.on_ended(ended),
                () = &mut take_up => {
                    take_up = clock.sleep(TAKE_UP_EVERY);
                    left.append(&mut proofs.put_off);
                }
                Some(one) = wanted.recv(), if has_room => {
                    if !proofs.is_running(&one) && !left.contains(&one) {
                        left.push(one);
                    }
                }
            }
        }
        proofs.tasks.shutdown().await;
    }
}

impl Proofs {
    fn start(&mut self, parts: Arc<Parts>, one: Wanted) {
        self.put_off.retain(|other| *other != one);
        let wanted = one.clone();
        let task = self.tasks.spawn(async move { parts.prove(wanted).await });
        self.running.insert(task.id(), one);
    }

    /// One proof of a credential is enough, however often it is added.
    fn is_running(&self, one: &Wanted) -> bool {
        self.running.values().any(|running| running == one)
    }

    fn on_ended(&mut self, ended: Result<(Id, Told), JoinError>) {
        let (id, told) = match ended {
            Ok((id, told)) => (id, Ok(told)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(one) = self.running.remove(&id) else { return };
        let (account, credential) = &one;
        match told {
            Ok(Told::Enough) => {}
            Ok(Told::TooLittle) if self.put_off.len() < QUEUED_MAX => self.put_off.push(one),
            Ok(Told::TooLittle) => {
                tracing::warn!(account = %account, credential = %credential, "it is proven by its first use");
            }
            Err(error) => tracing::error!(
                account = %account, credential = %credential, error = &error as &dyn std::error::Error,
                "a proof panicked"
            ),
        }
    }
}

impl Parts {
    /// What a process before this one had not proven when it ended.
    async fn left_behind(&self) -> Vec<Wanted> {
        let (mut left, mut after) = (Vec::new(), None);
        loop {
            let page = match self.vault.integrations(after.as_ref(), READ_AT_ONCE, |_| true).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "unproven credentials are not known"
                    );
                    return left;
                }
            };
            let is_last = page.len() < READ_AT_ONCE;
            let now = self.clock.now().wall;
            for (account, opened) in page {
                let credentials = opened.and_then(Result::ok).map(|one| one.credentials).unwrap_or_default();
                let unproven = credentials.into_iter().filter(|credential| {
                    let has_verdict =
                        credential.rejected_at.is_some() && PROVE_FOR <= between(credential.added_at, now);
                    credential.proven_at.is_none() && !credential.has_expired(now) && !has_verdict
                });
                left.extend(unproven.map(|credential| (account.clone(), credential.id)));
                after = Some(account);
            }
            if is_last {
                return left;
            }
        }
    }

    async fn prove(&self, (account, credential): Wanted) -> Told {
        let began = self.clock.now().monotonic;
        loop {
            let tried = self.try_once(&account, &credential).await;
            let is_last = PROVE_FOR <= self.clock.now().monotonic.saturating_sub(began);
            let wait = match tried {
                Tried::Over => return Told::Enough,
                Tried::Proven => {
                    if self.accounts.accept(&account, &credential).await {
                        self.tokens.forgive(&account);
                    }
                    return Told::Enough;
                }
                Tried::Refused if is_last => {
                    self.accounts.reject(&account, &credential).await;
                    return Told::Enough;
                }
                Tried::Refused => TRY_EVERY,
                Tried::Unknown(_) if is_last => return Told::TooLittle,
                Tried::Unknown(wait) => wait.unwrap_or_default().clamp(TRY_EVERY, PROVE_FOR),
            };
            self.clock.sleep(wait).await;
        }
    }

    async fn try_once(&self, account: &AccountId, credential: &CredentialId) -> Tried {
        let Ok(integration) = self.accounts.integration(account).await else { return Tried::Unknown(None) };
        let Some(integration) = integration else { return Tried::Over };
        let Some(found) = integration.credential(credential) else { return Tried::Over };
        let Ok(chosen) = self.accounts.choose(&integration, found).await else { return Tried::Unknown(None) };
        match self.entra.client_credentials(&chosen.app()).await {
            Ok(_) => Tried::Proven,
            Err(error) if error.is_past_client_authentication() => Tried::Proven,
            Err(error) if error.verdict == Verdict::ClientCredential => {
                tracing::info!(
                    account = %account, credential = %credential, entra.code = error.code,
                    "Entra does not take a new client credential yet"
                );
                Tried::Refused
            }
            Err(error) => Tried::Unknown(error.retry_after),
        }
    }
}

/// A new secret is known to all of Entra by then (design.md 6.8).
const PROVE_FOR: Duration = Duration::from_mins(5);
const TRY_EVERY: Duration = Duration::from_secs(15);
/// A proof that brought no verdict, since Entra did not answer or a file was missing, begins anew.
const TAKE_UP_EVERY: Duration = Duration::from_mins(10);
/// One small request each, mostly asleep.
const PROOFS_MAX: usize = 64;
const QUEUED_MAX: usize = 1024;
const READ_AT_ONCE: usize = 200;
