//! `repos --compare`: what the service user and the service principal may clone, side by side, for whoever
//! is about to switch from one to the other.
//!
//! Both lists are made anew for it; neither of the two needs to be the identity in use, both must be connected.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::{CliError, Session, json, show};
use super::{List, fetch};
use crate::pb;

/// What is known of one repository, by project, name and id.
type Rows<'a> = BTreeMap<(&'a str, &'a str, &'a str), OfEach>;
/// The service user's and the service principal's; `None` if its list does not have it.
type OfEach = [Option<pb::Readability>; 2];

pub(super) async fn run(
    session: &mut Session<'_, '_>,
    request: pb::ListReadableReposRequest,
    shows_all: bool,
) -> Result<(), CliError> {
    let of = |headless: pb::HeadlessIdentity| pb::ListReadableReposRequest {
        headless_identity: headless.into(),
        include_unreadable: true,
        max_age: Some(prost_types::Duration::default()),
        ..request.clone()
    };
    let user = fetch(session, of(pb::HeadlessIdentity::ServiceUser)).await?;
    let principal = fetch(session, of(pb::HeadlessIdentity::ServicePrincipal)).await?;
    let mut rows = rows([&user, &principal]);
    let both = rows.values().filter(|of_each| readers(**of_each) == 2).count();
    let differ = rows.values().filter(|of_each| readers(**of_each) == 1).count();
    if !shows_all {
        rows.retain(|_, of_each| readers(*of_each) == 1);
    }

    let console = &mut *session.console;
    let warnings = [user.warnings.as_slice(), &principal.warnings].concat();
    if console.json {
        let row = |(&(project, name, id), of_each): (&(&str, &str, &str), &OfEach)| {
            let [user, principal] = of_each.map(word);
            json!({ "project": project, "name": name, "id": id, "service_user": user, "service_principal": principal })
        };
        return console.print_json(&json!({
            "service_user": json::identity(user.identity.as_ref()),
            "service_principal": json::identity(principal.identity.as_ref()),
            "both_read": both,
            "repos": rows.iter().map(row).collect::<Vec<_>>(),
            "warnings": json::warnings(&warnings),
        }));
    }
    if !rows.is_empty() {
        let mut table = show::Table::new(&["PROJECT", "REPOSITORY", "SERVICE USER", "SERVICE PRINCIPAL"]);
        for ((project, name, _), of_each) in &rows {
            let [user, principal] = of_each.map(word);
            table.row([(*project).to_owned(), (*name).to_owned(), user, principal]);
        }
        table.print(console.out)?;
    }
    let identities = [&user, &principal].map(|list| show::identity(list.identity.as_ref()));
    let [user, principal] = identities;
    writeln!(
        console.err,
        "{both} repositories both {user} and {principal} can read, {differ} only one of them"
    )?;
    Ok(show::print_warnings(console.err, &warnings)?)
}

fn rows(lists: [&List; 2]) -> Rows<'_> {
    let mut rows = Rows::new();
    for (which, list) in lists.into_iter().enumerate() {
        for repo in &list.repos {
            let of_each = rows.entry((&repo.project, &repo.name, &repo.id)).or_default();
            of_each[which] = Some(repo.readability());
        }
    }
    rows
}

/// How many of the two may read it.
fn readers(of_each: OfEach) -> usize {
    of_each.iter().flatten().filter(|readability| **readability == pb::Readability::Readable).count()
}

/// An identity that is in no team of a project does not even see its repositories.
fn word(readability: Option<pb::Readability>) -> String {
    readability.map_or_else(|| "not_seen".to_owned(), |it| show::word(it.as_str_name(), "READABILITY_"))
}

#[cfg(test)]
mod tests {
    use super::super::super::Exit;
    use super::super::super::fake::{Fake, Ran, Run};
    use super::*;
    use tonic::{Code, Status};

    fn list(request: &pb::ListReadableReposRequest) -> pb::ListReadableReposResponse {
        assert!(request.include_unreadable && request.max_age.is_some_and(|age| age.seconds == 0));
        let is_user = request.headless_identity() == pb::HeadlessIdentity::ServiceUser;
        let repo = |name: &str, readability: pb::Readability| pb::Repository {
            id: name.into(),
            project: "Web".into(),
            name: name.into(),
            readability: readability.into(),
            ..Default::default()
        };
        let login = if is_user { "svc@contoso.com" } else { "" };
        let identity = pb::Identity { login: login.into(), object_id: "app".into(), ..Default::default() };
        let secret = if is_user { pb::Readability::NoPermission } else { pb::Readability::Readable };
        let mut repos = vec![repo("shop", pb::Readability::Readable), repo("secret", secret)];
        if is_user {
            repos.push(repo("mine", pb::Readability::Readable));
        }
        pb::ListReadableReposResponse { repos, identity: Some(identity), ..Default::default() }
    }

    async fn run(args: &[&str]) -> Ran {
        let broker = Fake::default().on("CredentialBroker/ListReadableRepos", |request| Ok(list(&request)));
        Run::new(&[&["repos", "--compare"], args].concat()).against(broker).await
    }

    #[tokio::test]
    async fn what_only_one_of_the_two_may_read_is_shown() {
        let ran = run(&[]).await;
        assert_eq!(
            ran.out,
            "PROJECT  REPOSITORY  SERVICE USER   SERVICE PRINCIPAL\n\
             Web      mine        readable       not_seen\n\
             Web      secret      no_permission  readable\n"
        );
        assert_eq!(ran.err, "1 repositories both svc@contoso.com and app can read, 2 only one of them\n");
        assert!(run(&["--all"]).await.out.contains("shop"));
    }

    #[tokio::test]
    async fn a_program_reads_the_same_as_json() {
        let ran = run(&["--json"]).await;
        let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(value["both_read"], 1);
        assert_eq!(value["repos"][0]["service_principal"], "not_seen");
        assert_eq!(value["service_user"]["login"], "svc@contoso.com");
    }

    #[tokio::test]
    async fn one_that_is_not_connected_ends_it_with_nothing_shown() {
        let broker = Fake::default().on(
            "CredentialBroker/ListReadableRepos",
            |request: pb::ListReadableReposRequest| match request.headless_identity() {
                pb::HeadlessIdentity::ServiceUser => Ok(list(&request)),
                _ => Err(Status::new(
                    Code::FailedPrecondition,
                    "the account's service principal is not linked",
                )),
            },
        );
        let ran = Run::new(&["repos", "--compare"]).against(broker).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Failed, ""));
        assert!(ran.err.contains("service principal"), "{}", ran.err);
    }
}
