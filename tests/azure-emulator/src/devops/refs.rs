//! The refs of a repository, in pages when `$top` asks for them.

use std::io;

use serde_json::{Value, json};
use tokio::process::Command;

use super::access::Caller;
use super::errors;
use super::repositories::find_open;
use crate::call::{Answer, Call, json as answer_json, text, with_header};
use crate::fault::Fault;
use crate::seeding::make_repository;
use crate::state::Shared;
use crate::world::Repository;

pub(super) async fn list(
    shared: &Shared,
    call: &Call,
    caller: &Caller,
    (project, name): (Option<&str>, &str),
) -> Answer {
    let Some((project, repository)) = find_open(caller, project, name) else {
        return errors::no_repository(name);
    };
    let Ok(refs) = read(shared, &repository).await else {
        return text(500, "the repository cannot be read");
    };
    let filter = format!("refs/{}", call.query("filter").unwrap_or_default());
    let contains = call.query("filterContains").unwrap_or_default();
    let wanted = refs.lines().filter_map(|line| line.split_once(' ')).filter(|(_, name)| {
        let is_after = call.query("continuationToken").is_none_or(|token| *name > token);
        name.starts_with(&filter) && name.contains(contains) && is_after
    });
    let all: Vec<(&str, &str)> = wanted.collect();
    let top = call.query("$top").and_then(|top| top.parse::<usize>().ok());
    let top = top.unwrap_or(all.len()).min(LARGEST_PAGE);
    let url = format!(
        "https://dev.azure.com/{}/{}/_apis/git/repositories/{}/refs",
        caller.organization.name, project.id, repository.id
    );
    let value: Vec<Value> = all
        .iter()
        .take(top)
        .map(|(object, name)| {
            let filter = name.strip_prefix("refs/").unwrap_or(name);
            json!({ "name": name, "objectId": object, "url": format!("{url}?filter={filter}") })
        })
        .collect();
    let answer = answer_json(200, &json!({ "count": value.len(), "value": value }));
    let is_endless = shared.find_fault(|fault| matches!(fault, Fault::EndlessPages {})).is_some();
    if is_endless {
        return with_header(answer, "x-ms-continuationtoken", "refs/");
    }
    match all.get(top.saturating_sub(1)).filter(|_| top > 0 && top < all.len()) {
        Some((_, last)) => with_header(answer, "x-ms-continuationtoken", last),
        None => answer,
    }
}

/// `{object id} {name}`, a line each, in the order of their names.
async fn read(shared: &Shared, repository: &Repository) -> io::Result<String> {
    {
        let _one_at_a_time = shared.seeding.lock().await;
        make_repository(repository, &shared.data_dir)?;
    }
    let output = Command::new("git")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("LC_ALL", "C")
        .env_remove("GIT_DIR")
        .args(["-c", "safe.directory=*", "--git-dir"])
        .arg(shared.data_dir.join(format!("{}.git", repository.id)))
        .args(["for-each-ref", "--format=%(objectname) %(refname)"])
        .kill_on_drop(true)
        .output()
        .await?;
    String::from_utf8(output.stdout).map_err(io::Error::other)
}

/// The service gives no more than this at once.
const LARGEST_PAGE: usize = 1000;
