//! A running broker, built as production builds it, with the emulator it talks to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use azdo_broker::app::{self, Bound, BuildError};
use azdo_broker::clock::{Clock as _, SystemClock};
use azdo_broker::config::Config;
use azdo_broker::lifecycle::Ended;
use azdo_broker::store::StoreError;
use azdo_broker::testing::ManualClock;
use azure_emulator::{Change, Emulator, Fault, Options, TokenRequest, World};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Client, Files};

/// Dropping it stops broker and emulator.
pub(crate) struct TestApp {
    pub(crate) emulator: Emulator,
    pub(crate) files: Files,
    pub(crate) tcp: SocketAddr,
    pub(crate) links: SocketAddr,
    pub(crate) admin: SocketAddr,
    clock: Arc<ManualClock>,
    stop: Option<DropGuard>,
    ended: JoinHandle<Ended>,
}

impl TestApp {
    /// A broker with an empty store.
    pub(crate) async fn empty() -> Self {
        Self::empty_in(World::example()).await
    }

    pub(crate) async fn empty_in(world: World) -> Self {
        let clock = Arc::new(ManualClock::default());
        let emulator = emulator_in(world, &clock).await;
        let files = Files::make(&emulator).await;
        Self::on(emulator, files, clock).await
    }

    /// A broker over an empty database, at the present time.
    pub(crate) async fn empty_over(store: &str) -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock::default().now().wall));
        let emulator = emulator_in(World::example(), &clock).await;
        let files = Files::make_over(&emulator, store).await;
        Self::on(emulator, files, clock).await
    }

    async fn on(emulator: Emulator, files: Files, clock: Arc<ManualClock>) -> Self {
        let (bound, stop, ended) = serve(&files, &clock).await;
        let Addresses { tcp, links, admin } = bound;
        Self { emulator, files, tcp, links, admin, clock, stop: Some(stop), ended }
    }

    /// A broker in which `acme` is registered.
    pub(crate) async fn start() -> Self {
        let app = Self::empty().await;
        app.register().await;
        app
    }

    /// A broker in which `acme` is registered and its service user linked.
    pub(crate) async fn linked() -> Self {
        let app = Self::start().await;
        app.link("svc@contoso.com").await;
        app
    }

    /// Another broker over the same store, with sockets of its own. Dropping the guard stops it.
    pub(crate) async fn replica(&self) -> (Files, DropGuard) {
        self.replica_at(&self.clock).await
    }

    /// The same with a clock of its own.
    pub(crate) async fn replica_at(&self, clock: &Arc<ManualClock>) -> (Files, DropGuard) {
        let files = self.files.of_replica(&self.emulator);
        let (_, stop, _) = serve(&files, clock).await;
        (files, stop)
    }

    /// What the broker's wall clock says.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now().wall
    }

    /// Registers `acme`; its proof is over when this returns, so that no fault of a test meets it.
    pub(crate) async fn register(&self) {
        let operator = self.operator().await;
        operator.put(self.registration()).await.unwrap();
        let first = async || operator.integration("acme").await.unwrap().client_credentials.remove(0);
        let proven = async { while first().await.proven_at.is_none() {} };
        tokio::time::timeout(PATIENCE, proven).await.unwrap();
    }

    /// The same in a world other than the example.
    pub(crate) async fn linked_in(world: World) -> Self {
        let app = Self::empty_in(world).await;
        app.register().await;
        app.link("svc@contoso.com").await;
        app
    }

    /// Ends the broker as SIGTERM does and starts another one on the same files.
    pub(crate) async fn restart(&mut self) {
        self.tell_to_stop();
        assert_eq!(self.ended().await, Ended::Drained);
        self.start_again().await;
    }

    pub(crate) fn tell_to_stop(&mut self) {
        self.stop = None;
    }

    /// How the broker ended that was told to.
    pub(crate) async fn ended(&mut self) -> Ended {
        tokio::time::timeout(PATIENCE, &mut self.ended).await.unwrap().unwrap()
    }

    /// Another broker on the files of one that ended; its pages are where they were.
    pub(crate) async fn start_again(&mut self) {
        self.files.write_config(&self.emulator, self.links.port());
        let (bound, stop, ended) = serve(&self.files, &self.clock).await;
        (self.tcp, self.links, self.admin) = (bound.tcp, bound.links, bound.admin);
        (self.stop, self.ended) = (Some(stop), ended);
    }

    /// Moves the one clock of broker and emulator.
    pub(crate) fn advance(&self, by: Duration) {
        self.emulator.advance(by);
        self.clock.advance(by);
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.emulator.fault(fault);
    }

    pub(crate) fn change(&self, change: Change) {
        self.emulator.change(change).unwrap();
    }

    /// The store as it is now, of a broker that ended: a backup.
    pub(crate) async fn stop_and_back_up(&mut self) -> Vec<u8> {
        self.tell_to_stop();
        assert_eq!(self.ended().await, Ended::Drained);
        let path = self.files.path("azdo-broker.db");
        // The last connection takes the write-ahead log with it.
        while self.files.path("azdo-broker.db-wal").exists() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        std::fs::read(path).unwrap()
    }

    /// Puts a backup in the place of the store of a broker that ended.
    pub(crate) fn restore(&self, backup: &[u8]) {
        std::fs::write(self.files.path("azdo-broker.db"), backup).unwrap();
    }

    /// Changes the broker's database behind its back, as whoever holds the file can.
    pub(crate) fn edit_store(&self, sql: &str, key: &str) {
        let store = rusqlite::Connection::open(self.files.path("azdo-broker.db")).unwrap();
        store.busy_timeout(PATIENCE).unwrap();
        assert_eq!(store.execute(sql, [key]).unwrap(), 1, "{sql}");
    }

    /// Refreshes the emulator was asked for.
    pub(crate) fn refreshes(&self) -> Vec<TokenRequest> {
        let requests = self.emulator.token_requests().into_iter();
        requests.filter(|request| request.grant_type == "refresh_token").collect()
    }

    /// What the emulator was asked for on behalf of people: all but proofs of client credentials.
    pub(crate) fn requests_for_users(&self) -> Vec<TokenRequest> {
        let requests = self.emulator.token_requests().into_iter();
        requests.filter(|request| request.grant_type != "client_credentials").collect()
    }

    /// Tokens the app itself asked for, refused ones too.
    pub(crate) fn requests_of_the_app(&self) -> Vec<TokenRequest> {
        let requests = self.emulator.token_requests().into_iter();
        requests.filter(|request| request.grant_type == "client_credentials").collect()
    }

    /// Codes the emulator was asked to exchange.
    pub(crate) fn exchanges(&self) -> Vec<TokenRequest> {
        let requests = self.emulator.token_requests().into_iter();
        requests.filter(|request| request.grant_type == "authorization_code").collect()
    }

    /// How many requests came for Azure DevOps.
    pub(crate) fn devops_requests(&self) -> usize {
        self.emulator.requests().iter().filter(|request| request.host == "dev.azure.com").count()
    }

    /// Lines of the audit that say a token was released.
    pub(crate) fn released(&self) -> Vec<serde_json::Value> {
        let lines = self.files.audit().into_iter();
        lines.filter(|line| line["outcome"]["result"] == "released").collect()
    }

    /// Through `operator.sock`: may do everything for `acme` and `globex`.
    pub(crate) async fn operator(&self) -> Client {
        Client::over_socket(&self.files.path("operator.sock")).await
    }

    /// Through `job-runner.sock`: may have tokens, git and lists of `acme`.
    pub(crate) async fn job_runner(&self) -> Client {
        Client::over_socket(&self.files.path("job-runner.sock")).await
    }

    /// Over mTLS, as the workload of this SPIFFE id.
    pub(crate) async fn over_tls(&self, spiffe_id: &str) -> Client {
        Client::over_tls(self.tcp, self.files.tls_of(Some(spiffe_id))).await.unwrap()
    }

    /// What `asking` comes to while seconds pass, for what waits on the clock in the middle of a call. All of
    /// them together are shorter than a lease.
    pub(crate) async fn as_seconds_pass<T>(&self, asking: impl Future<Output = T>) -> T {
        let mut asking = std::pin::pin!(asking);
        let mut looks = tokio::time::interval(SECOND_EVERY);
        for _ in 0..SECONDS_MAX {
            tokio::select! {
                biased;
                came = &mut asking => return came,
                _ = looks.tick() => self.advance(Duration::from_secs(1)),
            }
        }
        tokio::time::timeout(PATIENCE, asking).await.unwrap()
    }

    /// Lets the refresher look what is due until the answer is yes.
    ///
    /// All ticks together are shorter than a lease: time that ran ahead of what is in flight would
    /// take the lease from it, which no real clock does.
    pub(crate) async fn tick_until(&self, mut is_so: impl FnMut() -> bool) {
        let asking = async {
            let mut looks = tokio::time::interval(LOOK_EVERY);
            let mut look = 0;
            while !is_so() {
                if TICK_AT_LOOKS.contains(&look) {
                    self.advance(TICK);
                }
                look += 1;
                looks.tick().await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap();
    }
}

async fn emulator_in(world: World, clock: &ManualClock) -> Emulator {
    let options = Options { clock_start: Some(clock.now().wall), world, ..Options::default() };
    Emulator::start(options).await.unwrap()
}

struct Addresses {
    tcp: SocketAddr,
    links: SocketAddr,
    admin: SocketAddr,
}

/// A broker that ended lets go of its store when the last of its connections is closed, a moment later; a
/// process would have ended by then.
async fn build(files: &Files, clock: &Arc<ManualClock>) -> Bound {
    loop {
        let config = Config::read(&files.config()).unwrap();
        match app::build(config, clock.clone()).await {
            Err(BuildError::Store(StoreError::InUse(_))) => tokio::time::sleep(LOOK_EVERY).await,
            built => return built.unwrap(),
        }
    }
}

async fn serve(files: &Files, clock: &Arc<ManualClock>) -> (Addresses, DropGuard, JoinHandle<Ended>) {
    let bound = tokio::time::timeout(PATIENCE, build(files, clock)).await.unwrap();
    let addresses = Addresses { tcp: bound.tcp.unwrap(), links: bound.links, admin: bound.admin };
    let stop = CancellationToken::new();
    let ended = tokio::spawn(bound.run(stop.clone().cancelled_owned()));
    (addresses, stop.drop_guard(), ended)
}

/// No value a test waits for takes this long, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(2);
const SECOND_EVERY: Duration = Duration::from_millis(100);
const SECONDS_MAX: usize = 10;
/// A little more than how often the refresher asks what is due.
const TICK: Duration = Duration::from_secs(3);
/// What is due may become so a moment after the first tick: a use is written down off the path.
const TICK_AT_LOOKS: [u32; 4] = [0, 50, 200, 800];
