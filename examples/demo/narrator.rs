//! Tells the story on standard output: one line a step, with the time since the start.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

pub(crate) struct Narrator {
    began: Instant,
    step: Mutex<&'static str>,
}

impl Narrator {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), step: Mutex::new("start") }
    }

    /// What is being done from here on, for the case that it fails.
    pub(crate) fn begin(&self, step: &'static str) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    /// What the step showed.
    pub(crate) fn show(&self, what: &str) {
        say(&format!("{:5.1} s  {:<12}  {what}", self.seconds(), self.step()));
    }

    pub(crate) fn finish(&self) {
        say(&format!("demo: ok in {:.1} s", self.seconds()));
    }

    pub(crate) fn stopped(&self) {
        say(&format!("demo: stopped at step \"{}\"; everything it started has ended", self.step()));
    }

    pub(crate) fn fail(&self, seen: &str, dir: &Path) {
        let step = self.step();
        let logs = dir.display();
        let _ = writeln!(
            std::io::stderr().lock(),
            "demo: FAILED at step \"{step}\"\n  seen: {seen}\n  logs: {logs}/*.log, and {logs}/audit.jsonl"
        );
    }

    fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn step(&self) -> &'static str {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More about what was shown, a line each.
pub(crate) fn more(text: &str) {
    for line in text.lines() {
        say(&format!("{:23}{line}", ""));
    }
}

/// Prints a line. A reader that went away is no reason to fail.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
