//! The command line's questions to a running broker: one file per subcommand, gRPC only.
//!
//! # Invariants
//!
//! 1. A secret is never taken from the command line, and never printed unless `token --reveal` asks.
//! 2. Standard output carries the answer alone; talk and troubles go to standard error.
//! 3. What others chose (names, logins, messages) is made printable before a terminal sees it.
//!
//! It opens no store, no key and no configuration of the broker: that is `offline`'s.

pub mod connections;
pub mod credential;
pub mod doctor;
pub mod git_setup;
pub mod import;
pub mod integration;
pub mod link;
pub mod repos;
pub mod token;
mod watch;

#[cfg(test)]
mod fake;
mod json;
mod show;

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use tonic::Status;

use crate::client::{ClientError, Explained, Remote, Settings, chain, explain};
use crate::clock::{Clock as _, SystemClock};
use crate::ids::AccountId;

/// Where the broker is and whom to ask about; each also from `AZDO_BROKER_*`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GlobalArgs {
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        help = "The broker: unix:/path or https://host:port [env: AZDO_BROKER_ADDRESS]"
    )]
    pub address: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "PEM file of the CA that signed the broker's certificate [env: AZDO_BROKER_CA]"
    )]
    pub ca: Option<PathBuf>,
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "PEM file of our client certificate [env: AZDO_BROKER_CERT]"
    )]
    pub cert: Option<PathBuf>,
    #[arg(long, global = true, value_name = "FILE", help = "PEM file of its key [env: AZDO_BROKER_KEY]")]
    pub key: Option<PathBuf>,
    #[arg(
        long,
        global = true,
        value_name = "ACCOUNT",
        help = "The customer's account on the platform [env: AZDO_BROKER_ACCOUNT]"
    )]
    pub account: Option<String>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Register an account's Azure DevOps organization and Entra app, or look at it
    #[command(subcommand)]
    Integration(integration::Command),
    /// Connect an identity by signing in
    #[command(subcommand)]
    Link(link::Command),
    /// Who an account is connected as
    Connections(connections::Args),
    /// The repositories the account's identity can read
    Repos(repos::Args),
    /// A short-lived access token, the account's or a developer's: its fingerprint, or with --reveal itself
    Token(token::Args),
    /// Try everything about an account that can be tried without a person
    Doctor(doctor::Args),
    /// Take over refresh tokens that another system holds
    Import(import::Args),
    /// Make git ask this broker for Azure Repos
    GitSetup(git_setup::Args),
}

/// How it went: 0, 1 or 64.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    Done,
    Failed,
    Usage,
}

/// Where a command talks, and to whom.
pub struct Console<'a> {
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
    /// How to read a person's line; none if nobody sits there.
    pub person: Option<Ask>,
    pub json: bool,
    pub now: Timestamp,
    /// How long to wait between two looks at a link.
    pub look_every: Duration,
}

/// Waits for a line that a person types.
pub type Ask = fn() -> io::Result<String>;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Refused(Box<Explained>),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
}

/// A command's arguments after the edge: a broker to ask, and whom to ask about.
struct Session<'a, 'c> {
    settings: Settings,
    console: &'a mut Console<'c>,
}

/// Runs one command to its end.
pub async fn run(global: &GlobalArgs, command: Command, console: &mut Console<'_>) -> Exit {
    let session = &mut Session { settings: global.settings().or(Settings::from_environment()), console };
    let done = match command {
        Command::Integration(command) => integration::run(session, command).await,
        Command::Link(command) => link::run(session, command).await,
        Command::Connections(args) => connections::run(session, args).await,
        Command::Repos(args) => repos::run(session, args).await,
        Command::Token(args) => token::run(session, args).await,
        Command::Doctor(args) => doctor::run(session, args).await,
        Command::Import(args) => import::run(session, args).await,
        Command::GitSetup(args) => git_setup::run(session, &args, &global.settings()),
    };
    match done.and_then(|()| Ok(console.out.flush()?)) {
        Ok(()) => Exit::Done,
        Err(error) => error.tell(console),
    }
}

impl GlobalArgs {
    fn settings(&self) -> Settings {
        Settings {
            address: self.address.clone(),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            account: self.account.clone(),
            developer: None,
        }
    }
}

impl<'a> Console<'a> {
    /// The process's own terminal or pipes.
    pub fn new(global: &GlobalArgs, out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        let person = io::stdin().is_terminal() && io::stderr().is_terminal();
        Self {
            out,
            err,
            person: person.then_some(read_line as Ask),
            json: global.json,
            now: SystemClock::default().now().wall,
            look_every: LOOK_EVERY,
        }
    }

    fn print_json(&mut self, value: &serde_json::Value) -> Result<(), CliError> {
        Ok(writeln!(self.out, "{value:#}")?)
    }

    /// Asks a question that only a typed `y` or `yes` affirms.
    async fn ask(&mut self, ask: Ask, question: &str) -> Result<bool, CliError> {
        write!(self.err, "{question} [y/N] ")?;
        self.err.flush()?;
        // A thread of its own: a blocked read must not keep the runtime from ending.
        let (answered, answer) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || answered.send(ask()));
        let line = answer.await.map_err(|_| CliError::Failed("nobody answered".into()))??;
        Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

impl Session<'_, '_> {
    async fn remote(&self) -> Result<Remote, CliError> {
        Ok(Remote::connect(&self.settings).await?)
    }

    fn account(&self) -> Result<AccountId, CliError> {
        Ok(self.settings.account()?)
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(explain(&status)))
    }
}

impl CliError {
    fn tell(&self, console: &mut Console<'_>) -> Exit {
        let exit = match self {
            Self::Client(error) if error.is_usage() => Exit::Usage,
            Self::Usage(_) => Exit::Usage,
            Self::Client(_) | Self::Refused(_) | Self::Failed(_) | Self::Output(_) => Exit::Failed,
        };
        // If even standard error is gone, the exit code has to say it.
        let _ = match (console.json, self) {
            (true, Self::Refused(explained)) => writeln!(console.err, "{:#}", json::refusal(explained)),
            (true, error) => {
                writeln!(console.err, "{:#}", serde_json::json!({ "error": { "message": chain(error) } }))
            }
            (false, error) => writeln!(console.err, "error: {}", chain(error)),
        };
        exit
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 64,
        })
    }
}

/// The person who sits here, for the audit; the broker records it and trusts it for nothing.
fn actor() -> String {
    let name = std::env::var_os("USER").and_then(|name| name.into_string().ok()).unwrap_or_default();
    if name.len() <= ACTOR_LEN_MAX && !name.chars().any(char::is_control) { name } else { String::new() }
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line)
}

/// The contract's limit of a label.
const ACTOR_LEN_MAX: usize = 256;
/// The contract asks for one look every 2 s at most.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The broker gives up after 10 s; its own words about that are better than ours.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);
