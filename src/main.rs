//! `azdo-broker`: from arguments to a running broker, an offline command, or a call to a running one.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use azdo_broker::clock::SystemClock;
use azdo_broker::config::Config;
use azdo_broker::lifecycle::{Ended, told_to_stop};
use azdo_broker::offline::{self, OfflineError};
use azdo_broker::{app, cli, client, process, telemetry};
use clap::{Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;

/// Owns the Entra ID secrets and tokens of an Azure DevOps integration and hands out short-lived access.
#[derive(Parser)]
#[command(name = "azdo-broker", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    remote: cli::GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the broker
    Serve {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// What the log tells of our own code; libraries stay at info, because they would log tokens
        #[arg(long, default_value = "info", value_name = "LEVEL")]
        log: LevelFilter,
    },
    /// Check a configuration and the files it names, without starting anything
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Make a store, or move one to another place
    #[command(subcommand)]
    Store(StoreCommand),
    /// Make keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Check a policy
    #[command(subcommand)]
    Policy(PolicyCommand),
    #[command(flatten)]
    Remote(cli::Command),
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Make the store the configuration names; an existing one is never touched
    Init {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Move a store to another place, from a file into a database or back; stop all brokers before
    ///
    /// Rows are copied sealed: the key file stays the same. What was copied is counted on both sides; then the old
    /// store is marked as moved, and refused from then on. A copy that broke off is run again until it is done:
    /// until then neither store is served. What happened to connections (the outbox) is left behind: watches begin
    /// again.
    Copy {
        /// The configuration that names the store as it is
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The configuration that names the place to move it to
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Make a key file
    New {
        /// Where; it must not exist
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Check a policy file
    Check {
        /// The policy file
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let told = error.print().is_ok();
            let asked_for_help = !error.use_stderr();
            return if told && asked_for_help { ExitCode::SUCCESS } else { ExitCode::from(BAD_USAGE) };
        }
    };
    match arguments.command {
        Command::Serve { config, log } => serve(&config, log),
        Command::Check { config } => done(offline::check(&config)),
        Command::Store(StoreCommand::Init { config }) => in_runtime(offline::store_init(&config)),
        Command::Store(StoreCommand::Copy { config, to }) => {
            let mut progress = |sentence: String| {
                let _written = writeln!(std::io::stderr(), "{sentence}");
            };
            in_runtime(offline::store_copy(&config, &to, &mut progress))
        }
        Command::Keys(KeysCommand::New { file }) => done(offline::keys_new(&file)),
        Command::Policy(PolicyCommand::Check { file }) => done(offline::policy_check(&file)),
        Command::Remote(command) => remote(&arguments.remote, command),
    }
}

fn serve(config: &std::path::Path, log: LevelFilter) -> ExitCode {
    let config = match Config::read(config) {
        Ok(config) => config,
        Err(problems) => return fail(&problems.to_string(), BAD_USAGE),
    };
    telemetry::start(log);
    process::harden();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime does not start: {error}"), FAILED),
    };
    let ended = runtime.block_on(async {
        let bound = app::build(config, Arc::new(SystemClock::default())).await?;
        tracing::info!(listen.tcp = ?bound.tcp, listen.links = %bound.links, listen.admin = %bound.admin, "serving");
        let told = async {
            if let Err(error) = told_to_stop().await {
                tracing::error!(error = &error as &dyn std::error::Error, "signals cannot be watched");
            }
        };
        Ok::<Ended, app::BuildError>(bound.run(told).await)
    });
    // A sink that hangs holds a thread; waiting for it would be waiting for ever.
    runtime.shutdown_timeout(THREADS_END_WITHIN);
    match ended {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Crashed) => ExitCode::from(FAILED),
        Err(error) => fail(&client::chain(&error), FAILED),
    }
}

fn remote(global: &cli::GlobalArgs, command: cli::Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime does not start: {error}"), FAILED),
    };
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    let mut console = cli::Console::new(global, &mut out, &mut err);
    runtime.block_on(cli::run(global, command, &mut console)).into()
}

fn in_runtime(work: impl Future<Output = Result<String, OfflineError>>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => done(runtime.block_on(work)),
        Err(error) => fail(&format!("the runtime does not start: {error}"), FAILED),
    }
}

fn done(outcome: Result<String, OfflineError>) -> ExitCode {
    match outcome {
        Ok(sentence) => {
            // A closed pipe is the reader's choice.
            let _written = writeln!(std::io::stdout(), "{sentence}");
            ExitCode::SUCCESS
        }
        Err(error @ (OfflineError::Config(_) | OfflineError::Policy(_))) => {
            fail(&client::chain(&error), BAD_USAGE)
        }
        Err(error) => fail(&client::chain(&error), FAILED),
    }
}

fn fail(sentence: &str, code: u8) -> ExitCode {
    let _written = writeln!(std::io::stderr(), "azdo-broker: {sentence}");
    ExitCode::from(code)
}

const THREADS_END_WITHIN: Duration = Duration::from_secs(1);
const FAILED: u8 = 1;
/// `EX_USAGE`: bad usage or configuration.
const BAD_USAGE: u8 = 64;
