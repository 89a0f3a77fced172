//! `token`: what the access token of the headless identity or a developer is, and only with `--reveal` the
//! token itself.

use jiff::SignedDuration;
use serde_json::json;

use super::{CALL_TIMEOUT, CliError, Session, actor, json, show};
use crate::client::within;
use crate::pb;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How long it must at least live, such as 5m; 30m at most
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    min_ttl: Option<SignedDuration>,
    /// Of this developer; without it of the account's service user or service principal
    #[arg(long, value_name = "ID")]
    developer: Option<String>,
    /// What for, for the audit
    #[arg(long, value_name = "TEXT", default_value = "token command")]
    purpose: String,
    /// Print the token alone on standard output, everything else on standard error
    #[arg(long)]
    reveal: bool,
}

pub(super) async fn run(session: &mut Session<'_, '_>, args: Args) -> Result<(), CliError> {
    let min_ttl = args
        .min_ttl
        .map(|span| prost_types::Duration { seconds: span.as_secs(), nanos: span.subsec_nanos() });
    let remote = session.remote().await?;
    let account_id = session.account()?.to_string();
    let answer = match args.developer {
        None => {
            let purpose = args.purpose;
            let request = pb::GetServiceUserTokenRequest { account_id, min_ttl, purpose, actor: actor() };
            remote.credentials().get_service_user_token(within(CALL_TIMEOUT, request)).await?.into_inner()
        }
        Some(developer_id) => {
            let request = pb::GetDeveloperTokenRequest {
                account_id,
                developer_id,
                min_ttl,
                purpose: args.purpose,
                actor: actor(),
                ..Default::default()
            };
            same(remote.credentials().get_developer_token(within(CALL_TIMEOUT, request)).await?.into_inner())
        }
    };
    let console = &mut *session.console;
    if console.json {
        let mut value = json!({
            "token_fingerprint": answer.token_fingerprint,
            "token_type": answer.token_type,
            "expires_at": json::at(answer.expires_at.as_ref()),
            "scopes": answer.scopes,
            "connection": show::connection_name(answer.connection.as_ref()),
            "identity": json::identity(answer.identity.as_ref()),
            "warnings": json::warnings(&answer.warnings),
        });
        if args.reveal {
            value["access_token"] = answer.access_token.into();
        }
        return console.print_json(&value);
    }
    let facts = [
        ("fingerprint", answer.token_fingerprint),
        ("expires", show::when(answer.expires_at.as_ref(), console.now)),
        ("identity", show::identity(answer.identity.as_ref())),
        ("connection", show::connection_name(answer.connection.as_ref())),
    ];
    show::print_facts(if args.reveal { &mut *console.err } else { &mut *console.out }, &facts)?;
    show::print_warnings(console.err, &answer.warnings)?;
    if args.reveal {
        writeln!(console.out, "{}", answer.access_token)?;
    }
    Ok(())
}

/// The same fields under the other name.
fn same(answer: pb::GetDeveloperTokenResponse) -> pb::GetServiceUserTokenResponse {
    pb::GetServiceUserTokenResponse {
        access_token: answer.access_token,
        token_type: answer.token_type,
        expires_at: answer.expires_at,
        scopes: answer.scopes,
        identity: answer.identity,
        warnings: answer.warnings,
        token_fingerprint: answer.token_fingerprint,
        connection: answer.connection,
    }
}

fn parse_span(text: &str) -> Result<SignedDuration, String> {
    match text.parse::<SignedDuration>() {
        Ok(span) if !span.is_negative() => Ok(span),
        Ok(_) | Err(_) => Err("must be a span such as 5m or 90s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, Run};
    use super::*;

    fn broker() -> Fake {
        Fake::default().on(
            "CredentialBroker/GetServiceUserToken",
            |request: pb::GetServiceUserTokenRequest| {
                assert_eq!((request.account_id.as_str(), request.min_ttl.unwrap().seconds), ("acme", 600));
                Ok(pb::GetServiceUserTokenResponse {
                    access_token: "canary".into(),
                    token_fingerprint: "ba7816bf8f01cfea414140de5dae2223".into(),
                    ..Default::default()
                })
            },
        )
    }

    #[tokio::test]
    async fn a_token_is_shown_by_its_fingerprint_alone() {
        for json in [&[][..], &["--json"]] {
            let run = Run::new(&["token", "--min-ttl", "10m"]).args(json).against(broker()).await;
            assert!(run.out.contains("ba7816bf8f01cfea414140de5dae2223"), "{run:?}");
            assert!(!format!("{run:?}").contains("canary"), "{run:?}");
        }
    }

    #[tokio::test]
    async fn a_revealed_token_stands_alone_on_standard_output() {
        let run = Run::new(&["token", "--min-ttl=10m", "--reveal"]).against(broker()).await;
        assert_eq!(run.out, "canary\n");
        assert!(run.err.contains("fingerprint") && !run.err.contains("canary"));
    }

    #[tokio::test]
    async fn a_developers_token_is_asked_for_by_their_id() {
        let broker = Fake::default().on(
            "CredentialBroker/GetDeveloperToken",
            |request: pb::GetDeveloperTokenRequest| {
                assert_eq!(request.developer_id, "ana");
                Ok(pb::GetDeveloperTokenResponse { access_token: "of-ana".into(), ..Default::default() })
            },
        );
        let run = Run::new(&["token", "--developer=ana", "--reveal"]).against(broker).await;
        assert_eq!(run.out, "of-ana\n");
    }
}
