//! Three replicas over a PostgreSQL with a standby: one expiry, a clock that is off, a failover, new links.

use std::time::Duration;

use azdo_broker::client::within;
use azdo_broker::pb;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Stage;
use super::callers::three_replicas;
use crate::broker::ACCOUNT;
use crate::caller::{developer, reason_of};
use crate::emulator::oid;
use crate::outcome::{Outcome, ensure};
use crate::owners::IN_FORCE;
use crate::postgres::{Pair, store};
use crate::processes::until;
use crate::readers::Readers;
use crate::report::Found;
use crate::scene::{FRESH, LONG_WINDOW, PATIENT, Plan, Scene};
use crate::wire::Wire;

pub(super) struct Replicas {
    pub(super) scene: Scene,
    pair: Pair,
    /// Of each replica, to the primary and to the standby.
    pub(super) wires: Vec<[Wire; 2]>,
}

impl Replicas {
    pub(super) async fn set(stage: &Stage, users: usize) -> Outcome<Self> {
        let pair = Pair::start().await?;
        let (mut wires, mut stores) = (Vec::new(), Vec::new());
        for _ in 0..BROKERS {
            let [primary, standby] = pair.addresses()[..] else { return Err("no pair".into()) };
            let pair = [Wire::to(primary).await?, Wire::to(standby).await?];
            stores.push(store(&[pair[0].address, pair[1].address]));
            wires.push(pair);
        }
        let plan = Plan { users, brokers: BROKERS, stores, ..Plan::default() };
        Ok(Self { scene: Scene::set(&stage.dir, plan).await?, pair, wires })
    }

    pub(super) async fn finish(self, mut found: Found) -> Outcome<Found> {
        self.scene.look_for_lost_links(1, 0..self.scene.users, &mut found).await?;
        self.scene.settle(&mut found).await?;
        Ok(found)
    }
}

/// f14: one expiry of three replicas.
pub(crate) async fn f14_three_replicas(stage: Stage) -> Outcome<Found> {
    let replicas = Replicas::set(&stage, 30).await?;
    let mut found = Found::default();
    three_replicas(&replicas.scene, stage.pick(1000, 12), &mut found).await?;
    replicas.finish(found).await
}

/// f20: the same while the database's clock is five minutes ahead of the replicas', and a lease that another
/// replica holds is no shorter for it.
pub(crate) async fn f20_the_clock_of_the_database_is_off(stage: Stage) -> Outcome<Found> {
    let replicas = Replicas::set(&stage, 30).await?;
    let (scene, mut found) = (&replicas.scene, Found::default());
    let ahead = "CREATE OR REPLACE FUNCTION azdo_broker.store_now() RETURNS bigint LANGUAGE sql VOLATILE
         AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + 300000000 $$";
    replicas.pair.in_store(ahead).await?;
    three_replicas(scene, stage.pick(60, 4), &mut found).await?;
    sleep(LONG_WINDOW).await;
    let before = scene.emulator.record().await?.arrived.len();
    scene.emulator.switch(json!({ "switch": "entra.hold" })).await?;
    let mut all = Vec::new();
    for broker in 0..BROKERS {
        let caller = scene.caller(broker).await?;
        all.push(tokio::spawn(async move { caller.token(0, PATIENT).await }));
        // The first one has the lease by now.
        scene.emulator.wait_held(1, PATIENCE).await?;
    }
    sleep(Duration::from_secs(5)).await;
    let asked = scene.emulator.record().await?.arrived.len() - before;
    scene.emulator.clear(&scene.usual).await?;
    for answer in all {
        let answer = answer.await?;
        ensure(answer.is_ok(), || format!("one of those who waited was refused: {answer:?}"))?;
    }
    ensure(asked == 1, || format!("{asked} requests under one lease"))?;
    found.says("the database's clock 5 min ahead: one request under a lease of 5 s, of 3 replicas");
    replicas.finish(found).await
}

/// f06: the database stands still, then is killed, and its standby takes over.
pub(crate) async fn f06_database_down_and_failover(stage: Stage) -> Outcome<Found> {
    let mut replicas = Replicas::set(&stage, 6).await?;
    let mut found = Found::default();
    let readers = Readers::start(&replicas.scene, 0..6, Duration::ZERO, Duration::from_millis(80)).await?;
    sleep(Duration::from_secs(1)).await;
    let warm = readers.so_far();
    warm.ensure_none_failed()?;
    replicas.pair.signal_primary(Signal::STOP).await?;
    sleep(stage.pick(Duration::from_secs(30), Duration::from_secs(6))).await;
    replicas.pair.signal_primary(Signal::CONT).await?;
    sleep(Duration::from_secs(1)).await;
    let down = readers.so_far();
    let mut generations = Vec::new();
    for place in 0..BROKERS {
        generations.push(replicas.scene.connection(0, place).await?.generation);
    }
    replicas.pair.kill_primary().await?;
    sleep(Duration::from_secs(1)).await;
    let promoted = Instant::now();
    replicas.pair.promote().await?;
    let each = |broker: usize| writes_resume(&replicas.scene, broker, generations[broker]);
    tokio::try_join!(each(0), each(1), each(2))?;
    let resumed = promoted.elapsed().as_secs_f64();
    let all = readers.stop().await?;
    #[expect(clippy::cast_precision_loss, reason = "counts of reads")]
    let as_f64 = |count: u64| count as f64;
    found.measure("/outage_failed_reads/database_down", as_f64(down.failed_since(&warm)?));
    found.measure("/outage_failed_reads/failover", as_f64(all.failed_since(&down)?));
    // Of the last replica.
    found.measure("/writes_resume_s", resumed);
    found.wrongs.extend(all.first.map(|first| format!("the first failed read: {first}")));
    found.says(format!(
        "{} warm reads of 3 replicas, {} failed; each links and commits again {resumed:.1} s after the promotion",
        all.reads, all.failed
    ));
    replicas.finish(found).await
}

/// Waits until this replica has begun a link, and has committed a refresh of a place that is its own in this.
async fn writes_resume(scene: &Scene, broker: usize, generation: i64) -> Outcome<()> {
    let place = broker;
    let (caller, remote) = (scene.caller(broker).await?, scene.brokers[broker].remote().await?);
    let begun = until("a link after the promotion", Duration::from_mins(1), async || {
        let request = pb::BeginLinkRequest {
            account_id: ACCOUNT.into(),
            connection: Some(developer(place)),
            front: pb::Front::PlatformPages.into(),
            ..pb::BeginLinkRequest::default()
        };
        remote.connections().begin_link(within(Duration::from_secs(5), request)).await.ok()
    });
    let committed = until("a commit after the promotion", Duration::from_mins(1), async || {
        // It may be lent before it is committed.
        let _lent = caller.token(place, FRESH).await;
        (generation < scene.connection(broker, place).await.ok()?.generation).then_some(())
    });
    tokio::try_join!(begun, committed).map(drop)
}

/// P7: disconnects and new links under load, by all replicas, with kills: what ended is not released, and what
/// is linked is whose it is.
pub(crate) async fn f01_disconnected_and_relinked_under_load(mut stage: Stage) -> Outcome<Found> {
    // Two users take turns in each connection: u{n} and u{n + PLACES}.
    let mut replicas = Replicas::set(&stage, PLACES * 2).await?;
    let mut found = Found::default();
    let scene = &mut replicas.scene;
    let readers = Readers::start(scene, 0..PLACES, Duration::ZERO, Duration::from_millis(10)).await?;
    let (rounds, mut users) = (stage.pick(60, 8), (0..PLACES).collect::<Vec<_>>());
    for round in 0..rounds {
        let place = stage.random.pick(PLACES);
        // One in four is linked over, with nobody disconnected before.
        if round % 4 != 3 {
            let broker = stage.random.pick(BROKERS);
            disconnect(scene, broker, place).await?;
            if round % 4 == 2 {
                // The others were told; this one is not alive to remember.
                scene.brokers[broker].kill().await?;
                scene.brokers[broker].start().await?;
            }
            sleep(Duration::try_from(IN_FORCE)? + Duration::from_millis(300)).await;
            for other in 0..BROKERS {
                found.compares("released_after_disconnect", 1);
                let asked = scene.caller(other).await?.token(place, Duration::ZERO).await;
                if asked.as_ref().map_err(reason_of) != Err("NOT_LINKED".to_owned()) {
                    found.breaks(
                        "released_after_disconnect",
                        format!("u{place} by replica {other}: {asked:?}"),
                    );
                }
            }
        }
        // Somebody else takes the place.
        users[place] = (users[place] + PLACES) % (2 * PLACES);
        let user = users[place];
        scene.link(stage.random.pick(BROKERS), &[(place, user)], true).await?;
        scene.wait_for_token(stage.random.pick(BROKERS), place, PATIENCE).await?;
        let caller = scene.caller(stage.random.pick(BROKERS)).await?;
        let _fresh = caller.token(place, FRESH).await;
        let named = scene.connection(0, place).await?.identity.unwrap_or_default().object_id;
        if named != oid(user) {
            found.breaks("foreign_grants", format!("u{place} is {named}, not {}", oid(user)));
        }
        // Long enough for the readers of every replica to be answered when it is in force.
        sleep(Duration::try_from(IN_FORCE)?).await;
    }
    let all = readers.stop().await?;
    found.says(format!("{rounds} disconnects and new links under {} reads", all.reads));
    scene.look_for_lost_links(1, 0..PLACES, &mut found).await?;
    scene.settle(&mut found).await?;
    Ok(found)
}

async fn disconnect(scene: &Scene, broker: usize, place: usize) -> Outcome<()> {
    let request = pb::DisconnectRequest {
        account_id: ACCOUNT.into(),
        connection: Some(developer(place)),
        ..pb::DisconnectRequest::default()
    };
    let mut connections = scene.brokers[broker].remote().await?.connections();
    connections.disconnect(within(PATIENCE, request)).await?;
    scene.ledger.owners().ended(place, crate::caller::now());
    Ok(())
}

const BROKERS: usize = 3;
const PLACES: usize = 4;
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
