//! Processes: started so that none outlives this program, killed, stopped and looked at.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::outcome::{Context as _, Outcome, ensure};

/// One that runs. Killed when dropped, and by the kernel when this program dies.
pub(crate) struct Process {
    name: String,
    child: Child,
    pid: Pid,
}

impl Process {
    /// Starts `program`; what it says is appended to `log`.
    pub(crate) fn start<S: AsRef<OsStr>>(program: &Path, args: &[S], log: &Path) -> Outcome<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = OpenOptions::new().create(true).append(true).open(log).context(log.display())?;
        let mut command = tool(program);
        command.args(args).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().context(format!("{name} does not start"))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or("it has no id")?;
        Ok(Self { name, child, pid })
    }

    pub(crate) fn id(&self) -> Pid {
        self.pid
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended just now.
        let _gone = kill_process(self.pid, signal);
    }

    /// SIGSTOP, and until no thread runs: one that the signal has not reached yet could still finish something.
    pub(crate) async fn freeze(&self) -> Outcome<()> {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid.as_raw_nonzero());
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            status.contains("State:\tT").then_some(())
        };
        until("a process to stand still", Duration::from_secs(10), async || {
            std::fs::read_dir(&tasks).ok()?.map(is_stopped).collect::<Option<Vec<_>>>().map(drop)
        })
        .await
    }

    /// kill -9, and the end of it.
    pub(crate) async fn kill(&mut self) -> Outcome<()> {
        self.signal(Signal::KILL);
        self.child.wait().await?;
        Ok(())
    }

    /// SIGTERM; the exit code, and how long it took.
    pub(crate) async fn stop(&mut self, within: Duration) -> Outcome<(Option<i32>, Duration)> {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let ended = tokio::time::timeout(within, self.child.wait()).await;
        let status = ended.map_err(|_| format!("{} does not end in {within:?}", self.name))??;
        Ok((status.code(), began.elapsed()))
    }

    /// Fails if it has ended.
    pub(crate) fn ensure_runs(&mut self) -> Outcome<()> {
        let ended = self.child.try_wait()?;
        ensure(ended.is_none(), || format!("{} has ended: {ended:?}", self.name))
    }

    /// Its memory that is in RAM, in MiB.
    pub(crate) fn rss_mib(&self) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib / 1024.0)
    }
}

/// A program in an environment that holds nothing of the machine's.
pub(crate) fn tool(program: &Path) -> Command {
    // Ends with us, however we end.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("LANG", "C.UTF-8").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a program to its end: what it said.
pub(crate) async fn run(mut command: Command, input: &str) -> Outcome<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        tokio::io::AsyncWriteExt::write_all(&mut pipe, input.as_bytes()).await?;
    }
    let ended = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure(ended.status.success(), || format!("{:?}: {said}", command.as_std()))?;
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// Looks until there is something, for at most `within`.
pub(crate) async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Outcome<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        ensure(began.elapsed() < within, || format!("waited {within:?} in vain for {what}"))?;
        sleep(LOOK_EVERY).await;
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(2);
