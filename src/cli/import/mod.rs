//! `import`: takes over refresh tokens of another system, line by line, and waits until each is proven.
//!
//! # Invariants
//!
//! 1. What was sent is sealed before more is read; a run that was cut off is repeated from the start, and
//!    what it had done is known and skipped.
//! 2. A line that cannot be read ends the run before anything of it is sent, by its number alone: its text
//!    may hold a secret.

mod line;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::json;
use tonic::Code;

use super::{CALL_TIMEOUT, CliError, Session, actor, show};
use crate::client::{Remote, printable, within};
use crate::connection::Role;
use crate::pb;
use crate::reason::Reason;
use line::Lines;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[arg(value_name = "FILE", default_value = "-", help = FILE_HELP)]
    file: PathBuf,
    /// Import over live connections too
    #[arg(long)]
    replace: bool,
    /// Do not wait until each is proven by a refresh; the broker goes on with it by itself
    #[arg(long)]
    no_wait: bool,
}

const FILE_HELP: &str = r#"One JSON object a line: {"role": "developer", "developer_id": "ana", "refresh_token": "…", "account_id": "…", "expected_object_id": "…", "last_used_at": "2026-11-01T00:00:00Z"}; the last three may be left out. "-" is standard input"#;

/// What became of one connection, for the report.
struct Outcome {
    account_id: String,
    connection: String,
    state: State,
}

enum State {
    /// Sealed; nobody knows yet whose it is. With what is in the way, if something is that passes by itself.
    Sealed {
        trouble: Option<String>,
    },
    Proven(String),
    Failed(String),
}

pub(super) async fn run(session: &mut Session<'_, '_>, args: Args) -> Result<(), CliError> {
    let default_account = session.settings.account().ok().map(|account| account.to_string());
    let mut lines = Lines::new(BufReader::new(open(&args.file)?), default_account);
    let remote = session.remote().await?;
    let mut outcomes = Vec::new();
    while let Some(batch) = lines.next_batch()? {
        send(&remote, batch, args.replace, &mut outcomes).await?;
        writeln!(session.console.err, "{} sent …", outcomes.len())?;
    }
    if outcomes.is_empty() {
        return Err(CliError::Usage("there is nothing to import: no line was given".into()));
    }
    if !args.no_wait {
        wait(session, &remote, &mut outcomes).await?;
    }
    report(session, &outcomes)
}

fn open(path: &Path) -> Result<Box<dyn Read>, CliError> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    let file = File::open(path);
    let file = file.map_err(|error| CliError::Usage(format!("cannot read {}: {error}", path.display())))?;
    Ok(Box::new(file))
}

async fn send(
    remote: &Remote,
    (account_id, items): (String, Vec<pb::ImportItem>),
    replace: bool,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), CliError> {
    let request =
        pb::ImportConnectionsRequest { account_id: account_id.clone(), items, replace, actor: actor() };
    let answer = remote.connections().import_connections(within(SEND_TIMEOUT, request)).await?.into_inner();
    outcomes.extend(answer.results.into_iter().map(|result| Outcome {
        account_id: account_id.clone(),
        connection: show::connection_name(result.connection.as_ref()),
        state: match Code::from(result.code) {
            Code::Ok => State::Sealed { trouble: None },
            _ if result.reason.is_empty() => State::Failed(result.message),
            _ => State::Failed(format!("{} [{}]", result.message, result.reason)),
        },
    }));
    Ok(())
}

/// Looks until every connection is proven or stands still, and says how far it is.
async fn wait(
    session: &mut Session<'_, '_>,
    remote: &Remote,
    outcomes: &mut [Outcome],
) -> Result<(), CliError> {
    let (mut shown, mut still) = (usize::MAX, 0);
    loop {
        let open = look(remote, outcomes).await?;
        if open == shown {
            still += 1;
        } else {
            let proven = outcomes.iter().filter(|one| matches!(one.state, State::Proven(_))).count();
            writeln!(session.console.err, "{proven} proven, {open} to go …")?;
            (shown, still) = (open, 0);
        }
        if open == 0 || STILL_LOOKS_MAX <= still {
            return Ok(());
        }
        tokio::time::sleep(session.console.look_every).await;
    }
}

/// Looks at all accounts with open imports; returns how many are open then.
async fn look(remote: &Remote, outcomes: &mut [Outcome]) -> Result<usize, CliError> {
    let mut open: BTreeMap<String, Vec<&mut Outcome>> = BTreeMap::new();
    for outcome in outcomes.iter_mut().filter(|one| matches!(one.state, State::Sealed { .. })) {
        open.entry(outcome.account_id.clone()).or_default().push(outcome);
    }
    for (account_id, waiting) in &mut open {
        let stand = connections(remote, account_id).await?;
        for outcome in waiting {
            match stand.get(&outcome.connection) {
                Some(connection) => outcome.state = state_of(connection),
                None => outcome.state = ended(remote, account_id, &outcome.connection).await?,
            }
        }
    }
    Ok(outcomes.iter().filter(|one| matches!(one.state, State::Sealed { .. })).count())
}

async fn connections(
    remote: &Remote,
    account_id: &str,
) -> Result<BTreeMap<String, pb::Connection>, CliError> {
    let mut request = pb::ListConnectionsRequest {
        account_id: account_id.to_owned(),
        page_size: PAGE_SIZE,
        ..Default::default()
    };
    let mut found = BTreeMap::new();
    loop {
        let page =
            remote.connections().list_connections(within(CALL_TIMEOUT, request.clone())).await?.into_inner();
        let named = page.connections.into_iter();
        found.extend(named.map(|one| (show::connection_name(one.connection.as_ref()), one)));
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

/// A list leaves out what ended; asking for it says why.
async fn ended(remote: &Remote, account_id: &str, connection: &str) -> Result<State, CliError> {
    let Some(name) = name_of(connection) else { return Ok(State::Failed("it is gone".to_owned())) };
    let request = pb::GetConnectionRequest { account_id: account_id.to_owned(), connection: Some(name) };
    let answer = remote.connections().get_connection(within(CALL_TIMEOUT, request)).await?.into_inner();
    Ok(state_of(&answer))
}

fn name_of(connection: &str) -> Option<pb::ConnectionName> {
    let (role, developer_id) = match Role::parse(connection)? {
        Role::ServiceUser => (pb::Role::ServiceUser, String::new()),
        Role::ServicePrincipal => (pb::Role::ServicePrincipal, String::new()),
        Role::Developer(developer) => (pb::Role::Developer, developer.to_string()),
    };
    Some(pb::ConnectionName { role: role.into(), developer_id })
}

fn state_of(connection: &pb::Connection) -> State {
    let failure = connection.failure.clone().unwrap_or_default();
    let told = || format!("{} [{}]", failure.message, failure.reason);
    // One that this program does not know may need somebody.
    let passes = Reason::ALL.iter().any(|one| one.as_str() == failure.reason && one.is_transient());
    match connection.state() {
        pb::ConnectionState::Connected => State::Proven(show::identity(connection.identity.as_ref())),
        pb::ConnectionState::Imported | pb::ConnectionState::Unspecified => State::Sealed { trouble: None },
        pb::ConnectionState::Failing if passes => State::Sealed { trouble: Some(told()) },
        // It will be tried again, but whoever waits here should rather know who must act.
        pb::ConnectionState::Failing | pb::ConnectionState::NeedsRelink => State::Failed(told()),
        pb::ConnectionState::Disconnected if connection.failure.is_some() => State::Failed(told()),
        pb::ConnectionState::Disconnected => State::Failed("somebody disconnected it".to_owned()),
    }
}

fn report(session: &mut Session<'_, '_>, outcomes: &[Outcome]) -> Result<(), CliError> {
    let console = &mut *session.console;
    let failed = outcomes.iter().filter(|one| matches!(one.state, State::Failed(_))).count();
    if console.json {
        let outcome = |one: &Outcome| {
            let (state, text) = match &one.state {
                State::Sealed { trouble } => ("imported", trouble.as_deref().unwrap_or_default()),
                State::Proven(identity) => ("connected", identity.as_str()),
                State::Failed(why) => ("failed", why.as_str()),
            };
            json!({ "account_id": one.account_id, "connection": one.connection, "state": state, "text": text })
        };
        let results: Vec<_> = outcomes.iter().map(outcome).collect();
        console.print_json(&json!({ "results": results }))?;
    } else {
        let mut table = show::Table::new(&["ACCOUNT", "CONNECTION", "STATE", ""]);
        for one in outcomes {
            let (state, text) = match &one.state {
                State::Sealed { trouble } => ("imported", trouble.as_deref().unwrap_or("not proven yet")),
                State::Proven(identity) => ("connected", identity.as_str()),
                State::Failed(why) => ("failed", why.as_str()),
            };
            table.row([one.account_id.clone(), one.connection.clone(), state.to_owned(), printable(text)]);
        }
        table.print(console.out)?;
    }
    if failed == 0 {
        return Ok(());
    }
    Err(CliError::Failed(format!(
        "{failed} of {} were not imported; mend what can be mended and run it again: what is done is skipped",
        outcomes.len()
    )))
}

/// 20 grants, each one row to write and one line to record.
const SEND_TIMEOUT: std::time::Duration = std::time::Duration::from_mins(1);
const PAGE_SIZE: i32 = 1000;
/// Two minutes without progress at one look every 2 s: the broker goes on, but nobody need sit here.
const STILL_LOOKS_MAX: u32 = 60;

#[cfg(test)]
mod tests;
