//! f13, f14: many callers, one expiry, one token request.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Stage;
use crate::caller::{Caller, reason_of};
use crate::emulator::TokenRequest;
use crate::outcome::{Outcome, ensure};
use crate::report::{EXPIRIES_ONE, EXPIRIES_THREE, Found, REQUESTS_ONE, REQUESTS_THREE, ratio};
use crate::scene::{LONG_WINDOW, PATIENT, Plan, Scene};

/// A thousand callers of one process.
pub(crate) async fn f13_one_process(stage: Stage) -> Outcome<Found> {
    let users = 40;
    let scene = Scene::set(&stage.dir, Plan { users, ..Plan::default() }).await?;
    let crowd = Crowd { per_broker: 1000, waves: stage.pick(1050, 16), names: (EXPIRIES_ONE, REQUESTS_ONE) };
    let mut found = Found::default();
    crowd.ask(&scene, &mut found).await?;
    scene.settle(&mut found).await?;
    Ok(found)
}

/// Three replicas, two hundred callers each.
pub(super) async fn three_replicas(scene: &Scene, waves: usize, found: &mut Found) -> Outcome<()> {
    let crowd = Crowd { per_broker: 200, waves, names: (EXPIRIES_THREE, REQUESTS_THREE) };
    crowd.ask(scene, found).await
}

struct Crowd {
    per_broker: usize,
    waves: usize,
    names: (&'static str, &'static str),
}

impl Crowd {
    /// Wave after wave, each of another connection, whose token has run short since its last wave.
    async fn ask(&self, scene: &Scene, found: &mut Found) -> Outcome<()> {
        // A server takes 256 calls at once over one connection.
        let mut callers: Vec<Caller> = Vec::new();
        for broker in 0..scene.brokers.len() {
            for _ in 0..self.per_broker.div_ceil(200) {
                callers.push(scene.caller(broker).await?);
            }
        }
        let mut last = vec![Instant::now(); scene.users];
        let (began, before) = (Instant::now(), scene.issued().await?.len());
        let mut failed = 0;
        let mut slow = 0;
        for wave in 0..self.waves {
            let connection = wave % scene.users;
            // Until no caller of the last wave can have been content with what this one is to replace.
            sleep((LONG_WINDOW + MARGIN).saturating_sub(last[connection].elapsed())).await;
            let wave_began = Instant::now();
            let mut wave = JoinSet::new();
            for n in 0..self.per_broker * scene.brokers.len() {
                let caller = callers[n % callers.len()].clone();
                wave.spawn(async move { caller.token(connection, PATIENT).await });
            }
            while let Some(answer) = wave.join_next().await {
                if let Err(status) = answer? {
                    failed += 1;
                    found.wrongs.push(format!("a caller was refused: {}", reason_of(&status)));
                }
            }
            // Callers that came after the window would have needed another token, rightly.
            slow += u64::from(LONG_WINDOW < wave_began.elapsed());
            last[connection] = Instant::now();
        }
        ensure(slow == 0, || {
            format!("{slow} waves took longer than the {LONG_WINDOW:?} a token is worth something")
        })?;
        let requests: Vec<TokenRequest> = scene.issued().await?.split_off(before);
        let refreshes = requests.iter().filter(|it| it.grant_type == "refresh_token").count() as u64;
        let (expiries, calls) = (self.waves as u64, self.waves * self.per_broker * scene.brokers.len());
        found.count(self.names.0, expiries);
        found.count(self.names.1, refreshes);
        let most = most_at_once(&requests, scene.users);
        found.measure("/token_requests_max", most);
        if scene.brokers.len() == 1 {
            found.measure("/token_requests_max_one_process", most);
        }
        let took = began.elapsed().as_secs_f64();
        found.says(format!(
            "{expiries} expiries, {calls} calls, {failed} refused: {:.4} token requests an expiry, in {took:.0} s",
            ratio(refreshes, expiries)
        ));
        ensure(failed == 0, || format!("{failed} callers were refused"))
    }
}

/// The most token requests that one expiry cost: those of one user within the life of one token.
#[expect(clippy::cast_precision_loss, reason = "a handful")]
fn most_at_once(requests: &[TokenRequest], users: usize) -> f64 {
    let mut most = 0;
    for user in 0..users {
        let upn = crate::emulator::upn(user);
        let own: Vec<_> =
            requests.iter().filter(|it| it.user_upn.as_ref() == Some(&upn)).map(|it| it.time).collect();
        for (at, first) in own.iter().enumerate() {
            let window = jiff::SignedDuration::try_from(LONG_WINDOW).unwrap_or_default();
            let within = own[at..].iter().filter(|time| first.duration_until(**time) < window).count();
            most = most.max(within);
        }
    }
    most as f64
}

/// On top of the window: answers take time.
const MARGIN: Duration = Duration::from_millis(100);
