//! f01: the broker is killed at every step between a link's exchange and its confirmation.

use std::collections::HashMap;
use std::time::Duration;

use azdo_broker::client::within;
use azdo_broker::pb;
use azdo_broker::pb::LinkState;
use serde_json::json;

use super::{Stage, spin};
use crate::broker::ACCOUNT;
use crate::caller::developer;
use crate::emulator::{parameter, upn};
use crate::outcome::{Outcome, ensure};
use crate::processes::until;
use crate::report::{Found, KILLS};
use crate::scene::{Plan, Scene};

/// What a link may be killed in.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Moment {
    Exchanging,
    Exchanged,
    Verifying,
    Verified,
    Confirming,
}

impl Moment {
    fn key(self) -> &'static str {
        match self {
            Self::Exchanging => "/kills_by_step/exchanging",
            Self::Exchanged => "/kills_by_step/exchanged",
            Self::Verifying => "/kills_by_step/verifying",
            Self::Verified => "/kills_by_step/verified",
            Self::Confirming => "/kills_by_step/confirming",
        }
    }
}

const MOMENTS: [Moment; 6] = [
    Moment::Exchanged,
    Moment::Verifying,
    Moment::Confirming,
    Moment::Exchanging,
    Moment::Verified,
    Moment::Confirming,
];

/// What was acknowledged stands; a link that was taken and held goes on; whoever was linked before is linked
/// until the new one is confirmed.
pub(crate) async fn f01_kill_while_linking(mut stage: Stage) -> Outcome<Found> {
    let mut scene = Scene::set(&stage.dir, Plan { users: 8, ..Plan::default() }).await?;
    let kills: usize = stage.pick(300, 18);
    let (mut found, mut states) = (Found::default(), HashMap::<String, u64>::new());
    for kill in 0..kills {
        let (moment, place) = (MOMENTS[kill % MOMENTS.len()], kill % scene.users);
        let seen = kill_once(&mut scene, &mut stage, moment, place, &mut found).await?;
        found.count(KILLS, 1);
        found.count(moment.key(), 1);
        *states.entry(format!("{moment:?} → {}", short(seen))).or_default() += 1;
    }
    let mut states: Vec<_> = states.into_iter().map(|(what, count)| format!("{what} {count}")).collect();
    states.sort();
    found.says(format!("{kills} kills -9; killed while, found after: {}", states.join(", ")));
    scene.look_for_lost_links(0, 0..scene.users, &mut found).await?;
    scene.settle(&mut found).await?;
    Ok(found)
}

/// One link, killed at that moment; in which state it was found.
async fn kill_once(
    scene: &mut Scene,
    stage: &mut Stage,
    moment: Moment,
    place: usize,
    found: &mut Found,
) -> Outcome<LinkState> {
    let remote = scene.brokers[0].remote().await?;
    let request = pb::BeginLinkRequest {
        account_id: ACCOUNT.into(),
        connection: Some(developer(place)),
        front: pb::Front::PlatformPages.into(),
        ..pb::BeginLinkRequest::default()
    };
    let begun = remote.connections().begin_link(within(CALL, request)).await?.into_inner();
    let callback = scene.emulator.sign_in(&begun.authorize_url, &upn(place)).await?;
    let complete = pb::CompleteLinkRequest {
        account_id: ACCOUNT.into(),
        redirect_uri: callback.as_str().split('?').next().unwrap_or_default().to_owned(),
        state: begun.state,
        code: parameter(&callback, "code")?,
        ..pb::CompleteLinkRequest::default()
    };
    match moment {
        Moment::Exchanging | Moment::Exchanged => {
            scene.emulator.switch(json!({ "switch": "entra.hold", "count": 1 })).await?;
        }
        Moment::Verifying => scene.emulator.switch(json!({ "switch": "ado.hold", "count": 1 })).await?,
        Moment::Verified | Moment::Confirming => {}
    }
    let mut connections = remote.connections();
    let completing = tokio::spawn(async move { connections.complete_link(within(CALL, complete)).await });
    let mut confirming = None;
    match moment {
        Moment::Exchanging => scene.emulator.wait_held(1, CALL).await?,
        Moment::Exchanged => {
            scene.emulator.wait_held(1, CALL).await?;
            scene.emulator.release().await?;
            spin(stage.random.micros(LINK_US_MAX)).await;
        }
        Moment::Verifying => {
            scene.emulator.wait_held(1, CALL).await?;
            // Every other one dies while Azure DevOps has not answered, or is just about to.
            if stage.random.below(2) == 0 {
                scene.emulator.release().await?;
                spin(stage.random.micros(LINK_US_MAX)).await;
            }
        }
        Moment::Verified | Moment::Confirming => {
            let link = completing.await??.into_inner();
            ensure(link.state() == LinkState::Verified, || format!("not verified: {link:?}"))?;
            if moment == Moment::Confirming {
                let (mut connections, confirm) = (remote.connections(), confirm_request(&begun.link_id));
                let answer =
                    tokio::spawn(async move { connections.confirm_link(within(CALL, confirm)).await });
                spin(stage.random.micros(CONFIRM_US_MAX)).await;
                confirming = Some(answer);
            }
        }
    }
    scene.brokers[0].kill().await?;
    let confirmed = match confirming {
        Some(answer) => answer.await?.ok().map(pb_generation),
        None => None,
    };
    scene.emulator.clear(&scene.usual.clone()).await?;
    scene.brokers[0].start().await?;
    conclude(scene, &begun.link_id, (place, moment), confirmed, found).await
}

/// What became of the link after the start: it goes on from where it was, and its connection works.
async fn conclude(
    scene: &Scene,
    link_id: &str,
    (place, moment): (usize, Moment),
    confirmed: Option<i64>,
    found: &mut Found,
) -> Outcome<LinkState> {
    let remote = scene.brokers[0].remote().await?;
    let look = async || {
        let request = pb::GetLinkRequest { account_id: ACCOUNT.into(), link_id: link_id.into() };
        Ok::<_, tonic::Status>(
            remote.connections().get_link(within(CALL, request)).await?.into_inner().state(),
        )
    };
    let state = look().await?;
    // Whoever was linked is, and is released, whatever became of the new link.
    found.compares("lost_links", 1);
    if scene.caller(0).await?.token(place, Duration::ZERO).await.is_err() {
        found.breaks("lost_links", format!("u{place}: killed while {moment:?}, the one before is gone"));
    }
    // Its grant is sealed before Azure DevOps is asked, and what was acknowledged stands.
    let must_go_on = matches!(moment, Moment::Verifying | Moment::Verified | Moment::Confirming);
    if moment == Moment::Verifying && !matches!(state, LinkState::Held | LinkState::Verified) {
        found.breaks("lost_links", format!("u{place}: killed while verifying, found {}", short(state)));
        return Ok(state);
    }
    match state {
        LinkState::Held | LinkState::Verified | LinkState::Connected => {
            let goes_on = until("a link that goes on", CALL, async || {
                let state = look().await.ok()?;
                matches!(state, LinkState::Verified | LinkState::Connected).then_some(())
            });
            if goes_on.await.is_err() {
                found.breaks("lost_links", format!("u{place}: {moment:?}: a held link does not go on"));
                return Ok(state);
            }
            let again = remote.connections().confirm_link(within(CALL, confirm_request(link_id))).await;
            match (again.map(pb_generation), confirmed) {
                (Err(status), _) => found.breaks("lost_links", format!("u{place}: {moment:?}: {status}")),
                (Ok(again), Some(first)) if again != first => {
                    found.breaks("lost_updates", format!("u{place}: confirmed twice: {first}, {again}"));
                }
                _ => {}
            }
        }
        // The code is spent, and nothing was acknowledged: the person signs in again.
        _ if !must_go_on => {}
        state => found.breaks("lost_links", format!("u{place}: {moment:?}: found {}", short(state))),
    }
    Ok(state)
}

fn confirm_request(link_id: &str) -> pb::ConfirmLinkRequest {
    pb::ConfirmLinkRequest {
        account_id: ACCOUNT.into(),
        link_id: link_id.into(),
        ..pb::ConfirmLinkRequest::default()
    }
}

fn pb_generation(confirmed: tonic::Response<pb::Connection>) -> i64 {
    confirmed.into_inner().generation
}

fn short(state: LinkState) -> &'static str {
    state.as_str_name().trim_start_matches("LINK_STATE_")
}

const CALL: Duration = Duration::from_secs(20);
const LINK_US_MAX: u64 = 10_000;
const CONFIRM_US_MAX: u64 = 6_000;
