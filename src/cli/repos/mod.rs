//! `repos`: the repositories that the account's headless identity or a developer can read, whole or not at
//! all.

mod compare;

use std::time::Duration;

use serde_json::json;

use super::{CliError, Session, actor, json, show};
use crate::client::within;
use crate::pb;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only this project: its name or GUID
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Also show what cannot be cloned, and why
    #[arg(long)]
    all: bool,
    /// Of this developer; without it of the account's service user or service principal
    #[arg(long, value_name = "ID", conflicts_with = "compare")]
    developer: Option<String>,
    /// Ask Azure DevOps now instead of showing a list that may be five minutes old
    #[arg(long)]
    fresh: bool,
    /// What only one of service user and service principal can read; with --all what either sees
    #[arg(long)]
    compare: bool,
}

/// All pages of one list.
struct List {
    repos: Vec<pb::Repository>,
    as_of: Option<prost_types::Timestamp>,
    identity: Option<pb::Identity>,
    /// Each once, whichever page told it.
    warnings: Vec<pb::Warning>,
}

pub(super) async fn run(session: &mut Session<'_, '_>, args: Args) -> Result<(), CliError> {
    let request = pb::ListReadableReposRequest {
        account_id: session.account()?.to_string(),
        project: args.project.unwrap_or_default(),
        page_size: PAGE_SIZE,
        include_unreadable: args.all,
        developer_id: args.developer.unwrap_or_default(),
        max_age: args.fresh.then(prost_types::Duration::default),
        actor: actor(),
        ..Default::default()
    };
    if args.compare {
        return compare::run(session, request, args.all).await;
    }
    let List { repos, as_of, identity, warnings } = fetch(session, request).await?;
    let console = &mut *session.console;
    if console.json {
        return console.print_json(&json!({
            "repos": repos.iter().map(json::repository).collect::<Vec<_>>(),
            "as_of": json::at(as_of.as_ref()),
            "identity": json::identity(identity.as_ref()),
            "warnings": json::warnings(&warnings),
        }));
    }
    let mut table = show::Table::new(&["PROJECT", "REPOSITORY", "DEFAULT BRANCH", "SIZE", "READABILITY"]);
    for repo in &repos {
        let branch = repo.default_branch.strip_prefix("refs/heads/").unwrap_or(&repo.default_branch);
        table.row([
            repo.project.clone(),
            repo.name.clone(),
            if branch.is_empty() { "(empty)".to_owned() } else { branch.to_owned() },
            show::size(repo.size_bytes),
            show::word(repo.readability().as_str_name(), "READABILITY_"),
        ]);
    }
    table.print(console.out)?;
    let whose = show::identity(identity.as_ref());
    let taken = show::when(as_of.as_ref(), console.now);
    writeln!(console.err, "{} repositories of {whose}, as of {taken}", repos.len())?;
    Ok(show::print_warnings(console.err, &warnings)?)
}

async fn fetch(
    session: &mut Session<'_, '_>,
    mut request: pb::ListReadableReposRequest,
) -> Result<List, CliError> {
    let mut client = session.remote().await?.credentials();
    let (mut repos, mut warnings) = (Vec::new(), Vec::new());
    loop {
        let call = within(LIST_TIMEOUT, request.clone());
        let page = client.list_readable_repos(call).await?.into_inner();
        repos.extend(page.repos);
        warnings.extend(page.warnings);
        if page.next_page_token.is_empty() {
            warnings.dedup();
            return Ok(List { repos, as_of: page.as_of, identity: page.identity, warnings });
        }
        request.page_token = page.next_page_token;
    }
}

/// The contract's largest page.
const PAGE_SIZE: i32 = 1000;
/// The broker gives up after 90 s.
const LIST_TIMEOUT: Duration = Duration::from_secs(92);

#[cfg(test)]
mod tests {
    use super::super::Exit;
    use super::super::fake::{Fake, Run};
    use super::*;
    use tonic::Status;

    fn stale() -> pb::Warning {
        pb::Warning { code: "LIST_STALE".into(), text: "as old as it says".into() }
    }

    fn page(request: &pb::ListReadableReposRequest) -> pb::ListReadableReposResponse {
        let last = !request.page_token.is_empty();
        let repo = pb::Repository {
            project: "Data Platform".into(),
            name: if last { "web" } else { "analytics" }.into(),
            default_branch: "refs/heads/main".into(),
            size_bytes: 2048,
            readability: pb::Readability::Readable.into(),
            ..Default::default()
        };
        pb::ListReadableReposResponse {
            repos: vec![repo],
            next_page_token: if last { "" } else { "more" }.into(),
            warnings: if last { Vec::new() } else { vec![stale()] },
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn all_pages_make_one_table() {
        let broker = Fake::default().on("CredentialBroker/ListReadableRepos", |r| Ok(page(&r)));
        let run = Run::new(&["repos"]).against(broker).await;
        assert_eq!(
            run.out,
            "PROJECT        REPOSITORY  DEFAULT BRANCH  SIZE     READABILITY\n\
             Data Platform  analytics   main            2.0 KiB  readable\n\
             Data Platform  web         main            2.0 KiB  readable\n"
        );
        assert!(run.err.contains("[LIST_STALE]"), "told with the first page alone: {}", run.err);
    }

    #[tokio::test]
    async fn a_list_that_breaks_off_shows_nothing_of_it() {
        let broker =
            Fake::default().on("CredentialBroker/ListReadableRepos", |r: pb::ListReadableReposRequest| {
                if r.page_token.is_empty() { Ok(page(&r)) } else { Err(Status::aborted("begin again")) }
            });
        let run = Run::new(&["repos", "--json"]).against(broker).await;
        assert_eq!((run.exit, run.out.as_str()), (Exit::Failed, ""));
        assert!(run.err.contains("begin again"));
    }
}
