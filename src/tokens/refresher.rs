//! The actor that owns every refresh: on demand and when due.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::refresh::Want;
use super::{Demand, Refresh, Used};
use crate::budgets::Urgency;
use crate::clock::Clock;
use crate::connection::ConnectionKey;
use crate::ids::AccountId;
use crate::reason::{Problem, Reason};
use crate::vault::Leased;

/// Runs refreshes until told to stop, then lets the running ones land.
///
/// A key is running or it is not: the row in the store says when it is due (design.md 6.1).
pub struct Refresher {
    refresh: Arc<Refresh>,
    clock: Arc<dyn Clock>,
    config: RefreshConfig,
    demanded: mpsc::Receiver<Demand>,
    uses: mpsc::Receiver<Used>,
    /// Refreshes, and looks at what is due: those end with leases to be spent.
    running: JoinSet<Vec<Leased>>,
    /// With how urgent each is: whoever joins what is merely due waits for it.
    running_keys: HashMap<ConnectionKey, Running>,
    keys_of_tasks: HashMap<Id, ConnectionKey>,
    /// Keys whose demands came while there was no room for them, by account.
    backlog: BTreeMap<AccountId, VecDeque<ConnectionKey>>,
    /// How many keys of each account were started because somebody asked.
    demanded_of: HashMap<AccountId, usize>,
    /// Demands of the backlog, and those that came while their key was running, in case what runs does not answer them.
    waiting: HashMap<ConnectionKey, Demand>,
    /// A look at what is due is under way, for at most so many.
    looking: Option<(Id, usize)>,
    /// The last look found as much as it asked for: there may be more.
    is_more_due: bool,
    /// What runs is let land, and nothing begins.
    is_stopping: bool,
}

/// A refresh under way.
struct Running {
    /// Whoever joins what is merely due makes it theirs.
    urgency: watch::Sender<Urgency>,
    /// It was begun because somebody asked.
    is_demanded: bool,
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
        refresh: Arc<Refresh>,
        clock: Arc<dyn Clock>,
        config: RefreshConfig,
        demanded: mpsc::Receiver<Demand>,
        uses: mpsc::Receiver<Used>,
    ) -> Self {
        Self {
            refresh,
            clock,
            config,
            demanded,
            uses,
            running: JoinSet::new(),
            running_keys: HashMap::new(),
            keys_of_tasks: HashMap::new(),
            backlog: BTreeMap::new(),
            demanded_of: HashMap::new(),
            waiting: HashMap::new(),
            looking: None,
            is_more_due: false,
            is_stopping: false,
        }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let clock = self.clock.clone();
        let mut tick = clock.sleep(self.config.tick);
        let mut uses = Vec::new();
        loop {
            // Whoever joins what runs needs no room.
            let takes_demands = self.backlog_len() < BACKLOG_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.running.join_next_with_id() => self.on_ended(ended),
                Some(demand) = self.demanded.recv(), if takes_demands => self.on_demand(demand),
                count = self.uses.recv_many(&mut uses, USES_BATCH), if self.has_room() => {
                    if 0 < count { self.on_uses(std::mem::take(&mut uses)); }
                }
                () = &mut tick => {
                    tick = clock.sleep(self.config.tick);
                    self.look_what_is_due();
                }
            }
            while let Some(demand) = self.next_of_backlog() {
                self.on_demand(demand);
            }
            // What is due in great number is not paced by the tick but by the budget.
            if self.is_more_due && self.config.concurrency / 4 <= self.room_for_due() {
                self.look_what_is_due();
            }
        }
        self.is_stopping = true;
        self.demanded.close();
        while let Some(ended) = self.running.join_next_with_id().await {
            self.on_ended(ended);
        }
    }

    /// Starts a refresh, unless one runs or ended since the asker looked.
    fn on_demand(&mut self, demand: Demand) {
        let ended_since = demand.seen < self.refresh.slots.slot(&demand.key).attempts();
        if ended_since && demand.rejected.is_none() {
            return;
        }
        if let Some(running) = self.running_keys.get(&demand.key) {
            running.urgency.send_replace(Urgency::Demanded);
            self.wait_its_turn(demand);
            return;
        }
        if !self.has_room_for(&demand.key.account) {
            return self.put_into_backlog(demand);
        }
        let Demand { key, min_ttl, rejected, .. } = demand;
        let refresh = self.refresh.clone();
        let want = Want { min_ttl, rejected };
        let running = Running { urgency: watch::Sender::new(Urgency::Demanded), is_demanded: true };
        *self.demanded_of.entry(key.account.clone()).or_default() += 1;
        self.start(key.clone(), running, async move { refresh.on_demand(&key, want).await });
    }

    /// What runs may have published its last word before the asker looked. Then this demand is its
    /// only way to another one, so it is kept until the key is free; one per key speaks for all.
    /// True if it is the first of its key.
    fn wait_its_turn(&mut self, demand: Demand) -> bool {
        match self.waiting.entry(demand.key.clone()) {
            Entry::Vacant(place) => {
                place.insert(demand);
                true
            }
            Entry::Occupied(mut place) => {
                let kept = place.get_mut();
                kept.seen = kept.seen.max(demand.seen);
                kept.min_ttl = kept.min_ttl.max(demand.min_ttl);
                kept.rejected = kept.rejected.take().or(demand.rejected);
                false
            }
        }
    }

    fn put_into_backlog(&mut self, demand: Demand) {
        if BACKLOG_MAX <= self.backlog_len() {
            self.forget_who_left();
        }
        let key = demand.key.clone();
        if !self.wait_its_turn(demand) {
            return;
        }
        self.backlog.entry(key.account.clone()).or_default().push_back(key);
    }

    fn look_what_is_due(&mut self) {
        let room = self.room_for_due();
        if self.looking.is_some() || room == 0 {
            self.is_more_due |= room == 0;
            return;
        }
        let refresh = self.refresh.clone();
        let look = self.running.spawn(async move { refresh.claim_due(room).await });
        self.looking = Some((look.id(), room));
        self.is_more_due = false;
    }

    /// A quarter is kept for those whom somebody waits for.
    fn room_for_due(&self) -> usize {
        (self.config.concurrency * 3).div_ceil(4).saturating_sub(self.running.len())
    }

    /// Of those who are asked for an account has all of the room but a quarter, which is for others.
    fn has_room_for(&self, account: &AccountId) -> bool {
        let most = (self.config.concurrency * 3).div_ceil(4) + self.uncommitted();
        self.has_room() && self.count_of(account) < most
    }

    fn count_of(&self, account: &AccountId) -> usize {
        self.demanded_of.get(account).copied().unwrap_or_default()
    }

    fn backlog_len(&self) -> usize {
        self.backlog.values().map(VecDeque::len).sum()
    }

    /// Of the account first that has the least running, so that no storm of one keeps another waiting.
    fn next_of_backlog(&mut self) -> Option<Demand> {
        while self.has_room() {
            let accounts = self.backlog.keys().filter(|account| self.has_room_for(account));
            let account = accounts.min_by_key(|account| self.count_of(account))?.clone();
            let key = self.backlog.get_mut(&account).and_then(VecDeque::pop_front);
            if self.backlog.get(&account).is_some_and(VecDeque::is_empty) {
                self.backlog.remove(&account);
            }
            let demand = key.and_then(|key| self.waiting.remove(&key));
            if let Some(demand) = demand.filter(|demand| self.is_wanted(demand)) {
                return Some(demand);
            }
        }
        None
    }

    /// Nobody waits longer than [`WAIT`](super::WAIT) for it.
    fn is_wanted(&self, demand: &Demand) -> bool {
        let is_waited_for = || self.refresh.slots.find(&demand.key).is_some_and(|slot| slot.is_waited_for());
        demand.rejected.is_some() || is_waited_for()
    }

    fn forget_who_left(&mut self) {
        let mut backlog = std::mem::take(&mut self.backlog);
        for keys in backlog.values_mut() {
            keys.retain(|key| self.waiting.get(key).is_some_and(|demand| self.is_wanted(demand)));
        }
        let left: HashSet<_> = backlog.values().flatten().cloned().collect();
        self.waiting.retain(|key, _| left.contains(key) || self.running_keys.contains_key(key));
        backlog.retain(|_, keys| !keys.is_empty());
        self.backlog = backlog;
    }

    /// Those that wait for the store with a grant that it does not take keep nobody from hearing that it is away: as
    /// many again may be asked for. But no more than that lie in memory alone.
    fn has_room(&self) -> bool {
        self.running.len() < self.config.concurrency + self.uncommitted()
    }

    fn uncommitted(&self) -> usize {
        let uncommitted = usize::try_from(self.refresh.metrics.uncommitted()).unwrap_or_default();
        uncommitted.min(self.config.concurrency)
    }

    fn on_uses(&mut self, uses: Vec<Used>) {
        let refresh = self.refresh.clone();
        self.running.spawn(async move {
            refresh.pull(uses).await;
            Vec::new()
        });
    }

    fn start(
        &mut self,
        key: ConnectionKey,
        running: Running,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.running.spawn(async move {
            work.await;
            Vec::new()
        });
        self.running_keys.insert(key.clone(), running);
        self.keys_of_tasks.insert(task.id(), key);
    }

    /// A panic in one refresh fails that connection, not the process (design.md 6.17).
    fn on_ended(&mut self, ended: Result<(Id, Vec<Leased>), JoinError>) {
        let (id, mut ended) = match ended {
            Ok((id, leases)) => (id, Ok(leases)),
            Err(error) => (error.id(), Err(error)),
        };
        let look = self.looking.take_if(|(looking, _)| *looking == id);
        let found = ended.as_ref().map_or(0, Vec::len);
        let key = self.keys_of_tasks.remove(&id);
        let mut started = 0;
        for lease in ended.as_mut().map(std::mem::take).unwrap_or_default() {
            let refresh = self.refresh.clone();
            if self.is_stopping || self.running_keys.contains_key(&lease.hold().key) {
                // Somebody asked for it meanwhile; two at once would spend one grant twice (P5).
                // Or another replica has the time for it that this one has not.
                self.running.spawn(async move {
                    refresh.give_back(lease.hold()).await;
                    Vec::new()
                });
                continue;
            }
            started += 1;
            let key = lease.hold().key.clone();
            // Somebody may wait in the backlog for just this one.
            let is_waited_for = self.waiting.contains_key(&key);
            let urgency = watch::Sender::new(if is_waited_for { Urgency::Demanded } else { Urgency::Due });
            let joined = urgency.subscribe();
            let running = Running { urgency, is_demanded: false };
            self.start(key, running, async move { refresh.leased(lease, &joined).await });
        }
        if let Some((_, asked)) = look {
            // Fewer than asked for: the rest is not due yet. And what is given back is due again at once: the next
            // look would take it from whoever asked for it.
            self.is_more_due = asked <= found && 0 < started;
        }
        let Some(key) = key else {
            return;
        };
        let was_demanded = self.running_keys.remove(&key).is_some_and(|running| running.is_demanded);
        if was_demanded && let Entry::Occupied(mut count) = self.demanded_of.entry(key.account.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if let Err(error) = ended {
            tracing::error!(connection.key = %key, error = &error as &dyn std::error::Error, "a refresh panicked");
            let problem = Problem::new(Reason::UpstreamUnavailable, "the refresh failed inside the broker");
            let until = self.clock.now().monotonic + PANIC_PAUSE;
            self.refresh.slots.slot(&key).fail(problem.retry_after(PANIC_PAUSE), until);
        }
        if let Some(demand) = self.waiting.remove(&key).filter(|_| !self.is_stopping) {
            self.on_demand(demand);
        }
    }
}

/// One transaction of this many updates takes a few milliseconds.
const USES_BATCH: usize = 256;
/// More wait in their queue, and their callers with them.
const BACKLOG_MAX: usize = 8192;
/// Long enough not to spin on a bug, short enough not to matter otherwise.
const PANIC_PAUSE: Duration = Duration::from_secs(10);
