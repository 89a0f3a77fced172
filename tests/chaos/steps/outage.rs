//! f12: Entra is away, at the best and at the worst moment. f08, f09: it answers badly.
//!
//! Here a second stands for a minute: tokens live 60 s and callers ask for 5 s (design.md 6.5).

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Stage;
use crate::outcome::{Outcome, ensure};
use crate::processes::until;
use crate::readers::Readers;
use crate::report::Found;
use crate::scene::{FRESH, Plan, Scene, WINDOW};

/// Of these, by turns, both phases: an outage as long as the formula allows costs no read.
pub(crate) async fn f12_an_outage_at_the_best_and_at_the_worst_moment(stage: Stage) -> Outcome<Found> {
    let plan = || Plan { users: 4, token_life_s: SCALED_LIFE.as_secs(), ..Plan::default() };
    let mut found = Found::default();
    let one = async |name: &str| Scene::set(&stage.dir.join(name), plan()).await;
    let (best, worst) = (one("best").await?, one("worst").await?);
    let (best, worst) = tokio::join!(best_phase(&best), worst_phase(&worst));
    found.add(best?);
    found.add(worst?);
    Ok(found)
}

/// It begins just after a refresh.
async fn best_phase(scene: &Scene) -> Outcome<Found> {
    refresh_all(scene).await?;
    let began = Instant::now();
    outage(scene, "/outage_failed_reads/best_phase", SCALED_LIFE - SCALED_MIN_TTL - SLACK, began).await
}

/// It begins when the first refresh was about to come: at its first failure the tokens are half used up.
async fn worst_phase(scene: &Scene) -> Outcome<Found> {
    refresh_all(scene).await?;
    let began = Instant::now();
    // The first release of a generation decides when its refresh comes: at 40 to 50 % of its life.
    let caller = scene.caller(0).await?;
    for user in 0..scene.users {
        caller.token(user, SCALED_MIN_TTL).await?;
    }
    sleep((SCALED_LIFE.mul_f64(0.4)).saturating_sub(began.elapsed() + SLACK)).await;
    let from_half = SCALED_LIFE.mul_f64(0.5) - SCALED_MIN_TTL - SLACK;
    let length = SCALED_LIFE.mul_f64(0.1) + SLACK + from_half;
    outage(scene, "/outage_failed_reads/worst_phase", length, Instant::now()).await
}

/// Reads all the while, and until everything has been refreshed again.
async fn outage(scene: &Scene, key: &'static str, length: Duration, began: Instant) -> Outcome<Found> {
    let asked_before = scene.emulator.record().await?.arrived.len();
    scene.emulator.switch(json!({ "switch": "entra.5xx" })).await?;
    let readers = Readers::start(scene, 0..scene.users, SCALED_MIN_TTL, Duration::from_millis(100)).await?;
    sleep(length.saturating_sub(began.elapsed())).await;
    let during = readers.so_far();
    scene.emulator.clear(&scene.usual).await?;
    let record = scene.emulator.record().await?;
    let (asked, before) = (record.arrived.len() - asked_before, record.issued.len());
    ensure(0 < asked, || "it did not look: nothing was asked of Entra while it was away".to_owned())?;
    let recovered = Instant::now();
    until("refreshes after the outage", Duration::from_mins(2), async || {
        sleep(Duration::from_millis(100)).await;
        let fresh = scene.issued().await.ok()?.split_off(before);
        let users: std::collections::HashSet<_> = fresh.into_iter().filter_map(|it| it.user_upn).collect();
        (users.len() == scene.users).then_some(())
    })
    .await?;
    let recovered = recovered.elapsed();
    let read = readers.stop().await?;
    ensure(0 < during.reads, || "it did not look: nobody read meanwhile".to_owned())?;
    let mut found = Found::default();
    #[expect(clippy::cast_precision_loss, reason = "counts of reads")]
    found.measure(key, read.failed as f64);
    found.wrongs.extend(read.first.map(|first| format!("the first failed read: {first}")));
    found.says(format!(
        "{key}: Entra away for {:.0} s of tokens of {SCALED_LIFE:?} (a second for a minute), min_ttl {SCALED_MIN_TTL:?}: \
         {} of {} reads failed, {} of them meanwhile; {asked} requests were refused; all refreshed {:.1} s after",
        length.as_secs_f64(),
        read.failed,
        read.reads,
        during.failed,
        recovered.as_secs_f64()
    ));
    scene.settle(&mut found).await?;
    Ok(found)
}

async fn refresh_all(scene: &Scene) -> Outcome<()> {
    let caller = scene.caller(0).await?;
    for user in 0..scene.users {
        // All but a second of its life.
        let fresh = SCALED_LIFE - Duration::from_secs(1);
        until("a fresh token", Duration::from_secs(30), async || caller.token(user, fresh).await.ok())
            .await?;
    }
    Ok(())
}

/// f08, f09: every kind of bad answer. The token at hand is released, the grant is kept, and all goes on by itself.
pub(crate) async fn f08_f09_bad_answers(stage: Stage) -> Outcome<Found> {
    // Those that ask for a pause of the whole tenant come last.
    let mut faults = vec![
        json!({ "switch": "entra.5xx", "status": 500, "count": 1 }),
        json!({ "switch": "entra.html", "count": 1 }),
        json!({ "switch": "entra.404_empty", "count": 1 }),
        json!({ "switch": "entra.cut", "count": 1 }),
        json!({ "switch": "entra.5xx", "status": 503, "retry_after": 2, "count": 1 }),
        json!({ "switch": "entra.429", "retry_after": 1, "count": 1 }),
        json!({ "switch": "entra.429", "count": 1 }),
    ];
    if !stage.is_full {
        // Without a wish of Entra's the tenant is left alone for a minute.
        faults.pop();
    }
    let users = faults.len();
    let mut found = Found::default();
    let scene = Scene::set(&stage.dir, Plan { users, ..Plan::default() }).await?;
    sleep(WINDOW).await;
    let caller = scene.caller(0).await?;
    let mut refused = 0;
    for (user, fault) in faults.iter().enumerate() {
        scene.emulator.switch(fault.clone()).await?;
        let before = scene.issued().await?.len();
        // While the tenant is left alone, nothing is asked for others either. What was bad for a moment may be
        // asked once more within the call: then its caller has a token all the same.
        until("a request that is answered badly", Duration::from_secs(30), async || {
            refused += u64::from(caller.token(user, FRESH).await.is_err());
            sleep(Duration::from_millis(100)).await;
            (before < scene.issued().await.ok()?.len()).then_some(())
        })
        .await?;
        let held = caller.token(user, Duration::from_secs(5)).await;
        ensure(held.is_ok(), || format!("{fault}: what was at hand was withheld: {held:?}"))?;
    }
    scene.look_for_lost_links(0, 0..users, &mut found).await?;
    found.says(format!(
        "{users} bad answers ({refused} calls refused): tokens at hand released, all links refreshed after"
    ));
    scene.settle(&mut found).await?;
    Ok(found)
}

const SCALED_LIFE: Duration = Duration::from_mins(1);
const SCALED_MIN_TTL: Duration = Duration::from_secs(5);
/// What is between the end of an outage and a refresh that knows of it.
const SLACK: Duration = Duration::from_secs(3);
