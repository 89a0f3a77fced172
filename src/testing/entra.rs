//! An Entra without a network, for whoever refreshes: it can be slow, refuse, be down, and be held in
//! the middle of a request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::connection::Identity;
use crate::entra::{Answered, App, DEADLINE, EntraError, Proof, Rotation, TokenEndpoint, Verdict};
use crate::identify::{Identify, SignIn, Unidentified};
use crate::outgoing::OutgoingError;
use crate::secret::{AccessToken, RefreshToken};
use crate::vault::Integration;

/// Answers `access-N` and `refresh-N`, or, to `grant-of-X-N`, `access-of-X-N+1` and `grant-of-X-N+1`,
/// so that a test sees whose grant was spent. Old refresh tokens stay good, as with the real one.
#[derive(Clone)]
pub struct FakeEntra {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    is_held: watch::Sender<bool>,
    held: watch::Sender<usize>,
}

struct State {
    answers: u64,
    lifetime: Duration,
    latency: Duration,
    is_down: bool,
    is_silent: bool,
    failures: VecDeque<EntraError>,
    spent: Vec<String>,
    secrets: Vec<String>,
    rotation: Rotation,
}

/// One request at the gate; leaves the count when it goes on or is dropped.
struct AtGate<'a>(&'a watch::Sender<usize>);

impl Default for FakeEntra {
    fn default() -> Self {
        let state = State {
            answers: 0,
            lifetime: Duration::from_hours(1),
            latency: Duration::ZERO,
            is_down: false,
            is_silent: false,
            failures: VecDeque::new(),
            spent: Vec::new(),
            secrets: Vec::new(),
            rotation: Rotation::Lenient,
        };
        let (is_held, held) = (watch::Sender::new(false), watch::Sender::new(0));
        Self { shared: Arc::new(Shared { state: Mutex::new(state), is_held, held }) }
    }
}

impl FakeEntra {
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.state().lifetime = lifetime;
    }

    /// What it says of grants that were used. Old ones stay good all the same.
    pub fn set_rotation(&self, rotation: Rotation) {
        self.state().rotation = rotation;
    }

    /// How long each answer takes, by tokio's clock.
    pub fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// While down, every request fails as if nothing answered.
    pub fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// While silent, requests end at their deadline.
    pub fn set_silent(&self, is_silent: bool) {
        self.state().is_silent = is_silent;
    }

    /// The next request that is not yet spoken for fails like this.
    pub fn fail_next(&self, error: EntraError) {
        self.state().failures.push_back(error);
    }

    /// From now on requests are counted as spent and then stand still.
    pub fn hold(&self) {
        self.shared.is_held.send_replace(true);
    }

    pub fn release(&self) {
        self.shared.is_held.send_replace(false);
    }

    /// How many requests stand still: `held().wait_for(|held| *held == 1)`.
    pub fn held(&self) -> watch::Receiver<usize> {
        self.shared.held.subscribe()
    }

    /// The refresh tokens spent so far, failed requests included.
    pub fn spent(&self) -> Vec<String> {
        self.state().spent.clone()
    }

    /// The client secret of each request.
    pub fn secrets(&self) -> Vec<String> {
        self.state().secrets.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass_gate(&self) {
        let mut is_held = self.shared.is_held.subscribe();
        let _at_gate = AtGate::new(&self.shared.held);
        is_held.wait_for(|is_held| !is_held).await.expect("the sender lives as long as this fake");
    }
}

#[async_trait]
impl TokenEndpoint for FakeEntra {
    async fn refresh(&self, app: &App<'_>, token: &RefreshToken) -> Result<Answered, EntraError> {
        let latency = {
            let mut state = self.state();
            state.spent.push(token.expose().to_owned());
            if let Proof::Secret(secret) = &app.proof {
                state.secrets.push(secret.expose().to_owned());
            }
            state.latency
        };
        self.pass_gate().await;
        if self.state().is_silent {
            tokio::time::sleep(DEADLINE).await;
            return Err(EntraError::from(OutgoingError::Timeout { deadline: DEADLINE }));
        }
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let mut state = self.state();
        if state.is_down {
            return Err(EntraError::new(Verdict::Transient));
        }
        match state.failures.pop_front() {
            Some(error) => Err(error),
            None => Ok(state.answer(token.expose())),
        }
    }

    async fn client_credentials(&self, app: &App<'_>) -> Result<Answered, EntraError> {
        let answered = self.refresh(app, &RefreshToken::new("the app itself".to_owned())).await?;
        Ok(Answered { refresh: None, ..answered })
    }

    fn rotation(&self) -> Rotation {
        self.state().rotation
    }
}

/// Everybody is the same member of every organization.
#[async_trait]
impl Identify for FakeEntra {
    async fn identify(
        &self,
        integration: &Integration,
        _sign_in: &SignIn<'_>,
    ) -> Result<Identity, Unidentified> {
        Ok(Identity {
            tenant: integration.tenant.clone(),
            object_id: "33333333-3333-3333-3333-333333333333".parse().expect("a valid constant"),
            login: "imported@contoso.com".to_owned(),
            display_name: String::new(),
        })
    }
}

impl State {
    fn answer(&mut self, spent: &str) -> Answered {
        self.answers += 1;
        let (access, refresh) = match spent.strip_prefix("grant-of-") {
            Some(whose) => {
                let (name, number) = whose.rsplit_once('-').unwrap_or((whose, "0"));
                let (name, number) = number.parse::<u64>().map_or((whose, 1), |number| (name, number + 1));
                (format!("access-of-{name}-{number}"), format!("grant-of-{name}-{number}"))
            }
            None => (format!("access-{}", self.answers), format!("refresh-{}", self.answers)),
        };
        Answered {
            access: AccessToken::new(access),
            lifetime: self.lifetime,
            scopes: vec!["499b84ac-1321-427f-aa17-267ca6975798/user_impersonation".into()],
            refresh: Some(RefreshToken::new(refresh)),
            id_token: None,
        }
    }
}

impl<'a> AtGate<'a> {
    fn new(held: &'a watch::Sender<usize>) -> Self {
        held.send_modify(|held| *held += 1);
        Self(held)
    }
}

impl Drop for AtGate<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ClientSecret;

    async fn refresh(entra: &FakeEntra, token: &str) -> Result<Answered, EntraError> {
        let app = App {
            tenant: &"11111111-1111-1111-1111-111111111111".parse().unwrap(),
            client_id: &"22222222-2222-2222-2222-222222222222".parse().unwrap(),
            proof: Proof::Secret(&ClientSecret::new("s".into())),
            scopes: &[],
        };
        entra.refresh(&app, &RefreshToken::new(token.into())).await
    }

    #[tokio::test]
    async fn answers_tell_whose_grant_was_spent() {
        let entra = FakeEntra::default();
        for (spent, access, grant) in [
            ("grant-of-ana-1", "access-of-ana-2", "grant-of-ana-2"),
            ("grant-of-ana-maria", "access-of-ana-maria-1", "grant-of-ana-maria-1"),
            ("anything", "access-3", "refresh-3"),
        ] {
            let answered = refresh(&entra, spent).await.unwrap();
            assert_eq!(answered.access.expose(), access);
            assert_eq!(answered.refresh.unwrap().expose(), grant);
        }
        assert_eq!(entra.spent(), ["grant-of-ana-1", "grant-of-ana-maria", "anything"]);
    }

    #[tokio::test]
    async fn it_fails_as_told_and_recovers() {
        let entra = FakeEntra::default();
        entra.fail_next(EntraError::new(Verdict::Consent));
        assert_eq!(refresh(&entra, "x").await.unwrap_err().verdict, Verdict::Consent);
        entra.set_down(true);
        assert_eq!(refresh(&entra, "x").await.unwrap_err().verdict, Verdict::Transient);
        entra.set_down(false);
        assert!(refresh(&entra, "x").await.is_ok());
    }

    #[tokio::test]
    async fn a_held_request_waits_for_its_release() {
        let entra = FakeEntra::default();
        entra.hold();
        let mut held = entra.held();
        let asking = tokio::spawn({
            let entra = entra.clone();
            async move { refresh(&entra, "x").await.is_ok() }
        });
        held.wait_for(|held| *held == 1).await.unwrap();
        entra.release();
        assert!(asking.await.unwrap());
        assert_eq!(*held.borrow(), 0);
    }
}
