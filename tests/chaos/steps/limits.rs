//! f24: told to stop under load. f25: hardly any descriptors.

use std::time::Duration;

use serde_json::json;
use tokio::net::UnixStream;
use tokio::time::sleep;

use super::Stage;
use crate::caller::reason_of;
use crate::outcome::{Outcome, ensure};
use crate::processes::until;
use crate::readers::Readers;
use crate::report::Found;
use crate::scene::{LONG_WINDOW, PATIENT, Plan, Scene};

/// f24: SIGTERM while callers read and a refresh is under way: it lands, and the end is in time and clean.
pub(crate) async fn f24_told_to_stop_under_load(stage: Stage) -> Outcome<Found> {
    let mut scene = Scene::set(&stage.dir, Plan { users: 20, ..Plan::default() }).await?;
    let mut found = Found::default();
    sleep(LONG_WINDOW).await;
    let readers = Readers::start(&scene, 1..20, Duration::ZERO, Duration::from_millis(5)).await?;
    scene.emulator.switch(json!({ "switch": "entra.hold", "count": 1 })).await?;
    let caller = scene.caller(0).await?;
    let asked = tokio::spawn(async move { caller.token(0, PATIENT).await });
    scene.emulator.wait_held(1, Duration::from_secs(10)).await?;
    let before_the_end = readers.failed();
    let token = scene.issued().await?.pop().and_then(|it| it.at_issued);
    let release = async {
        sleep(Duration::from_millis(500)).await;
        scene.emulator.release().await
    };
    let (stopped, released) = tokio::join!(scene.brokers[0].stop(), release);
    released?;
    let (code, took) = stopped?;
    let answered = asked.await?;
    ensure(code == Some(0), || format!("it ended with {code:?}"))?;
    ensure(took < Duration::from_secs(20), || format!("it took {took:?} to end"))?;
    ensure(before_the_end == 0, || "reads failed before the end".to_owned())?;
    let reads = readers.stop().await;
    scene.brokers[0].start().await?;
    let kept = scene.caller(0).await?.token(0, Duration::ZERO).await;
    if kept.as_ref().ok().map(|kept| &kept.fingerprint) != token.as_ref() {
        found.breaks("lost_links", format!("a refresh under way at the end did not land: {kept:?}"));
    }
    found.says(format!(
        "SIGTERM under {} reads ended with 0 after {:.1} s; the refresh under way landed, its caller had {}",
        reads.reads,
        took.as_secs_f64(),
        answered.map_or_else(|status| reason_of(&status), |_| "its token".to_owned())
    ));
    scene.look_for_lost_links(0, 0..20, &mut found).await?;
    scene.settle(&mut found).await?;
    Ok(found)
}

/// f25: descriptors for a few dozen connections, and more callers than that.
pub(crate) async fn f25_hardly_any_descriptors(stage: Stage) -> Outcome<Found> {
    let mut scene = Scene::set(&stage.dir, Plan { users: 3, ..Plan::default() }).await?;
    scene.brokers[0].kill().await?;
    scene.brokers[0].start_under(&["/usr/bin/prlimit", "--nofile=64:64"]).await?;
    let caller = scene.caller(0).await?;
    ensure(caller.token(0, Duration::ZERO).await.is_ok(), || "not even one".to_owned())?;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.extend(UnixStream::connect(scene.brokers[0].socket()).await.ok());
    }
    sleep(Duration::from_secs(1)).await;
    // Whoever is connected is served from memory.
    let warm = caller.token(0, Duration::ZERO).await;
    ensure(warm.is_ok(), || format!("a warm read failed: {warm:?}"))?;
    let many = crowd.len();
    drop(crowd);
    let mut found = Found::default();
    let recovered = until("a new caller", Duration::from_secs(30), async || {
        let answer = scene.caller(0).await.ok()?.token(1, Duration::ZERO).await;
        answer.ok()
    });
    recovered.await?;
    scene.brokers[0].process()?.ensure_runs()?;
    scene.look_for_lost_links(0, 0..3, &mut found).await?;
    found
        .says(format!("64 descriptors, {many} connections: warm reads went on, and all recovered by itself"));
    scene.settle(&mut found).await?;
    Ok(found)
}
