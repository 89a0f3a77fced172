//! Chaos: real brokers, a real PostgreSQL with a standby and the emulator, harmed in every way this machine
//! can, and what the broker promises counted all the while. `script/chaos` builds and starts it.
//!
//! What is compared: each token that reached a caller, by a fingerprint computed here, with the emulator's
//! record of what it issued to whom and until when, and with the brokers' audits, which must have exactly one
//! record of it.
//!
//! # Invariants
//!
//! 1. Whatever happens, no process it started outlives it.
//! 2. A promise that is not kept is counted in the report, and a key out of its bound fails the run.
//! 3. A step that could not be carried out fails the run too.
//!
//! # What this is not
//!
//! Some faults are done in another way than they come, because a shared machine without rights over its kernel
//! allows no more:
//!
//! - F03: errors of fsync are injected by strace into the system call; no disk is bad, and no power is cut.
//! - F06: the standby here confirms what it applied; one that lacks the last commits is made by hand in
//!   `tests/it/failover.rs`.
//! - F10: the black hole is a listener that never answers, and F16's cut a proxy of ours; no packet filter.
//! - F11, F05: of what Entra says and what a file holds, nothing is the system's: tests of the crate.
//! - F20: the database's clock is moved in the function that the broker asks for it.
//! - F25: memory is limited by the process's own limit, not by a control group.
//! - The time of outages is scaled, as the report's `scale` says.

#[path = "../../examples/demo/outcome.rs"]
mod outcome;

mod broker;
mod caller;
mod clones;
mod emulator;
mod generations;
mod ledger;
mod owners;
mod postgres;
mod processes;
mod random;
mod readers;
mod report;
mod scene;
mod steps;
mod table;
mod wire;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;

use clap::Parser;
use tokio::task::{LocalSet, spawn_local};

use outcome::{Context as _, Outcome, ensure};
use random::Random;
use report::Found;
use steps::Stage;
use table::{Table, say};

/// Harms a running broker in every way this machine can, and counts what it promised.
#[derive(Parser)]
#[command(name = "chaos")]
struct Arguments {
    /// Smaller numbers: at most five minutes
    #[arg(long)]
    quick: bool,
    /// Only the steps whose name contains this; the report is then not checked
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// The same choices as another run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where everything is put; emptied first
    #[arg(long, value_name = "DIR", default_value = "target/chaos")]
    dir: PathBuf,
}

type Step = fn(Stage) -> Pin<Box<dyn Future<Output = Outcome<Found>>>>;

macro_rules! step {
    ($place:ident::$name:ident) => {
        (stringify!($name), |stage| Box::pin(steps::$place::$name(stage)))
    };
}

/// Three rows of steps, side by side: the first one works, the others mostly wait. What is measured against a
/// clock comes late, and after it what leaves the disk with gigabytes to write.
const LANES: [&[(&str, Step)]; 3] = [
    &[
        step!(kill_refresh::f01_kill_while_refreshing),
        step!(kill_refresh::f01_kill_under_strict_rotation),
        step!(kill_link::f01_kill_while_linking),
        step!(callers::f13_one_process),
        step!(replicas::f14_three_replicas),
        step!(replicas::f20_the_clock_of_the_database_is_off),
        step!(storm::f21_a_storm_is_paced),
        step!(storm::f21_a_tick_beside_a_million),
    ],
    &[
        step!(outage::f12_an_outage_at_the_best_and_at_the_worst_moment),
        step!(replicas::f06_database_down_and_failover),
        step!(disk::f02_a_full_disk),
        step!(disk::f03_a_disk_that_cannot_sync),
        step!(limits::f25_hardly_any_descriptors),
        step!(limits::f25_hardly_any_processor),
        step!(limits::f25_hardly_any_memory),
        step!(clock::f19_the_wall_clock_jumps),
    ],
    &[
        step!(replicas::f01_disconnected_and_relinked_under_load),
        step!(outage::f08_f09_bad_answers),
        step!(network::f09_a_bad_wire),
        step!(network::f10_no_name_and_black_holes),
        step!(fenced::f15_stopped_while_refreshing),
        step!(fenced::f16_cut_off_while_refreshing),
        step!(fenced::f16_killed_while_cut_off),
        step!(limits::f24_told_to_stop_under_load),
    ],
];

#[tokio::main]
async fn main() -> ExitCode {
    // Local: steps are many and none is in a hurry; what they spawn runs on all cores.
    match LocalSet::new().run_until(run(&Arguments::parse())).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("chaos: FAILED: {}", outcome::chain(&*error)));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Outcome<bool> {
    let dir = std::path::absolute(&arguments.dir)?;
    make_fresh(&dir)?;
    let is_chosen = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let count = LANES.iter().flat_map(|lane| *lane).filter(|(name, _)| is_chosen(name)).count();
    ensure(0 < count, || format!("no step is named like {}", arguments.only.as_deref().unwrap_or("any")))?;
    let table = RefCell::new(Table::new(count));
    let ended = RefCell::new((Found::default(), Vec::new()));
    let walk = async |lane: &[(&str, Step)]| {
        for (name, step) in lane.iter().filter(|(name, _)| is_chosen(name)) {
            let random = Random::new(arguments.seed);
            let stage = Stage { dir: dir.join(name), is_full: !arguments.quick, random };
            // A task of its own: a panic fails the step alone.
            let outcome = spawn_local(step(stage)).await.map_err(Into::into).and_then(|outcome| outcome);
            let (total, failed) = &mut *ended.borrow_mut();
            match outcome {
                Ok(found) => {
                    table.borrow_mut().step(name, Ok(&found));
                    total.add(found);
                }
                Err(error) => {
                    let error = outcome::chain(&*error);
                    table.borrow_mut().step(name, Err(&error));
                    failed.push(format!("{name} failed: {error}"));
                }
            }
        }
    };
    tokio::join!(walk(LANES[0]), walk(LANES[1]), walk(LANES[2]));
    let (total, mut failed) = ended.into_inner();
    let table = table.into_inner();
    let mut report = total.report(!arguments.quick);
    report["seconds"] = serde_json::json!(table.seconds().round());
    report["scale"] = SCALE.into();
    report::write(&report, &dir.join("report.json"))?;
    if arguments.only.is_none() {
        failed.extend(report::check(&report, !arguments.quick));
    }
    table.finish(&report, &failed);
    Ok(failed.is_empty())
}

/// Empties the folder, if it is one of ours: a mistyped `--dir` must not cost anybody's work.
fn make_fresh(dir: &Path) -> Outcome<()> {
    let marker = dir.join(MARKER);
    if dir.exists() {
        let is_empty = std::fs::read_dir(dir).context(dir.display())?.next().is_none();
        ensure(is_empty || marker.exists(), || format!("{} is not a folder of ours", dir.display()))?;
        std::fs::remove_dir_all(dir).context(dir.display())?;
    }
    std::fs::create_dir_all(dir).context(dir.display())?;
    Ok(std::fs::write(marker, "This folder is emptied whenever script/chaos starts.\n")?)
}

/// What in the report is not as long as in life.
const SCALE: &str = "outage_failed_reads.{worst,best}_phase: a second for a minute, tokens of 60 s, min_ttl 5 s, outages 3 s \
                     shorter than the formula; elsewhere \
                     tokens of 1803 s and callers who ask for 1795 to 1800 s, so that a token runs short in 3 to 8 s";
const MARKER: &str = ".made-by-script-chaos";
