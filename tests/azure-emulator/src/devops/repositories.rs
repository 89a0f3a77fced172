//! Projects and repositories, as lists and one by one.
//!
//! The list of repositories is not paged and shows disabled ones. Those which the caller may
//! not read are shown too, unless a switch hides them: what the real service does is not
//! known, and a client must ask for the permission anyway.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::access::Caller;
use super::errors;
use crate::call::{Answer, Call, json as answer_json, with_header};
use crate::fault::Fault;
use crate::state::Shared;
use crate::world::{Licence, Organization, Project, Repository, same};

pub(super) fn projects(shared: &Shared, call: &Call, caller: &Caller) -> Answer {
    let number = |name: &str| call.query(name).and_then(|value| value.parse::<usize>().ok());
    let top = number("$top").unwrap_or(PAGE);
    let first = number("continuationToken").or_else(|| number("$skip")).unwrap_or(0);
    let wanted = call.query("stateFilter").unwrap_or("wellFormed");
    let visible: Vec<Value> = visible_projects(caller)
        .filter(|project| wanted == "all" || same(&project.state, wanted))
        .map(|project| project_json(&caller.organization, project))
        .collect();
    // Without an end, the pages begin anew.
    let is_endless = shared.find_fault(|fault| matches!(fault, Fault::EndlessPages {})).is_some();
    let first = if is_endless { first % visible.len().max(1) } else { first };
    let page: Vec<&Value> = visible.iter().skip(first).take(top).collect();
    let answer = answer_json(200, &json!({ "count": page.len(), "value": page }));
    let next = first.saturating_add(page.len());
    if is_endless || (next < visible.len() && !page.is_empty()) {
        with_header(answer, "x-ms-continuationtoken", &next.to_string())
    } else {
        answer
    }
}

pub(super) fn project(caller: &Caller, name: &str) -> Answer {
    match visible_project(caller, name) {
        Some(project) => answer_json(200, &project_json(&caller.organization, project)),
        None => errors::no_project(name),
    }
}

pub(super) fn list(shared: &Shared, caller: &Caller, project: Option<&str>) -> Answer {
    if let Some(name) = project.filter(|name| visible_project(caller, name).is_none()) {
        return errors::no_project(name);
    }
    let hides_denied = shared.find_fault(|fault| matches!(fault, Fault::HideDenied {})).is_some();
    let has_code = caller.licence == Licence::Basic;
    let wanted = |candidate: &&Project| {
        project.is_none_or(|name| same(&candidate.name, name) || same(&candidate.id, name))
    };
    let mut value = Vec::new();
    for project in visible_projects(caller).filter(wanted).filter(|_| has_code) {
        for repository in project.all_repositories() {
            if !hides_denied || repository.is_readable_by(&caller.subject.name) {
                value.push(repository_json(&caller.organization, project, &repository));
            }
        }
    }
    answer_json(200, &json!({ "count": value.len(), "value": value }))
}

pub(super) fn single(caller: &Caller, project: Option<&str>, name: &str) -> Answer {
    match find_open(caller, project, name) {
        Some((project, repository)) => {
            answer_json(200, &repository_json(&caller.organization, project, &repository))
        }
        None => errors::no_repository(name),
    }
}

/// A repository whose content the caller gets to see, by id or name.
pub(super) fn find_open<'a>(
    caller: &'a Caller,
    project: Option<&str>,
    name: &str,
) -> Option<(&'a Project, Cow<'a, Repository>)> {
    let is_meant = |candidate: &&Project| {
        project.is_none_or(|name| same(&candidate.name, name) || same(&candidate.id, name))
    };
    let mut found = visible_projects(caller)
        .filter(is_meant)
        .filter_map(|project| Some((project, project.repository(name)?)));
    found.next().filter(|(_, repository)| is_open(caller, repository))
}

/// Whether the caller gets to see this repository's content.
pub(super) fn is_open(caller: &Caller, repository: &Repository) -> bool {
    let is_there = !repository.disabled && !repository.maintenance;
    is_there && caller.licence == Licence::Basic && repository.is_readable_by(&caller.subject.name)
}

pub(super) fn visible_project<'a>(caller: &'a Caller, name: &str) -> Option<&'a Project> {
    caller.organization.project(name).filter(|project| project.is_readable_by(&caller.subject.name))
}

fn visible_projects(caller: &Caller) -> impl Iterator<Item = &Project> {
    let projects = caller.organization.projects.iter();
    projects.filter(|project| project.is_readable_by(&caller.subject.name))
}

fn project_json(organization: &Organization, project: &Project) -> Value {
    json!({
        "id": project.id,
        "name": project.name,
        "url": format!("https://dev.azure.com/{}/_apis/projects/{}", organization.name, project.id),
        "state": project.state,
        "revision": 41,
        "visibility": project.visibility,
        "lastUpdateTime": "2026-01-01T00:00:00.000Z",
    })
}

pub(super) fn repository_json(
    organization: &Organization,
    project: &Project,
    repository: &Repository,
) -> Value {
    let organization_name = &organization.name;
    let path = format!("{organization_name}/{}/_git/{}", encoded(&project.name), encoded(&repository.name));
    let bytes: usize = repository.files.values().map(String::len).sum();
    let mut value = json!({
        "id": repository.id,
        "name": repository.name,
        "url": format!(
            "https://dev.azure.com/{organization_name}/{}/_apis/git/repositories/{}",
            project.id, repository.id
        ),
        "project": project_json(organization, project),
        "size": repository.size.unwrap_or_else(|| u64::try_from(bytes).unwrap_or(u64::MAX)),
        "remoteUrl": format!("https://{organization_name}@dev.azure.com/{path}"),
        "sshUrl": format!(
            "git@ssh.dev.azure.com:v3/{organization_name}/{}/{}",
            encoded(&project.name), encoded(&repository.name)
        ),
        "webUrl": format!("https://dev.azure.com/{path}"),
        "isDisabled": repository.disabled,
        "isInMaintenance": repository.maintenance,
    });
    // An empty repository has no default branch.
    if !repository.files.is_empty() {
        value["defaultBranch"] = json!(format!("refs/heads/{}", repository.branch()));
    }
    value
}

fn encoded(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}

const PAGE: usize = 100;
