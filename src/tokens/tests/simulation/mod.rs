//! The broker's middle under everything that can go wrong at once, by schedules drawn from numbers.
//!
//! One to three replicas, each with all the actors that a replica has, over one store in memory and one
//! Entra. Callers ask, people link and disconnect, replicas crash, stand still and have wrong clocks, the
//! store and Entra fail in every way; after each step the promises are checked ([`checks`]). There is no real
//! IO, no thread and no time but tokio's paused one, and all chance comes from the seed: a failing schedule
//! fails again, exactly.
//!
//! `AZDO_BROKER_SIM_SEED=42` replays one schedule, with its trace; `AZDO_BROKER_SIM_COUNT=100000` plays more
//! than the suite does.

mod aftermath;
mod checks;
mod clock;
mod entra;
mod ledger;
mod luck;
mod people;
mod replica;
mod run;
mod schedule;
mod steps;

use std::time::{Duration, Instant};

use run::{Bug, Played, Tally, play};
use schedule::{Schedule, Step};

use crate::store::memory::{Fault, Planted};

/// P4 to P7, where used grants go on working, as Entra's do.
#[test]
fn promises_hold_through_every_fault() {
    hold(0);
}

/// The same where using a grant again revokes all that came from the same sign-in: what is lost is said so.
#[test]
fn promises_hold_where_each_grant_works_once() {
    hold(1);
}

/// Nothing but the seed decides what happens.
#[test]
fn a_schedule_plays_the_same_way_again() {
    for seed in 0..60 {
        let schedule = Schedule::draw(seed);
        let (one, other) = (play(&schedule, None, true), play(&schedule, None, true));
        assert_eq!(one.outcome, other.outcome, "seed {seed}");
        assert_eq!(one.trace.join("\n"), other.trace.join("\n"), "seed {seed}");
    }
}

/// F19: the store's clock dates what rows say, so that a replica whose own is wrong misleads no other.
#[test]
fn f19_a_replica_whose_clock_is_wrong_misleads_no_other() {
    for ahead_s in [-3600, 3600] {
        let min_ttl = Duration::from_secs(30);
        let ask = |replica| Step::Ask { replica, key: 0, callers: 1, min_ttl };
        let steps = vec![
            (Duration::from_mins(1), Step::SetClock { replica: 0, ahead_s }),
            (Duration::from_mins(10), ask(0)),
            (Duration::from_secs(20), ask(1)),
            (Duration::from_secs(80), ask(1)),
            (Duration::from_secs(40), ask(1)),
            (Duration::from_secs(100), ask(0)),
        ];
        passes(&Schedule { lifetime: Duration::from_mins(3), ..Schedule::calm(2, steps) });
    }
}

/// Who repeats a disconnect did not hear that it was done, and neither did the releases of that replica.
#[test]
fn a_repeated_disconnect_ends_what_its_first_answer_would_have_ended() {
    let steps = vec![
        (
            Duration::from_mins(1),
            Step::Ask { replica: 0, key: 0, callers: 1, min_ttl: Duration::from_secs(30) },
        ),
        // It looks who stands there and which links end with it, and then writes.
        (Duration::from_secs(3), Step::StoreOnce { replica: 0, fault: Fault::None }),
        (Duration::ZERO, Step::StoreOnce { replica: 0, fault: Fault::None }),
        (Duration::ZERO, Step::StoreOnce { replica: 0, fault: Fault::AnswerLost }),
        (Duration::ZERO, Step::Disconnect { replica: 0, key: 0 }),
        (
            Duration::from_secs(3),
            Step::Ask { replica: 0, key: 0, callers: 1, min_ttl: Duration::from_secs(30) },
        ),
    ];
    passes(&Schedule::calm(1, steps));
}

/// P8: refreshes that are due and demanded at the same moment are made once, and nothing goes round and round.
#[test]
fn what_is_due_and_demanded_at_once_is_leased_once() {
    let ask = |key, min_ttl| Step::Ask { replica: 0, key, callers: 1, min_ttl: Duration::from_secs(min_ttl) };
    let (soon, pause) = (Duration::from_secs(1), Duration::from_secs(90));
    let steps = vec![
        (soon, ask(0, 30)),
        (Duration::ZERO, ask(1, 30)),
        // They come due meanwhile, and all that waits goes on in one moment.
        (Duration::from_secs(130), Step::Pause { replica: 0, lasting: pause, suspended: false }),
        (Duration::from_secs(80), ask(0, 240)),
        (Duration::ZERO, ask(1, 240)),
        (Duration::from_mins(1), ask(0, 240)),
    ];
    passes(&Schedule { keys: 2, ..Schedule::calm(1, steps) });
}

/// A check that finds nothing proves nothing.
#[test]
fn every_planted_bug_is_found() {
    for (bug, promise) in [
        (Bug::InStore(Planted::ClaimWithoutLease), "P5"),
        (Bug::InStore(Planted::CommitForgotten), "P"),
        (Bug::InStore(Planted::CommitWithoutSwap), "P4"),
        (Bug::InStore(Planted::DisconnectDeletes), "P4"),
        (Bug::InStore(Planted::VerdictWithoutFence), "P4"),
        // Where the row is older than the news, the broker finds it out itself, and refuses: a link is lost (P4).
        (Bug::OldNewsAreNew, "P"),
        (Bug::OldTokensAreGood, "P7"),
        (Bug::ReadsWaitBehindRefreshes, "P6"),
        (Bug::UnusedGrantsAreLost, "P4"),
    ] {
        let broken = |seed: u64| play(&Schedule::draw(seed), Some(bug), false).outcome.err();
        let found = (0..count()).find_map(|seed| Some((seed, broken(seed)?)));
        let (seed, violation) = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        say(&format!("{bug:?}: found by seed {seed}: {violation}"));
        assert!(violation.starts_with(promise), "{bug:?}: {violation}");
    }
}

fn passes(schedule: &Schedule) {
    let Played { outcome, trace } = play(schedule, None, true);
    assert!(outcome.is_ok(), "{schedule}\n{}\n{outcome:?}", trace.join("\n"));
}

/// Plays every second seed.
fn hold(first: u64) {
    if let Some(seed) = from_environment("AZDO_BROKER_SIM_SEED") {
        let schedule = Schedule::draw(seed);
        let Played { outcome, trace } = play(&schedule, None, true);
        say(&format!("{schedule}\n{}", trace.join("\n")));
        assert_eq!(outcome.map(drop), Ok(()), "seed {seed}");
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "for the record: how long the machine takes")]
    let began = Instant::now();
    let mut total = Tally::default();
    for seed in (first..count()).step_by(2) {
        let schedule = Schedule::draw(seed);
        match play(&schedule, None, false).outcome {
            Ok(tally) => total.add(tally),
            Err(violation) => explain(schedule, &violation),
        }
    }
    let schedules = count() / 2;
    say(&format!("{schedules} schedules in {:.1} s: {total:?}", began.elapsed().as_secs_f64()));
}

/// Fails with the shortest schedule that fails in the same way.
fn explain(mut schedule: Schedule, violation: &str) {
    let kind = |violation: &str| violation[..2].to_owned();
    let whole = schedule.steps.len();
    let mut at = 0;
    while at < schedule.steps.len() {
        let mut shorter = schedule.clone();
        let (wait, _) = shorter.steps.remove(at);
        if let Some((next, _)) = shorter.steps.get_mut(at) {
            *next += wait;
        }
        let fails = play(&shorter, None, false).outcome.err();
        if fails.is_some_and(|found| kind(&found) == kind(violation)) {
            schedule = shorter;
        } else {
            at += 1;
        }
    }
    let Played { outcome, trace } = play(&schedule, None, true);
    let found = outcome.err().unwrap_or_default();
    panic!(
        "{violation}\n\nreplay: AZDO_BROKER_SIM_SEED={seed}; cut down from {whole} steps:\n{schedule}\n{trace}\n{found}",
        seed = schedule.seed,
        trace = trace.join("\n")
    );
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.released += other.released;
        self.refused += other.refused;
        self.reported_losses += other.reported_losses;
    }
}

/// How many schedules the suite plays.
fn count() -> u64 {
    from_environment("AZDO_BROKER_SIM_COUNT").unwrap_or(2_000)
}

#[expect(clippy::disallowed_methods, reason = "a test that is to replay is told so from outside")]
fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is to be a number")))
}

#[expect(clippy::print_stdout, reason = "whoever looks wants to see how much was played")]
fn say(text: &str) {
    println!("{text}");
}
