//! git's credential helper for Azure Repos: reads git's question, asks the broker, answers git.
//!
//! # Invariants
//!
//! 1. Only https, only Azure DevOps' own hosts, only with a path that names a repository: for
//!    anything else nothing is written and **the broker is not asked** (threat T27).
//! 2. `quit=1`, which keeps git from asking others, is said only about our own hosts.
//! 3. It ends with success whatever happened: a helper that fails makes git louder, not wiser.
//!
//! It keeps nothing: `store` does nothing, and `erase` only tells the broker that a token was
//! refused. That is no disconnect.

mod broker;
mod protocol;

use std::io::{self, BufRead, Write};

use jiff::Timestamp;

pub use broker::{Broker, Remote};
use protocol::{Question, Unreadable};

use crate::client::printable;
use crate::git_url::{GitUrl, NotAGitUrl};
use crate::pb;
use crate::secret::AccessToken;

/// Answers one operation of git's: `get`, `store`, `erase` or `capability`; others are for later
/// versions of git and get nothing. A person who runs it by hand is told what it is.
pub fn run(
    operation: &str,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
    err: &mut dyn Write,
    broker: &dyn Broker,
) -> io::Result<()> {
    match operation {
        "capability" => write!(out, "version 0\ncapability authtype\n")?,
        "" | "-h" | "--help" => write!(err, "{HELP}")?,
        "get" | "erase" => match Question::read(input)? {
            Ok(question) => answer(operation, &question, out, err, broker)?,
            Err(Unreadable::Elsewhere) => {}
            Err(unreadable) => writeln!(err, "azdo-broker: git's question is not answered: {unreadable}")?,
        },
        _ => {}
    }
    out.flush()
}

fn answer(
    operation: &str,
    question: &Question,
    out: &mut dyn Write,
    err: &mut dyn Write,
    broker: &dyn Broker,
) -> io::Result<()> {
    let url = match GitUrl::from_parts(&question.protocol, &question.host, &question.path) {
        Ok(url) => url,
        Err(NotAGitUrl::NoPath) => return writeln!(err, "azdo-broker: {NO_PATH}"),
        Err(problem @ (NotAGitUrl::Path | NotAGitUrl::TooLong)) => {
            return writeln!(err, "azdo-broker: no credential: {problem}");
        }
        Err(NotAGitUrl::NotHttps | NotAGitUrl::ForeignHost | NotAGitUrl::Character) => return Ok(()),
    };
    if operation == "erase" {
        return report(question, err, broker);
    }
    let answered = broker.credential(&url).and_then(|credential| {
        compose(&credential, question.authtype, broker.now())
            .ok_or_else(|| "the broker's answer is no credential git could use".to_owned())
    });
    match answered {
        Ok(text) => out.write_all(text.as_bytes()),
        Err(why) => {
            writeln!(err, "azdo-broker: {}", printable(&why))?;
            // Else git would ask other helpers, and then a person: a job would hang.
            writeln!(out, "quit=1")
        }
    }
}

fn report(question: &Question, err: &mut dyn Write, broker: &dyn Broker) -> io::Result<()> {
    let Some(token) = question.credential.clone().or_else(|| question.password.clone()) else {
        return Ok(());
    };
    match broker.report(AccessToken::new(token).fingerprint().as_str()) {
        Ok(()) => Ok(()),
        Err(why) => writeln!(err, "azdo-broker: {}", printable(&why)),
    }
}

/// `ephemeral` keeps git from handing the token to helpers that store it; without `authtype` git
/// does not know that word, and the expiry is all there is (threat T28).
fn compose(answer: &pb::GetGitCredentialResponse, authtype: bool, now: Timestamp) -> Option<String> {
    let one_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let token = &answer.access_token;
    if !one_word(token) {
        return None;
    }
    let expiry = match answer.expires_at.map(|at| at.seconds) {
        Some(at) if at <= now.as_second() => return None,
        Some(at) => format!("password_expiry_utc={at}\n"),
        None => String::new(),
    };
    if authtype {
        return Some(format!(
            "capability[]=authtype\nauthtype=Bearer\ncredential={token}\nephemeral=1\n{expiry}"
        ));
    }
    let usable = one_word(&answer.username) && !answer.username.contains(':');
    let username = if usable { answer.username.as_str() } else { USERNAME };
    Some(format!("username={username}\npassword={token}\n{expiry}"))
}

/// Azure DevOps ignores it; some helpers drop an empty one.
const USERNAME: &str = "oauth2";

const NO_PATH: &str = "git does not tell which repository it asks for. Run `azdo-broker git-setup`, or \
    `git config --global credential.https://dev.azure.com.useHttpPath true`.";

const HELP: &str = "\
git's credential helper for Azure Repos; git runs it, not you. To set git up: azdo-broker git-setup

Usage: git-credential-azdo-broker get|store|erase|capability

It asks the broker that AZDO_BROKER_ADDRESS, AZDO_BROKER_CA, AZDO_BROKER_CERT, AZDO_BROKER_KEY,
AZDO_BROKER_ACCOUNT and AZDO_BROKER_DEVELOPER name, or `git config azdo-broker.address` and so on.
";

#[cfg(test)]
mod tests;
