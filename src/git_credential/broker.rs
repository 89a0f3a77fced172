//! The helper's way to the broker: settings from environment and git, one call, one limit in time.

use std::future::Future;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use tonic::Status;

use crate::client::{self, Settings, chain, explain, within};
use crate::clock::{Clock as _, SystemClock};
use crate::git_url::GitUrl;
use crate::pb;

/// Whom the helper asks. A trouble is a sentence or two for a person, without secrets.
pub trait Broker {
    fn credential(&self, url: &GitUrl) -> Result<pb::GetGitCredentialResponse, String>;

    fn report(&self, token_fingerprint: &str) -> Result<(), String>;

    fn now(&self) -> Timestamp;
}

/// A broker behind [`client`], looked up only when it is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Remote;

impl Broker for Remote {
    fn credential(&self, url: &GitUrl) -> Result<pb::GetGitCredentialResponse, String> {
        let settings = settings();
        let developer = settings.developer().map_err(|error| chain(&error))?;
        let request = pb::GetGitCredentialRequest {
            account_id: settings.account().map_err(|error| chain(&error))?.to_string(),
            url: url.to_url(),
            developer_id: developer.map(|developer| developer.to_string()).unwrap_or_default(),
            purpose: PURPOSE.to_owned(),
            ..Default::default()
        };
        block_on(GET_LIMIT, async {
            let remote = connect(&settings).await?;
            let call = within(GET_LIMIT, request);
            remote
                .credentials()
                .get_git_credential(call)
                .await
                .map(tonic::Response::into_inner)
                .map_err(|status| tell(&status))
        })
    }

    fn report(&self, token_fingerprint: &str) -> Result<(), String> {
        let settings = settings();
        let account_id = settings.account().map_err(|error| chain(&error))?.to_string();
        let developer = settings.developer().map_err(|error| chain(&error))?;
        let request = pb::ReportTokenRejectedRequest {
            account_id,
            // Absent: the headless identity, whichever the token was of.
            connection: developer.map(|developer| pb::ConnectionName {
                role: pb::Role::Developer.into(),
                developer_id: developer.to_string(),
            }),
            token_fingerprint: token_fingerprint.to_owned(),
        };
        block_on(REPORT_LIMIT, async {
            let mut client = connect(&settings).await?.credentials();
            let call = within(REPORT_LIMIT, request);
            client.report_token_rejected(call).await.map(|_| ()).map_err(|status| tell(&status))
        })
    }

    fn now(&self) -> Timestamp {
        SystemClock::default().now().wall
    }
}

async fn connect(settings: &Settings) -> Result<client::Remote, String> {
    match tokio::time::timeout(CONNECT_LIMIT, client::Remote::connect(settings)).await {
        Ok(connected) => connected.map_err(|error| chain(&error)),
        Err(_) => Err("no broker answers in time: is `azdo-broker serve` running?".to_owned()),
    }
}

fn tell(status: &Status) -> String {
    explain(status).in_a_line()
}

fn block_on<T>(limit: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("this process cannot do network IO: {error}"))?;
    runtime.block_on(async {
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => {
                Err("the broker did not answer in time; its operator must look why. Ask again later."
                    .to_owned())
            }
        }
    })
}

/// The environment, and where it says nothing, `git config azdo-broker.*`.
fn settings() -> Settings {
    // As paths, so that git expands `~/`. Without git, or without such keys, the environment is all.
    let answer = Command::new("git")
        .args(["config", "--type=path", "--null", "--get-regexp", r"^azdo-broker\."])
        .output()
        .map(|answer| answer.stdout)
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&answer).into_owned();
    Settings::from_environment().or(Settings::from_lookup(|name| find(&text, name)))
}

/// git prints `key`, LF, value, NUL; of several values the last holds.
fn find(listed: &str, name: &str) -> Option<String> {
    let key = format!("azdo-broker.{}", name.to_ascii_lowercase());
    let mut values = listed.split('\0').filter_map(|entry| entry.split_once('\n'));
    values.rfind(|(found, _)| *found == key).map(|(_, value)| value.to_owned())
}

/// A label for the audit.
const PURPOSE: &str = "git";
/// The broker waits at most 10 s for a refresh.
const GET_LIMIT: Duration = Duration::from_secs(12);
/// Together with a start of git and of this process less than the 5 s of check A53.
const CONNECT_LIMIT: Duration = Duration::from_millis(4_500);
const REPORT_LIMIT: Duration = Duration::from_millis(4_500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_gits_configuration_holds() {
        let listed = "azdo-broker.account\nacme\0azdo-broker.address\nunix:/a\0azdo-broker.account\nother\0";
        assert_eq!(find(listed, "ACCOUNT").as_deref(), Some("other"));
        assert_eq!(find(listed, "ADDRESS").as_deref(), Some("unix:/a"));
        assert_eq!(find(listed, "DEVELOPER"), None);
    }
}
