//! The demo's world: a folder, an emulator, a broker, and how to reach them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::browser::plain_http;
use crate::narrator::Narrator;
use crate::outcome::{Context as _, Outcome, ensure};
use crate::processes::{Processes, Said, run};
use crate::{certificates, settings};

pub(crate) const ACCOUNT: &str = "acme";

pub(crate) struct World {
    /// Everything lies here, absolute.
    pub(crate) dir: PathBuf,
    /// Where the binaries are.
    pub(crate) bin: PathBuf,
    pub(crate) sockets: PathBuf,
    pub(crate) ports: Ports,
    pub(crate) emulator: Emulator,
    /// Holds the sockets where the paths in `dir` are too long for them.
    _short: Option<TempDir>,
    /// As long as it is held, no other demo uses this folder.
    _lock: File,
}

#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) tcp: u16,
    pub(crate) links: u16,
    pub(crate) admin: u16,
}

/// Where the emulator said it is.
pub(crate) struct Emulator {
    pub(crate) proxy: String,
    pub(crate) control: String,
    pub(crate) browser: String,
    pub(crate) ca: PathBuf,
}

impl World {
    /// Makes the folder and starts both programs in it.
    pub(crate) async fn build(dir: &Path, narrator: &Narrator, processes: &Processes) -> Outcome<Self> {
        let dir = std::path::absolute(dir)?;
        let lock = lock(&dir)?;
        make_fresh(&dir)?;
        let bin = std::env::current_exe()?;
        let bin = bin.parent().and_then(Path::parent).ok_or("this program lies nowhere")?.to_owned();
        for program in ["azdo-broker", "git-credential-azdo-broker", "azure-emulator"] {
            ensure(bin.join(program).exists(), || {
                format!("{program} is not in {}: start the demo by script/demo", bin.display())
            })?;
        }
        let short = short_folder(&dir)?;
        let sockets = short.as_ref().map_or(&*dir, TempDir::path).to_owned();

        narrator.begin("emulator");
        let emulator = start_emulator(&bin, &dir, processes).await?;
        narrator.show("azure-emulator plays Entra ID, Azure DevOps and Azure Repos on loopback");

        narrator.begin("certificates");
        certificates::write(&dir)?;
        narrator
            .show("the platform's CA signs one for the broker, one for the IDE backend, one for a stranger");

        let ports = free_ports()?;
        let mut world = Self { dir, bin, sockets, ports, emulator, _short: short, _lock: lock };
        narrator.begin("offline");
        world.prepare().await?;
        narrator.show("azdo-broker keys new, store init, check: key file, empty store, good configuration");

        narrator.begin("broker");
        world.start_broker(processes).await?;
        narrator.show("azdo-broker serve: operator.sock, job-runner.sock, mutual TLS, link pages; ready");
        Ok(world)
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.sockets.join(format!("{name}.sock"))
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("commands.log")
    }

    /// A program of ours, in an environment that holds nothing but what is needed.
    pub(crate) fn program(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        self.clean(&mut command);
        command
    }

    pub(crate) fn clean(&self, command: &mut Command) {
        let mut path = OsString::from(&self.bin);
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()));
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", &self.dir)
            .env("USER", "demo")
            .current_dir(&self.dir);
    }

    /// Our command line, run by whoever may open that socket.
    pub(crate) fn command_line(&self, socket: &str, arguments: &[&str]) -> Command {
        let mut command = self.program("azdo-broker");
        command.args(arguments).env("AZDO_BROKER_ACCOUNT", ACCOUNT);
        command.env("AZDO_BROKER_ADDRESS", format!("unix:{}", self.socket(socket).display()));
        command
    }

    pub(crate) async fn run(&self, name: &'static str, command: Command) -> Outcome<Said> {
        run(name, command, None, &self.log()).await
    }

    /// Changes what the emulator knows, as somebody at Microsoft's portals would.
    pub(crate) async fn change(&self, change: serde_json::Value) -> Outcome<()> {
        self.control("/_emu/world", &change).await
    }

    /// Makes the emulator behave otherwise.
    pub(crate) async fn switch(&self, fault: serde_json::Value) -> Outcome<()> {
        self.control("/_emu/faults", &fault).await
    }

    pub(crate) async fn switch_all_off(&self) -> Outcome<()> {
        let url = format!("{}/_emu/faults", self.emulator.control);
        plain_http()?.delete(url).send().await?.error_for_status()?;
        Ok(())
    }

    async fn control(&self, path: &str, body: &serde_json::Value) -> Outcome<()> {
        let url = format!("{}{path}", self.emulator.control);
        plain_http()?.post(url).json(body).send().await?.error_for_status().context(body)?;
        Ok(())
    }

    async fn prepare(&mut self) -> Outcome<()> {
        fs::write(self.dir.join("policy.toml"), settings::policy())?;
        self.write_settings()?;
        for (name, arguments) in [
            ("azdo-broker keys new", &["keys", "new", "azdo-broker.key"][..]),
            ("azdo-broker store init", &["store", "init", "--config", "azdo-broker.toml"]),
            ("azdo-broker check", &["check", "--config", "azdo-broker.toml"]),
        ] {
            let mut command = self.program("azdo-broker");
            command.args(arguments);
            self.run(name, command).await?;
        }
        Ok(())
    }

    fn write_settings(&self) -> Outcome<()> {
        let text = settings::broker(&self.sockets, self.ports, &self.emulator);
        Ok(fs::write(self.dir.join("azdo-broker.toml"), text)?)
    }

    /// The ports must be known before, for the redirect URIs; another process may take one meanwhile.
    async fn start_broker(&mut self, processes: &Processes) -> Outcome<()> {
        for _ in 1..STARTS_MAX {
            match self.try_broker(processes).await {
                Err(error) if error.to_string().contains(PORT_TAKEN) => {
                    self.ports = free_ports()?;
                    self.write_settings()?;
                }
                started => return started,
            }
        }
        self.try_broker(processes).await
    }

    async fn try_broker(&self, processes: &Processes) -> Outcome<()> {
        let mut command = self.program("azdo-broker");
        command.args(["serve", "--config", "azdo-broker.toml"]);
        processes.start("azdo-broker", command, &self.dir)?;
        let http = plain_http()?;
        let url = format!("http://127.0.0.1:{}/readyz", self.ports.admin);
        wait_until("the broker is not ready", processes, &self.dir, async || {
            let answer = http.get(&url).send().await;
            answer.is_ok_and(|answer| answer.status().is_success()).then_some(())
        })
        .await
    }
}

async fn start_emulator(bin: &Path, dir: &Path, processes: &Processes) -> Outcome<Emulator> {
    let ready = dir.join("azure-emulator.env");
    let mut command = Command::new(bin.join("azure-emulator"));
    clean(&mut command, bin, dir);
    command.arg("serve").arg("--data-dir").arg(dir.join("emulator")).arg("--ready-file").arg(&ready);
    processes.start("azure-emulator", command, dir)?;
    let text =
        wait_until("the emulator is not ready", processes, dir, async || fs::read_to_string(&ready).ok());
    let text = text.await?;
    let mut places: HashMap<_, _> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let mut place = |name| places.remove(name).ok_or_else(|| format!("the emulator does not tell {name}"));
    Ok(Emulator {
        proxy: place("AZURE_EMULATOR_PROXY")?.to_owned(),
        control: place("AZURE_EMULATOR_CONTROL")?.to_owned(),
        browser: place("AZURE_EMULATOR_BROWSER")?.to_owned(),
        ca: place("AZURE_EMULATOR_CA")?.into(),
    })
}

/// Nobody's proxies, authorities or git settings: they would change the story.
fn clean(command: &mut Command, bin: &Path, dir: &Path) {
    let mut path = OsString::from(bin);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()));
    command.env_clear().env("PATH", path).env("HOME", dir).env("USER", "demo").current_dir(dir);
}

/// Looks until there is something, unless a process has ended or it takes too long.
async fn wait_until<T>(
    else_seen: &str,
    processes: &Processes,
    dir: &Path,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Outcome<T> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if let Some((name, status)) = processes.take_ended()? {
            let log = fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
            let last = log.lines().next_back().unwrap_or_default();
            return Err(format!("{name} ended with {status}, saying: {last}").into());
        }
        ensure(Instant::now() < deadline, || format!("{else_seen} after {READY_WITHIN:?}"))?;
        sleep(LOOK_EVERY).await;
    }
}

fn lock(dir: &Path) -> Outcome<File> {
    fs::create_dir_all(dir.parent().unwrap_or(dir))?;
    let path = dir.with_extension("lock");
    let file = File::create(&path).context(path.display())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!("another demo runs in {}", dir.display()).into()),
        Err(TryLockError::Error(error)) => Err(error).context(path.display()),
    }
}

/// Empties the folder, if it is one of ours: a mistyped `--dir` must not cost anybody's work.
fn make_fresh(dir: &Path) -> Outcome<()> {
    let marker = dir.join(MARKER);
    if dir.exists() {
        let empty = fs::read_dir(dir).context(dir.display())?.next().is_none();
        ensure(empty || marker.exists(), || format!("{} is not a folder of the demo's", dir.display()))?;
        fs::remove_dir_all(dir).context(dir.display())?;
    }
    fs::DirBuilder::new().mode(0o700).create(dir).context(dir.display())?;
    Ok(fs::write(marker, "This folder is emptied whenever script/demo starts.\n")?)
}

/// A folder for the sockets, if the path of one would be longer than Unix allows.
fn short_folder(dir: &Path) -> Outcome<Option<TempDir>> {
    if dir.join("job-runner.sock").as_os_str().len() <= SOCKET_PATH_LEN_MAX {
        return Ok(None);
    }
    // Not TMPDIR, which may be long too.
    let owner_only = fs::Permissions::from_mode(0o700);
    Ok(Some(tempfile::Builder::new().prefix("azdo-demo-").permissions(owner_only).tempdir_in("/tmp")?))
}

fn free_ports() -> Outcome<Ports> {
    // All held at once, so that they differ.
    let bind = || TcpListener::bind("127.0.0.1:0");
    let (tcp, links, admin) = (bind()?, bind()?, bind()?);
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    Ok(Ports { tcp: port(&tcp)?, links: port(&links)?, admin: port(&admin)? })
}

const MARKER: &str = ".made-by-script-demo";
/// `sun_path` has 108 bytes, the last one is zero.
const SOCKET_PATH_LEN_MAX: usize = 107;
/// What the broker says when it cannot have a port.
const PORT_TAKEN: &str = "cannot be bound";
const STARTS_MAX: usize = 3;
const READY_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);
