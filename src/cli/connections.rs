//! `connections`: who an account is connected as, how that is going, and the end of it.

use std::io;

use serde_json::json;

use super::{CALL_TIMEOUT, CliError, Console, Session, actor, json, show, watch};
use crate::client::{printable, within};
use crate::pb;

#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Connect the account's app itself, by its client credentials
    ConnectServicePrincipal,
    /// End a connection and wipe its grant
    Disconnect(Disconnect),
    /// List which connections a restored backup set back, and with --yes take them as they are there
    ///
    /// Whatever was linked or disconnected after the backup was made is refused, because it may be an attack. If you
    /// restored the store on purpose, look at the list: what was disconnected comes back to life, what was linked
    /// anew is its former self again, and what is not in the backup must be linked again. What you do not want back
    /// so is to be disconnected, or linked anew, which needs no word of yours.
    AcceptRestore(AcceptRestore),
    /// Tell how connections are and what happens to them, a line each
    Watch(watch::Watch),
}

#[derive(Clone, Debug, clap::Args)]
struct AcceptRestore {
    /// Those of every account, as far as the replica that answers found them; with --account also others' findings
    #[arg(long)]
    all: bool,
    /// Accept them; without it nothing is changed, they are only listed
    #[arg(long)]
    yes: bool,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    note: String,
}

#[derive(Clone, Debug, clap::Args)]
struct Disconnect {
    /// Which connection
    #[arg(value_enum)]
    role: Role,
    /// Whose, with the role developer
    #[arg(long, value_name = "ID", required_if_eq("role", "developer"))]
    developer: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Role {
    ServiceUser,
    ServicePrincipal,
    Developer,
}

pub(super) async fn run(session: &mut Session<'_, '_>, args: Args) -> Result<(), CliError> {
    match args.command {
        None => list(session).await,
        Some(Command::ConnectServicePrincipal) => connect_service_principal(session).await,
        Some(Command::Disconnect(args)) => disconnect(session, args).await,
        Some(Command::AcceptRestore(args)) => accept_restore(session, args).await,
        Some(Command::Watch(args)) => watch::run(session, args).await,
    }
}

async fn list(session: &mut Session<'_, '_>) -> Result<(), CliError> {
    let account_id = session.account()?.to_string();
    let mut client = session.remote().await?.connections();
    let mut request = pb::ListConnectionsRequest { account_id, ..Default::default() };
    let mut connections = Vec::new();
    loop {
        let page = client.list_connections(within(CALL_TIMEOUT, request.clone())).await?.into_inner();
        connections.extend(page.connections);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let console = &mut *session.console;
    if console.json {
        let connections: Vec<_> = connections.iter().map(json::connection).collect();
        return console.print_json(&json!({ "connections": connections }));
    }
    if connections.is_empty() {
        writeln!(console.err, "{} is not connected: `azdo-broker link service-user`", request.account_id)?;
        return Ok(());
    }
    let mut table = show::Table::new(&["CONNECTION", "IDENTITY", "STATE", "LINKED", "BY", "TOKEN EXPIRES"]);
    for connection in &connections {
        table.row([
            show::connection_name(connection.connection.as_ref()),
            show::identity(connection.identity.as_ref()),
            state_word(connection),
            show::when(connection.linked_at.as_ref(), console.now),
            if connection.linked_by.is_empty() { "-".to_owned() } else { connection.linked_by.clone() },
            show::when(connection.token_expires_at.as_ref(), console.now),
        ]);
    }
    table.print(console.out)?;
    for connection in &connections {
        print_troubles(session, connection)?;
    }
    Ok(())
}

async fn accept_restore(session: &mut Session<'_, '_>, args: AcceptRestore) -> Result<(), CliError> {
    let AcceptRestore { all: all_accounts, yes, note } = args;
    let account_id = if all_accounts { String::new() } else { session.account()?.to_string() };
    let request = pb::AcceptRestoreRequest {
        account_id,
        all_accounts,
        dry_run: !yes,
        note,
        actor: actor(),
        connection: None,
    };
    let mut client = session.remote().await?.operations();
    let answer = client.accept_restore(within(CALL_TIMEOUT, request)).await?.into_inner();
    let pb::AcceptRestoreResponse { accepted, refused, connections } = answer;
    let console = &mut *session.console;
    if console.json {
        let connections: Vec<_> = connections.iter().map(json::restored).collect();
        let counted = if yes { "accepted" } else { "to_accept" };
        console.print_json(&json!({ counted: accepted, "refused": refused, "connections": connections }))?;
    } else if connections.is_empty() {
        writeln!(console.err, "nothing went back, as far as the broker that answered knows")?;
    } else {
        show_restored(console, &connections)?;
        if yes {
            writeln!(console.out, "{accepted} accepted")?;
        } else {
            writeln!(console.err, "{accepted} to accept; nothing was changed: --yes accepts them")?;
        }
    }
    if refused == 0 {
        return Ok(());
    }
    Err(CliError::Failed(format!("{refused} could not be accepted: link them again, or disconnect them")))
}

fn show_restored(console: &mut Console<'_>, connections: &[pb::RestoredConnection]) -> io::Result<()> {
    let mut table = show::Table::new(&["ACCOUNT", "CONNECTION", "WHAT WAS SEEN SINCE"]);
    for connection in connections {
        let since = match (connection.was_disconnected, connection.generation) {
            _ if !connection.refused.is_empty() => {
                format!("not accepted: {}", printable(&connection.refused))
            }
            (true, _) => "disconnected: comes back to life".to_owned(),
            (false, 0) => "linked: is not in the store, link it again".to_owned(),
            (false, _) => "linked anew: is its former self again".to_owned(),
        };
        table.row([
            printable(&connection.account_id),
            show::connection_name(connection.connection.as_ref()),
            since,
        ]);
    }
    table.print(console.out)
}

async fn connect_service_principal(session: &mut Session<'_, '_>) -> Result<(), CliError> {
    let account_id = session.account()?.to_string();
    let request = pb::ConnectServicePrincipalRequest { account_id, actor: actor() };
    let mut client = session.remote().await?.connections();
    let connected = client.connect_service_principal(within(CALL_TIMEOUT, request)).await?.into_inner();
    let console = &mut *session.console;
    if console.json {
        return console.print_json(&json::connection(&connected));
    }
    let who = show::identity(connected.identity.as_ref());
    writeln!(console.out, "connected as the service principal {who}")?;
    writeln!(
        console.err,
        "It answers for the account after `azdo-broker integration put --headless service-principal …`."
    )?;
    Ok(show::print_warnings(console.err, &connected.warnings)?)
}

fn print_troubles(session: &mut Session<'_, '_>, connection: &pb::Connection) -> Result<(), CliError> {
    let console = &mut *session.console;
    if let Some(failure) = &connection.failure {
        let name = show::connection_name(connection.connection.as_ref());
        let since = show::when(failure.since.as_ref(), console.now);
        let (message, reason) = (printable(&failure.message), printable(&failure.reason));
        writeln!(console.out, "\n{name}: {reason}")?;
        writeln!(console.out, "  failing:    {} times, since {since}", failure.count)?;
        if !failure.who_acts.is_empty() {
            writeln!(console.out, "  who acts:   {}", printable(&failure.who_acts))?;
        }
        writeln!(console.out, "  what to do: {message}")?;
    }
    Ok(show::print_warnings(console.err, &connection.warnings)?)
}

async fn disconnect(session: &mut Session<'_, '_>, args: Disconnect) -> Result<(), CliError> {
    let account_id = session.account()?.to_string();
    let (role, developer_id) = match (args.role, args.developer) {
        (Role::ServiceUser, None) => (pb::Role::ServiceUser, String::new()),
        (Role::ServicePrincipal, None) => (pb::Role::ServicePrincipal, String::new()),
        (Role::Developer, Some(developer)) => (pb::Role::Developer, developer),
        (Role::Developer, None) => return Err(CliError::Usage("which developer? Add --developer ID".into())),
        (Role::ServiceUser | Role::ServicePrincipal, Some(_)) => {
            return Err(CliError::Usage("--developer goes only with the role developer".into()));
        }
    };
    let connection = pb::ConnectionName { role: role.into(), developer_id };
    let name = show::connection_name(Some(&connection));
    if !args.yes {
        let Some(ask) = session.console.person else {
            return Err(CliError::Usage(format!(
                "nobody is here to be asked; --yes disconnects {name} of {account_id}"
            )));
        };
        let question = format!("Disconnect {name} of {account_id}? It must be linked again to come back.");
        if !session.console.ask(ask, &question).await? {
            return Err(CliError::Failed("nothing was disconnected".into()));
        }
    }
    let request = pb::DisconnectRequest { account_id, connection: Some(connection), actor: actor() };
    let mut client = session.remote().await?.connections();
    let gone = client.disconnect(within(CALL_TIMEOUT, request)).await?.into_inner();
    let console = &mut *session.console;
    if console.json {
        return console.print_json(&json::connection(&gone));
    }
    let who = show::identity(gone.identity.as_ref());
    writeln!(console.out, "{name} of {} is disconnected; it was {who}.", printable(&gone.account_id))?;
    writeln!(console.err, "Tokens handed out live until they expire.")?;
    Ok(())
}

fn state_word(connection: &pb::Connection) -> String {
    show::word(connection.state().as_str_name(), "CONNECTION_STATE_").replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::super::Exit;
    use super::super::fake::{Fake, Run};
    use super::*;

    fn failing() -> pb::Connection {
        pb::Connection {
            account_id: "acme".into(),
            connection: Some(pb::ConnectionName {
                role: pb::Role::ServiceUser.into(),
                developer_id: String::new(),
            }),
            identity: Some(pb::Identity { login: "svc@contoso.com".into(), ..Default::default() }),
            state: pb::ConnectionState::NeedsRelink.into(),
            failure: Some(pb::Failure {
                reason: "RELINK_REQUIRED".into(),
                message: "svc must link again".into(),
                count: 3,
                who_acts: "the linked person".into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_failing_connection_says_who_must_do_what() {
        let broker = Fake::default().on("Connections/ListConnections", |_: pb::ListConnectionsRequest| {
            Ok(pb::ListConnectionsResponse { connections: vec![failing()], ..Default::default() })
        });
        let run = Run::new(&["connections"]).against(broker).await;
        for words in ["svc@contoso.com", "needs relink", "the linked person", "must link again"] {
            assert!(run.out.contains(words), "{run:?}");
        }
    }

    #[tokio::test]
    async fn a_restore_is_accepted_only_with_yes_and_each_consequence_is_told() {
        let broker = || {
            Fake::default().on("Operations/AcceptRestore", |request: pb::AcceptRestoreRequest| {
                let went_back = |generation, was_disconnected| pb::RestoredConnection {
                    account_id: request.account_id.clone(),
                    generation,
                    was_disconnected,
                    ..Default::default()
                };
                let connections = vec![went_back(7, true), went_back(7, false), went_back(0, false)];
                // The count tells which it was.
                let accepted = if request.dry_run { 3 } else { 2 };
                Ok(pb::AcceptRestoreResponse { accepted, connections, refused: 0 })
            })
        };
        let listed = Run::new(&["connections", "accept-restore"]).against(broker()).await;
        for words in ["acme", "comes back to life", "its former self again", "link it again"] {
            assert!(listed.out.contains(words), "{listed:?}");
        }
        assert!(listed.err.contains("3 to accept; nothing was changed: --yes"), "{listed:?}");
        let accepted = Run::new(&["connections", "accept-restore", "--yes"]).against(broker()).await;
        assert!(accepted.out.ends_with("2 accepted\n") && accepted.err.is_empty(), "{accepted:?}");
    }

    #[tokio::test]
    async fn what_could_not_be_accepted_is_told_and_is_no_success() {
        let broker = Fake::default().on("Operations/AcceptRestore", |_: pb::AcceptRestoreRequest| {
            let damaged = pb::RestoredConnection { refused: "RECORD_DAMAGED".into(), ..Default::default() };
            Ok(pb::AcceptRestoreResponse { accepted: 1, connections: vec![damaged], refused: 1 })
        });
        let run = Run::new(&["connections", "accept-restore", "--yes"]).against(broker).await;
        assert!(
            run.out.contains("not accepted: RECORD_DAMAGED") && run.err.contains("1 could not"),
            "{run:?}"
        );
        assert_ne!(run.exit, Exit::Done);
    }

    #[tokio::test]
    async fn without_a_person_or_yes_nothing_is_disconnected() {
        let broker = || {
            Fake::default().on("Connections/Disconnect", |request: pb::DisconnectRequest| {
                assert_eq!(request.connection.unwrap().role(), pb::Role::ServiceUser);
                Ok(failing())
            })
        };
        let args = ["connections", "disconnect", "service-user"];
        let unasked = Run::new(&args).against(broker()).await;
        assert_eq!(unasked.exit, Exit::Usage);
        let declined = Run::new(&args).with_person(|| Ok("\n".into())).against(broker()).await;
        assert_eq!((declined.exit, declined.out.as_str()), (Exit::Failed, ""));
        let meant = Run::new(&args).args(&["--yes"]).against(broker()).await;
        assert_eq!(meant.exit, Exit::Done, "{meant:?}");
    }
}
