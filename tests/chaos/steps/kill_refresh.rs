//! f01: the broker is killed at every step between Entra's answer and its own.
//!
//! No production code helps. The emulator holds the answers of some refreshes; they are released, and after a
//! random number of microseconds the broker is killed. Where each call was by then shows afterwards: in the
//! emulator's record, in the store, in the audit, and in the caller's hands.

use std::collections::HashMap;
use std::time::Duration;

use azdo_broker::pb::ConnectionState;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Stage;
use crate::caller::reason_of;
use crate::outcome::Outcome;
use crate::report::{Found, KILLS};
use crate::scene::{FRESH, Plan, Scene};

/// How far a call had come when the broker died.
const STEPS: [&str; 5] = ["not asked", "asked", "answered", "committed", "replied"];

/// Entra's way: an old grant goes on working.
pub(crate) async fn f01_kill_while_refreshing(mut stage: Stage) -> Outcome<Found> {
    let users = 60;
    let mut scene = Scene::set(&stage.dir, Plan { users, ..Plan::default() }).await?;
    let mut found = Found::default();
    let kills = stage.pick(750, 40);
    let mut reached = HashMap::<&str, u64>::new();
    for kill in 0..kills {
        let chosen = stage.random.choose(AT_ONCE, users);
        let steps = kill_once(&mut scene, &mut stage, &chosen, kill).await?;
        for step in steps {
            *reached.entry(step).or_default() += 1;
        }
    }
    found.count(KILLS, kills);
    found.says(format!("{kills} kills -9 hit calls that were: {}", told(&reached)));
    scene.look_for_lost_links(0, 0..users, &mut found).await?;
    scene.settle(&mut found).await?;
    Ok(found)
}

/// Where each grant works once: what is lost is told, and nothing is sent twice.
pub(crate) async fn f01_kill_under_strict_rotation(mut stage: Stage) -> Outcome<Found> {
    let kills = stage.pick(100, 12);
    let users = usize::try_from(kills)? * 2;
    let mut scene = Scene::set(&stage.dir, Plan { users, strict: true, ..Plan::default() }).await?;
    let mut found = Found::default();
    let mut reached = HashMap::<&str, u64>::new();
    for kill in 0..kills {
        // Others each time: what a kill lost is lost.
        let first = usize::try_from(kill)? * 2;
        for step in kill_once(&mut scene, &mut stage, &[first, first + 1], kill).await? {
            *reached.entry(step).or_default() += 1;
        }
    }
    found.count(KILLS, kills);
    let mut losses = 0;
    let caller = scene.caller(0).await?;
    for user in 0..users {
        let told = caller.token(user, FRESH).await;
        let connection = scene.connection(0, user).await?;
        let is_told = connection.state() == ConnectionState::NeedsRelink
            && connection.failure.as_ref().is_some_and(|failure| failure.message.contains("was lost"));
        found.compares("unreported_losses", 1);
        losses += u64::from(is_told);
        if let (Err(status), false) = (told, is_told) {
            let found_as = connection.state().as_str_name();
            found.breaks("unreported_losses", format!("u{user}: {found_as}, {}", reason_of(&status)));
        }
    }
    // A grant that was sent twice revokes all that came from its sign-in.
    let refused = scene.issued().await?.into_iter().filter(|it| it.outcome == Err(50_173));
    for it in refused {
        found.breaks("unreported_losses", format!("{:?}'s grant was sent twice", it.user_upn));
    }
    found.says(format!("strict rotation: {kills} kills, {losses} losses, each told; {}", told(&reached)));
    scene.settle(&mut found).await?;
    Ok(found)
}

/// Refreshes some connections, kills within, starts again: how far each had come.
async fn kill_once(
    scene: &mut Scene,
    stage: &mut Stage,
    chosen: &[usize],
    kill: u64,
) -> Outcome<Vec<&'static str>> {
    let before = scene.issued().await?.len();
    // Every eighth dies while Entra has not even looked, or before it answered.
    let switch = match kill % 8 {
        0 => "entra.hang",
        _ => "entra.hold",
    };
    scene.emulator.switch(json!({ "switch": switch })).await?;
    let caller = scene.caller(0).await?;
    let mut calls = JoinSet::new();
    for connection in chosen {
        let (caller, connection) = (caller.clone(), *connection);
        calls.spawn(async move { (connection, caller.token(connection, FRESH).await) });
    }
    // Those whose token is long enough yet are answered at once.
    let _fewer = scene.emulator.wait_held(chosen.len() as u64, Duration::from_millis(300)).await;
    if kill % 8 > 1 {
        scene.emulator.release().await?;
        // The moment of the kill is what varies. A timer would round it up to a millisecond.
        let at = Instant::now() + stage.random.micros(ANSWER_US_MAX);
        while Instant::now() < at {
            tokio::task::yield_now().await;
        }
    }
    scene.brokers[0].kill().await?;
    let mut replied = HashMap::new();
    while let Some(ended) = calls.join_next().await {
        let (connection, answer) = ended?;
        if let Ok(got) = answer {
            replied.insert(connection, got.fingerprint);
        }
    }
    scene.emulator.clear(&scene.usual.clone()).await?;
    scene.brokers[0].start().await?;
    let issued = scene.issued().await?.split_off(before);
    let caller = scene.caller(0).await?;
    let mut steps = Vec::new();
    for connection in chosen {
        let upn = crate::emulator::upn(*connection);
        let asked = issued.iter().rfind(|it| it.user_upn.as_ref() == Some(&upn));
        let step = match asked.and_then(|it| it.at_issued.as_ref()) {
            None if replied.contains_key(connection) => continue,
            None if kill.is_multiple_of(8) => STEPS[1],
            None => STEPS[0],
            Some(token) if replied.get(connection) == Some(token) => STEPS[4],
            Some(token) => {
                // A token of any life: what the store has.
                let kept = caller.token(*connection, Duration::ZERO).await;
                if kept.is_ok_and(|kept| kept.fingerprint == *token) { STEPS[3] } else { STEPS[2] }
            }
        };
        steps.push(step);
    }
    Ok(steps)
}

fn told(reached: &HashMap<&str, u64>) -> String {
    let of = |step: &&str| format!("{step} {}", reached.get(*step).copied().unwrap_or(0));
    STEPS.iter().map(of).collect::<Vec<_>>().join(", ")
}

const AT_ONCE: usize = 6;
/// From the answer's leaving the emulator to the last reply of several.
const ANSWER_US_MAX: u64 = 12_000;
