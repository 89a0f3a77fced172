//! `link`: begins a link, waits until somebody has signed in, asks whether that is who was meant.
//!
//! # Invariants
//!
//! 1. Nothing is confirmed that nobody affirmed: a person's `y`, or `--expect` with that very login.
//! 2. A login other than the expected one is never confirmed, whatever a person would answer.
//! 3. Opening a browser is a courtesy: it never fails the command and never blocks it.

use std::process::Stdio;

use tonic::Code;

use super::{CALL_TIMEOUT, CliError, Console, Session, actor, json, show};
use crate::client::{Remote, printable, within};
use crate::pb;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Sign in as the account's service user
    ServiceUser(ServiceUser),
}

#[derive(Clone, Debug, clap::Args)]
pub struct ServiceUser {
    /// Who must sign in; without a terminal the only way to confirm
    #[arg(long, value_name = "LOGIN")]
    expect: Option<String>,
    /// Only print the URL
    #[arg(long)]
    no_browser: bool,
}

/// What to do with a verified link.
#[derive(Debug, Eq, PartialEq)]
enum Verdict {
    Confirm,
    Ask,
    Refuse(String),
}

pub(super) async fn run(session: &mut Session<'_, '_>, command: Command) -> Result<(), CliError> {
    let Command::ServiceUser(args) = command;
    tokio::select! {
        done = link(session, &args) => done,
        pressed = tokio::signal::ctrl_c() => Err(match pressed {
            Ok(()) => CliError::Failed("stopped: an unconfirmed link runs out by itself; `azdo-broker connections` shows what stands".into()),
            Err(error) => error.into(),
        }),
    }
}

async fn link(session: &mut Session<'_, '_>, args: &ServiceUser) -> Result<(), CliError> {
    let account = session.account()?;
    let name = pb::ConnectionName { role: pb::Role::ServiceUser.into(), developer_id: String::new() };
    let request = pb::BeginLinkRequest {
        account_id: account.to_string(),
        connection: Some(name),
        front: pb::Front::OurPages.into(),
        expected_login: args.expect.clone().unwrap_or_default(),
        actor: actor(),
        ..Default::default()
    };
    let remote = session.remote().await?;
    let console = &mut *session.console;
    let begun = remote.connections().begin_link(within(CALL_TIMEOUT, request)).await?.into_inner();
    let until = show::when(begun.expires_at.as_ref(), console.now);
    let url = printable(&begun.link_url);
    writeln!(
        console.err,
        "Sign in as the service user of {account}; this link runs out {until}:\n\n  {url}\n"
    )?;
    if !args.no_browser && console.person.is_some() {
        open_browser(&begun.link_url);
    }
    let found = wait_for_person(&remote, console, account.as_str(), &begun.link_id).await?;
    if found.state() != pb::LinkState::Connected {
        let who = show::identity(found.identity.as_ref());
        match judge(&found, args.expect.as_deref(), console.person.is_some()) {
            Verdict::Confirm => {}
            Verdict::Refuse(why) => return Err(CliError::Failed(why)),
            Verdict::Ask => affirm(console, &found, account.as_str(), &who).await?,
        }
        let request = pb::ConfirmLinkRequest {
            account_id: account.to_string(),
            link_id: begun.link_id,
            confirmation: String::new(),
            actor: actor(),
        };
        let confirmed = remote.connections().confirm_link(within(CALL_TIMEOUT, request)).await?.into_inner();
        return report(console, &confirmed);
    }
    let request = pb::GetConnectionRequest { account_id: account.to_string(), connection: found.connection };
    report(console, remote.connections().get_connection(within(CALL_TIMEOUT, request)).await?.get_ref())
}

/// Looks until the link can be judged; says so whenever its state moved.
async fn wait_for_person(
    remote: &Remote,
    console: &mut Console<'_>,
    account_id: &str,
    link_id: &str,
) -> Result<pb::Link, CliError> {
    let mut client = remote.connections();
    let mut shown = pb::LinkState::Unspecified;
    let mut silent = 0;
    loop {
        let request = pb::GetLinkRequest { account_id: account_id.to_owned(), link_id: link_id.to_owned() };
        match client.get_link(within(CALL_TIMEOUT, request)).await {
            Ok(answer) => {
                silent = 0;
                let link = answer.into_inner();
                match link.state() {
                    pb::LinkState::Verified | pb::LinkState::Connected => return Ok(link),
                    pb::LinkState::Ended => return Err(ended(&link)),
                    state if state != shown => {
                        shown = state;
                        writeln!(console.err, "{}", progress(state))?;
                    }
                    _ => {}
                }
            }
            // The link outlives a restart of the broker; only a lasting silence ends the wait.
            Err(status) if status.code() == Code::Unavailable && silent < SILENT_LOOKS_MAX => silent += 1,
            Err(status) => return Err(status.into()),
        }
        tokio::time::sleep(console.look_every).await;
    }
}

fn progress(state: pb::LinkState) -> &'static str {
    match state {
        pb::LinkState::Unspecified | pb::LinkState::Begun => "waiting for somebody to sign in …",
        pb::LinkState::Taken => "signed in; exchanging the code …",
        pb::LinkState::Held => "grant sealed; checking identity and membership …",
        pb::LinkState::Verified | pb::LinkState::Connected | pb::LinkState::Ended => "done",
    }
}

fn ended(link: &pb::Link) -> CliError {
    CliError::Failed(format!(
        "the link ended, and nothing was connected: {} [{}]",
        printable(&link.message),
        printable(&link.ended_reason)
    ))
}

fn judge(link: &pb::Link, expect: Option<&str>, person_present: bool) -> Verdict {
    let login = link.identity.as_ref().map_or("", |identity| identity.login.as_str());
    let matches = expect.map(|expect| !login.is_empty() && expect.to_lowercase() == login.to_lowercase());
    let who = show::identity(link.identity.as_ref());
    match (matches, person_present) {
        _ if link.confirmation_required => {
            Verdict::Refuse("this link is confirmed by the platform's page, not here".to_owned())
        }
        (Some(false), _) => {
            Verdict::Refuse(format!("{who} signed in, not {}; nothing was confirmed", expect.unwrap_or("-")))
        }
        (None, false) => Verdict::Refuse(format!(
            "{who} signed in; nothing was confirmed, because nobody is here to be asked: add --expect LOGIN"
        )),
        (Some(true), false) => Verdict::Confirm,
        (Some(true) | None, true) => Verdict::Ask,
    }
}

async fn affirm(
    console: &mut Console<'_>,
    link: &pb::Link,
    account: &str,
    who: &str,
) -> Result<(), CliError> {
    show::print_warnings(console.err, &link.warnings)?;
    let replaces = link
        .replaces
        .as_ref()
        .map_or(String::new(), |old| format!(", replacing {}", show::identity(Some(old))));
    let question = format!("{who} signed in. Connect as the service user of {account}{replaces}?");
    let Some(ask) = console.person else {
        return Err(CliError::Failed("nobody is here to be asked; nothing was confirmed".into()));
    };
    if console.ask(ask, &question).await? {
        Ok(())
    } else {
        Err(CliError::Failed("nothing was confirmed; the link runs out by itself".into()))
    }
}

fn report(console: &mut Console<'_>, connection: &pb::Connection) -> Result<(), CliError> {
    if console.json {
        return console.print_json(&json::connection(connection));
    }
    let name = show::connection_name(connection.connection.as_ref());
    let who = show::identity(connection.identity.as_ref());
    writeln!(console.out, "{name} of {} is connected as {who}.", printable(&connection.account_id))?;
    Ok(show::print_warnings(console.err, &connection.warnings)?)
}

fn open_browser(url: &str) {
    let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !(url.starts_with("https://") || url.starts_with("http://localhost")) {
        return;
    }
    let opener = if cfg!(target_os = "macos") {
        "open"
    } else if has("WSL_DISTRO_NAME") {
        "wslview"
    } else if has("DISPLAY") || has("WAYLAND_DISPLAY") {
        "xdg-open"
    } else {
        return;
    };
    let mut command = std::process::Command::new(opener);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // The URL stands on the terminal: without a browser the person goes there by hand.
    let _ = command.spawn();
}

/// A minute of silence at one look every 2 s.
const SILENT_LOOKS_MAX: u32 = 30;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::Exit;
    use super::super::fake::{Fake, Ran, Run};
    use super::*;

    fn person(login: &str) -> pb::Identity {
        pb::Identity { login: login.into(), display_name: "Build".into(), ..Default::default() }
    }

    fn verified() -> pb::Link {
        pb::Link {
            state: pb::LinkState::Verified.into(),
            identity: Some(person("Svc@contoso.com")),
            replaces: Some(person("old@contoso.com")),
            ..Default::default()
        }
    }

    fn broker(last: pb::Link) -> Fake {
        let looks = AtomicU32::new(0);
        Fake::default()
            .on("Connections/BeginLink", |_: pb::BeginLinkRequest| {
                Ok(pb::BeginLinkResponse {
                    link_id: "l1".into(),
                    link_url: "https://p.example/link/l1".into(),
                    ..Default::default()
                })
            })
            .on("Connections/GetLink", move |_: pb::GetLinkRequest| {
                match looks.fetch_add(1, Ordering::Relaxed) {
                    0 => Ok(pb::Link { state: pb::LinkState::Begun.into(), ..Default::default() }),
                    1 => Err(tonic::Status::unavailable("restarting")),
                    _ => Ok(last.clone()),
                }
            })
            .on("Connections/ConfirmLink", |request: pb::ConfirmLinkRequest| {
                assert_eq!(request.link_id, "l1");
                Ok(pb::Connection { identity: Some(person("Svc@contoso.com")), ..Default::default() })
            })
    }

    async fn link(args: &[&str], answer: Option<super::super::Ask>) -> Ran {
        let run = Run::new(&["link", "service-user", "--no-browser"]).args(args);
        let run = match answer {
            Some(answer) => run.with_person(answer),
            None => run,
        };
        run.against(broker(verified())).await
    }

    #[tokio::test]
    async fn a_person_is_asked_whom_to_connect_and_whom_to_replace() {
        let ran = link(&[], Some(|| Ok("y\n".into()))).await;
        assert_eq!(ran.exit, Exit::Done, "{ran:?}");
        let question = "Svc@contoso.com (Build) signed in. Connect as the service user of acme, replacing old@contoso.com (Build)? [y/N]";
        assert!(ran.err.contains(question) && ran.err.contains("https://p.example/link/l1"), "{ran:?}");
        assert!(ran.out.contains("connected as Svc@contoso.com"), "{ran:?}");
    }

    #[tokio::test]
    async fn no_answer_and_no_are_no() {
        for answer in [(|| Ok(String::new())) as super::super::Ask, || Ok("n\n".into())] {
            let ran = link(&[], Some(answer)).await;
            assert_eq!((ran.exit, ran.out.as_str()), (Exit::Failed, ""), "{ran:?}");
        }
    }

    #[tokio::test]
    async fn without_a_terminal_only_the_expected_login_is_confirmed() {
        assert_eq!(link(&["--expect=svc@CONTOSO.com"], None).await.exit, Exit::Done);
        let unexpected = link(&["--expect=other@contoso.com"], None).await;
        assert_eq!((unexpected.exit, unexpected.out.as_str()), (Exit::Failed, ""));
        let unsaid = link(&[], None).await;
        assert_eq!(unsaid.exit, Exit::Failed);
        assert!(unsaid.err.contains("--expect LOGIN"), "{unsaid:?}");
    }

    #[tokio::test]
    async fn somebody_unexpected_is_refused_even_if_a_person_would_say_yes() {
        let ran = link(&["--expect=other@contoso.com"], Some(|| Ok("y\n".into()))).await;
        assert_eq!(ran.exit, Exit::Failed);
        assert!(ran.err.contains("not other@contoso.com"), "{ran:?}");
    }

    #[tokio::test]
    async fn a_link_that_ended_says_why() {
        let last = pb::Link {
            state: pb::LinkState::Ended.into(),
            ended_reason: "NOT_A_MEMBER".into(),
            message: "add svc as a user".into(),
            ..Default::default()
        };
        let run = Run::new(&["link", "service-user", "--expect=svc@contoso.com"]);
        let ran = run.against(broker(last)).await;
        assert_eq!(ran.exit, Exit::Failed);
        assert!(ran.err.contains("add svc as a user [NOT_A_MEMBER]"), "{ran:?}");
    }
}
