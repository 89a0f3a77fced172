//! Plays a schedule. One task drives callers and people, one after the other in the order of their coming, so
//! that nothing depends on whom tokio wakes first; the replicas' own tasks run on the same paused runtime.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::super::Token;
use super::super::given::integration;
use super::checks::{Checks, Violation};
use super::entra::SimEntra;
use super::ledger::{Event, Ledger};
use super::replica::{Replica, World, store_id};
use super::schedule::{Schedule, Step};
use crate::audit::Audit;
use crate::clock::{Clock as _, StoreClock};
use crate::connection::{ConnectionKey, Role};
use crate::gate::Gate;
use crate::ids::Generation;
use crate::policy::Policy;
use crate::reason::Problem;
use crate::seal::Keyring;
use crate::secret::foreseen;
use crate::store::memory::{Act, Fault, Memory, Planted};
use crate::testing::RuntimeClock;
use crate::vault::Connection;

/// A bug that the simulation is to find.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bug {
    InStore(Planted),
    /// Old news are taken for newer than what is known.
    OldNewsAreNew,
    /// Whoever asks while something is refreshed waits a moment.
    ReadsWaitBehindRefreshes,
    /// What was released once is released again.
    OldTokensAreGood,
    /// Where each grant works once, any error is taken for a loss.
    UnusedGrantsAreLost,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) released: u64,
    pub(super) refused: u64,
    /// Connections that a person must link again.
    pub(super) reported_losses: u64,
}

pub(super) struct Played {
    pub(super) outcome: Result<Tally, Violation>,
    /// What happened, if it was asked for.
    pub(super) trace: Vec<String>,
}

/// What a caller or a person is at.
pub(super) struct Pending {
    pub(super) replica: Option<Rc<Replica>>,
    pub(super) what: What,
    /// Its replica's clock was set meanwhile: what was too short may have become long enough, unnoticed.
    pub(super) was_misled: bool,
    pub(super) work: Pin<Box<dyn Future<Output = Done>>>,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Ask {
        key: ConnectionKey,
        min_ttl: Duration,
    },
    /// Waits for another token than the one that was refused.
    Replacement {
        key: ConnectionKey,
    },
    Person {
        key: ConnectionKey,
    },
    Later(Later),
}

/// What ends by itself.
#[derive(Clone, Debug)]
pub(super) enum Later {
    Resume { suspended: Option<Duration> },
    StoreHeals,
    NewsHeal,
    EntraIsUp,
}

pub(super) enum Done {
    Answer(Result<Arc<Token>, Problem>),
    /// A person's act was answered: the row had this generation then.
    Acted(Generation),
    GaveUp,
    Later,
}

pub(super) struct Run<'a> {
    pub(super) schedule: &'a Schedule,
    pub(super) bug: Option<Bug>,
    pub(super) world: World,
    ledger: Arc<Ledger>,
    pub(super) checks: Checks,
    pub(super) replicas: Vec<Rc<Replica>>,
    pub(super) retired: Vec<Rc<Replica>>,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) numbers: u64,
    pub(super) tally: Tally,
    trace: Option<Vec<String>>,
}

/// Plays it from the beginning, the same way each time.
pub(super) fn play(schedule: &Schedule, bug: Option<Bug>, is_traced: bool) -> Played {
    foreseen::seed(Some(schedule.seed));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let played = runtime.expect("needs nothing").block_on(async {
        let mut run = Run::new(schedule, bug, is_traced).await;
        let outcome = run.play().await.map(|()| Tally { requests: run.ledger.requests(), ..run.tally });
        Played { outcome, trace: run.trace.take().unwrap_or_default() }
    });
    foreseen::seed(None);
    played
}

impl<'a> Run<'a> {
    async fn new(schedule: &'a Schedule, bug: Option<Bug>, is_traced: bool) -> Self {
        let truth = Arc::new(RuntimeClock::default());
        let ledger = Arc::new(Ledger::new(truth.clone()));
        let entra = SimEntra::new(ledger.clone(), truth.clone(), schedule.rotation, schedule.lifetime);
        entra.set_delays(schedule.entra_delays.iter().copied());
        let memory = Memory::new(truth.clone(), store_id(), Vec::new());
        let noted = ledger.clone();
        memory.watch(move |written| noted.note(Event::Written(Box::new(written))));
        if let Some(Bug::InStore(planted)) = bug {
            memory.plant(planted);
        }
        if bug == Some(Bug::UnusedGrantsAreLost) {
            entra.be_vague();
        }
        let (audit, _, _) = Audit::in_memory(truth.clone());
        let gate = Gate::new(Arc::new(Policy::from_toml("").expect("nobody may do anything")), audit);
        let keyring = Keyring::generate().to_bytes();
        let world = World { truth, memory, entra: entra.clone(), gate, keyring };
        let vault = Arc::new(world.vault(world.memory.open("the test").0));
        vault.put_integration(integration(world.truth.now().wall)).await.expect("nothing fails yet");
        let replicas = (0..schedule.replicas)
            .map(|place| Rc::new(world.start(&format!("r{place}.0"), schedule, place)))
            .collect();
        let mut run = Self {
            schedule,
            bug,
            world,
            ledger,
            checks: Checks::new(entra, vault),
            replicas,
            retired: Vec::new(),
            pending: BTreeMap::new(),
            numbers: 0,
            tally: Tally::default(),
            trace: is_traced.then(Vec::new),
        };
        for key in 0..schedule.keys {
            run.begin(Step::Relink { replica: 0, key, whom: key });
        }
        run
    }

    async fn play(&mut self) -> Result<(), Violation> {
        for (wait, step) in &self.schedule.steps {
            self.pass(*wait).await?;
            self.tell(|| format!("{step:?}"));
            self.begin(*step);
        }
        self.pass(Duration::from_secs(15)).await?;
        self.heal();
        self.pass(self.settling()).await?;
        self.look_what_is_left().await
    }

    /// Lets time pass, and everybody who waits for something go on.
    pub(super) async fn pass(&mut self, wait: Duration) -> Result<(), Violation> {
        let mut over = pin!(tokio::time::sleep(wait));
        std::future::poll_fn(|context| match self.poll(context) {
            Ok(()) => over.as_mut().poll(context).map(Ok),
            Err(violation) => Poll::Ready(Err(violation)),
        })
        .await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Result<(), Violation> {
        self.judge()?;
        let numbers: Vec<u64> = self.pending.keys().copied().collect();
        for number in numbers {
            let Some(mut pending) = self.pending.remove(&number) else { continue };
            if pending.replica.as_ref().is_some_and(|replica| replica.is_paused())
                && !matches!(pending.what, What::Later(_))
            {
                self.pending.insert(number, pending);
                continue;
            }
            let is_at_hand = self.is_at_hand(&pending) && !pending.was_misled;
            let polled = pending.work.as_mut().poll(context);
            self.judge()?;
            match polled {
                Poll::Ready(done) => self.done(number, &pending, done, is_at_hand)?,
                Poll::Pending if is_at_hand => {
                    return Err(format!("P6: {:?} waits while there is a token at hand", pending.what));
                }
                Poll::Pending => {
                    self.pending.insert(number, pending);
                }
            }
        }
        Ok(())
    }

    fn is_at_hand(&self, pending: &Pending) -> bool {
        let (Some(replica), What::Ask { key, min_ttl }) = (&pending.replica, &pending.what) else {
            return false;
        };
        self.checks.is_at_hand(&replica.name, key, *min_ttl, replica.clock.now())
    }

    fn done(
        &mut self,
        number: u64,
        pending: &Pending,
        done: Done,
        is_at_hand: bool,
    ) -> Result<(), Violation> {
        let at = self.world.truth.now().monotonic;
        if let Done::Answer(answer) = &done {
            self.tell(|| match answer {
                Ok(token) => format!("  {number}: a token of {}", token.identity.login),
                Err(problem) => format!("  {number}: {}", problem.reason.as_str()),
            });
        }
        match (&pending.what, done) {
            (What::Ask { key, min_ttl }, Done::Answer(Ok(token))) => {
                self.tally.released += 1;
                let replica = pending.replica.as_ref().expect("was asked");
                let knows_since = self.knows_since(at, replica);
                self.checks.released(at, (&replica.name, knows_since), (key, *min_ttl), &token)
            }
            (What::Replacement { key }, Done::Answer(Ok(token))) => {
                let replica = pending.replica.as_ref().expect("was asked");
                let knows_since = self.knows_since(at, replica);
                self.checks.released(at, (&replica.name, knows_since), (key, Duration::ZERO), &token)
            }
            (What::Ask { .. }, Done::Answer(Err(problem))) if is_at_hand => {
                Err(format!("P6: a token at hand was withheld: {problem}"))
            }
            (_, Done::Answer(Err(_))) => {
                self.tally.refused += 1;
                Ok(())
            }
            (What::Person { key }, Done::Acted(generation)) => {
                let replica = pending.replica.as_ref().expect("was asked");
                self.tell(|| format!("  {number}: done"));
                self.checks.answered(&replica.name, key, generation);
                Ok(())
            }
            (What::Later(later), _) => {
                self.end(pending, later);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Of what was written until then, this replica must know: a second later, and the ways to the store.
    fn knows_since(&self, at: Duration, replica: &Replica) -> Option<Duration> {
        let slowest = self.schedule.store_delays.iter().flatten().max().copied().unwrap_or_default();
        let mut within = Duration::from_secs(1) + 8 * slowest;
        if replica.line.news_whole_for()? <= MISSED_FOR {
            within += MISSED_FOR;
        }
        (within <= replica.line.whole_for()?).then(|| at.saturating_sub(within))
    }

    fn end(&mut self, pending: &Pending, later: &Later) {
        self.tell(|| format!("  {later:?}"));
        match (later, &pending.replica) {
            (Later::Resume { suspended }, Some(replica)) => {
                if let Some(slept) = suspended {
                    replica.clock.was_suspended(*slept);
                }
                replica.resume();
            }
            (Later::StoreHeals, Some(replica)) => replica.line.set(Fault::None),
            (Later::NewsHeal, Some(replica)) => replica.line.heal_news(),
            _ => self.world.entra.set_down(false),
        }
    }

    /// Judges what happened since the last look.
    fn judge(&mut self) -> Result<(), Violation> {
        for (at, event) in self.ledger.take() {
            if let Some(trace) = &mut self.trace {
                trace.push(format!("{at:?}   {}", told(&event)));
            }
            if self.bug == Some(Bug::OldNewsAreNew) {
                self.spread_old_news(&event);
            }
            self.checks.judge(at, event)?;
        }
        let all = self.replicas.iter().chain(&self.retired);
        match all.into_iter().find(|replica| !replica.is_well()) {
            Some(replica) => Err(format!("an actor of {} ended by itself", replica.name)),
            None => Ok(()),
        }
    }

    fn spread_old_news(&self, event: &Event) {
        let Event::Written(written) = event else { return };
        let (Act::Connect | Act::Disconnect, Some(before), Some(after)) =
            (written.act, &written.before, &written.after)
        else {
            return;
        };
        let Ok(opened) = self.checks.vault().open_for_tests(before.clone()) else { return };
        if let Connection::Live(live) = &opened.connection {
            for replica in &self.replicas {
                let now = replica.clock.now();
                let store_clock = StoreClock::new(self.world.truth.now().wall, now, now);
                let newer = Generation(after.generation.0 + 1);
                replica.tokens.adopt(&written.key, newer, live, &store_clock);
            }
        }
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:?} {}", self.world.truth.now().monotonic, what()));
        }
    }
}

/// Until all that is held is compared with the store, whatever news told, and a while for late ones.
const MISSED_FOR: Duration = Duration::from_secs(15);

fn told(event: &Event) -> String {
    match event {
        Event::Written(written) => {
            let row = written.after.as_ref();
            let generation = row.map(|row| row.generation.0);
            format!(
                "{} {:?} {} generation {generation:?} fence {:?} retry_at {:?}",
                written.holder,
                written.act,
                written.key,
                row.map(|row| row.fence),
                row.and_then(|row| row.retry_at)
            )
        }
        other => format!("{other:?}"),
    }
}

pub(super) fn key_of(number: usize) -> ConnectionKey {
    let role = match number {
        0 => Role::ServiceUser,
        1 => Role::Developer("ana".parse().expect("a name")),
        _ => Role::Developer("bob".parse().expect("a name")),
    };
    ConnectionKey { account: "acme".parse().expect("a name"), role }
}
