//! f15, f16: a replica that has Entra's answer can do nothing with it: it stands still, or the database is gone for
//! it alone.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Stage;
use super::replicas::{PATIENCE, Replicas};
use crate::outcome::{Outcome, ensure};
use crate::processes::until;
use crate::report::Found;
use crate::scene::{FRESH, LONG_WINDOW, PATIENT, WINDOW};
use crate::wire::Mode;

/// f15: a replica stands still with a lease and an answer of Entra's.
pub(crate) async fn f15_stopped_while_refreshing(stage: Stage) -> Outcome<Found> {
    let mut replicas = Replicas::set(&stage, 6).await?;
    let (scene, mut found) = (&mut replicas.scene, Found::default());
    sleep(WINDOW).await;
    // Its answer is held by Entra, and it stands still until its lease is over.
    scene.emulator.switch(json!({ "switch": "entra.hold", "count": 1 })).await?;
    let stopped = scene.caller(0).await?;
    let asked = tokio::spawn(async move { stopped.token(0, FRESH).await });
    scene.emulator.wait_held(1, PATIENCE).await?;
    let began = Instant::now();
    scene.brokers[0].process()?.freeze().await?;
    scene.emulator.release().await?;
    let late = scene.issued().await?.pop().and_then(|it| it.at_issued).ok_or("nothing was issued")?;
    let other = scene.caller(1).await?;
    let got = until("a refresh by another replica", PATIENCE, async || {
        let answer = other.token(0, FRESH).await;
        if answer.is_err() {
            sleep(Duration::from_millis(200)).await;
        }
        answer.ok()
    });
    let got = got.await?;
    let took = began.elapsed().as_secs_f64();
    found.measure("/takeover_s", took);
    ensure(got.fingerprint != late, || "the other replica has the stopped one's token".to_owned())?;
    sleep(stage.pick(Duration::from_secs(40), Duration::ZERO)).await;
    scene.brokers[0].signal(Signal::CONT);
    let _late = asked.await?;
    found.compares("wrong_token", 1);
    if scene.ledger.all().iter().any(|it| it.fingerprint == late) {
        // Its lease was over, and another write won: P7.
        found.breaks("wrong_token", "a token whose swap was lost was released");
    }
    found.says(format!(
        "a stopped holder: another replica refreshed after {took:.1} s; the late token was dropped"
    ));
    replicas.finish(found).await
}

/// f16: a replica is cut off from the database between Entra's answer and the commit, and the wire is whole again:
/// committed, and another replica asks nobody.
pub(crate) async fn f16_cut_off_while_refreshing(stage: Stage) -> Outcome<Found> {
    let replicas = Replicas::set(&stage, 6).await?;
    let mut found = Found::default();
    let token = lend_cut_off(&replicas, 1).await?;
    replicas.wires[CUT_OFF].iter().for_each(|wire| wire.set(Mode::Pass));
    let other = replicas.scene.caller(1).await?;
    found.compares("lost_links", 1);
    let committed = until("the commit", PATIENCE, async || {
        let got = other.token(1, Duration::ZERO).await.ok()?;
        (got.fingerprint == token).then_some(())
    });
    if committed.await.is_err() {
        found.breaks("lost_links", "a grant whose replica was cut off was not committed");
    }
    found.says("its caller was lent the token, and its grant was committed when the wire was whole");
    replicas.finish(found).await
}

/// f16: the same, and it is told to stop and then killed with the grant in its memory: the old grant goes on.
pub(crate) async fn f16_killed_while_cut_off(stage: Stage) -> Outcome<Found> {
    let mut replicas = Replicas::set(&stage, 6).await?;
    let mut found = Found::default();
    let generation = replicas.scene.connection(1, 1).await?.generation;
    let token = lend_cut_off(&replicas, 1).await?;
    let broker = &mut replicas.scene.brokers[CUT_OFF];
    broker.signal(Signal::TERM);
    // It does not end with a grant that nobody else has.
    sleep(Duration::from_secs(3)).await;
    broker.process()?.ensure_runs()?;
    broker.kill().await?;
    replicas.wires[CUT_OFF].iter().for_each(|wire| wire.set(Mode::Pass));
    let after = replicas.scene.connection(1, 1).await?.generation;
    ensure(generation == after, || "it did not look: the grant had been committed".to_owned())?;
    replicas.scene.brokers[CUT_OFF].start().await?;
    found.compares("lost_links", 1);
    let began = Instant::now();
    let other = replicas.scene.caller(1).await?;
    let refreshed = until("a refresh by another replica", PATIENCE, async || {
        let got = other.token(1, FRESH).await;
        if got.is_err() {
            sleep(Duration::from_millis(200)).await;
        }
        got.ok()
    });
    match refreshed.await {
        Ok(got) => ensure(got.fingerprint != token, || "the killed replica's token came back".to_owned())?,
        Err(error) => found.breaks("lost_links", format!("the grant before the lost one: {error}")),
    }
    found.says(format!(
        "told to stop, then killed, with a grant that was not committed: by the one before another replica refreshed \
         after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    replicas.finish(found).await
}

/// The fingerprint of what Entra answered a replica, whose wires to the database were cut before it could commit:
/// its caller has it.
async fn lend_cut_off(replicas: &Replicas, place: usize) -> Outcome<String> {
    let scene = &replicas.scene;
    sleep(LONG_WINDOW).await;
    scene.emulator.switch(json!({ "switch": "entra.hold", "count": 1 })).await?;
    let cut_off = scene.caller(CUT_OFF).await?;
    let asked = tokio::spawn(async move { cut_off.token(place, PATIENT).await });
    scene.emulator.wait_held(1, PATIENCE).await?;
    replicas.wires[CUT_OFF].iter().for_each(|wire| wire.set(Mode::Cut));
    scene.emulator.release().await?;
    let lent = asked.await?;
    let token = scene.issued().await?.pop().and_then(|it| it.at_issued).ok_or("nothing was issued")?;
    let is_lent = lent.as_ref().is_ok_and(|got| got.fingerprint == token);
    ensure(is_lent, || format!("cut off, the caller was not lent the token: {lent:?}"))?;
    scene.ledger.lends(&token);
    Ok(token)
}

/// Which replica.
const CUT_OFF: usize = 2;
