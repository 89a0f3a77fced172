//! Integrations held in memory, and which client credential is in force.
//!
//! # Invariants
//!
//! 1. A verdict falls on the client credential that was used, by its id, never on connections
//!    (design.md 6.8, P4). That all are rejected is derived, not stored.
//! 2. A rejected credential is probed now and then, by one request however many wait: when it works
//!    again, all resumes by itself.
//! 3. Whoever writes an integration writes over what it read ([`Accounts::change`]); a verdict and a
//!    person's change never lose each other.
//!
//! It registers nothing; `integrations` does.

mod attempts;
mod expiry;
mod federated;
mod warning;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

pub use self::attempts::{Attempts, Chosen};
pub use self::expiry::ExpiryWatch;
pub use self::federated::Sources;
pub use self::warning::{warning_of_grant, warnings_of, warnings_of_credential};
use crate::clock::Clock;
use crate::ids::{AccountId, CredentialId};
use crate::reason::{Problem, Reason, Refused};
use crate::vault::{Integration, Vault, VaultError};

/// Cheap to share behind an `Arc`.
pub struct Accounts {
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    sources: Sources,
    held: RwLock<HashMap<AccountId, Held>>,
    /// Until when nobody else probes each rejected credential, by the monotonic clock.
    probed: Mutex<HashMap<CredentialId, Duration>>,
}

/// What is known of an account's integration.
enum Held {
    There(Arc<Integration>),
    /// Deleted at this version: nothing older comes back.
    Deleted(i64),
}

/// What [`Accounts::change`] is to do with what its closure looked at.
pub enum Edit<T> {
    Write(Box<Integration>, T),
    Leave(T),
}

/// How a change ended: the integration in force, and what the closure says of it.
pub struct Edited<T> {
    pub integration: Option<Arc<Integration>>,
    pub told: T,
}

impl Accounts {
    pub fn new(vault: Arc<Vault>, clock: Arc<dyn Clock>, sources: Sources) -> Self {
        Self { vault, clock, sources, held: RwLock::default(), probed: Mutex::default() }
    }

    /// The account's integration, from memory if it was asked for before; `None` if it has none.
    pub async fn integration(&self, account: &AccountId) -> Result<Option<Arc<Integration>>, Problem> {
        if let Some(held) = self.in_memory(account) {
            return Ok(Some(held));
        }
        let read = self.vault.integration(account).await.map_err(|error| error.problem())?;
        Ok(read.and_then(|integration| self.hold(integration)))
    }

    /// The integrations held, with their versions.
    pub fn held(&self) -> Vec<(AccountId, i64)> {
        let held = self.held.read().expect("no panic while held");
        let there = |(account, held): (&AccountId, &Held)| match held {
            Held::There(integration) => Some((account.clone(), integration.version)),
            Held::Deleted(_) => None,
        };
        held.iter().filter_map(there).collect()
    }

    /// Takes up what another replica wrote, if the integration is one that is held.
    pub async fn reload(&self, account: &AccountId) -> Result<(), VaultError> {
        let Some(before) = self.in_memory(account) else {
            return Ok(());
        };
        match self.vault.integration(account).await {
            Ok(Some(integration)) => drop(self.hold(integration)),
            Ok(None) => self.forget(&before),
            // It fails alone (P9): whoever asks for it next is told.
            Err(VaultError::Damaged(_) | VaultError::Sealed { .. }) => {
                self.held.write().expect("no panic while held").remove(account);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The same, if it is not suspended: for who hands out tokens and lists.
    pub fn check_active(integration: &Integration) -> Result<(), Problem> {
        match &integration.suspension {
            None => Ok(()),
            Some(_) => Err(Problem::new(Reason::Suspended, "the account's integration is suspended")),
        }
    }

    /// The configured sources of assertions.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Changes the integration by what `edit` makes of the one that stands: asked again when somebody else
    /// wrote meanwhile.
    pub async fn change<T>(
        &self,
        account: &AccountId,
        mut edit: impl FnMut(Option<Integration>) -> Result<Edit<T>, Refused>,
    ) -> Result<Edited<T>, Refused> {
        for _ in 0..RACES_MAX {
            let before = self.vault.integration(account).await?;
            let (after, told) = match edit(before.clone())? {
                Edit::Leave(told) => {
                    let integration = before.and_then(|before| self.hold(before));
                    return Ok(Edited { integration, told });
                }
                Edit::Write(after, told) => (*after, told),
            };
            match self.vault.put_integration(after).await {
                Err(VaultError::Changed(_)) => {}
                written => return Ok(Edited { integration: self.hold(written?), told }),
            }
        }
        Err(VaultError::Changed(format!("integration {account}")).into())
    }

    /// Forgets an integration that was deleted.
    pub fn forget(&self, integration: &Integration) {
        let mut held = self.held.write().expect("no panic while held");
        held.insert(integration.account.clone(), Held::Deleted(integration.version));
    }

    fn in_memory(&self, account: &AccountId) -> Option<Arc<Integration>> {
        match self.held.read().expect("no panic while held").get(account) {
            Some(Held::There(held)) => Some(held.clone()),
            Some(Held::Deleted(_)) | None => None,
        }
    }

    /// Makes this the integration in force, and says which one is. An older version than the held one
    /// changes nothing, and nothing that was deleted comes back.
    fn hold(&self, integration: Integration) -> Option<Arc<Integration>> {
        let mut held = self.held.write().expect("no panic while held");
        if HELD_MAX <= held.len() && !held.contains_key(&integration.account) {
            // Any will do: it is read again when it is asked for.
            let some = held.keys().next().cloned();
            some.and_then(|account| held.remove(&account));
        }
        let account = integration.account.clone();
        let known = match held.get(&account) {
            Some(Held::There(known)) => known.version,
            Some(Held::Deleted(version)) => *version,
            None => i64::MIN,
        };
        if known < integration.version {
            held.insert(account.clone(), Held::There(Arc::new(integration)));
        }
        match held.get(&account) {
            Some(Held::There(in_force)) => Some(in_force.clone()),
            Some(Held::Deleted(_)) | None => None,
        }
    }
}

/// Gentle: a wrong secret stays wrong until a person acts, and then we are told.
pub const PROBE_EVERY: Duration = Duration::from_mins(10);
/// A few kilobytes each; beyond this the oldest asked-for are read from the store again.
const HELD_MAX: usize = 50_000;
/// Verdicts and people's changes meet at most this often in a row.
const RACES_MAX: usize = 8;
