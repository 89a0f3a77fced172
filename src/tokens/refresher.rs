//! The actor that owns every refresh: on demand and when due.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::refresh::Want;
use super::{Demand, Refresh, Used};
use crate::clock::Clock;
use crate::connection::ConnectionKey;
use crate::reason::{Problem, Reason};

/// Runs refreshes until told to stop, then lets the running ones land.
///
/// A key is running or it is not: the row in the store says when it is due (design.md 6.1).
pub struct Refresher {
    refresh: Arc<Refresh>,
    clock: Arc<dyn Clock>,
    config: RefreshConfig,
    demanded: mpsc::Receiver<Demand>,
    uses: mpsc::Receiver<Used>,
    running: JoinSet<()>,
    running_keys: HashSet<ConnectionKey>,
    keys_of_tasks: HashMap<Id, ConnectionKey>,
}

#[derive(Clone, Copy, Debug)]
pub struct RefreshConfig {
    /// How many refreshes may be in flight at once.
    pub concurrency: usize,
    /// How often the store is asked what is due.
    pub tick: Duration,
}

impl Refresher {
    pub(super) fn new(
        refresh: Refresh,
        clock: Arc<dyn Clock>,
        config: RefreshConfig,
        demanded: mpsc::Receiver<Demand>,
        uses: mpsc::Receiver<Used>,
    ) -> Self {
        Self {
            refresh: Arc::new(refresh),
            clock,
            config,
            demanded,
            uses,
            running: JoinSet::new(),
            running_keys: HashSet::new(),
            keys_of_tasks: HashMap::new(),
        }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let clock = self.clock.clone();
        let mut tick = clock.sleep(self.config.tick);
        let mut uses = Vec::new();
        loop {
            let has_room = self.running.len() < self.config.concurrency;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.running.join_next_with_id() => self.on_ended(ended),
                Some(demand) = self.demanded.recv(), if has_room => self.on_demand(demand),
                count = self.uses.recv_many(&mut uses, USES_BATCH) , if has_room => {
                    if 0 < count { self.on_uses(std::mem::take(&mut uses)); }
                }
                () = &mut tick => {
                    tick = clock.sleep(self.config.tick);
                    if has_room { self.start_due().await; }
                }
            }
        }
        self.demanded.close();
        while let Some(ended) = self.running.join_next_with_id().await {
            self.on_ended(ended);
        }
    }

    /// Starts a refresh, unless one runs or ended since the asker looked.
    fn on_demand(&mut self, demand: Demand) {
        let Demand { key, min_ttl, seen, rejected } = demand;
        let ended_since = seen < self.refresh.slots.slot(&key).attempts();
        if self.running_keys.contains(&key) || (ended_since && rejected.is_none()) {
            return;
        }
        let refresh = self.refresh.clone();
        let want = Want { min_ttl, rejected };
        self.start(key.clone(), async move { refresh.on_demand(&key, want).await });
    }

    /// Looks what is due and starts it. The claim is awaited here, on purpose: two looks at once
    /// would only lease more than there is room for.
    async fn start_due(&mut self) {
        let room = self.config.concurrency - self.running.len();
        for lease in self.refresh.claim_due(room).await {
            let refresh = self.refresh.clone();
            self.start(lease.hold.key.clone(), async move { refresh.leased(lease).await });
        }
    }

    fn on_uses(&mut self, uses: Vec<Used>) {
        let refresh = self.refresh.clone();
        self.running.spawn(async move { refresh.pull(uses).await });
    }

    fn start(&mut self, key: ConnectionKey, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.running.spawn(work);
        self.running_keys.insert(key.clone());
        self.keys_of_tasks.insert(task.id(), key);
    }

    /// A panic in one refresh fails that connection, not the process (design.md 6.17).
    fn on_ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some(key) = self.keys_of_tasks.remove(&id) else {
            return;
        };
        self.running_keys.remove(&key);
        if let Err(error) = ended {
            tracing::error!(connection.key = %key, error = &error as &dyn std::error::Error, "a refresh panicked");
            let problem = Problem::new(Reason::UpstreamUnavailable, "the refresh failed inside the broker");
            let until = self.clock.now().monotonic + PANIC_PAUSE;
            self.refresh.slots.slot(&key).fail(problem.retry_after(PANIC_PAUSE), until);
        }
    }
}

/// One transaction of this many updates takes a few milliseconds.
const USES_BATCH: usize = 256;
/// Long enough not to spin on a bug, short enough not to matter otherwise.
const PANIC_PAUSE: Duration = Duration::from_secs(10);
