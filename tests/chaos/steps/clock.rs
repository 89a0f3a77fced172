//! f19: the wall clock of a running broker jumps, while its monotonic one goes on.
//!
//! By `libfaketime`, which stands before the C library's clock: what the broker sees is what it would see if
//! somebody set the machine's time.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use super::Stage;
use crate::emulator::upn;
use crate::outcome::{Context as _, Outcome, ensure};
use crate::readers::Readers;
use crate::report::Found;
use crate::scene::{Plan, Scene};

/// Neither an expired token nor a storm: each jump costs at most a refresh of each connection, and a clock that was
/// set back makes no token live longer.
pub(crate) async fn f19_the_wall_clock_jumps(stage: Stage) -> Outcome<Found> {
    let plan = Plan { users: USERS, token_life_s: LIFE.as_secs(), ..Plan::default() };
    let mut scene = Scene::set(&stage.dir, plan).await?;
    scene.brokers[0].kill().await?;
    let clock = FakeClock::beside(&stage.dir)?;
    clock.set("+0")?;
    scene.brokers[0].start_under(&clock.wrapper()).await?;
    let readers = Readers::start(&scene, 0..USERS, Duration::ZERO, Duration::from_millis(20)).await?;
    let (mut found, mut refreshed) = (Found::default(), HashSet::new());
    let a_life_on = LIFE + SHORTLY;
    for (jump, watched_for) in [("+2h", SHORTLY), ("-2h", a_life_on), ("+10y", SHORTLY), ("+0", a_life_on)] {
        let before = scene.issued().await?.len();
        clock.set(jump)?;
        sleep(watched_for).await;
        let issued = scene.issued().await?.split_off(before);
        // One for the jump, and one whenever two fifths of a life are over.
        let each = 3 + watched_for.as_secs() / (LIFE * 2 / 5).as_secs();
        let requests = issued.len();
        ensure(requests as u64 <= each * USERS as u64, || {
            format!("{requests} token requests after a jump by {jump}")
        })?;
        found.says(format!("{jump}: {requests} token requests in {} s", watched_for.as_secs()));
        refreshed = issued.into_iter().filter_map(|request| request.user_upn).collect();
    }
    let read = readers.stop().await?;
    read.ensure_none_failed()?;
    found.says(format!("{} reads by a clock that jumped, none failed", read.reads));
    scene.brokers[0].process()?.ensure_runs()?;
    ensure(has_jumped(&scene)?, || "libfaketime had no effect: the audit knows one time only".to_owned())?;
    if let Some(user) = (0..USERS).find(|user| !refreshed.contains(&upn(*user))) {
        found.breaks("lost_links", format!("u{user} was not refreshed after the clock was set back"));
    }
    // When a token expires is told by the broker's clock, which was wrong: only when it does is judged.
    scene.ledger.all().iter_mut().for_each(|it| it.expires_at = it.sent);
    scene.settle(&mut found).await?;
    Ok(found)
}

/// Whether something happened years after something else, as the broker sees it.
fn has_jumped(scene: &Scene) -> Outcome<bool> {
    let audit = std::fs::read_to_string(scene.brokers[0].audit())?;
    let years =
        audit.lines().filter_map(|line| line.strip_prefix("{\"at\":\"")?.get(..4)?.parse::<i32>().ok());
    let (first, last) = (years.clone().min(), years.max());
    Ok(first.zip(last).is_some_and(|(first, last)| first + 9 <= last))
}

/// What a process sees as the time of day: the machine's, and so much more.
struct FakeClock {
    offset: PathBuf,
    preload: String,
    file: String,
}

impl FakeClock {
    fn beside(dir: &Path) -> Outcome<Self> {
        let library = std::fs::read_dir("/usr/lib")?
            .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
            .find(|library| library.exists())
            .ok_or("libfaketime is missing; on Debian: apt-get install faketime")?;
        let offset = dir.join("clock");
        let (preload, file) = (
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", offset.display()),
        );
        Ok(Self { offset, preload, file })
    }

    fn set(&self, offset: &str) -> Outcome<()> {
        // At once or not at all: a broker looks at any moment.
        let new = self.offset.with_extension("new");
        std::fs::write(&new, offset).context(new.display())?;
        Ok(std::fs::rename(&new, &self.offset)?)
    }

    fn wrapper(&self) -> [&str; 7] {
        let (preload, file) = (self.preload.as_str(), self.file.as_str());
        let only_the_wall = ["FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"];
        let [one, other, files] = only_the_wall;
        ["/usr/bin/env", preload, file, "FAKETIME_NO_CACHE=1", one, other, files]
    }
}

const USERS: usize = 8;
const LIFE: Duration = Duration::from_secs(10);
const SHORTLY: Duration = Duration::from_secs(3);
