//! `repos`: the repositories that the account's headless identity can read, whole or not at all.

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
}

pub(super) async fn run(session: &mut Session<'_, '_>, args: Args) -> Result<(), CliError> {
    let mut request = pb::ListReadableReposRequest {
        account_id: session.account()?.to_string(),
        project: args.project.unwrap_or_default(),
        page_size: PAGE_SIZE,
        include_unreadable: args.all,
        actor: actor(),
        ..Default::default()
    };
    let mut client = session.remote().await?.credentials();
    let mut repos = Vec::new();
    let last = loop {
        let call = within(LIST_TIMEOUT, request.clone());
        let mut page = client.list_readable_repos(call).await?.into_inner();
        repos.append(&mut page.repos);
        if page.next_page_token.is_empty() {
            break page;
        }
        request.page_token.clone_from(&page.next_page_token);
    };
    let console = &mut *session.console;
    if console.json {
        return console.print_json(&json!({
            "repos": repos.iter().map(json::repository).collect::<Vec<_>>(),
            "as_of": json::at(last.as_of.as_ref()),
            "identity": json::identity(last.identity.as_ref()),
            "warnings": json::warnings(&last.warnings),
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
    let whose = show::identity(last.identity.as_ref());
    let as_of = show::when(last.as_of.as_ref(), console.now);
    writeln!(console.err, "{} repositories of {whose}, as of {as_of}", repos.len())?;
    Ok(show::print_warnings(console.err, &last.warnings)?)
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
