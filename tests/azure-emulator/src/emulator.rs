//! A running emulator: starts the doors, and lets tests look and interfere.
//!
//! Invariants:
//!
//! 1. It listens on loopback, unless told otherwise in so many words.
//! 2. Dropping it stops it: listeners, connections and the programs they run.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::authority::{Authority, AuthorityError};
use crate::call::Door;
use crate::clock::Clock;
use crate::control::Change;
use crate::doors::Doors;
use crate::fault::Fault;
use crate::keys::Keys;
use crate::record::{Recorded, TokenRequest};
use crate::state::{Parts, Shared};
use crate::switches::{Switch, Within};
use crate::world::World;
use crate::{dispatch, seeding, signin};

/// How to start. `..Options::default()` gives the example world on free ports of 127.0.0.1.
#[derive(Clone, Debug)]
pub struct Options {
    pub world: World,
    pub bind: IpAddr,
    /// Without it an address other than loopback is refused.
    pub allow_non_loopback: bool,
    /// Where the repositories are; a directory of its own, removed at the end, by default.
    pub data_dir: Option<PathBuf>,
    /// Where the certificate authority is kept, for several runs; made anew by default.
    pub ca_dir: Option<PathBuf>,
    /// Tokens and lifetimes follow from it.
    pub seed: u64,
    /// A clock that stands still here and moves only by [`Emulator::advance`].
    pub clock_start: Option<Timestamp>,
    pub ports: Ports,
}

/// Fixed ports; 0 takes any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ports {
    pub proxy: u16,
    pub https: u16,
    pub browser: u16,
    pub control: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            world: World::example(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            allow_non_loopback: false,
            data_dir: None,
            ca_dir: None,
            seed: 1,
            clock_start: None,
            ports: Ports::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0} is not a loopback address; that must be allowed explicitly")]
    NotLoopback(IpAddr),
    #[error("the certificate authority cannot be set up")]
    Authority(#[from] AuthorityError),
    #[error("the repositories cannot be made")]
    Repositories(#[source] std::io::Error),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// Dropping it stops it.
pub struct Emulator {
    shared: Arc<Shared>,
    proxy: SocketAddr,
    https: SocketAddr,
    browser: SocketAddr,
    control: SocketAddr,
    tasks: TaskTracker,
    stop: DropGuard,
    /// Removed when the emulator is dropped.
    _own_directory: Option<OwnDirectory>,
}

impl Emulator {
    pub async fn start(options: Options) -> Result<Self, StartError> {
        if !options.bind.is_loopback() && !options.allow_non_loopback {
            return Err(StartError::NotLoopback(options.bind));
        }
        let (data_dir, own_directory) = if let Some(directory) = options.data_dir {
            (directory, None)
        } else {
            let own = OwnDirectory::make().map_err(StartError::Repositories)?;
            (own.0.clone(), Some(own))
        };
        let repositories = data_dir.join("repositories");
        // In a directory of its own nobody looks for a repository before it is asked for.
        if own_directory.is_none() {
            seeding::make_repositories(&options.world, &repositories).map_err(StartError::Repositories)?;
        }
        let authority = match &options.ca_dir {
            Some(directory) => Authority::load_or_make(directory)?,
            None => Authority::make()?,
        };
        let authority = Arc::new(authority);
        let shared = Arc::new(Shared::new(Parts {
            world: options.world,
            clock: Clock::new(options.clock_start),
            keys: Keys::new(),
            seed: options.seed,
            data_dir: repositories,
            authority_pem: authority.pem().to_owned(),
        }));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let doors = Doors {
            shared: Arc::clone(&shared),
            tls: TlsAcceptor::from(authority.server_config()?),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        let open = async |port: u16, door: Door| -> Result<SocketAddr, StartError> {
            let (listener, address) = listen(SocketAddr::new(options.bind, port)).await?;
            tasks.spawn(doors.clone().serve(listener, door));
            Ok(address)
        };
        let proxy = open(options.ports.proxy, Door::Proxy).await?;
        let https = open(options.ports.https, Door::Https).await?;
        let browser = open(options.ports.browser, Door::Browser).await?;
        let control = open(options.ports.control, Door::Control).await?;
        tasks.close();
        let stop = stop.drop_guard();
        Ok(Self { shared, proxy, https, browser, control, tasks, stop, _own_directory: own_directory })
    }

    /// The CONNECT proxy which plays the real hosts.
    pub fn proxy_url(&self) -> String {
        format!("http://{}", self.proxy)
    }

    /// All hosts in one, told apart by path.
    pub fn https_url(&self) -> String {
        format!("https://localhost:{}", self.https.port())
    }

    /// Sign-in pages, for browsers which know neither the proxy nor the authority.
    pub fn browser_url(&self) -> String {
        format!("http://localhost:{}", self.browser.port())
    }

    pub fn control_url(&self) -> String {
        format!("http://{}", self.control)
    }

    pub fn ca_pem(&self) -> &str {
        &self.shared.authority_pem
    }

    pub fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
    }

    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    pub fn fault(&self, fault: Fault) {
        self.shared.switch(fault.into());
    }

    /// Turns a switch on for one tenant or organization, or for a while.
    pub fn fault_within(&self, within: Within, fault: Fault) {
        self.shared.switch(Switch { fault, within });
    }

    /// Turns all switches off; requests that wait go on.
    pub fn clear_faults(&self) {
        self.shared.clear_faults();
    }

    /// An error names what is not there.
    pub fn change(&self, change: Change) -> Result<(), String> {
        change.apply(&mut self.shared.state().world)
    }

    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.state().log.all().to_vec()
    }

    /// Every request to the token endpoint that was evaluated.
    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.shared.state().log.all().iter().filter_map(|recorded| recorded.token.clone()).collect()
    }

    /// How many requests wait in a hold or hang.
    pub fn held(&self) -> usize {
        self.shared.gate.held()
    }

    /// Turns holding and hanging off; requests that wait go on.
    pub fn release_held(&self) {
        self.shared.release();
    }

    /// Waits until `n` requests are held.
    ///
    /// # Panics
    ///
    /// When that takes longer than ten seconds.
    pub async fn wait_held(&self, n: usize) {
        let reached = self.shared.gate.wait_held(n).await;
        assert!(reached, "{} requests are held, {n} were expected", self.held());
    }

    /// Accepts as this user, without a page: the address of the callback, or the page that
    /// tells what is wrong.
    pub async fn sign_in(&self, authorize_url: &str, upn: &str) -> Result<String, String> {
        self.visit(authorize_url, Some(upn)).await
    }

    /// Declines: the address of the callback, with the error.
    pub async fn decline(&self, authorize_url: &str) -> Result<String, String> {
        self.visit(authorize_url, None).await
    }

    async fn visit(&self, authorize_url: &str, user: Option<&str>) -> Result<String, String> {
        let call = signin::call(authorize_url, user).ok_or("this is no address of a sign-in")?;
        signin::location(dispatch::answer(&self.shared, call).await).await
    }

    /// Stops listening and waits until nothing is running.
    pub async fn stop(self) {
        drop(self.stop);
        self.tasks.wait().await;
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// A directory that goes away with its owner.
struct OwnDirectory(PathBuf);

impl OwnDirectory {
    fn make() -> std::io::Result<Self> {
        let mut seed = [0; 8];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| std::io::Error::other("no randomness"))?;
        let name = format!("{:016x}", u64::from_be_bytes(seed));
        let path = std::env::temp_dir().join(format!("azure-emulator-{name}"));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for OwnDirectory {
    fn drop(&mut self) {
        // Nothing can be done about a directory that stays.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
