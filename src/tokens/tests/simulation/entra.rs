//! Entra as all replicas see it: families of grants, one for each sign-in, and the truth about every token.
//!
//! A request that was sent goes on by itself, whoever crashed meanwhile: it may be acted on, and nobody
//! hears of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::clock::Gate;
use super::ledger::{Event, Ledger};
use crate::clock::Clock as _;
use crate::connection::{ConnectionKey, Identity};
use crate::entra::{Answered, App, EntraError, Rotation, TokenEndpoint, Verdict};
use crate::identify::{Identify, SignIn, Unidentified};
use crate::secret::{AccessToken, Fingerprint, RefreshToken};
use crate::testing::RuntimeClock;
use crate::vault::Integration;

/// Clones are the same Entra.
#[derive(Clone)]
pub(super) struct SimEntra {
    state: Arc<Mutex<State>>,
    ledger: Arc<Ledger>,
    truth: Arc<RuntimeClock>,
    rotation: Rotation,
    lifetime: Duration,
}

/// One replica's way to it.
pub(super) struct EntraLine {
    pub(super) entra: SimEntra,
    pub(super) replica: Arc<str>,
    pub(super) gate: Arc<Gate>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// Acted on, and the connection breaks before the answer.
    AnswerLost,
    /// The client credential is refused, before anything is spent.
    BadCredential,
    /// Nothing answers until the deadline; it was acted on, or not.
    Hangs {
        acted: bool,
    },
    /// A mistake of Entra's: the grant is refused, and good.
    RefusedOnce,
    Throttled {
        retry_after_s: u64,
    },
    /// Acted on, and but for the grant nobody understands the answer.
    Unusable,
}

#[derive(Default)]
struct State {
    is_down: bool,
    /// What is told of errors: that any of them may have used the grant up.
    is_vague: bool,
    fates: VecDeque<Fate>,
    delays: VecDeque<Duration>,
    families: Vec<Family>,
    /// By hash: nobody here looks into a secret.
    grants: BTreeMap<String, Grant>,
    tokens: BTreeMap<String, Issued>,
    made: u64,
}

/// What came of one sign-in.
#[derive(Clone)]
pub(super) struct Family {
    pub(super) key: ConnectionKey,
    pub(super) identity: Identity,
    pub(super) is_revoked: bool,
}

#[derive(Clone)]
pub(super) struct Grant {
    pub(super) family: usize,
    /// The grant that was spent for it.
    pub(super) parent: Option<String>,
    pub(super) is_spent: bool,
}

#[derive(Clone)]
pub(super) struct Issued {
    pub(super) family: usize,
    pub(super) expires_at: Duration,
}

impl SimEntra {
    pub(super) fn new(
        ledger: Arc<Ledger>,
        truth: Arc<RuntimeClock>,
        rotation: Rotation,
        lifetime: Duration,
    ) -> Self {
        Self { state: Arc::default(), ledger, truth, rotation, lifetime }
    }

    pub(super) fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    pub(super) fn next(&self, fate: Fate) {
        self.state().fates.push_back(fate);
    }

    /// Each half of a request takes one of these, in turn and again and again.
    pub(super) fn set_delays(&self, delays: impl IntoIterator<Item = Duration>) {
        self.state().delays = delays.into_iter().collect();
    }

    pub(super) fn heal(&self) {
        let mut state = self.state();
        state.is_down = false;
        state.fates.clear();
    }

    /// Somebody signs in: the first grant of a new family, and a token.
    pub(super) fn sign_in(&self, key: &ConnectionKey, identity: &Identity) -> Answered {
        let mut state = self.state();
        let family = state.families.len();
        state.families.push(Family { key: key.clone(), identity: identity.clone(), is_revoked: false });
        state.issue(family, None, self.truth.now().monotonic, self.lifetime)
    }

    /// Tells of no error any more that it used nothing up.
    pub(super) fn be_vague(&self) {
        self.state().is_vague = true;
    }

    /// An administrator revokes what the grant's sign-in gave.
    pub(super) fn revoke(&self, key: &ConnectionKey) {
        for family in self.state().families.iter_mut().filter(|family| family.key == *key) {
            family.is_revoked = true;
        }
    }

    pub(super) fn family(&self, family: usize) -> Family {
        self.state().families[family].clone()
    }

    pub(super) fn grant(&self, hash: &str) -> Option<Grant> {
        self.state().grants.get(hash).cloned()
    }

    pub(super) fn token(&self, fingerprint: &Fingerprint) -> Option<Issued> {
        self.state().tokens.get(fingerprint.as_str()).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entra's side of a request.
    async fn act(self, hash: String) -> Result<Answered, EntraError> {
        let (there, back, fate) = {
            let mut state = self.state();
            (state.delay(), state.delay(), state.fates.pop_front())
        };
        tokio::time::sleep(there).await;
        let acted = self.judge(&hash, fate);
        tokio::time::sleep(back).await;
        match fate {
            Some(Fate::Hangs { .. }) => std::future::pending().await,
            Some(Fate::AnswerLost) => Err(broken(true)),
            _ => acted,
        }
    }

    fn judge(&self, hash: &str, fate: Option<Fate>) -> Result<Answered, EntraError> {
        let mut state = self.state();
        if state.is_down {
            return Err(broken(false));
        }
        match fate {
            Some(Fate::BadCredential) => return Err(EntraError::new(Verdict::ClientCredential)),
            Some(Fate::Hangs { acted: false }) => return Err(broken(true)),
            Some(Fate::RefusedOnce) => {
                return Err(EntraError::new(Verdict::Relink { unmistakable: false }));
            }
            Some(Fate::Throttled { retry_after_s }) => {
                let retry_after = Some(Duration::from_secs(retry_after_s));
                return Err(EntraError { retry_after, ..EntraError::new(Verdict::Throttled) });
            }
            Some(Fate::AnswerLost | Fate::Hangs { acted: true } | Fate::Unusable) | None => {}
        }
        let Some(grant) = state.grants.get_mut(hash) else {
            return Err(EntraError::new(Verdict::Relink { unmistakable: false }));
        };
        let family = grant.family;
        let was_spent = grant.is_spent;
        if self.rotation == Rotation::Strict && was_spent {
            state.families[family].is_revoked = true;
            self.ledger.note(Event::SpentTwice);
        }
        if state.families[family].is_revoked {
            return Err(EntraError::new(Verdict::Relink { unmistakable: false }));
        }
        if let Some(grant) = state.grants.get_mut(hash) {
            grant.is_spent = true;
        }
        let now = self.truth.now().monotonic;
        let answered = state.issue(family, Some(hash.to_owned()), now, self.lifetime);
        if fate == Some(Fate::Unusable) {
            let rescued = answered.refresh;
            return Err(EntraError { rescued, ..EntraError::new(Verdict::Unknown) });
        }
        Ok(answered)
    }
}

impl State {
    fn delay(&mut self) -> Duration {
        let delay = self.delays.pop_front().unwrap_or_default();
        self.delays.push_back(delay);
        delay
    }

    fn issue(
        &mut self,
        family: usize,
        parent: Option<String>,
        now: Duration,
        lifetime: Duration,
    ) -> Answered {
        self.made += 1;
        let refresh = RefreshToken::new(format!("grant-{family}-{}", self.made));
        let access = AccessToken::new(format!("token-{family}-{}", self.made));
        self.grants.insert(refresh.hash(), Grant { family, parent, is_spent: false });
        let issued = Issued { family, expires_at: now + lifetime };
        self.tokens.insert(access.fingerprint().as_str().to_owned(), issued);
        Answered {
            access,
            lifetime,
            scopes: vec!["499b84ac-1321-427f-aa17-267ca6975798/user_impersonation".to_owned()],
            refresh: Some(refresh),
            id_token: None,
        }
    }
}

fn broken(may_have_acted: bool) -> EntraError {
    EntraError { may_have_acted, ..EntraError::new(Verdict::Transient) }
}

#[async_trait]
impl TokenEndpoint for EntraLine {
    async fn refresh(&self, _app: &App<'_>, token: &RefreshToken) -> Result<Answered, EntraError> {
        self.gate.pass().await;
        let hash = token.hash();
        let request = self.entra.ledger.next_request();
        let (replica, grant) = (self.replica.clone(), hash.clone());
        self.entra.ledger.note(Event::Asked { request, replica, grant });
        let (tell, told) = oneshot::channel();
        let entra = self.entra.clone();
        tokio::spawn(async move {
            // Nobody listens any more if the replica crashed.
            let _ = tell.send(entra.act(hash).await);
        });
        let answer = tokio::time::timeout(DEADLINE, told).await;
        self.gate.pass().await;
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(broken(true)),
        };
        let may_be_used = answer.as_ref().map_or_else(|error| error.may_have_acted, |_| true);
        self.entra.ledger.note(Event::Answered { request, ok: answer.is_ok(), may_be_used });
        let is_vague = self.entra.state().is_vague;
        answer.map_err(|error| EntraError { may_have_acted: error.may_have_acted || is_vague, ..error })
    }

    async fn client_credentials(&self, _app: &App<'_>) -> Result<Answered, EntraError> {
        unreachable!("nobody here is a service principal")
    }

    fn rotation(&self) -> Rotation {
        self.entra.rotation
    }
}

/// Nothing is imported here.
#[async_trait]
impl Identify for EntraLine {
    async fn identify(&self, _: &Integration, _: &SignIn<'_>) -> Result<Identity, Unidentified> {
        Err(Unidentified::NotNow)
    }
}

/// As the client of the real one has it.
const DEADLINE: Duration = Duration::from_secs(10);
