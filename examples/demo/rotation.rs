//! The client secret is replaced while callers ask for tokens, and Entra is asked for new ones all along.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::browser::plain_http;
use crate::calls::Service;
use crate::narrator::{Narrator, more};
use crate::outcome::{Context as _, Outcome};
use crate::processes;
use crate::story::{CLIENT, CLIENT_SECRET};
use crate::world::{ACCOUNT, World};

/// The one that replaces it. Opens nothing but the emulator.
pub(crate) const NEW_SECRET: &str = "new8Q~acme-secret.value+two/y=";

/// What the callers saw.
#[derive(Default)]
struct Load {
    ends: AtomicBool,
    released: AtomicUsize,
}

/// A new secret is added in Entra and then here, where it is proven before it is used; the old one is
/// deleted in Entra and then here. In between tokens are so short that every few seconds one is refreshed.
pub(crate) async fn rotate(world: &World, narrator: &Narrator) -> Outcome<()> {
    narrator.begin("rotation");
    let before = token_requests(world).await?.len();
    world.switch(json!({ "switch": "entra.expires_in", "seconds": TOKEN_LIFE_S })).await?;
    let service = Service::connect(world, "ide-backend").await?;
    let held = service.token(ACCOUNT).await?;
    service.report(ACCOUNT, &held.token_fingerprint).await?;

    let load = Arc::new(Load::default());
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (service, load) = (Service::connect(world, "ide-backend").await?, load.clone());
        callers.spawn(async move { ask_on(&service, &load).await });
    }
    refreshed_with(world, before, "secret:emu").await?;
    world.change(json!({ "change": "secret.add", "client_id": CLIENT, "value": NEW_SECRET })).await?;
    let old = credential(world, |_| true).await?;
    let command = world.command_line("operator", &["integration", "credential", "add", "--secret-file", "-"]);
    processes::run("azdo-broker credential add", command, Some(NEW_SECRET), &world.log()).await?;
    credential(world, |one| one["id"] != old.as_str() && !one["proven_at"].is_null()).await?;
    world.change(json!({ "change": "secret.remove", "client_id": CLIENT, "value": CLIENT_SECRET })).await?;
    let remove = world.command_line("operator", &["integration", "credential", "remove", &old]);
    world.run("azdo-broker credential remove", remove).await?;
    let removed = token_requests(world).await?.len();
    refreshed_with(world, removed, "secret:new").await?;

    load.ends.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    world.switch_all_off().await?;
    let requests = token_requests(world).await?.split_off(before);
    let with = |secret: &str| requests.iter().filter(|request| request["credential"] == secret).count();
    narrator.show(&format!(
        "the client secret was replaced under {CALLERS} callers: {} tokens released, 0 failed",
        load.released.load(Ordering::Relaxed)
    ));
    more(&format!(
        "Entra was asked {} times: {} with the old secret, {} with the new one",
        requests.len(),
        with("secret:emu"),
        with("secret:new")
    ));
    Ok(())
}

/// Asks for a token again and again. The first refusal is the end of the story.
async fn ask_on(service: &Service, load: &Load) -> Outcome<()> {
    while !load.ends.load(Ordering::Relaxed) {
        service.token_lasting(ACCOUNT, MIN_TTL).await.context("a release under load")?;
        load.released.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Waits for the id of the account's first client credential that is so.
async fn credential(world: &World, is_it: impl Fn(&Value) -> bool) -> Outcome<String> {
    let looking = async {
        loop {
            let list = world.command_line("operator", &["integration", "credential", "list", "--json"]);
            let said = world.run("azdo-broker credential list", list).await?;
            let told: Value = serde_json::from_str(&said.out).context("azdo-broker credential list")?;
            let all = told["client_credentials"].as_array().ok_or("no client_credentials are told")?;
            if let Some(found) = all.iter().find(|one| is_it(one)) {
                return Ok(found["id"].as_str().ok_or("a credential without id")?.to_owned());
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.map_err(|_| "no client credential is proven")?
}

/// Waits until a refresh after that many requests was answered to this secret.
async fn refreshed_with(world: &World, after: usize, credential: &str) -> Outcome<()> {
    let looking = async {
        loop {
            let requests = token_requests(world).await?;
            let is_it =
                |one: &&Value| one["credential"] == credential && one["grant_type"] == "refresh_token";
            if requests.iter().skip(after).any(|one| is_it(&one)) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .map_err(|_| format!("nothing was refreshed with {credential}"))?
}

/// What Entra was asked for, in order.
async fn token_requests(world: &World) -> Outcome<Vec<Value>> {
    let url = format!("{}/_emu/requests", world.emulator.control);
    let told: Value = plain_http()?.get(url).send().await?.error_for_status()?.json().await?;
    let all = told["requests"].as_array().ok_or("the emulator tells no requests")?;
    Ok(all.iter().map(|request| &request["token"]).filter(|token| !token.is_null()).cloned().collect())
}

const CALLERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);
/// The longest that may be asked for; a token that lives a little longer serves that little.
const MIN_TTL: Duration = Duration::from_mins(30);
const TOKEN_LIFE_S: u64 = 30 * 60 + 3;
const PATIENCE: Duration = Duration::from_secs(20);
