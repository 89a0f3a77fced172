//! The emulator as a program: runs until it is told to stop.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use azure_emulator::{Emulator, Options, Ports, StartError, World, WorldError};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Entra ID, Azure DevOps REST and Azure Repos on loopback, for tests and demos.
///
/// Set `HTTPS_PROXY` to the proxy's address and trust the authority's certificate; then the real
/// addresses (login.microsoftonline.com, dev.azure.com) lead here. Nothing is forwarded.
///
/// While it runs it is steered over the control API: switches (`POST /_emu/faults`), changes
/// (`POST /_emu/world`), the clock (`POST /_emu/clock`) and the record (`GET /_emu/requests`).
/// The README lists them all.
#[derive(Parser)]
#[command(name = "azure-emulator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the emulator until SIGTERM or SIGINT.
    Serve(Serve),
    /// Print a world file to start from.
    WorldExample,
}

#[derive(Args)]
struct Serve {
    /// The world file; the example's world when absent.
    #[arg(long, value_name = "FILE")]
    world: Option<PathBuf>,
    /// Where repositories and the certificate authority (ca.pem) are kept.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The CONNECT proxy's port; 0 takes any.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    proxy_port: u16,
    /// The port of all hosts in one, over HTTPS.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    https_port: u16,
    /// The port of the sign-in pages, over plain HTTP.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    browser_port: u16,
    /// The port of the control API, over plain HTTP.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    control_port: u16,
    /// The address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDRESS")]
    bind: IpAddr,
    /// Listen on an address that others can reach. Anybody who does can become any user.
    #[arg(long)]
    allow_non_loopback: bool,
    /// Tokens and their lifetimes follow from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Written when everything is ready: `AZURE_EMULATOR_PROXY=…` and so on, one a line.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    #[error("{0} is no world")]
    World(PathBuf, #[source] WorldError),
    #[error("cannot start")]
    Start(#[from] StartError),
    #[error("cannot wait for signals")]
    Signal(#[source] io::Error),
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command {
        Command::WorldExample => match io::stdout().write_all(World::EXAMPLE.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Command::Serve(serve) => match run(serve).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                tell(&failure);
                ExitCode::FAILURE
            }
        },
    }
}

async fn run(serve: Serve) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Signal)?;
    let world = read_world(serve.world)?;
    let emulator = Emulator::start(Options {
        world,
        bind: serve.bind,
        allow_non_loopback: serve.allow_non_loopback,
        data_dir: Some(serve.data_dir.clone()),
        ca_dir: Some(serve.data_dir.clone()),
        seed: serve.seed,
        clock_start: None,
        ports: Ports {
            proxy: serve.proxy_port,
            https: serve.https_port,
            browser: serve.browser_port,
            control: serve.control_port,
        },
    })
    .await?;
    let lines = ready_lines(&emulator, &serve.data_dir);
    if let Some(file) = serve.ready_file {
        replace(&file, &lines)?;
    }
    // Whoever closed our output still wants the emulator.
    let _ = io::stdout().write_all(lines.as_bytes());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // What does not end in time ends with the process.
    let _ = tokio::time::timeout(STOP_WITHIN, emulator.stop()).await;
    Ok(())
}

fn read_world(file: Option<PathBuf>) -> Result<World, Failure> {
    let Some(file) = file else {
        return Ok(World::example());
    };
    match std::fs::read_to_string(&file) {
        Ok(text) => World::from_toml(&text).map_err(|problem| Failure::World(file, problem)),
        Err(problem) => Err(Failure::Read(file, problem)),
    }
}

fn ready_lines(emulator: &Emulator, data_dir: &Path) -> String {
    let ca = data_dir.join("ca.pem");
    let ca = std::path::absolute(&ca).unwrap_or(ca);
    [
        ("PROXY", emulator.proxy_url()),
        ("HTTPS", emulator.https_url()),
        ("BROWSER", emulator.browser_url()),
        ("CONTROL", emulator.control_url()),
        ("CA", ca.display().to_string()),
    ]
    .map(|(name, value)| format!("AZURE_EMULATOR_{name}={value}\n"))
    .concat()
}

/// All at once, so that nobody reads half a file.
fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let failed = |problem| Failure::Write(file.to_owned(), problem);
    std::fs::write(&name, text).map_err(failed)?;
    std::fs::rename(&name, file).map_err(failed)
}

/// The failure and its causes, on one line.
fn tell(failure: &Failure) {
    let mut text = format!("azure-emulator: {failure}");
    let mut cause = std::error::Error::source(failure);
    while let Some(problem) = cause {
        text = format!("{text}: {problem}");
        cause = problem.source();
    }
    let _ = writeln!(io::stderr(), "{text}");
}

const STOP_WITHIN: Duration = Duration::from_millis(800);
