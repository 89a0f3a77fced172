//! `integration credential`: what proves the account's app to Entra; adds, removes and shows it.
//!
//! Secrets and private keys come from files or standard input, never from the command line, where every
//! user of the machine could read them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::json;

use super::integration::{parse_time, read_secret};
use super::{CALL_TIMEOUT, CliError, Session, actor, json, show};
use crate::client::within;
use crate::pb;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// The account's client credentials, in the order in which they are tried
    List,
    /// Add a client credential; it is tried first once Entra has taken it
    Add(Add),
    /// Remove a client credential and wipe it
    Remove(Remove),
}

#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("kind").required(true).args(["secret_file", "certificate", "federated_source"])))]
pub struct Add {
    /// A file that holds the client secret's Value, or - for standard input
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// When Entra says the secret expires: 2027-05-01 or 2027-05-01T00:00:00Z
    #[arg(long, value_name = "TIME", requires = "secret_file", value_parser = parse_time)]
    secret_expires: Option<Timestamp>,
    /// The certificate registered with the app, PEM
    #[arg(long, value_name = "FILE", requires = "key_file")]
    certificate: Option<PathBuf>,
    /// Its private key: unencrypted PKCS #8, PEM, or - for standard input
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key_file: Option<PathBuf>,
    /// The name of a source of assertions in the broker's configuration
    #[arg(long, value_name = "NAME")]
    federated_source: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Remove {
    /// The id, as `list` shows it
    id: String,
    /// Go on although no client credential in force remains for live connections
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(session: &mut Session<'_, '_>, command: Command) -> Result<(), CliError> {
    match command {
        Command::List => list(session).await,
        Command::Add(args) => add(session, args).await,
        Command::Remove(args) => remove(session, args).await,
    }
}

async fn list(session: &mut Session<'_, '_>) -> Result<(), CliError> {
    let request = pb::GetIntegrationRequest { account_id: session.account()?.to_string() };
    let mut client = session.remote().await?.integrations();
    let integration = client.get_integration(within(CALL_TIMEOUT, request)).await?.into_inner();
    print(session, &integration.client_credentials)
}

async fn add(session: &mut Session<'_, '_>, args: Add) -> Result<(), CliError> {
    let expires_at = args
        .secret_expires
        .map(|at| prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() });
    let request = pb::AddClientCredentialRequest {
        account_id: session.account()?.to_string(),
        client_secret: args.secret_file.as_deref().map(read_secret).transpose()?.unwrap_or_default(),
        client_secret_expires_at: expires_at,
        certificate_pem: args.certificate.as_deref().map(read_pem).transpose()?.unwrap_or_default(),
        private_key_pem: args.key_file.as_deref().map(read_pem).transpose()?.unwrap_or_default(),
        federated_source: args.federated_source.unwrap_or_default(),
        actor: actor(),
    };
    let mut client = session.remote().await?.integrations();
    let added = client.add_client_credential(within(CALL_TIMEOUT, request)).await?.into_inner();
    if session.console.json {
        return session.console.print_json(&json::client_credential(&added));
    }
    let is_proven = added.proven_at.is_some() && added.rejected_at.is_none();
    print(session, &[added])?;
    if !is_proven {
        writeln!(
            session.console.err,
            "\nEntra is asked whether it takes it, for five minutes, because a new one needs time to spread: `azdo-broker integration credential list` tells."
        )?;
    }
    Ok(())
}

async fn remove(session: &mut Session<'_, '_>, args: Remove) -> Result<(), CliError> {
    let request = pb::RemoveClientCredentialRequest {
        account_id: session.account()?.to_string(),
        client_credential_id: args.id,
        force: args.force,
        actor: actor(),
    };
    let mut client = session.remote().await?.integrations();
    let left = client.remove_client_credential(within(CALL_TIMEOUT, request)).await?.into_inner();
    print(session, &left.client_credentials)
}

fn print(session: &mut Session<'_, '_>, credentials: &[pb::ClientCredential]) -> Result<(), CliError> {
    let console = &mut *session.console;
    if console.json {
        let credentials: Vec<_> = credentials.iter().map(json::client_credential).collect();
        return console.print_json(&json!({ "client_credentials": credentials }));
    }
    let mut table = show::Table::new(&["ID", "KIND", "FINGERPRINT", "EXPIRES", "STATE"]);
    for credential in credentials {
        table.row([
            credential.id.clone(),
            show::word(credential.kind().as_str_name(), "CLIENT_CREDENTIAL_KIND_"),
            credential.fingerprint.clone(),
            show::when(credential.expires_at.as_ref(), console.now),
            state_word(credential, console.now).to_owned(),
        ]);
    }
    table.print(console.out)?;
    for credential in credentials {
        show::print_warnings(console.err, &credential.warnings)?;
    }
    Ok(())
}

/// How Entra stands to it.
pub(super) fn state_word(credential: &pb::ClientCredential, now: Timestamp) -> &'static str {
    let has_expired = show::time(credential.expires_at.as_ref()).is_some_and(|at| at <= now);
    match (&credential.rejected_at, &credential.proven_at) {
        _ if has_expired => "expired",
        (Some(_), _) => "rejected by Entra",
        (None, Some(_)) => "proven",
        (None, None) => "not proven yet",
    }
}

fn read_pem(path: &Path) -> Result<String, CliError> {
    let unreadable =
        |error: std::io::Error| CliError::Usage(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(PEM_FILE_LEN_MAX).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(PEM_FILE_LEN_MAX).read_to_string(&mut text).map_err(unreadable)?;
    }
    Ok(text)
}

/// A byte more than the contract allows, so that the broker tells what is too long.
const PEM_FILE_LEN_MAX: u64 = 16 * 1024 + 1;

#[cfg(test)]
mod tests {
    use super::super::Exit;
    use super::super::fake::{Fake, Run};
    use super::*;

    #[tokio::test]
    async fn a_credential_is_added_from_files_and_its_key_is_shown_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("app.crt"), folder.path().join("app.key"));
        std::fs::write(&certificate, "the certificate").unwrap();
        std::fs::write(&key, "canary").unwrap();
        let broker = Fake::default().on(
            "Integrations/AddClientCredential",
            |request: pb::AddClientCredentialRequest| {
                assert_eq!(
                    (&*request.certificate_pem, &*request.private_key_pem),
                    ("the certificate", "canary")
                );
                Ok(pb::ClientCredential {
                    id: "one".into(),
                    kind: pb::ClientCredentialKind::Certificate.into(),
                    fingerprint: "ab12".into(),
                    ..Default::default()
                })
            },
        );
        let (certificate, key) =
            (format!("--certificate={}", certificate.display()), format!("--key-file={}", key.display()));
        let run = Run::new(&["integration", "credential", "add", &certificate, &key]).against(broker).await;
        assert_eq!(run.exit, Exit::Done, "{run:?}");
        for word in ["certificate", "ab12", "not proven yet"] {
            assert!(run.out.contains(word), "{run:?}");
        }
        assert!(!format!("{run:?}").contains("canary"));
    }
}
