//! f21: ten thousand connections due at once; and what a tick costs beside a million that are not.

use std::sync::Arc;
use std::time::Duration;

use azdo_broker::clock::SystemClock;
use azdo_broker::store::{Store, StorePlace};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Stage;
use crate::caller::now;
use crate::clones::fill;
use crate::outcome::Outcome;
use crate::processes::until;
use crate::report::Found;
use crate::scene::{Plan, Scene};

/// A restart after a long pause, against an Entra that limits.
pub(crate) async fn f21_a_storm_is_paced(stage: Stage) -> Outcome<Found> {
    // The emulator counts when requests arrive, within any second; on a busy machine they bunch on the way, so
    // there is some room between what is sent and what is taken.
    let (count, limit, rate) = stage.pick((10_000, 200, 150), (400, 50, 40));
    let more = format!("[refresh]\nrate = {rate}\nrate_per_tenant = {rate}\n");
    let mut scene = Scene::set(&stage.dir, Plan { more, ..Plan::default() }).await?;
    scene.brokers[0].kill().await?;
    fill(&scene.brokers[0], count, count, now().as_microsecond())?;
    scene.emulator.switch(json!({ "switch": "entra.limit", "per_second": limit })).await?;
    let before = scene.issued().await?.len();
    let began = Instant::now();
    scene.brokers[0].start().await?;
    let all_by = Duration::from_mins(5);
    let done = async || {
        sleep(Duration::from_millis(500)).await;
        let issued = scene.issued().await.ok()?;
        (before + count <= issued.len()).then_some(issued)
    };
    let issued = until("all refreshes", all_by, done).await?;
    // From the first one on; what ended when, the record says.
    let times: Vec<_> = issued[before..].iter().map(|it| it.time).collect();
    let (first, last) = (times.iter().min(), times.iter().max());
    let (first, last) = first.zip(last).ok_or("nothing was issued")?;
    let took = first.duration_until(*last).as_secs_f64();
    let refused = scene.emulator.record().await?.refused;
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let (count, rate, refused) = (count as f64, f64::from(rate), refused as f64);
    let overrun = took / (count / rate) - 1.0;
    let mut found = Found::default();
    found.measure("/storm_429", refused);
    found.measure("/storm_overrun", overrun.max(0.0));
    found.says(format!(
        "{count} due at once, {rate}/s of {limit}/s: {refused} answers 429, {took:.1} s ({:+.1} %), all done {:.1} s after the start",
        overrun * 100.0,
        began.elapsed().as_secs_f64()
    ));
    scene.settle(&mut found).await?;
    Ok(found)
}

/// A million linked connections, a thousand due: what looking for them takes, and what it leaves in memory.
pub(crate) async fn f21_a_tick_beside_a_million(stage: Stage) -> Outcome<Found> {
    let (count, due) = stage.pick((1_000_000, 1_000), (20_000, 100));
    let more = "[refresh]\nrate = 1000\nrate_per_tenant = 1000\n".to_owned();
    let mut scene = Scene::set(&stage.dir, Plan { more, ..Plan::default() }).await?;
    scene.brokers[0].kill().await?;
    let began = Instant::now();
    fill(&scene.brokers[0], count, due, now().as_microsecond())?;
    let filled = began.elapsed().as_secs_f64();
    let mut found = Found::default();
    // The claim itself, by the library: all that is due, as many at once as the refresher takes.
    let place = StorePlace::File(scene.brokers[0].dir.join("azdo-broker.db"));
    let store = Store::open(&place, Arc::new(SystemClock::default()), "chaos").await?;
    let (mut worst, mut claimed, mut total) = (Duration::ZERO, 0, Duration::ZERO);
    loop {
        let tick = Instant::now();
        let rows = store.claim_due(AT_ONCE, LEASE).await?;
        let took = tick.elapsed();
        (worst, total) = (worst.max(took), total + took);
        claimed += rows.len();
        if rows.len() < AT_ONCE || due <= claimed {
            break;
        }
    }
    let tick = Instant::now();
    let idle = store.claim_due(AT_ONCE, LEASE).await?.len();
    let idle_took = tick.elapsed();
    drop(store);
    // And the process: its memory before and after all that was due has been refreshed.
    let before = scene.issued().await?.len();
    scene.brokers[0].start().await?;
    let rss = scene.brokers[0].process()?.rss_mib()?;
    until("all refreshes", Duration::from_mins(5), async || {
        sleep(Duration::from_millis(200)).await;
        (before + due <= scene.issued().await.ok()?.len()).then_some(())
    })
    .await?;
    let grown = scene.brokers[0].process()?.rss_mib()? - rss;
    if stage.is_full {
        found.measure("/tick_ms", worst.as_secs_f64() * 1000.0);
        found.measure("/tick_rss_mib", grown);
    }
    found.says(format!(
        "{count} linked ({filled:.0} s to make), {due} due: {claimed} claimed in {:.1} ms, a tick at most {:.1} ms, \
         one more ({idle} due) {:.2} ms; the process grew by {grown:.1} MiB from {rss:.0}",
        total.as_secs_f64() * 1000.0,
        worst.as_secs_f64() * 1000.0,
        idle_took.as_secs_f64() * 1000.0
    ));
    scene.settle(&mut found).await?;
    // Gigabytes that nobody will look at.
    scene.brokers[0].kill().await?;
    std::fs::remove_file(scene.brokers[0].dir.join("azdo-broker.db"))?;
    Ok(found)
}

/// Longer than all of this takes; void when the broker starts.
const LEASE: Duration = Duration::from_mins(10);
/// `refresh.concurrency` as it comes.
const AT_ONCE: usize = 32;
