//! f01: the broker is killed at every step between a refresh's question and its caller's answer.
//!
//! No production code helps. The emulator holds the answers of some refreshes; they are released, and after a
//! random number of microseconds the broker is killed. Where each call was by then shows afterwards: in the
//! emulator's record, in the store, and in the caller's hands. What the broker does once it runs again is not
//! counted: the emulator's record is read before.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use azdo_broker::pb::ConnectionState;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Stage, spin};
use crate::caller::reason_of;
use crate::emulator::upn;
use crate::outcome::{Outcome, ensure};
use crate::processes::until;
use crate::report::{Found, KILLS};
use crate::scene::{FRESH, Plan, Scene, WINDOW};

/// How far a call had come when the broker died.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Step {
    /// Entra never heard of it.
    NotAsked,
    /// Entra had it, and no byte of an answer was on its way.
    Asked,
    /// The answer was on its way or there, and the store does not have it.
    Answered,
    Committed,
    Replied,
}

const STEPS: [Step; 5] = [Step::NotAsked, Step::Asked, Step::Answered, Step::Committed, Step::Replied];

/// When the broker is killed.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Moment {
    /// Entra has the request, and has not looked at it.
    Unseen,
    /// Entra has issued, and its answer has not left.
    Issued,
    /// While the broker is on its way to Entra.
    OnTheWay,
    /// As the answer comes in: an optimised broker has it in the store a millisecond later.
    ComingIn,
    /// While it does something with the answer.
    Landing,
}

/// One call that a kill hit.
struct Hit {
    connection: usize,
    step: Step,
    /// Entra has issued another grant in place of the one that the store still has.
    is_spent: bool,
}

/// Entra's way: an old grant goes on working.
pub(crate) async fn f01_kill_while_refreshing(mut stage: Stage) -> Outcome<Found> {
    let users = 60;
    let mut scene = Scene::set(&stage.dir, Plan { users, ..Plan::default() }).await?;
    let mut found = Found::default();
    sleep(WINDOW).await;
    let (kills, mut calls) = (stage.pick(750, 40), HashMap::new());
    for kill in 0..kills {
        let moment = match kill % 8 {
            0 => Moment::Unseen,
            1 => Moment::Issued,
            2 => Moment::OnTheWay,
            3..=5 => Moment::ComingIn,
            _ => Moment::Landing,
        };
        let chosen = stage.random.choose(AT_ONCE, users);
        let hits = kill_once(&mut scene, &mut stage, &chosen, moment).await?;
        count(&hits, &mut calls, &mut found);
    }
    found.says(format!("{kills} kills -9 hit calls that were: {}", told(&calls)));
    scene.look_for_lost_links(0, 0..users, &mut found).await?;
    scene.settle(&mut found).await?;
    Ok(found)
}

/// Where each grant works once: nothing is lost but between Entra's answer and the commit, what is lost is told,
/// and nothing is sent twice.
pub(crate) async fn f01_kill_under_strict_rotation(mut stage: Stage) -> Outcome<Found> {
    let kills = stage.pick(100, 12);
    let users = kills * 2;
    let mut scene = Scene::set(&stage.dir, Plan { users, strict: true, ..Plan::default() }).await?;
    let mut found = Found::default();
    sleep(WINDOW).await;
    let (mut hits, mut calls) = (Vec::new(), HashMap::new());
    for kill in 0..kills {
        let moment = match kill % 8 {
            0 => Moment::Unseen,
            1 => Moment::Issued,
            2..=4 => Moment::ComingIn,
            _ => Moment::Landing,
        };
        // Others each time: what a kill lost is lost.
        let chosen = [kill * 2, kill * 2 + 1];
        let new = kill_once(&mut scene, &mut stage, &chosen, moment).await?;
        count(&new, &mut calls, &mut found);
        hits.extend(new);
    }
    ensure(hits.len() == users, || format!("{} of {users} calls asked for nothing new", users - hits.len()))?;
    let spent = hits.iter().filter(|hit| hit.is_spent).count();
    ensure(0 < spent, || "it did not look: no kill fell between Entra's answer and the commit".to_owned())?;
    let mut losses = 0;
    for hit in &hits {
        losses += u64::from(judge(&scene, hit, &mut found).await?);
    }
    // A grant that was sent twice revokes all that came from its sign-in.
    let refused = scene.issued().await?.into_iter().filter(|it| it.outcome == Err(50_173));
    for it in refused {
        found.breaks("unreported_losses", format!("{:?}'s grant was sent twice", it.user_upn));
    }
    found.says(format!(
        "strict rotation: {kills} kills, {spent} grants spent and not committed, {losses} losses told; {}",
        told(&calls)
    ));
    scene.settle(&mut found).await?;
    Ok(found)
}

/// Whether this connection was lost, and told so. One whose grant is spent must be, one that was asked for may
/// be, as nobody can know, and no other.
async fn judge(scene: &Scene, hit: &Hit, found: &mut Found) -> Outcome<bool> {
    let answer = scene.caller(0).await?.token(hit.connection, FRESH).await;
    let connection = scene.connection(0, hit.connection).await?;
    let is_told = connection.state() == ConnectionState::NeedsRelink
        && connection.failure.as_ref().is_some_and(|failure| failure.message.contains("was lost"));
    found.compares("unreported_losses", 1);
    let (user, step) = (hit.connection, hit.step);
    if !is_told && (hit.is_spent || answer.is_err()) {
        let (state, answer) = (connection.state().as_str_name(), answer.as_ref().map_err(reason_of));
        found.breaks("unreported_losses", format!("u{user} {step:?}: {state}, {answer:?}"));
    }
    if is_told && !matches!(step, Step::Asked | Step::Answered) {
        found.breaks("lost_links", format!("u{user}: killed when {step:?}, and lost"));
    }
    Ok(is_told)
}

/// Refreshes some connections, kills within, starts again: how far each had come. Those whose token was long
/// enough yet were not hit.
async fn kill_once(
    scene: &mut Scene,
    stage: &mut Stage,
    chosen: &[usize],
    moment: Moment,
) -> Outcome<Vec<Hit>> {
    let before = scene.emulator.record().await?;
    let switch = if moment == Moment::Unseen { "entra.hang" } else { "entra.hold" };
    scene.emulator.switch(json!({ "switch": switch })).await?;
    let caller = scene.caller(0).await?;
    let (mut calls, mut handles) = (JoinSet::new(), Vec::new());
    for connection in chosen {
        let (caller, connection) = (caller.clone(), *connection);
        handles.push(calls.spawn(async move { (connection, caller.token(connection, FRESH).await) }));
    }
    if moment == Moment::OnTheWay {
        spin(stage.random.micros(QUESTION_US_MAX)).await;
    } else {
        // Those whose token is long enough yet are answered at once.
        until("calls that are held or answered", CALLS_WITHIN, async || {
            let answered = handles.iter().filter(|handle| handle.is_finished()).count() as u64;
            (chosen.len() as u64 <= answered + scene.emulator.held().await.ok()?).then_some(())
        })
        .await?;
    }
    if let Some(micros_max) = moment.after_release() {
        scene.emulator.release().await?;
        spin(stage.random.micros(micros_max)).await;
    }
    scene.brokers[0].kill().await?;
    let mut replied = HashMap::new();
    while let Some(ended) = calls.join_next().await {
        let (connection, answer) = ended?;
        if let Ok(got) = answer {
            replied.insert(connection, got.fingerprint);
        }
    }
    // Nothing that was not looked at may be looked at now.
    scene.emulator.wait_none_held(CALLS_WITHIN).await?;
    let after = scene.emulator.record().await?;
    scene.emulator.clear(&scene.usual.clone()).await?;
    scene.brokers[0].start().await?;
    // Those that arrived and were not evaluated: whose they were, only their number tells.
    let mut unseen =
        (after.arrived.len() - before.arrived.len()) - (after.issued.len() - before.issued.len());
    let issued = &after.issued[before.issued.len()..];
    let caller = scene.caller(0).await?;
    let mut hits = Vec::new();
    for connection in chosen {
        let name = upn(*connection);
        let own = issued.iter().rfind(|it| it.user_upn.as_ref() == Some(&name));
        let step = match own.and_then(|it| it.at_issued.as_ref()) {
            None if replied.contains_key(connection) => continue,
            None if 0 < unseen => {
                unseen -= 1;
                Step::Asked
            }
            None => Step::NotAsked,
            Some(token) if replied.get(connection) == Some(token) => Step::Replied,
            Some(token) => {
                // A token of any life: what the store has.
                let kept = caller.token(*connection, Duration::ZERO).await;
                match moment {
                    _ if kept.is_ok_and(|kept| kept.fingerprint == *token) => Step::Committed,
                    Moment::ComingIn | Moment::Landing => Step::Answered,
                    Moment::Unseen | Moment::Issued | Moment::OnTheWay => Step::Asked,
                }
            }
        };
        let is_spent = own.is_some() && step < Step::Committed;
        hits.push(Hit { connection: *connection, step, is_spent });
    }
    Ok(hits)
}

/// A kill counts for each step at which it hit a call.
fn count(hits: &[Hit], calls: &mut HashMap<&'static str, u64>, found: &mut Found) {
    found.count(KILLS, 1);
    for hit in hits {
        *calls.entry(hit.step.name()).or_default() += 1;
    }
    for step in hits.iter().map(|hit| hit.step).collect::<BTreeSet<_>>() {
        found.count(step.key(), 1);
    }
}

fn told(calls: &HashMap<&'static str, u64>) -> String {
    let of = |step: &Step| format!("{} {}", step.name(), calls.get(step.name()).copied().unwrap_or(0));
    STEPS.iter().map(of).collect::<Vec<_>>().join(", ")
}

impl Moment {
    /// How many microseconds after the answers were let go, at most.
    fn after_release(self) -> Option<u64> {
        match self {
            Self::Unseen | Self::Issued | Self::OnTheWay => None,
            Self::ComingIn => Some(COMING_IN_US_MAX),
            Self::Landing => Some(ANSWER_US_MAX),
        }
    }
}

impl Step {
    fn key(self) -> &'static str {
        match self {
            Self::NotAsked => "/kills_by_step/not_asked",
            Self::Asked => "/kills_by_step/asked",
            Self::Answered => "/kills_by_step/answered",
            Self::Committed => "/kills_by_step/committed",
            Self::Replied => "/kills_by_step/replied",
        }
    }

    fn name(self) -> &'static str {
        self.key().rsplit('/').next().unwrap_or_default()
    }
}

const AT_ONCE: usize = 6;
const CALLS_WITHIN: Duration = Duration::from_secs(10);
/// From the calls to the last request's arrival at Entra.
const QUESTION_US_MAX: u64 = 2_000;
const COMING_IN_US_MAX: u64 = 3_000;
/// From the answer's leaving the emulator to the last reply of several.
const ANSWER_US_MAX: u64 = 20_000;
