//! f24: told to stop under load. f25: hardly any descriptors, processor or memory.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Stage;
use crate::caller::reason_of;
use crate::outcome::{Outcome, ensure};
use crate::processes::{Process, until};
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
    readers.so_far().ensure_none_failed()?;
    let token = scene.issued().await?.pop().and_then(|it| it.at_issued);
    let release = async {
        sleep(Duration::from_millis(500)).await;
        scene.emulator.release().await
    };
    let (stopped, released) = tokio::join!(scene.brokers[0].stop(), release);
    released?;
    let (code, took) = stopped?;
    let answered = asked.await?;
    // Whoever waits for a refresh under way is answered before the end.
    let is_answered = answered.as_ref().is_ok_and(|got| Some(&got.fingerprint) == token.as_ref());
    ensure(is_answered, || format!("its caller was not answered with the token: {answered:?}"))?;
    ensure(code == Some(0), || format!("it ended with {code:?}"))?;
    ensure(took < Duration::from_secs(20), || format!("it took {took:?} to end"))?;
    let reads = readers.stop().await?;
    scene.brokers[0].start().await?;
    let kept = scene.caller(0).await?.token(0, Duration::ZERO).await;
    if kept.as_ref().ok().map(|kept| &kept.fingerprint) != token.as_ref() {
        found.breaks("lost_links", format!("a refresh under way at the end did not land: {kept:?}"));
    }
    found.says(format!(
        "SIGTERM under {} reads ended with 0 after {:.1} s; the refresh under way landed, its caller had its token",
        reads.reads,
        took.as_secs_f64()
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
    ensure(64 < many, || format!("only {many} connections for 64 descriptors"))?;
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

/// f25: the broker on one processor, at a low priority, beside programs that want all of it.
pub(crate) async fn f25_hardly_any_processor(stage: Stage) -> Outcome<Found> {
    let mut scene = Scene::set(&stage.dir, Plan { users: 10, ..Plan::default() }).await?;
    scene.brokers[0].kill().await?;
    let mut busy = Vec::new();
    for n in 0..BUSY {
        let args = ["-c", "0", "/bin/sh", "-c", "while :; do :; done"];
        busy.push(Process::start(
            Path::new("/usr/bin/taskset"),
            &args,
            &stage.dir.join(format!("busy{n}.log")),
        )?);
    }
    scene.brokers[0].start_under(&["/usr/bin/taskset", "-c", "0", "/usr/bin/nice", "-n", "10"]).await?;
    let readers = Readers::start(&scene, 0..10, Duration::ZERO, Duration::from_millis(100)).await?;
    sleep(STARVED_FOR).await;
    let starved = readers.stop().await?;
    for process in &mut busy {
        process.kill().await?;
    }
    let mut found = Found::default();
    starved.ensure_none_failed()?;
    scene.brokers[0].process()?.ensure_runs()?;
    found.says(format!(
        "a processor shared with {BUSY} that want it more: {} reads in {} s, none failed",
        starved.reads,
        STARVED_FOR.as_secs()
    ));
    scene.look_for_lost_links(0, 0..10, &mut found).await?;
    scene.settle(&mut found).await?;
    Ok(found)
}

/// f25: 128 MiB of memory and more callers at once than may be in flight: those beyond are shed, and all recovers.
pub(crate) async fn f25_hardly_any_memory(stage: Stage) -> Outcome<Found> {
    let mut scene = Scene::set(&stage.dir, Plan { users: 3, ..Plan::default() }).await?;
    scene.brokers[0].kill().await?;
    let limit = format!("--data={0}:{0}", 128 * 1024 * 1024);
    scene.brokers[0].start_under(&["/usr/bin/prlimit", &limit]).await?;
    // Those who ask for it wait, because it is not answered.
    scene.emulator.switch(json!({ "switch": "entra.hold", "count": 1 })).await?;
    sleep(LONG_WINDOW).await;
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD_CONNECTIONS {
        let caller = scene.caller(0).await?;
        for _ in 0..CROWD / CROWD_CONNECTIONS {
            let caller = caller.clone();
            crowd.spawn(async move { caller.token(0, PATIENT).await });
        }
    }
    scene.emulator.wait_held(1, Duration::from_secs(10)).await?;
    sleep(Duration::from_secs(1)).await;
    scene.emulator.release().await?;
    let (mut answered, mut shed) = (0, 0);
    while let Some(ended) = crowd.join_next().await {
        match ended? {
            Ok(_) => answered += 1,
            Err(status) if reason_of(&status) == "RATE_LIMITED" => shed += 1,
            Err(status) => return Err(format!("{}: {}", reason_of(&status), status.message()).into()),
        }
    }
    scene.brokers[0].process()?.ensure_runs()?;
    ensure(0 < shed && 0 < answered, || format!("{answered} answered, {shed} shed"))?;
    let rss = scene.brokers[0].process()?.rss_mib()?;
    let mut found = Found::default();
    found.says(format!(
        "{CROWD} callers at once in 128 MiB: {answered} answered, {shed} shed, {rss:.0} MiB in use, and it goes on"
    ));
    scene.look_for_lost_links(0, 0..3, &mut found).await?;
    scene.settle(&mut found).await?;
    Ok(found)
}

/// Programs that want the broker's processor.
const BUSY: usize = 4;
const STARVED_FOR: Duration = Duration::from_secs(8);
/// Twice as many as may be in flight.
const CROWD: usize = 4096;
const CROWD_CONNECTIONS: usize = 16;
