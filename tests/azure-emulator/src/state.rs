//! Everything that changes while the emulator runs, behind one lock.
//!
//! Invariants:
//!
//! 1. The lock is held for a few instructions and never while waiting.
//! 2. A refresh token stays valid when it is used: each use slides the window of the new one
//!    and leaves the old one as it is, as Entra does (a switch makes rotation strict: then a
//!    token that comes again revokes its whole family).

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::call::Call;
use crate::clock::Clock;
use crate::devops::Usage;
use crate::fault::Fault;
use crate::gate::Gate;
use crate::keys::Keys;
use crate::random::Random;
use crate::record::{Log, Recorded};
use crate::switches::{Switch, Switches};
use crate::world::{World, same};

/// What every handler shares.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) gate: Gate,
    pub(crate) keys: Keys,
    /// Made one at a time, and only when they are needed.
    pub(crate) seeding: tokio::sync::Mutex<()>,
    /// Where the repositories are.
    pub(crate) data_dir: PathBuf,
    pub(crate) authority_pem: String,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) world: World,
    pub(crate) random: Random,
    pub(crate) faults: Switches,
    pub(crate) log: Log,
    pub(crate) codes: HashMap<String, Code>,
    pub(crate) refresh_tokens: HashMap<String, RefreshToken>,
    pub(crate) access_tokens: HashMap<String, AccessToken>,
    /// Pairs of object id and client id.
    pub(crate) consents: HashSet<(String, String)>,
    /// When token requests were let through, while a switch limits them.
    let_through: VecDeque<Instant>,
    /// While a switch limits what an identity may use.
    pub(crate) usage: Usage,
}

/// Who a token speaks for.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) oid: String,
    /// The UPN, or the client id of an app that speaks for itself.
    pub(crate) name: String,
    pub(crate) display_name: String,
    pub(crate) tenant_id: String,
    pub(crate) is_app: bool,
}

/// The tenant segment of an endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Segment {
    Tenant(String),
    /// `common`, `organizations` or `consumers`.
    Any(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(crate) segment: Segment,
    pub(crate) client_id: String,
    pub(crate) redirect_uri: String,
    pub(crate) subject: Subject,
    pub(crate) scope: String,
    pub(crate) nonce: Option<String>,
    /// The challenge, and whether it is the SHA-256 of the verifier.
    pub(crate) challenge: Option<(String, bool)>,
    pub(crate) issued_at: Timestamp,
    pub(crate) is_used: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct RefreshToken {
    pub(crate) subject: Subject,
    pub(crate) client_id: String,
    pub(crate) scope: String,
    pub(crate) issued_at: Timestamp,
    /// What all tokens that came from one sign-in share.
    pub(crate) family: String,
    /// Another one came in its place, under strict rotation.
    pub(crate) is_rotated: bool,
    pub(crate) is_revoked: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct AccessToken {
    pub(crate) subject: Subject,
    pub(crate) client_id: String,
    pub(crate) audience: String,
    /// Delegated permissions, such as `vso.code`; none for an app.
    pub(crate) permissions: Vec<String>,
    pub(crate) expires_at: Timestamp,
}

/// What a running emulator is made of.
pub(crate) struct Parts {
    pub(crate) world: World,
    pub(crate) clock: Clock,
    pub(crate) keys: Keys,
    pub(crate) seed: u64,
    pub(crate) data_dir: PathBuf,
    pub(crate) authority_pem: String,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        let state = State {
            world: parts.world,
            random: Random::new(parts.seed),
            faults: Switches::default(),
            log: Log::default(),
            codes: HashMap::new(),
            refresh_tokens: HashMap::new(),
            access_tokens: HashMap::new(),
            consents: HashSet::new(),
            let_through: VecDeque::new(),
            usage: Usage::new(),
        };
        Self {
            clock: parts.clock,
            gate: Gate::new(),
            keys: parts.keys,
            seeding: tokio::sync::Mutex::new(()),
            data_dir: parts.data_dir,
            authority_pem: parts.authority_pem,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses the oldest matching switch once.
    pub(crate) fn take_fault(&self, matches: impl Fn(&Fault) -> bool) -> Option<Fault> {
        self.state().faults.take(matches)
    }

    pub(crate) fn find_fault(&self, matches: impl Fn(&Fault) -> bool) -> Option<Fault> {
        self.state().faults.find(matches).cloned()
    }

    /// Turns a switch on; those which change the state do so at once.
    pub(crate) fn switch(&self, Switch { fault, within }: Switch) {
        let now = self.clock.now();
        let mut state = self.state();
        match fault {
            Fault::UserRevoke { upn } => state.revoke(&upn),
            Fault::PasswordChanged { upn, revokes } if revokes => state.revoke(&upn),
            Fault::PasswordChanged { .. } => {}
            Fault::Disconnect { organization } => {
                let organizations = state.world.organizations.iter_mut();
                organizations.filter(|it| same(&it.name, &organization)).for_each(|it| it.tenant = None);
            }
            Fault::UserDisable { upn } => state.enable(&upn, false),
            Fault::UserEnable { upn } => state.enable(&upn, true),
            Fault::ConsentDelete { upn } => {
                let oid = state.world.user(&upn).map(|user| user.oid.clone());
                state.consents.retain(|(owner, _)| Some(owner) != oid.as_ref());
            }
            Fault::SecretExpire { client_id } => {
                let apps = state.world.apps.iter_mut();
                for app in apps.filter(|app| same(&app.client_id, &client_id)) {
                    app.secrets.iter_mut().for_each(|secret| secret.expires_at = Some(now));
                }
            }
            Fault::RotateKeys {} => self.keys.rotate(),
            fault => state.faults.switch_on(Switch { fault, within }, now),
        }
    }

    /// Turns all switches off and lets waiting requests go on.
    pub(crate) fn clear_faults(&self) {
        self.state().faults.clear();
        self.gate.release();
    }

    /// Turns holding and hanging off and lets the waiting requests go on.
    pub(crate) fn release(&self) {
        self.state().faults.remove(|fault| {
            let holds = matches!(fault, Fault::EntraHold { .. } | Fault::EntraHang { .. });
            holds || matches!(fault, Fault::DevopsHang { .. } | Fault::DevopsHold { .. })
        });
        self.gate.release();
    }

    /// Puts a request into the log and its number into the request.
    pub(crate) fn record(&self, call: &mut Call, recorded: Recorded) {
        call.n = self.state().log.arrived(recorded);
    }
}

impl State {
    /// Whether one more token request is within the limit, if there is one; then it counts. By the machine's
    /// clock, whatever the emulator's says: a limit is about load.
    pub(crate) fn let_through(&mut self) -> bool {
        let Some(Fault::EntraLimit { per_second }) =
            self.faults.find(|fault| matches!(fault, Fault::EntraLimit { .. })).cloned()
        else {
            return true;
        };
        let now = Instant::now();
        while self.let_through.front().is_some_and(|first| LIMITED_OVER <= now.duration_since(*first)) {
            self.let_through.pop_front();
        }
        let is_within = self.let_through.len() < per_second;
        if is_within {
            self.let_through.push_back(now);
        }
        is_within
    }

    fn revoke(&mut self, upn: &str) {
        let Some(oid) = self.world.user(upn).map(|user| user.oid.clone()) else {
            return;
        };
        let tokens = self.refresh_tokens.values_mut();
        for token in tokens.filter(|token| token.subject.oid == oid) {
            token.is_revoked = true;
        }
    }

    fn enable(&mut self, upn: &str, enabled: bool) {
        for user in self.world.users.iter_mut().filter(|user| same(&user.upn, upn)) {
            user.enabled = enabled;
        }
    }
}

const LIMITED_OVER: Duration = Duration::from_secs(1);
