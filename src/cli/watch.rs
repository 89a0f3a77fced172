//! `connections watch`: how connections are and what happens to them, a line each, until somebody stops it.

use serde_json::json;

use super::{CliError, Session, json, show};
use crate::client::{Explained, explain, printable};
use crate::pb;
use crate::reason::Reason;

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
    let mut cursor = args.cursor.unwrap_or_default();
    let mut silent = 0;
    loop {
        let request = pb::WatchConnectionsRequest { account_id: account_id.clone(), cursor: cursor.clone() };
        match follow(session, request, &mut cursor, &mut silent).await {
            // Watches end with their connection, every few minutes; another one goes on.
            Ended::Elsewhere if silent < SILENT_MAX => {
                silent += 1;
                tokio::time::sleep(session.console.look_every).await;
            }
            Ended::Elsewhere => return Err(CliError::Failed("the broker ends each watch at once".into())),
            Ended::Failed(error) => {
                if !cursor.is_empty() {
                    writeln!(session.console.err, "to go on from here: --cursor {}", printable(&cursor))?;
                }
                return Err(error);
            }
        }
    }
}

enum Ended {
    /// Another replica, or this one on another connection, goes on.
    Elsewhere,
    Failed(CliError),
}

/// Prints what is told; why it ended.
async fn follow(
    session: &mut Session<'_, '_>,
    request: pb::WatchConnectionsRequest,
    cursor: &mut String,
    silent: &mut u32,
) -> Ended {
    let remote = match session.remote().await {
        Ok(remote) => remote,
        // It was there a moment ago: a restart takes some seconds.
        Err(_) if 0 < *silent => return Ended::Elsewhere,
        Err(error) => return Ended::Failed(error),
    };
    let mut told = match remote.connections().watch_connections(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ended::by(explain(&status)),
    };
    loop {
        match told.message().await {
            Ok(Some(event)) => {
                *silent = 0;
                if !event.cursor.is_empty() {
                    cursor.clone_from(&event.cursor);
                }
                if let Err(error) = print(session, &event) {
                    return Ended::Failed(error);
                }
            }
            Ok(None) => return Ended::Elsewhere,
            Err(status) => return Ended::by(explain(&status)),
        }
    }
}

impl Ended {
    fn by(explained: Explained) -> Self {
        if explained.reason.as_deref() == Some(Reason::ShuttingDown.as_str()) {
            return Self::Elsewhere;
        }
        Self::Failed(CliError::Refused(Box::new(explained)))
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
    Ok(console.out.flush()?)
}

/// Watches in a row that told nothing, two seconds apart: more than a restart takes.
const SILENT_MAX: u32 = 30;

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

    /// Tells one thing, goes away, and refuses the third watch.
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
                _ => panic!("only a watch that ends elsewhere is gone on with"),
            },
        )
    }

    #[tokio::test]
    async fn each_event_is_a_line_and_a_watch_that_ends_elsewhere_goes_on() {
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
        assert!(ran.err.contains("--cursor two") && ran.err.contains("RATE_LIMITED"), "{ran:?}");
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
