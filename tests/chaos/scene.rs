//! One scene: an emulator, brokers over one store, linked developers, and the ledger of what they released.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use azdo_broker::client::within;
use azdo_broker::pb;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::broker::{ACCOUNT, Broker, Setup};
use crate::caller::{Caller, developer, now, reason_of};
use crate::emulator::{Emulator, TokenRequest, upn};
use crate::ledger::Ledger;
use crate::outcome::{Outcome, ensure};
use crate::processes::until;
use crate::report::Found;

pub(crate) struct Scene {
    pub(crate) dir: PathBuf,
    pub(crate) emulator: Emulator,
    pub(crate) brokers: Vec<Broker>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) users: usize,
    /// Switches that are on all the time.
    pub(crate) usual: Vec<Value>,
    /// Held, because the sockets are in it.
    _sockets: TempDir,
}

/// How a scene differs from the usual one: one broker, SQLite, tokens of a useful life.
pub(crate) struct Plan {
    pub(crate) users: usize,
    pub(crate) brokers: usize,
    /// The section `[store]`, without its head; the same for all brokers.
    pub(crate) store: String,
    /// Of each broker: where it reaches the emulator, if not directly.
    pub(crate) upstreams: Vec<String>,
    /// Of each broker: its own `[store]`, if it is not the same for all.
    pub(crate) stores: Vec<String>,
    pub(crate) more: String,
    pub(crate) token_life_s: u64,
    pub(crate) strict: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            users: 1,
            brokers: 1,
            store: "path = \"azdo-broker.db\"".to_owned(),
            upstreams: Vec::new(),
            stores: Vec::new(),
            more: FAST.to_owned(),
            token_life_s: LIFE.as_secs(),
            strict: false,
        }
    }
}

impl Scene {
    /// Everything runs, and every user is linked by an import that was proven.
    pub(crate) async fn set(dir: &Path, plan: Plan) -> Outcome<Self> {
        let mut scene = Self::open(dir, plan).await?;
        scene.start_all().await?;
        scene.brokers[0].register().await?;
        scene.link_all().await?;
        Ok(scene)
    }

    /// The store is made; no broker runs yet.
    pub(crate) async fn open(dir: &Path, plan: Plan) -> Outcome<Self> {
        let emulator = Emulator::start(&binaries()?, &dir.join("emulator"), plan.users).await?;
        Self::around(dir, plan, emulator).await
    }

    /// The same around an emulator that runs already.
    pub(crate) async fn around(dir: &Path, plan: Plan, emulator: Emulator) -> Outcome<Self> {
        std::fs::create_dir_all(dir)?;
        let bin = binaries()?;
        // The paths of sockets have little room, and what TMPDIR names may be long.
        let sockets = tempfile::Builder::new().prefix("azdo-chaos-").tempdir_in("/tmp")?;
        let mut usual = vec![json!({ "switch": "entra.expires_in", "seconds": plan.token_life_s })];
        let mut entra = "";
        if plan.strict {
            usual.push(json!({ "switch": "entra.strict_rotation" }));
            entra = "rotation = \"strict\"";
        }
        emulator.clear(&usual).await?;
        let mut brokers = Vec::new();
        for n in 0..plan.brokers {
            let upstream = plan.upstreams.get(n).unwrap_or(&emulator.proxy);
            let store = plan.stores.get(n).unwrap_or(&plan.store);
            let setup =
                Setup { bin: &bin, sockets: sockets.path(), upstream, store, entra, more: &plan.more };
            brokers.push(Broker::new(&dir.join(format!("broker{n}")), &setup, &emulator)?);
        }
        brokers[0].init().await?;
        let ledger = Arc::default();
        let dir = dir.to_owned();
        Ok(Self { dir, emulator, brokers, ledger, users: plan.users, usual, _sockets: sockets })
    }

    pub(crate) async fn start_all(&mut self) -> Outcome<()> {
        for broker in &mut self.brokers {
            broker.start().await?;
        }
        Ok(())
    }

    /// Imports what another system holds of each user, and asks for a token of each: that proves it.
    pub(crate) async fn link_all(&self) -> Outcome<()> {
        for first in (0..self.users).step_by(20) {
            let users: Vec<_> = (first..self.users.min(first + 20)).map(|user| (user, user)).collect();
            self.link(0, &users, false).await?;
        }
        for user in 0..self.users {
            self.wait_for_token(0, user, Duration::from_secs(30)).await?;
        }
        Ok(())
    }

    /// Imports a grant for each of these places, of the user beside it, and remembers who is linked there.
    pub(crate) async fn link(&self, broker: usize, all: &[(usize, usize)], replace: bool) -> Outcome<()> {
        let mut items = Vec::new();
        for (place, user) in all {
            let refresh_token = self.emulator.grant(&upn(*user)).await?;
            items.push(pb::ImportItem {
                connection: Some(developer(*place)),
                refresh_token,
                ..pb::ImportItem::default()
            });
        }
        let request = pb::ImportConnectionsRequest {
            account_id: ACCOUNT.into(),
            items,
            replace,
            ..pb::ImportConnectionsRequest::default()
        };
        let mut connections = self.brokers[broker].remote().await?.connections();
        let sent = now();
        let results =
            connections.import_connections(within(CALL_WITHIN, request)).await?.into_inner().results;
        let acknowledged = now();
        let failed = results.iter().find(|result| result.code != 0);
        ensure(failed.is_none() && results.len() == all.len(), || format!("an import failed: {failed:?}"))?;
        for (place, user) in all {
            self.ledger.owners().linked(*place, upn(*user), sent, acknowledged);
        }
        Ok(())
    }

    pub(crate) async fn caller(&self, broker: usize) -> Outcome<Caller> {
        Ok(Caller::over(&self.brokers[broker].remote().await?, self.ledger.clone()))
    }

    /// Asks until there is a token of any life.
    pub(crate) async fn wait_for_token(
        &self,
        broker: usize,
        connection: usize,
        within: Duration,
    ) -> Outcome<()> {
        let caller = self.caller(broker).await?;
        let asking = async || caller.token(connection, Duration::ZERO).await.ok();
        until(&format!("a token of u{connection}"), within, asking).await.map(drop)
    }

    pub(crate) async fn connection(&self, broker: usize, connection: usize) -> Outcome<pb::Connection> {
        let request =
            pb::GetConnectionRequest { account_id: ACCOUNT.into(), connection: Some(developer(connection)) };
        let mut connections = self.brokers[broker].remote().await?.connections();
        Ok(connections.get_connection(within(CALL_WITHIN, request)).await?.into_inner())
    }

    pub(crate) async fn issued(&self) -> Outcome<Vec<TokenRequest>> {
        Ok(self.emulator.record().await?.issued)
    }

    /// Each connection is refreshed once more: one that cannot be is lost.
    pub(crate) async fn look_for_lost_links(
        &self,
        broker: usize,
        connections: impl Iterator<Item = usize>,
        found: &mut Found,
    ) -> Outcome<()> {
        let caller = self.caller(broker).await?;
        for connection in connections {
            found.compares("lost_links", 1);
            let mut last = String::new();
            let fresh = until("a refresh", LOST_AFTER, async || {
                // Almost all of its life: a refresh.
                match caller.token(connection, FRESH).await {
                    Ok(_) => Some(()),
                    Err(status) => {
                        last = format!("{} {}", reason_of(&status), status.message());
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        None
                    }
                }
            });
            if fresh.await.is_err() {
                found.breaks("lost_links", format!("u{connection} in {}: {last}", self.dir.display()));
            }
        }
        Ok(())
    }

    /// Holds what was released against the emulator's record and the audits.
    pub(crate) async fn settle(&self, found: &mut Found) -> Outcome<()> {
        let issued = self.issued().await?;
        let audits: Vec<PathBuf> = self.brokers.iter().map(Broker::audit).collect();
        self.ledger.settle(&issued, &audits, found);
        Ok(())
    }
}

/// Where the programs are: beside this one.
pub(crate) fn binaries() -> Outcome<PathBuf> {
    let own = std::env::current_exe()?;
    let bin = own.parent().and_then(Path::parent).ok_or("this program lies nowhere")?.to_owned();
    for program in ["azdo-broker", "azure-emulator"] {
        ensure(bin.join(program).exists(), || format!("{program} is missing: start this by script/chaos"))?;
    }
    Ok(bin)
}

/// Looks often at what is due, and is not the brake itself.
pub(crate) const FAST: &str = "[refresh]\ntick = \"200ms\"\nrate = 5000\nrate_per_tenant = 5000\n";
/// How long tokens live where nothing else is said, and how much of it callers ask for: a token is worth
/// something to them for [`WINDOW`], and then it has to be replaced. No life is scaled, only the wish is long.
pub(crate) const LIFE: Duration = Duration::from_secs(1803);
pub(crate) const FRESH: Duration = Duration::from_mins(30);
pub(crate) const WINDOW: Duration = Duration::from_secs(3);
/// The same where something takes a while: a longer window, and the wish that goes with it.
pub(crate) const LONG_WINDOW: Duration = Duration::from_secs(8);
pub(crate) const PATIENT: Duration = Duration::from_secs(1795);
const CALL_WITHIN: Duration = Duration::from_secs(20);
/// Beyond a lease, and beyond the pauses after a handful of failures.
const LOST_AFTER: Duration = Duration::from_secs(100);
