//! Logs: to stderr, as text for a terminal and as JSON otherwise.
//!
//! Libraries below are capped at `info` whatever the filter says: HTTP stacks write headers and bodies
//! at `trace`, and those hold tokens (P1, threat T09).

use std::io::IsTerminal as _;

use tracing::Level;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging. `level` is what our own code may say: `info`, `debug`, `trace`.
pub fn start(level: LevelFilter) {
    let ours = FilterFn::new(|metadata| {
        metadata.target().starts_with("azdo_broker") || *metadata.level() <= Level::INFO
    });
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = if std::io::stderr().is_terminal() { to_stderr.boxed() } else { to_stderr.json().boxed() };
    tracing_subscriber::registry().with(layer.with_filter(level).with_filter(ours)).init();
}
