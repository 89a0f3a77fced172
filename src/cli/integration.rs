//! `integration`: registers an account's organization and Entra app, and shows what is registered.
//!
//! The client secret comes from a file or from standard input, never from the command line, where
//! every user of the machine could read it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::json;

use super::{CALL_TIMEOUT, CliError, Console, Session, actor, credential, json, show};
use crate::client::within;
use crate::pb;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Register the account's integration, or replace its settings
    Put(Put),
    /// What is registered for the account
    Show,
    /// The integrations of all accounts that this caller may see
    List,
    /// What proves the account's app to Entra: secrets, certificates, assertions of others
    #[command(subcommand)]
    Credential(credential::Command),
    /// Stop releases and lists of the account; refreshes go on, so nothing is lost
    Suspend(Suspend),
    /// Let releases and lists go on
    Resume,
    /// Delete settings and client credentials of the account, and end its connections
    Delete(Delete),
}

#[derive(Clone, Debug, clap::Args)]
pub struct Suspend {
    /// Why, for operators
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Delete {
    /// Go on although live connections end by it
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Put {
    /// The name alone, as in dev.azure.com/NAME
    #[arg(long, value_name = "NAME")]
    organization: String,
    /// The directory (tenant) id that the organization is connected to
    #[arg(long, value_name = "GUID")]
    tenant_id: String,
    /// The application (client) id of the app registration
    #[arg(long, value_name = "GUID")]
    client_id: String,
    /// Where browsers reach the platform
    #[arg(long, value_name = "URL", help = PUBLIC_URL)]
    public_url: String,
    /// A file that holds the client secret's Value, or - for standard input
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// When Entra says the secret expires: 2027-05-01 or 2027-05-01T00:00:00Z
    #[arg(long, value_name = "TIME", requires = "secret_file", value_parser = parse_time)]
    secret_expires: Option<Timestamp>,
    /// Who answers when no developer is named
    #[arg(long, value_enum, default_value = "service-user")]
    headless: Headless,
    /// A delegated permission of Azure DevOps to ask users for, such as vso.code; may be repeated.
    /// Without it everything the user may do
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// Go on although live connections end by it
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Headless {
    ServiceUser,
    ServicePrincipal,
}

pub(super) async fn run(session: &mut Session<'_, '_>, command: Command) -> Result<(), CliError> {
    match command {
        Command::Put(args) => put(session, args).await,
        Command::Show => {
            let request = pb::GetIntegrationRequest { account_id: session.account()?.to_string() };
            let mut client = session.remote().await?.integrations();
            let answer = client.get_integration(within(CALL_TIMEOUT, request)).await?.into_inner();
            print(session.console, &answer)
        }
        Command::List => list(session).await,
        Command::Credential(command) => credential::run(session, command).await,
        Command::Suspend(args) => {
            let account_id = session.account()?.to_string();
            let request = pb::SuspendRequest { account_id, note: args.note, actor: actor() };
            let mut client = session.remote().await?.integrations();
            let answer = client.suspend(within(CALL_TIMEOUT, request)).await?.into_inner();
            print(session.console, &answer)
        }
        Command::Resume => {
            let request = pb::ResumeRequest { account_id: session.account()?.to_string(), actor: actor() };
            let mut client = session.remote().await?.integrations();
            let answer = client.resume(within(CALL_TIMEOUT, request)).await?.into_inner();
            print(session.console, &answer)
        }
        Command::Delete(args) => delete(session, &args).await,
    }
}

async fn put(session: &mut Session<'_, '_>, args: Put) -> Result<(), CliError> {
    let account_id = session.account()?.to_string();
    let client_secret = args.secret_file.as_deref().map(read_secret).transpose()?.unwrap_or_default();
    let headless = match args.headless {
        Headless::ServiceUser => pb::HeadlessIdentity::ServiceUser,
        Headless::ServicePrincipal => pb::HeadlessIdentity::ServicePrincipal,
    };
    let expires_at = args
        .secret_expires
        .map(|at| prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() });
    let request = pb::PutIntegrationRequest {
        account_id,
        organization: args.organization,
        tenant_id: args.tenant_id,
        client_id: args.client_id,
        public_url: args.public_url,
        headless_identity: headless.into(),
        client_secret,
        client_secret_expires_at: expires_at,
        force: args.force,
        actor: actor(),
        devops_scopes: args.scope,
    };
    let mut client = session.remote().await?.integrations();
    let answer = client.put_integration(within(CALL_TIMEOUT, request)).await?.into_inner();
    print(session.console, &answer)?;
    if !session.console.json && !answer.redirect_uris.is_empty() {
        let console = &mut *session.console;
        writeln!(
            console.err,
            "\nRegister each redirect URI in the Entra app, platform \"Web\", byte for byte."
        )?;
    }
    Ok(())
}

async fn delete(session: &mut Session<'_, '_>, args: &Delete) -> Result<(), CliError> {
    let account_id = session.account()?.to_string();
    if !args.yes {
        let Some(person) = session.console.person else {
            return Err(CliError::Usage("nobody is here to ask: say --yes to delete".into()));
        };
        let question = format!("Delete the integration of {account_id}, its credentials and connections?");
        if !session.console.ask(person, &question).await? {
            return Err(CliError::Failed("not deleted".into()));
        }
    }
    let request =
        pb::DeleteIntegrationRequest { account_id: account_id.clone(), force: args.force, actor: actor() };
    let mut client = session.remote().await?.integrations();
    client.delete_integration(within(CALL_TIMEOUT, request)).await?;
    if session.console.json {
        return session.console.print_json(&json!({ "account_id": account_id, "deleted": true }));
    }
    Ok(writeln!(session.console.err, "{account_id} has no integration any more")?)
}

async fn list(session: &mut Session<'_, '_>) -> Result<(), CliError> {
    let mut client = session.remote().await?.integrations();
    let mut request = pb::ListIntegrationsRequest::default();
    let mut integrations = Vec::new();
    loop {
        let page = client.list_integrations(within(CALL_TIMEOUT, request.clone())).await?.into_inner();
        integrations.extend(page.integrations);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let console = &mut *session.console;
    if console.json {
        let integrations: Vec<_> = integrations.iter().map(json::integration).collect();
        return console.print_json(&json!({ "integrations": integrations }));
    }
    let mut table = show::Table::new(&[
        "ACCOUNT",
        "ORGANIZATION",
        "HEADLESS IDENTITY",
        "CREDENTIALS",
        "STATE",
        "UPDATED",
    ]);
    for integration in &integrations {
        table.row([
            integration.account_id.clone(),
            integration.organization.clone(),
            headless_word(integration),
            integration.client_credentials.len().to_string(),
            if integration.suspension.is_some() { "suspended" } else { "active" }.to_owned(),
            show::when(integration.updated_at.as_ref(), console.now),
        ]);
    }
    Ok(table.print(console.out)?)
}

fn print(console: &mut Console<'_>, integration: &pb::Integration) -> Result<(), CliError> {
    if console.json {
        return console.print_json(&json::integration(integration));
    }
    let mut facts = vec![
        ("account", integration.account_id.clone()),
        ("organization", integration.organization.clone()),
        ("tenant id", integration.tenant_id.clone()),
        ("client id", integration.client_id.clone()),
        ("public URL", integration.public_url.clone()),
        ("headless identity", headless_word(integration)),
    ];
    if !integration.devops_scopes.is_empty() {
        facts.push(("scopes", integration.devops_scopes.join(" ")));
    }
    for credential in &integration.client_credentials {
        facts.push(("client credential", describe_credential(credential, console.now)));
    }
    for uri in &integration.redirect_uris {
        let role = show::word(uri.role().as_str_name(), "ROLE_");
        facts.push(("redirect URI", format!("{}  ({role})", uri.uri)));
    }
    if let Some(suspension) = &integration.suspension {
        let since = show::when(suspension.since.as_ref(), console.now);
        let by = label(" by ", &suspension.actor);
        let note = label(": ", &suspension.note);
        facts.push(("suspended", format!("{since}{by}{note}")));
    }
    facts.push(("updated", show::when(integration.updated_at.as_ref(), console.now)));
    show::print_facts(console.out, &facts)?;
    Ok(show::print_warnings(console.err, &integration.warnings)?)
}

fn describe_credential(credential: &pb::ClientCredential, now: Timestamp) -> String {
    let kind = show::word(credential.kind().as_str_name(), "CLIENT_CREDENTIAL_KIND_");
    let standing = credential::state_word(credential, now);
    let expiry = credential
        .expires_at
        .as_ref()
        .map_or("no expiry told".to_owned(), |at| format!("expires {}", show::when(Some(at), now)));
    format!("{kind} {}, {standing}, {expiry}", credential.fingerprint)
}

fn headless_word(integration: &pb::Integration) -> String {
    show::word(integration.headless_identity().as_str_name(), "HEADLESS_IDENTITY_")
}

/// The first line alone, since editors and `echo` end files with a line break.
pub(super) fn read_secret(path: &Path) -> Result<String, CliError> {
    let unreadable = |error: std::io::Error| {
        CliError::Usage(format!("cannot read the secret in {}: {error}", path.display()))
    };
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(SECRET_FILE_LEN_MAX).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(SECRET_FILE_LEN_MAX).read_to_string(&mut text).map_err(unreadable)?;
    }
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || secret.contains(char::is_whitespace) {
        return Err(CliError::Usage(format!("{} must hold one secret and nothing else", path.display())));
    }
    Ok(secret.to_owned())
}

pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let midnight = |date: Date| date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    text.parse::<Timestamp>()
        .or_else(|_| text.parse::<Date>().and_then(midnight))
        .map_err(|_| "must be a date such as 2027-05-01 or a time such as 2027-05-01T00:00:00Z".to_owned())
}

/// The contract allows 256 bytes; a line break may follow.
const SECRET_FILE_LEN_MAX: u64 = 1024;

/// A label behind its word, if there is one.
fn label(word: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{word}{text}") }
}

/// Not a comment of the field: rustdoc wants an address in brackets, and a person does not.
const PUBLIC_URL: &str =
    "Where browsers reach the platform: scheme, host and port, such as https://platform.example";

#[cfg(test)]
mod tests {
    use super::super::Exit;
    use super::super::fake::{Fake, Run};
    use super::*;

    fn echo() -> Fake {
        Fake::default().on("Integrations/PutIntegration", |request: pb::PutIntegrationRequest| {
            assert_eq!(request.client_secret, "canary");
            assert_eq!(request.client_secret_expires_at.unwrap().seconds, 1_809_129_600);
            let uri = pb::RedirectUri {
                role: pb::Role::ServiceUser.into(),
                uri: "https://p.example/complete/service-user".into(),
            };
            Ok(pb::Integration {
                account_id: request.account_id,
                organization: request.organization,
                redirect_uris: vec![uri],
                ..Default::default()
            })
        })
    }

    #[tokio::test]
    async fn the_secret_comes_from_a_file_and_is_shown_nowhere() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "canary\r\n").unwrap();
        let secret = format!("--secret-file={}", file.path().display());
        let args = [
            "integration",
            "put",
            "--organization=contoso",
            "--tenant-id=t",
            "--client-id=c",
            PUBLIC_URL,
            &secret,
        ];
        for json in [&["--secret-expires=2027-05-01"][..], &["--secret-expires=2027-05-01", "--json"]] {
            let run = Run::new(&args).args(json).against(echo()).await;
            assert_eq!(run.exit, Exit::Done, "{run:?}");
            assert!(run.out.contains("https://p.example/complete/service-user"), "{run:?}");
            assert!(!format!("{run:?}").contains("canary"), "{run:?}");
        }
    }

    #[tokio::test]
    async fn an_unreadable_secret_is_bad_usage_and_asks_no_broker() {
        let args = ["integration", "put", "--organization=o", "--tenant-id=t", "--client-id=c", PUBLIC_URL];
        let run = Run::new(&args).args(&["--secret-file=/nowhere"]).against(Fake::default()).await;
        assert_eq!(run.exit, Exit::Usage, "{run:?}");
    }

    const PUBLIC_URL: &str = "--public-url=https://p.example";
}
