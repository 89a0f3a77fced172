//! One broker: its folder, its process, and ways to reach it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use azdo_broker::client::{Remote, Settings};
use rustix::process::Signal;
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::emulator::{CLIENT, Emulator, SECRET, TENANT};
use crate::outcome::{Context as _, Outcome};
use crate::processes::{Process, run, tool, until};

pub(crate) const ACCOUNT: &str = "acme";

pub(crate) struct Broker {
    pub(crate) dir: PathBuf,
    bin: PathBuf,
    socket: PathBuf,
    links: u16,
    process: Option<Process>,
}

/// How its configuration differs from the usual one.
pub(crate) struct Setup<'a> {
    pub(crate) bin: &'a Path,
    /// Folders of sockets must have short names.
    pub(crate) sockets: &'a Path,
    /// Where it reaches the emulator: its proxy, or one of the tests' before that.
    pub(crate) upstream: &'a str,
    /// The section `[store]`.
    pub(crate) store: &'a str,
    /// What else the section `[entra]` has.
    pub(crate) entra: &'a str,
    /// Sections of its own: `[refresh]`, `[audit]`.
    pub(crate) more: &'a str,
}

impl Broker {
    /// Its folder, with configuration and policy; the key and the store come with [`Broker::init`].
    pub(crate) fn new(dir: &Path, setup: &Setup<'_>, emulator: &Emulator) -> Outcome<Self> {
        std::fs::create_dir_all(dir).context(dir.display())?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let socket = setup.sockets.join(format!("{name}.sock"));
        let (links, admin) = free_ports()?;
        let (upstream, ca) = (setup.upstream, &emulator.ca);
        let config = format!(
            "[listen]\nlinks = \"127.0.0.1:{links}\"\nadmin = \"127.0.0.1:{admin}\"\n\
             [[listen.socket]]\nname = \"operator\"\npath = \"{}\"\nmode = \"0600\"\n\
             [keys]\nfile = \"../azdo-broker.key\"\n\
             [store]\n{}\n[outgoing]\nproxy = \"{upstream}\"\nca_file = \"{}\"\n\
             [entra]\nbrowser_authority = \"{}\"\n{}\n{}",
            socket.display(),
            setup.store,
            ca.display(),
            emulator.browser,
            setup.entra,
            setup.more
        );
        std::fs::write(dir.join(CONFIG), config)?;
        std::fs::write(dir.join("policy.toml"), POLICY)?;
        Ok(Self { dir: dir.to_owned(), bin: setup.bin.join("azdo-broker"), socket, links, process: None })
    }

    /// Makes the key, which replicas share, and the store.
    pub(crate) async fn init(&self) -> Outcome<()> {
        run(self.command(&["keys", "new", "../azdo-broker.key"]), "").await?;
        run(self.command(&["store", "init", "--config", CONFIG]), "").await?;
        Ok(())
    }

    /// Tells it of the account's integration.
    pub(crate) async fn register(&self) -> Outcome<()> {
        let (tenant, client) = (format!("--tenant-id={TENANT}"), format!("--client-id={CLIENT}"));
        let url = format!("--public-url=http://localhost:{}", self.links);
        let args =
            ["integration", "put", "--organization=contoso", &tenant, &client, &url, "--secret-file=-"];
        run(self.command(&args), SECRET).await.map(drop)
    }

    /// From its next start on it reaches the emulator by this proxy.
    pub(crate) fn reach(&self, upstream: &str) -> Outcome<()> {
        let file = self.dir.join(CONFIG);
        let config = std::fs::read_to_string(&file)?;
        let line = |line: &str| match line.strip_prefix("proxy = ") {
            Some(_) => format!("proxy = \"{upstream}\"\n"),
            None => format!("{line}\n"),
        };
        Ok(std::fs::write(&file, config.lines().map(line).collect::<String>())?)
    }

    pub(crate) async fn start(&mut self) -> Outcome<()> {
        self.start_under(&[]).await
    }

    /// Starts it, under another program: `prlimit` and such.
    pub(crate) async fn start_under(&mut self, wrapper: &[&str]) -> Outcome<()> {
        let config = self.dir.join(CONFIG);
        let config = config.to_string_lossy();
        let own = self.bin.to_string_lossy();
        let all = [wrapper, &[&*own, "serve", "--config", &*config, "--log", "info"]].concat();
        let mut process = Process::start(Path::new(all[0]), &all[1..], &self.dir.join("broker.log"))?;
        let up = async || match UnixStream::connect(&self.socket).await {
            Ok(_) => Some(Ok(())),
            Err(_) => process.ensure_runs().err().map(Err),
        };
        until("a broker that can be called", START_WITHIN, up).await?.context(self.dir.display())?;
        self.process = Some(process);
        Ok(())
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) -> Outcome<()> {
        match self.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM.
    pub(crate) async fn stop(&mut self) -> Outcome<(Option<i32>, Duration)> {
        let mut process = self.process.take().ok_or("it does not run")?;
        process.stop(STOP_WITHIN).await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    pub(crate) fn process(&mut self) -> Outcome<&mut Process> {
        Ok(self.process.as_mut().ok_or("it does not run")?)
    }

    /// A connection of its own to the broker.
    pub(crate) async fn remote(&self) -> Outcome<Remote> {
        let address = Some(format!("unix:{}", self.socket.display()));
        Ok(Remote::connect(&Settings { address, ..Settings::default() }).await?)
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn audit(&self) -> PathBuf {
        self.dir.join("audit.jsonl")
    }

    /// `azdo-broker` here, as the operator of the account.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = tool(&self.bin);
        command.args(args).current_dir(&self.dir).env("AZDO_BROKER_ACCOUNT", ACCOUNT);
        command.env("AZDO_BROKER_ADDRESS", format!("unix:{}", self.socket.display()));
        command
    }
}

fn free_ports() -> Outcome<(u16, u16)> {
    let (one, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?.port(), other.local_addr()?.port()))
}

pub(crate) const CONFIG: &str = "azdo-broker.toml";
const POLICY: &str =
    "[[rule]]\nname = \"operator\"\ncallers = [\"socket:operator\"]\naccounts = [\"*\"]\nallow = [\"*\"]\n";
const START_WITHIN: Duration = Duration::from_secs(30);
/// Orchestrators kill after 30 s.
const STOP_WITHIN: Duration = Duration::from_secs(30);
