//! `ListReadableRepos`: all that the service user may read, or an error; never a short list.

use std::time::Duration;

use azdo_broker::devops::LISTS_MAX;
use azdo_broker::pb;
use azure_emulator::{Change, Fault, Licence, World};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{IDE_BACKEND, PATIENCE, TestApp, assert_refused, list_request, reason_of};

fn names(listed: &pb::ListReadableReposResponse) -> Vec<String> {
    listed.repos.iter().map(|repo| format!("{}/{}", repo.project, repo.name)).collect()
}

#[tokio::test]
async fn the_list_is_what_the_service_user_may_read() {
    let app = TestApp::linked().await;

    let listed = app.job_runner().await.repos(false).await.unwrap();

    assert_eq!(names(&listed), ["Data Platform/analytics", "Data Platform/empty", "website/website"]);
    assert!(listed.repos.iter().all(|repo| repo.readability() == pb::Readability::Readable));
    let analytics = &listed.repos[0];
    assert_eq!(analytics.default_branch, "refs/heads/main");
    assert!(analytics.clone_url.ends_with("dev.azure.com/contoso/Data%20Platform/_git/analytics"));
    assert_eq!(listed.identity.unwrap().login, "svc@contoso.com");
    assert_eq!(listed.as_of.unwrap().seconds, app.emulator.now().as_second());
    assert_eq!(listed.next_page_token, "");
    // The token it needed is no release.
    assert_eq!(app.released().len(), 0);
}

#[tokio::test]
async fn what_cannot_be_read_is_listed_only_when_asked_and_marked() {
    let app = TestApp::linked().await;

    let listed = app.job_runner().await.repos(true).await.unwrap();

    let unreadable: Vec<_> = listed
        .repos
        .iter()
        .filter(|repo| repo.readability() != pb::Readability::Readable)
        .map(|repo| (repo.name.as_str(), repo.readability()))
        .collect();
    assert_eq!(listed.repos.len(), 5);
    assert_eq!(unreadable, [("old", pb::Readability::Disabled), ("secret", pb::Readability::NoPermission)]);
}

#[tokio::test]
async fn a_permission_that_changes_changes_the_next_list() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    let denied_read = |users: &[&str]| Change::SetRepository {
        organization: "contoso".into(),
        project: "Data Platform".into(),
        repository: "analytics".into(),
        disabled: None,
        denied_read: Some(users.iter().map(|user| (*user).to_owned()).collect()),
        contribute: None,
    };
    app.change(denied_read(&["svc@contoso.com"]));
    assert!(!names(&job.repos(false).await.unwrap()).contains(&"Data Platform/analytics".to_owned()));

    app.change(denied_read(&[]));

    assert!(names(&job.repos(false).await.unwrap()).contains(&"Data Platform/analytics".to_owned()));
}

#[tokio::test]
async fn a_project_is_chosen_by_name_or_id() {
    let app = TestApp::linked().await;
    for project in ["website", "WEBSITE", "dddd0000-0000-4000-a000-000000000002"] {
        let request = pb::ListReadableReposRequest { project: project.into(), ..list_request() };
        let listed = app.job_runner().await.repos_page(request).await.unwrap();
        assert_eq!(names(&listed), ["website/website"], "{project}");
    }
}

#[tokio::test]
async fn an_organization_without_repositories_is_an_empty_list() {
    let mut world = World::example();
    world.organizations[0].projects.clear();
    let app = TestApp::linked_in(world).await;
    assert_eq!(app.job_runner().await.repos(true).await.unwrap().repos, []);
}

/// A stakeholder is a member, but sees no code.
#[tokio::test]
async fn a_stakeholder_reads_nothing() {
    let app = TestApp::start().await;
    app.link("ben@contoso.com").await;
    let listed = app.job_runner().await.repos(false).await.unwrap();
    assert_eq!(names(&listed), Vec::<String>::new());
}

/// A28: however Azure DevOps refuses a token, it is replaced once, asked once more, and then it is said.
async fn assert_refused_without_a_loop(status: u16, always: bool) {
    let app = TestApp::linked().await;
    app.fault(Fault::SignInMode { status, always });
    // Connected to another directory, the organization takes no token of this one.
    app.change(Change::Connect { organization: "contoso".into(), tenant: Some("fabrikam.com".into()) });
    let before = app.devops_requests();

    let answer = app.job_runner().await.repos(false).await;

    assert_refused(answer, Code::FailedPrecondition, "NOT_A_MEMBER");
    assert_eq!(app.refreshes().len(), 1);
    assert_eq!(app.devops_requests() - before, 2);
    // And not even that again within the minute.
    let answer = app.job_runner().await.repos(false).await;
    assert_refused(answer, Code::FailedPrecondition, "NOT_A_MEMBER");
    assert_eq!(app.refreshes().len(), 1);
    assert_eq!(app.operator().await.connection().await.unwrap().state(), pb::ConnectionState::Connected);
}

#[tokio::test]
async fn a28_a_401_is_a_refused_token() {
    assert_refused_without_a_loop(401, false).await;
}

#[tokio::test]
async fn a28_a_203_with_a_sign_in_page_is_a_refused_token() {
    assert_refused_without_a_loop(203, true).await;
}

#[tokio::test]
async fn a28_a_302_to_a_sign_in_page_is_a_refused_token() {
    assert_refused_without_a_loop(302, true).await;
}

/// Azure DevOps alone thinks the token has expired: the list succeeds with its successor.
#[tokio::test]
async fn a28_a_token_that_is_refused_is_replaced_and_the_list_succeeds() {
    let app = TestApp::linked().await;
    app.emulator.advance(Duration::from_hours(2));

    let listed = app.job_runner().await.repos(false).await.unwrap();

    assert_eq!(listed.repos.len(), 3);
    assert_eq!(app.refreshes().len(), 1);
}

#[tokio::test]
async fn throttling_is_told_with_its_wait_and_never_a_short_list() {
    let app = TestApp::linked().await;
    app.fault(Fault::DevopsThrottle { retry_after: Some(17), delayed: false, count: Some(1) });
    let job = app.job_runner().await;

    let status = assert_refused(job.repos(false).await, Code::Unavailable, "UPSTREAM_THROTTLED");

    let wait = status.get_error_details().retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(wait, Duration::from_secs(17));
    // Nothing is asked before that, whoever asks.
    let before = app.devops_requests();
    assert_refused(job.repos(false).await, Code::Unavailable, "UPSTREAM_THROTTLED");
    assert_eq!(app.devops_requests(), before);
    app.advance(Duration::from_secs(17));
    assert_eq!(job.repos(false).await.unwrap().repos.len(), 3);
}

#[tokio::test]
async fn a28_an_outage_of_azure_devops_is_told_and_never_a_short_list() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    for status in [500, 502, 503] {
        app.fault(Fault::DevopsOutage { status: Some(status), count: Some(1) });
        let refused = assert_refused(job.repos(false).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        assert!(refused.get_error_details().retry_info().is_some());
    }
    assert_eq!(job.repos(false).await.unwrap().repos.len(), 3);
    assert_eq!(app.refreshes().len(), 0);
}

/// The second half of a list counts as much as the first: permissions that cannot be asked fail it.
#[tokio::test]
async fn a28_permissions_that_cannot_be_asked_fail_the_list() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    app.fault(Fault::DevopsHang { count: Some(1) });
    let listing = tokio::spawn(async move { job.repos(false).await });
    app.emulator.wait_held(1).await;
    // The list of repositories is held; what comes after it fails.
    app.fault(Fault::DevopsOutage { status: None, count: None });
    app.emulator.release_held();

    assert_refused(listing.await.unwrap(), Code::Unavailable, "UPSTREAM_UNAVAILABLE");
}

#[tokio::test]
async fn somebody_who_was_removed_from_the_organization_is_told_apart_from_an_outage() {
    let app = TestApp::linked().await;
    let user = "svc@contoso.com".to_owned();
    app.change(Change::RemoveMember { organization: "contoso".into(), user: user.clone() });
    let job = app.job_runner().await;

    let status = assert_refused(job.repos(false).await, Code::FailedPrecondition, "NOT_A_MEMBER");
    assert!(!status.get_error_details().help().unwrap().links.is_empty());

    let licence = Licence::default();
    app.change(Change::AddMember { organization: "contoso".into(), user, licence });
    assert_eq!(job.repos(false).await.unwrap().repos.len(), 3);
}

#[tokio::test]
async fn a_policy_of_the_organization_is_for_its_administrator() {
    let app = TestApp::linked().await;
    let (message, type_key) = ("VS403463: The conditional access policy".into(), "X".into());
    app.fault(Fault::DevopsError { status: 403, message, type_key, count: Some(1) });
    let answer = app.job_runner().await.repos(false).await;
    let status = assert_refused(answer, Code::FailedPrecondition, "ADMIN_ACTION_REQUIRED");
    assert!(!status.message().contains("VS403463"));
}

/// P8: a few lists at once are what one process makes; one more is told to wait, and the others are complete.
#[tokio::test]
async fn more_lists_at_once_than_may_be_made_are_refused_and_the_others_are_complete() {
    let app = TestApp::linked().await;
    // Of one identity three requests of lists are on their way at once; the lists behind them wait their turn.
    let people = ["ana@contoso.com", "ben@contoso.com"];
    for n in 0..LISTS_MAX {
        app.link_developer(&format!("dev{n}"), people[n % people.len()]).await;
    }
    app.fault(Fault::DevopsHang { count: None });
    let ide = app.over_tls(IDE_BACKEND).await;
    let mut listing = Vec::new();
    for n in 0..LISTS_MAX {
        let ide = ide.clone();
        let request = pb::ListReadableReposRequest { developer_id: format!("dev{n}"), ..list_request() };
        listing.push(tokio::spawn(async move { ide.repos_page(request).await }));
    }
    app.emulator.wait_held(6).await;

    let job = app.job_runner().await;
    let refused = async || job.repos(false).await.is_err_and(|status| reason_of(&status) == "RATE_LIMITED");
    tokio::time::timeout(PATIENCE, async { while !refused().await {} }).await.unwrap();
    assert!(job.token().await.is_ok(), "tokens are not lists");

    app.emulator.release_held();
    for listed in listing {
        assert!(listed.await.unwrap().unwrap().next_page_token.is_empty());
    }
}
