//! A PostgreSQL that takes writes and its standby, which confirms each before it counts.
//!
//! Synchronous replication: what the primary confirmed, the standby has (security.md F06). Servers refuse to
//! run as root; started by root they run as nobody.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use crate::outcome::{Context as _, Outcome, ensure};
use crate::processes::{Process, until};

pub(crate) struct Pair {
    /// Open to nobody, whatever the folder above is.
    folder: TempDir,
    primary: Server,
    standby: Option<Server>,
}

struct Server {
    process: Process,
    port: u16,
}

impl Pair {
    pub(crate) async fn start() -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("azdo-chaos-postgres-").tempdir_in("/tmp")?;
        if is_root() {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let data = folder.path().join("one");
        let args = ["--no-sync", "--auth", "trust", "--username", USER, "--encoding", "UTF8", "--pgdata"];
        run(folder.path(), "initdb", &args, &[&data]).await?;
        let primary = Server::start(folder.path(), "one", &[]).await?;
        let mut pair = Self { folder, primary, standby: None };
        pair.execute(pair.primary.port, "postgres", &format!("CREATE DATABASE {DATABASE}")).await?;
        pair.follow().await?;
        Ok(pair)
    }

    /// Makes the standby, and has the primary wait for it.
    async fn follow(&mut self) -> Outcome<()> {
        let source = format!("--dbname=postgresql://{USER}@127.0.0.1:{}/postgres", self.primary.port);
        let data = self.folder.path().join("two");
        let args = ["--write-recovery-conf", "--checkpoint=fast", &source, "--pgdata"];
        run(self.folder.path(), "pg_basebackup", &args, &[&data]).await?;
        // Promoted, it must not wait for a standby that it does not have.
        let alone = ["-c", "synchronous_standby_names="];
        self.standby = Some(Server::start(self.folder.path(), "two", &alone).await?);
        self.execute(self.primary.port, "postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'")
            .await?;
        self.execute(self.primary.port, "postgres", "ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
            .await?;
        self.execute(self.primary.port, "postgres", "SELECT pg_reload_conf()").await
    }

    /// The addresses, the primary's first.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let standby = self.standby.iter().map(|standby| standby.port);
        let ports = std::iter::once(self.primary.port).chain(standby);
        ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
    }

    /// `SIGSTOP` or `SIGCONT` to all processes of the primary.
    pub(crate) async fn signal_primary(&self, signal: Signal) -> Outcome<()> {
        let id = self.primary.process.id().as_raw_nonzero().to_string();
        let children = Command::new("pgrep").args(["-P", &id]).output().await?;
        for child in String::from_utf8_lossy(&children.stdout).split_whitespace() {
            if let Some(child) = child.parse().ok().and_then(rustix::process::Pid::from_raw) {
                let _gone = rustix::process::kill_process(child, signal);
            }
        }
        self.primary.process.signal(signal);
        Ok(())
    }

    /// kill -9 to the primary.
    pub(crate) async fn kill_primary(&mut self) -> Outcome<()> {
        self.primary.process.kill().await
    }

    /// The standby becomes the primary: it takes writes from now on.
    pub(crate) async fn promote(&self) -> Outcome<()> {
        let data = self.folder.path().join("two");
        run(self.folder.path(), "pg_ctl", &["promote", "--no-wait", "--pgdata"], &[&data]).await
    }

    /// Runs statements in the store's database.
    pub(crate) async fn in_store(&self, sql: &str) -> Outcome<()> {
        self.execute(self.primary.port, DATABASE, sql).await
    }

    async fn execute(&self, port: u16, database: &str, sql: &str) -> Outcome<()> {
        let url = format!("postgresql://{USER}@127.0.0.1:{port}/{database}");
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        let work = async {
            let done = client.batch_execute(sql).await;
            drop(client);
            done
        };
        let (done, _ended) = tokio::join!(work, connection);
        done.context(sql)
    }
}

impl Server {
    async fn start(folder: &Path, name: &str, more: &[&str]) -> Outcome<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (data, log) = (folder.join(name), folder.join(format!("{name}.log")));
        let port_text = port.to_string();
        let mut args = as_nobody();
        args.extend([program("postgres")?.display().to_string(), "-D".into(), data.display().to_string()]);
        let fixed = [
            "-p",
            &port_text,
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "max_connections=200",
            // In its own folder, which goes with the run: a killed server removes nothing of what it shares.
            "-c",
            "dynamic_shared_memory_type=mmap",
        ];
        args.extend(fixed.iter().chain(more).map(|text| (*text).to_owned()));
        args.extend(["-k".into(), folder.display().to_string()]);
        let (wrapper, args) = args.split_first().ok_or("no program")?;
        let mut process = Process::start(Path::new(wrapper), args, &log)?;
        let ready = async || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let is_ready =
                said.contains("ready to accept connections") || said.contains("ready to accept read-only");
            is_ready.then_some(())
        };
        until("PostgreSQL", START_WITHIN, ready).await?;
        process.ensure_runs()?;
        Ok(Self { process, port })
    }
}

/// The section `[store]` of a broker that reaches both, by these addresses.
pub(crate) fn store(addresses: &[SocketAddr]) -> String {
    let hosts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    format!("url = \"postgresql://{USER}@{}/{DATABASE}\"", hosts.join(","))
}

async fn run(folder: &Path, name: &str, args: &[&str], paths: &[&Path]) -> Outcome<()> {
    let all = as_nobody();
    let own = program(name)?;
    let mut command = match all.split_first() {
        Some((wrapper, rest)) => {
            let mut command = Command::new(wrapper);
            command.args(rest).arg(own);
            command
        }
        None => Command::new(own),
    };
    command.args(args).args(paths).current_dir(folder).stdin(Stdio::null());
    let ended = command.output().await.context(name)?;
    ensure(ended.status.success(), || format!("{name}: {}", String::from_utf8_lossy(&ended.stderr)))
}

fn as_nobody() -> Vec<String> {
    let words: &[&str] = if is_root() {
        // With the death signal again: it is forgotten when the user changes.
        &["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--pdeathsig", "KILL"]
    } else {
        &["setpriv", "--pdeathsig", "KILL"]
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Debian keeps the server's programs off the PATH.
fn program(name: &str) -> Outcome<PathBuf> {
    let mut versions: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql")?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    versions.sort();
    let found =
        versions.into_iter().rev().map(|version| version.join("bin").join(name)).find(|it| it.exists());
    found.ok_or_else(|| format!("{name} is missing; on Debian: apt-get install postgresql").into())
}

const USER: &str = "azdo_broker";
const DATABASE: &str = "broker";
const NOBODY: u32 = 65534;
const START_WITHIN: Duration = Duration::from_secs(30);
