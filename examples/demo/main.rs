//! The demo: an account's service user and developers are linked, a job clones with nothing secret in it, and
//! the account's secret and identity change under way.
//!
//! Real processes, the broker's and the emulator's, talk as they would in production; this program
//! plays the people and services around them. `script/demo` builds and starts it.
//!
//! # Invariants
//!
//! 1. Whatever happens, a signal or a panic included, no process it started outlives it.
//! 2. A failure names the step, what was seen there, and where the logs are.

mod browser;
mod calls;
mod certificates;
mod form;
mod job;
mod narrator;
mod outcome;
mod people;
mod principal;
mod processes;
mod rotation;
mod serve;
mod settings;
mod story;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use narrator::Narrator;
use outcome::Outcome;
use processes::Processes;
use world::World;

/// Runs the broker's story against the Azure emulator.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Keep all running after the story, until SIGTERM or Ctrl-C
    #[arg(long)]
    serve: bool,
    /// Where everything is put; emptied first
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    dir: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let narrator = Narrator::new();
    let processes = Processes::default();
    // Not a branch of its own in the story: a signal ends whatever step is running, its commands too.
    let ended = tokio::select! {
        ended = tell(&arguments, &narrator, &processes) => ended.map(Some),
        told = told_to_stop() => told.map(|()| None),
    };
    let troubles = processes.stop().await;
    let ended = match ended {
        Ok(Some(())) if !troubles.is_empty() => {
            narrator.begin("stop");
            Err(troubles.join("; ").into())
        }
        ended => ended,
    };
    match ended {
        Ok(Some(())) => {
            narrator.finish();
            ExitCode::SUCCESS
        }
        Ok(None) => {
            narrator.stopped();
            // Whoever keeps it running ends it by a signal; anybody else has interrupted the story.
            if arguments.serve { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            narrator.fail(&outcome::chain(&*error), &arguments.dir);
            ExitCode::FAILURE
        }
    }
}

async fn tell(arguments: &Arguments, narrator: &Narrator, processes: &Processes) -> Outcome<()> {
    let world = World::build(&arguments.dir, narrator, processes).await?;
    story::register(&world, narrator).await?;
    story::link(&world, narrator).await?;
    people::link_developer(&world, narrator).await?;
    story::work(&world, narrator).await?;
    people::import(&world, narrator).await?;
    principal::switch(&world, narrator).await?;
    rotation::rotate(&world, narrator).await?;
    story::prove(&world, narrator).await?;
    if arguments.serve { serve::keep_running(&world, narrator, processes).await } else { Ok(()) }
}

async fn told_to_stop() -> Outcome<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
