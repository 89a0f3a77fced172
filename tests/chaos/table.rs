//! What a person reads: each step as it ends, and the table at the end.

use std::io::Write as _;

use serde_json::Value;
use tokio::time::Instant;

use crate::report::Found;

pub(crate) struct Table {
    began: Instant,
    steps: usize,
    done: usize,
}

impl Table {
    pub(crate) fn new(steps: usize) -> Self {
        Self { began: Instant::now(), steps, done: 0 }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(crate) fn step(&mut self, name: &str, ended: Result<&Found, &str>) {
        self.done += 1;
        let head = format!("{:5.0} s  {:>2}/{:<2}  ", self.seconds(), self.done, self.steps);
        match ended {
            Ok(found) => {
                let word = if found.broken.is_empty() { "ok" } else { "BROKEN" };
                say(&format!("{head}{word:<6} {name}"));
                found.says.iter().for_each(|said| say(&format!("{:25}{said}", "")));
                found.wrongs.iter().for_each(|wrong| say(&format!("{:25}! {wrong}", "")));
            }
            Err(error) => say(&format!("{head}FAILED {name}\n{:25}! {error}", "")),
        }
    }

    pub(crate) fn finish(&self, report: &Value, wrongs: &[String]) {
        say("");
        rows("", report);
        say("");
        for wrong in wrongs {
            say(&format!("chaos: {wrong}"));
        }
        let verdict = if wrongs.is_empty() { "ok" } else { "FAILED" };
        say(&format!("chaos: {verdict} in {:.0} s", self.seconds()));
    }
}

fn rows(prefix: &str, value: &Value) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Object(_) => rows(&name, value),
            Value::String(text) => say(&format!("  {name:<44} {text}")),
            other => say(&format!("  {name:<44} {other}")),
        }
    }
}

/// Prints a line. A reader that went away is no reason to fail.
pub(crate) fn say(line: &str) {
    let _gone = writeln!(std::io::stdout().lock(), "{line}");
}
