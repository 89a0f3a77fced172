//! `connections watch`: how connections are and what happens to them, a line each, until somebody stops it.
//!
//! Trouble that passes ends no watch: it goes on from its cursor, and says on standard error that it waits. It ends
//! by what does not pass: no permission, a cursor that is too old, and a broker that was never there.

use std::convert::Infallible;
use std::time::Duration;

use serde_json::json;

use super::{CliError, Session, json, show};
use crate::backoff::Backoff;
use crate::client::{Explained, chain, explain, printable};
use crate::pb;
use crate::reason::Reason;
use crate::secret::make_luck;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Watch {
    /// Every account that policy allows, not one alone
    #[arg(long)]
    all_accounts: bool,
    /// Go on from here: a cursor that an earlier watch showed, at most a day ago
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

pub(super) async fn run(session: &mut Session<'_, '_>, args: Watch) -> Result<(), CliError> {
    let account_id = if args.all_accounts { String::new() } else { session.account()?.to_string() };
    let mut watched = Watched { cursor: args.cursor.unwrap_or_default(), silent: 0, is_heard: false };
    loop {
        let Err(ended) = follow(session, &account_id, &mut watched).await;
        let backoff = Backoff { min: session.console.look_every, max: RETRY_MAX };
        let wait = match ended {
            Ended::Elsewhere if watched.silent == 0 => session.console.look_every,
            Ended::Elsewhere => backoff.wait(watched.silent + 1, make_luck()),
            Ended::Trouble { why, retry_after } => {
                let backoff = backoff.wait(watched.silent + 1, make_luck());
                let wait = backoff.max(retry_after.unwrap_or_default());
                writeln!(session.console.err, "{why}: goes on in {} s", wait.as_secs())?;
                wait
            }
            Ended::Failed { error, is_of_cursor } => {
                if !watched.cursor.is_empty() && !is_of_cursor {
                    writeln!(
                        session.console.err,
                        "to go on from here: --cursor {}",
                        printable(&watched.cursor)
                    )?;
                }
                return Err(error);
            }
        };
        watched.silent = watched.silent.saturating_add(1);
        tokio::time::sleep(wait).await;
    }
}

/// How far it is.
struct Watched {
    cursor: String,
    /// Watches in a row that told nothing.
    silent: u32,
    /// Whether a broker ever answered: before that, nobody is there to wait for.
    is_heard: bool,
}

/// Why one watch told no more.
enum Ended {
    /// With its connection, as each does every few minutes: another one goes on.
    Elsewhere,
    /// By what passes.
    Trouble { why: String, retry_after: Option<Duration> },
    /// By what does not.
    Failed { error: CliError, is_of_cursor: bool },
}

/// Prints what is told, until it ends.
async fn follow(
    session: &mut Session<'_, '_>,
    account_id: &str,
    watched: &mut Watched,
) -> Result<Infallible, Ended> {
    let remote = session.remote().await.map_err(|error| match error {
        CliError::Client(error) if watched.is_heard && !error.is_usage() => {
            Ended::Trouble { why: chain(&error), retry_after: None }
        }
        error => error.into(),
    })?;
    let request =
        pb::WatchConnectionsRequest { account_id: account_id.into(), cursor: watched.cursor.clone() };
    let mut told = match remote.connections().watch_connections(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(Ended::by(explain(&status), watched)),
    };
    loop {
        match told.message().await {
            Ok(Some(event)) => {
                print(session, &event)?;
                (watched.silent, watched.is_heard) = (0, true);
                if !event.cursor.is_empty() {
                    watched.cursor = event.cursor;
                }
            }
            Ok(None) => return Err(Ended::Elsewhere),
            Err(status) => return Err(Ended::by(explain(&status), watched)),
        }
    }
}

impl Ended {
    fn by(explained: Explained, watched: &mut Watched) -> Self {
        watched.is_heard |= explained.reason.is_some();
        if explained.reason.as_deref() == Some(Reason::ShuttingDown.as_str()) {
            return Self::Elsewhere;
        }
        if watched.is_heard && explained.passes() {
            return Self::Trouble { why: explained.in_short(), retry_after: explained.retry_after };
        }
        let is_gone = explained.reason.as_deref() == Some(Reason::SnapshotGone.as_str());
        let is_of_cursor = is_gone || explained.code == "INVALID_ARGUMENT";
        Self::Failed { error: CliError::Refused(Box::new(explained)), is_of_cursor }
    }
}

impl From<CliError> for Ended {
    fn from(error: CliError) -> Self {
        Self::Failed { error, is_of_cursor: false }
    }
}

fn print(session: &mut Session<'_, '_>, event: &pb::WatchConnectionsResponse) -> Result<(), CliError> {
    let console = &mut *session.console;
    let kind = show::word(event.kind().as_str_name(), "CONNECTION_EVENT_KIND_");
    if console.json {
        let line = json!({
            "kind": kind,
            "connection": event.connection.as_ref().map(json::connection),
            "occurred_at": json::at(event.occurred_at.as_ref()),
            "cursor": Some(&event.cursor).filter(|cursor| !cursor.is_empty()),
        });
        writeln!(console.out, "{line}")?;
        return Ok(console.out.flush()?);
    }
    let when = show::time(event.occurred_at.as_ref()).map_or("-".to_owned(), |at| format!("{at:.0}"));
    let mut line = format!("{when}  {:<12}", kind.replace('_', " "));
    if let Some(connection) = &event.connection {
        let name = show::connection_name(connection.connection.as_ref());
        let who = show::identity(connection.identity.as_ref());
        line = format!("{line}  {}  {name}  {who}", printable(&connection.account_id));
        if let Some(failure) = &connection.failure {
            line = format!("{line}  {}: {}", printable(&failure.reason), printable(&failure.message));
        }
    }
    writeln!(console.out, "{}", line.trim_end())?;
    console.out.flush()?;
    let warnings = event.connection.as_ref().map_or(&[][..], |connection| &connection.warnings);
    Ok(show::print_warnings(console.err, warnings)?)
}

/// Between two attempts, however long there is trouble.
const RETRY_MAX: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::super::Exit;
    use super::super::fake::{Fake, Run};
    use super::*;

    fn event(kind: pb::ConnectionEventKind, cursor: &str) -> pb::WatchConnectionsResponse {
        let connection = pb::Connection {
            account_id: "acme".into(),
            connection: Some(pb::ConnectionName {
                role: pb::Role::ServiceUser.into(),
                developer_id: String::new(),
            }),
            failure: (kind == pb::ConnectionEventKind::NeedsRelink).then(|| pb::Failure {
                reason: "RELINK_REQUIRED".into(),
                message: "The person must link again.".into(),
                ..pb::Failure::default()
            }),
            warnings: vec![pb::Warning { code: "GRANT_EXPIRES".into(), text: "in 7 days".into() }],
            ..pb::Connection::default()
        };
        pb::WatchConnectionsResponse {
            kind: kind.into(),
            connection: (kind != pb::ConnectionEventKind::Synced).then_some(connection),
            occurred_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5 }),
            cursor: cursor.into(),
        }
    }

    fn ended(reason: &str, code: Code) -> Status {
        let details = ErrorDetails::with_error_info(reason, "azdo-broker", HashMap::new());
        Status::with_error_details(code, "ended", details)
    }

    /// Tells one thing, goes away, has all kinds of trouble, and then refuses.
    fn broker() -> Fake {
        let watches = AtomicUsize::new(0);
        Fake::default().on_stream(
            "Connections/WatchConnections",
            move |request: pb::WatchConnectionsRequest| match watches.fetch_add(1, Ordering::Relaxed) {
                0 => {
                    assert_eq!((request.account_id.as_str(), request.cursor.as_str()), ("acme", ""));
                    vec![
                        Ok(event(pb::ConnectionEventKind::Present, "")),
                        Ok(event(pb::ConnectionEventKind::Synced, "one")),
                        Err(ended("SHUTTING_DOWN", Code::Unavailable)),
                    ]
                }
                1 => {
                    assert_eq!(request.cursor, "one");
                    vec![
                        Ok(event(pb::ConnectionEventKind::NeedsRelink, "two")),
                        Err(ended("RATE_LIMITED", Code::ResourceExhausted)),
                    ]
                }
                2..8 => {
                    assert_eq!(request.cursor, "two");
                    vec![Err(ended("STORE_UNAVAILABLE", Code::Unavailable))]
                }
                8 => vec![Err(Status::unavailable("a proxy says so"))],
                9 => {
                    assert_eq!(request.cursor, "two");
                    vec![Err(Status::permission_denied("not any more"))]
                }
                _ => panic!("what does not pass ends the command"),
            },
        )
    }

    #[tokio::test]
    async fn each_event_is_a_line_and_a_watch_goes_on_through_what_passes() {
        let ran = Run::new(&["connections", "watch"]).against(broker()).await;
        assert_eq!(ran.exit, Exit::Failed, "{ran:?}");
        let lines: Vec<_> = ran.out.lines().collect();
        assert_eq!(
            lines,
            [
                "2023-11-14T22:13:20Z  present       acme  service_user  -",
                "2023-11-14T22:13:20Z  synced",
                "2023-11-14T22:13:20Z  needs relink  acme  service_user  -  RELINK_REQUIRED: The person must link again.",
            ]
        );
        let said = |words| ran.err.lines().filter(|line| line.contains(words)).count();
        assert_eq!(
            (said("RATE_LIMITED"), said("STORE_UNAVAILABLE"), said("a proxy says so")),
            (1, 6, 1),
            "{ran:?}"
        );
        assert_eq!(said("warning: in 7 days [GRANT_EXPIRES]"), 2, "{ran:?}");
        assert_eq!(
            (said(": goes on in 0 s"), said("--cursor two"), said("not any more")),
            (8, 1, 1),
            "{ran:?}"
        );
    }

    #[tokio::test]
    async fn a_cursor_that_is_known_no_more_ends_the_command_and_is_not_offered_again() {
        let refuses =
            Fake::default().on_stream("Connections/WatchConnections", |_: pb::WatchConnectionsRequest| {
                vec![Err::<pb::WatchConnectionsResponse, _>(ended("SNAPSHOT_GONE", Code::Aborted))]
            });
        let ran = Run::new(&["connections", "watch", "--cursor=old"]).against(refuses).await;
        assert_eq!(ran.exit, Exit::Failed, "{ran:?}");
        assert!(ran.err.contains("SNAPSHOT_GONE") && !ran.err.contains("--cursor old"), "{ran:?}");
    }

    #[tokio::test]
    async fn in_json_each_line_is_an_object_with_its_cursor() {
        let ran = Run::new(&["connections", "watch", "--json"]).against(broker()).await;
        let lines = ran.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let said: Vec<_> = lines.map(|line| (line["kind"].clone(), line["cursor"].clone())).collect();
        let null = serde_json::Value::Null;
        assert_eq!(
            said,
            [
                ("present".into(), null),
                ("synced".into(), "one".into()),
                ("needs_relink".into(), "two".into())
            ]
        );
    }
}
