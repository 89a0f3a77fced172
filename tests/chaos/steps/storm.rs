//! f21: ten thousand connections due at once; and what a tick costs beside a million that are not.

use std::sync::Arc;
use std::time::Duration;

use azdo_broker::clock::SystemClock;
use azdo_broker::store::{Store, StorePlace};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Stage;
use crate::caller::now;
use crate::clones::{fill, refreshed};
use crate::outcome::{Outcome, ensure};
use crate::processes::until;
use crate::report::{Found, ratio};
use crate::scene::{Plan, Scene};

/// A restart after a long pause, against an Entra that limits: never more at once than is configured, and each
/// connection once.
pub(crate) async fn f21_a_storm_is_paced(stage: Stage) -> Outcome<Found> {
    // The emulator counts when requests arrive, within any second; on a busy machine they bunch on the way, so
    // there is some room between what is sent and what is taken.
    let (count, limit, rate) = stage.pick((10_000, 200, 150), (400, 50, 40));
    let more = format!("[refresh]\nrate = {rate}\nrate_per_tenant = {rate}\n");
    let mut scene = Scene::set(&stage.dir, Plan { more, ..Plan::default() }).await?;
    scene.brokers[0].kill().await?;
    let generation = fill(&scene.brokers[0], count, count, now().as_microsecond())?;
    scene.emulator.switch(json!({ "switch": "entra.limit", "per_second": limit })).await?;
    let before = scene.emulator.record().await?.arrived.len();
    let began = Instant::now();
    scene.brokers[0].start().await?;
    until("all refreshes", Duration::from_mins(5), async || {
        sleep(Duration::from_millis(500)).await;
        (before + count <= scene.emulator.record().await.ok()?.arrived.len()).then_some(())
    })
    .await?;
    let all_done = began.elapsed();
    // One too many would come now.
    sleep(Duration::from_secs(2)).await;
    let record = scene.emulator.record().await?;
    scene.brokers[0].kill().await?;
    let mut times = record.arrived[before..].to_vec();
    times.sort();
    let (first, last) = times.first().zip(times.last()).ok_or("nothing was asked")?;
    let took = first.duration_until(*last).as_secs_f64();
    let most = most_in_a_second(&times);
    let (asked, refreshed) = (times.len(), refreshed(&scene.brokers[0], generation)?);
    let per_row = ratio(asked as u64, count as u64);
    let overrun = took / ratio(count as u64, rate) - 1.0;
    let mut found = Found::default();
    found.measure("/storm_429", ratio(record.refused as u64, 1));
    found.measure("/storm_overrun", overrun.max(0.0));
    found.measure("/storm_peak_of_rate", ratio(most as u64, rate));
    found.says(format!(
        "{count} due at once, {rate}/s of {limit}/s: {} answers 429, {took:.1} s ({:+.1} %), all done {:.1} s after \
         the start; at most {most} in any second; {asked} requests, {per_row:.3} a row, refreshed {refreshed} rows",
        record.refused,
        overrun * 100.0,
        all_done.as_secs_f64()
    ));
    ensure(asked == count && refreshed == count, || {
        format!("{count} were due: {asked} requests refreshed {refreshed} of them")
    })?;
    scene.settle(&mut found).await?;
    Ok(found)
}

/// Of sorted times the most within any one second.
fn most_in_a_second(times: &[Timestamp]) -> usize {
    let mut first = 0;
    let within = |(at, time): (usize, &Timestamp)| {
        while SignedDuration::from_secs(1) <= times[first].duration_until(*time) {
            first += 1;
        }
        at + 1 - first
    };
    times.iter().enumerate().map(within).max().unwrap_or(0)
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
    ensure(claimed == due && idle == 0, || format!("{claimed} of {due} were claimed, and then {idle}"))?;
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
