//! The processes of the demo: started in groups of their own, and always ended.
//!
//! A group each, so that Ctrl-C reaches the demo alone, which then ends them in order, and so that a
//! killed `git` does not leave its children behind.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::outcome::{Context as _, Outcome, ensure};

/// What runs in the background.
#[derive(Default)]
pub(crate) struct Processes(Mutex<Vec<Running>>);

/// A process and its children. Dropped, they are killed.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
}

/// What a command said before it ended well.
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Processes {
    /// Starts a process that writes to `{name}.log`.
    pub(crate) fn start(&self, name: &'static str, command: Command, dir: &Path) -> Outcome<()> {
        let log = open_log(&dir.join(format!("{name}.log")))?;
        let running = Running::start(name, command, &log)?;
        self.all().push(running);
        Ok(())
    }

    /// Takes one that has ended out of the list, and says how it ended.
    pub(crate) fn take_ended(&self) -> Outcome<Option<(&'static str, ExitStatus)>> {
        let mut all = self.all();
        for at in 0..all.len() {
            if let Some(status) = all[at].child.try_wait()? {
                return Ok(Some((all.swap_remove(at).name, status)));
            }
        }
        Ok(None)
    }

    /// Asks all to end, and makes those end that do not. Returns what did not end well.
    pub(crate) async fn stop(&self) -> Vec<String> {
        let mut all: Vec<Running> = self.all().drain(..).collect();
        // The last one started leans on those before it.
        all.reverse();
        for running in &all {
            running.signal(Signal::TERM);
        }
        let mut troubles = Vec::new();
        let deadline = tokio::time::Instant::now() + STOP_WITHIN;
        for mut running in all {
            match tokio::time::timeout_at(deadline, running.child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => troubles.push(format!("{} ended with {status}", running.name)),
                Ok(Err(error)) => troubles.push(format!("{} cannot be waited for: {error}", running.name)),
                Err(_) => troubles.push(format!("{} did not end in {STOP_WITHIN:?}", running.name)),
            }
        }
        troubles
    }

    fn all(&self) -> MutexGuard<'_, Vec<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn start(name: &'static str, mut command: Command, log: &File) -> Outcome<Self> {
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        Self::spawn(name, command)
    }

    /// Starts it with the input and outputs that the command names.
    pub(crate) fn spawn(name: &'static str, mut command: Command) -> Outcome<Self> {
        let child = command.process_group(0).kill_on_drop(true).spawn();
        Ok(Self { name, child: child.context(format!("{name} does not start"))? })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = id {
            // It may have ended just now, which is what we want.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Runs a command to its end, with `input` if there is any, and keeps a record of it in `log`.
pub(crate) async fn run(
    name: &'static str,
    mut command: Command,
    input: Option<&str>,
    log: &Path,
) -> Outcome<Said> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::spawn(name, command)?;
    if let (Some(input), Some(mut pipe)) = (input, running.child.stdin.take()) {
        tokio::io::AsyncWriteExt::write_all(&mut pipe, input.as_bytes()).await?;
    }
    let out = read_all(running.child.stdout.take());
    let err = read_all(running.child.stderr.take());
    let ended = timeout(COMMAND_LIMIT, async { tokio::join!(out, err, running.child.wait()) }).await;
    let (out, err, status) = ended.map_err(|_| format!("{name} did not end in {COMMAND_LIMIT:?}"))?;
    let (said, status) = (Said { out: out?, err: err? }, status?);
    let mut log = open_log(log)?;
    writeln!(log, "== {name}: {status}\n{}{}", said.out, said.err)?;
    ensure(status.success(), || format!("{name} ended with {status}: {}", said.err.trim()))?;
    Ok(said)
}

async fn read_all(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> Outcome<String> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        tokio::io::AsyncReadExt::read_to_end(&mut pipe, &mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn open_log(path: &Path) -> Outcome<File> {
    OpenOptions::new().create(true).append(true).open(path).context(path.display())
}

/// Together with what comes after less than the 5 s that `script/demo --serve` promises.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// Far more than any command here needs on a slow machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);
