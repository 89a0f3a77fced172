//! Composition: from a configuration to a running broker.
//!
//! [`build`] opens everything and binds every socket before anything is served, so that a port in use
//! or a wrong key fails the start with one sentence. Tests start what production starts.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::accounts::{Accounts, ExpiryWatch};
use crate::admin::{self, Admin};
use crate::audit::{Audit, AuditError, AuditWriter, seen_in};
use crate::budgets::TokenBudget;
use crate::clock::Clock;
use crate::config::Config;
use crate::devops::{Devops, Paces};
use crate::entra::Entra;
use crate::gate::Gate;
use crate::grpc::{self, Admission, Face, HealthWatch, ServerLimits};
use crate::identify::Identifier;
use crate::integrations::{Checks, Integrations, ProofQueue, Prover, PublicUrls, Runs, make_prover};
use crate::keys::{FileKey, KeyProvider, KeysError};
use crate::lifecycle::{DRAIN_MAX, Ended, Stage};
use crate::link_pages;
use crate::links::{Links, Parts, ReturnTargets, Sweeper, Watches};
use crate::operations::Operations;
use crate::outgoing::{Outgoing, OutgoingConfig, OutgoingError};
use crate::policy::Policy;
use crate::release::Release;
use crate::repos::{self, Repos};
use crate::seal::{Keyring, KeyringError, Sealer};
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;
use crate::tls::{SocketError, SocketIncoming, TcpIncoming, Tls, TlsError, TlsReloader};
use crate::tokens::{Follower, Refresh, RefreshParts, Refresher, Tokens, tokens};
use crate::vault::{Vault, VaultError};

/// A broker whose sockets are bound.
pub struct Bound {
    pub tcp: Option<SocketAddr>,
    pub links: SocketAddr,
    pub admin: SocketAddr,
    /// Its face, for tests that ask without a network.
    pub face: Face,
    running: Running,
}

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the audit cannot be opened")]
    Audit(#[from] AuditError),
    #[error("{place} cannot be bound")]
    Bind {
        place: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the key cannot be used")]
    Keys(#[from] KeysError),
    #[error("the keyring in the store is damaged")]
    Keyring(#[from] KeyringError),
    #[error("the outgoing connections cannot be set up")]
    Outgoing(#[from] OutgoingError),
    #[error("a socket cannot be bound")]
    Socket(#[from] SocketError),
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    #[error("the TLS files cannot be used")]
    Tls(#[from] TlsError),
    #[error("the store cannot be compared with the audit")]
    Vault(#[from] VaultError),
}

struct Running {
    faces: Stage,
    actors: Stage,
    tasks: Tasks,
    audit: AuditWriter,
}

struct Listeners {
    sockets: Vec<SocketIncoming>,
    tcp: Option<(TcpListener, Tls, TlsReloader)>,
    links: TcpListener,
    admin: TcpListener,
}

/// Opens what `config` names and binds its sockets.
pub async fn build(config: Config, clock: Arc<dyn Clock>) -> Result<Bound, BuildError> {
    let key_made_at = made_at(&config.key_file);
    let vault = Arc::new(open_vault(&config, clock.clone()).await?);
    let listeners = Listeners::bind(&config).await?;
    let outgoing = Outgoing::new(&OutgoingConfig { proxy: config.proxy, ca_pem: config.ca_pem })?;
    recall(&vault, &config.audit.path)?;
    let (audit, writer) = Audit::open(&config.audit, clock.clone())?;
    if config.entra.browser_authority.is_some() {
        tracing::warn!("entra.browser_authority is set: browsers are sent to an emulator, not to Microsoft");
    }

    let policy = Arc::new(config.policy);
    let tasks = Tasks::default();
    let accounts = Arc::new(Accounts::new(vault.clone(), clock.clone(), config.federated_sources));
    let entra = Arc::new(Entra::new(config.entra, outgoing.clone(), clock.clone()));
    let devops = Arc::new(Devops::new(config.devops, outgoing));
    let paces = Arc::new(Paces::new(clock.clone()));
    let identifier =
        Arc::new(Identifier { entra: entra.clone(), devops: devops.clone(), paces: paces.clone() });
    let gate = Gate::new(policy.clone(), audit.clone());
    let refresh = Refresh::new(RefreshParts {
        vault: vault.clone(),
        accounts: accounts.clone(),
        entra: entra.clone(),
        identifier: identifier.clone(),
        budget: TokenBudget::new(config.token_rates, clock.clone()),
        gate: gate.clone(),
        clock: clock.clone(),
    });
    let mut metrics = Registry::default();
    let refresh_metrics = refresh.metrics();
    refresh_metrics.register(&mut metrics);
    let expiries = ExpiryWatch::new(vault.clone(), clock.clone(), &mut metrics);
    let (tokens, refresher, follower) = tokens(refresh, clock.clone(), config.refresh);

    let (proofs, prover) =
        make_prover(vault.clone(), accounts.clone(), entra.clone(), tokens.clone(), clock.clone());

    let shared =
        Shared { gate, vault: vault.clone(), accounts, tokens, entra, devops, paces, clock: clock.clone() };
    let own = Own {
        key_made_at,
        policy,
        proofs,
        public_urls: config.public_urls,
        return_targets: config.return_targets,
        admission: Admission::new(config.in_flight_max),
        watch_age_max: config.connection_age_max,
    };
    let face = shared.into_face(own, identifier, &tasks);
    let (routes, reporter) = grpc::services(&face);
    let health = HealthWatch {
        reporter,
        vault: vault.clone(),
        refreshes: refresh_metrics,
        audit: audit.clone(),
        clock: clock.clone(),
    };
    let sweeper = Sweeper { vault, clock };
    let mut actors = Stage::default();
    actors.start_actor("expiry watch", expiries.run(actors.stop.clone()));
    start_actors(&mut actors, (refresher, follower), prover, health, sweeper);
    let limits = ServerLimits { connection_age_max: config.connection_age_max };
    Ok(listeners.serve(face, (routes, limits), (audit, Arc::new(metrics)), actors, tasks, writer))
}

/// What the use cases have in common.
struct Shared {
    gate: Gate,
    vault: Arc<Vault>,
    accounts: Arc<Accounts>,
    tokens: Tokens,
    entra: Arc<Entra>,
    devops: Arc<Devops>,
    paces: Arc<Paces>,
    clock: Arc<dyn Clock>,
}

/// What one of them has alone.
struct Own {
    key_made_at: Option<jiff::Timestamp>,
    policy: Arc<Policy>,
    proofs: ProofQueue,
    public_urls: PublicUrls,
    return_targets: ReturnTargets,
    admission: Admission,
    watch_age_max: std::time::Duration,
}

impl Shared {
    fn into_face(self, own: Own, identifier: Arc<Identifier>, tasks: &Tasks) -> Face {
        let Self { gate, vault, accounts, tokens, entra, devops, paces, clock } = self;
        let links = Links::new(Parts {
            gate: gate.clone(),
            vault: vault.clone(),
            accounts: accounts.clone(),
            tokens: tokens.clone(),
            entra: entra.clone(),
            identifier,
            clock: clock.clone(),
            tasks: tasks.clone(),
            return_targets: own.return_targets,
            watches: Watches::default(),
        });
        Face {
            checks: Checks {
                gate: gate.clone(),
                vault: vault.clone(),
                accounts: accounts.clone(),
                tokens: tokens.clone(),
                entra: entra.clone(),
                devops: devops.clone(),
                paces: paces.clone(),
                clock: clock.clone(),
                key_made_at: own.key_made_at,
                runs: Runs::default(),
            },
            integrations: Integrations {
                gate: gate.clone(),
                vault: vault.clone(),
                accounts: accounts.clone(),
                tokens: tokens.clone(),
                clock: clock.clone(),
                tasks: tasks.clone(),
                proofs: own.proofs,
                public_urls: own.public_urls,
            },
            links,
            operations: Operations {
                gate: gate.clone(),
                vault,
                tokens: tokens.clone(),
                tasks: tasks.clone(),
            },
            policy: own.policy,
            release: Release {
                gate: gate.clone(),
                accounts: accounts.clone(),
                tokens: tokens.clone(),
                clock: clock.clone(),
            },
            repos: Repos::new(repos::Parts {
                gate,
                accounts,
                tokens,
                devops,
                paces,
                clock: clock.clone(),
                tasks: tasks.clone(),
            }),
            admission: own.admission,
            watch_age_max: own.watch_age_max,
        }
    }
}

/// When a file was last written, if the file system tells.
fn made_at(file: &Path) -> Option<jiff::Timestamp> {
    file.metadata().and_then(|metadata| metadata.modified()).ok()?.try_into().ok()
}

async fn open_vault(config: &Config, clock: Arc<dyn Clock>) -> Result<Vault, BuildError> {
    let keys = KeyProvider::File(FileKey::open(&config.key_file)?);
    let holder = crate::secret::make_random_text();
    let store = Store::open(&config.store, clock, &holder).await?;
    let wrapped = store.wrapped_keyring().await?;
    let keyring = keys.unwrap(store.store_id().as_str(), &wrapped)?;
    let sealer = Sealer::new(store.store_id().clone(), Keyring::from_bytes(&keyring)?);
    Ok(Vault::new(store, sealer, config.ended_kept))
}

/// Remembers what the audit says of links and disconnects.
fn recall(vault: &Vault, audit: &Path) -> Result<(), BuildError> {
    let unreadable = |source| AuditError::Open { path: audit.to_owned(), source: Arc::new(source) };
    for (key, seen) in seen_in(audit, vault.store_id()).map_err(unreadable)? {
        vault.note_seen(&key, seen);
    }
    Ok(())
}

fn start_actors(
    actors: &mut Stage,
    (refresher, follower): (Refresher, Follower),
    prover: Prover,
    health: HealthWatch,
    sweeper: Sweeper,
) {
    actors.start_actor("credential prover", prover.run(actors.stop.clone()));
    actors.start_actor("refresher", refresher.run(actors.stop.clone()));
    actors.start_actor("follower", follower.run(actors.stop.clone()));
    actors.start_actor("health", health.run(actors.stop.clone()));
    actors.start_actor("sweeper", sweeper.run(actors.stop.clone()));
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, BuildError> {
        let mut sockets = Vec::new();
        for socket in &config.sockets {
            sockets.push(SocketIncoming::bind(&socket.name, &socket.path, socket.mode).await?);
        }
        let tcp = match &config.tcp {
            None => None,
            Some((address, files)) => {
                let (tls, reloader) = Tls::load(files.clone())?;
                Some((bind("listen.tcp", *address).await?, tls, reloader))
            }
        };
        let links = bind("listen.links", config.links).await?;
        let admin = bind("listen.admin", config.admin).await?;
        Ok(Self { sockets, tcp, links, admin })
    }

    #[expect(clippy::too_many_arguments, reason = "the last step of composition, called once")]
    fn serve(
        self,
        face: Face,
        (routes, limits): (Routes, ServerLimits),
        (audit, metrics): (Audit, Arc<Registry>),
        mut actors: Stage,
        tasks: Tasks,
        writer: AuditWriter,
    ) -> Bound {
        let mut faces = Stage::default();
        let stop = faces.stop.clone();
        for socket in self.sockets {
            faces.start("socket", grpc::serve(routes.clone(), limits, socket, stop.clone()));
        }
        let local = |listener: &TcpListener| listener.local_addr().expect("a bound listener has an address");
        let tcp = self.tcp.map(|(listener, tls, reloader)| {
            let address = local(&listener);
            actors.start_actor("TLS reloader", reloader.run(actors.stop.clone()));
            let incoming = TcpIncoming::new(listener, tls);
            faces.start("tcp", grpc::serve(routes, limits, incoming, stop.clone()));
            address
        });
        let (links, admin) = (local(&self.links), local(&self.admin));
        faces.start("links", link_pages::serve(self.links, face.links.clone(), stop.clone()));
        let probes = Admin { audit, metrics, draining: stop };
        // The probes outlive the faces, so that a drain can be watched.
        actors.start("admin", admin::serve(self.admin, probes, actors.stop.clone()));
        Bound { tcp, links, admin, face, running: Running { faces, actors, tasks, audit: writer } }
    }
}

impl Bound {
    /// Adds a component that ends although nobody told it to, for tests of what follows.
    #[cfg(any(test, feature = "testing"))]
    pub fn add_one_that_crashes(&mut self) {
        self.running.actors.start_actor("short-lived", std::future::ready(()));
    }

    /// Serves until `told` resolves or a component crashes; then drains, in order and in time.
    pub async fn run(self, told: impl Future<Output = ()>) -> Ended {
        let Self { face, running: Running { mut faces, mut actors, tasks, audit }, .. } = self;
        let mut writer = Stage::default();
        writer.start_actor("audit", audit.run_until(writer.stop.clone()));
        let why = tokio::select! {
            () = told => Ended::Drained,
            crashed = faces.crashed() => crashed,
            crashed = actors.crashed() => crashed,
            crashed = writer.crashed() => crashed,
        };
        let drain = async {
            // A connection that says nothing has nothing to lose: only calls in flight are waited for.
            let answered = async {
                face.admission.drained().await;
                face.repos.stop();
                tasks.drain().await;
                tokio::time::sleep(LINGER).await;
            };
            let faces = faces.drain_while(answered).await;
            face.repos.stop();
            tasks.drain().await;
            let actors = actors.drain().await;
            faces.and(actors).and(writer.drain().await)
        };
        let Ok(drained) = tokio::time::timeout(DRAIN_MAX, drain).await else {
            tracing::error!("the drain took too long; what has not landed is cut off");
            return Ended::Crashed;
        };
        why.and(drained)
    }
}

async fn bind(name: &str, address: SocketAddr) -> Result<TcpListener, BuildError> {
    TcpListener::bind(address).await.map_err(failed(format!("{name} = {address}")))
}

fn failed(place: String) -> impl FnOnce(std::io::Error) -> BuildError {
    |source| BuildError::Bind { place, source }
}

/// For the last answers to reach those who wait for them.
const LINGER: std::time::Duration = std::time::Duration::from_millis(500);
