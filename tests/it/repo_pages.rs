//! `ListReadableRepos` page by page: all of a large organization, from one snapshot, for one caller.

use std::collections::BTreeSet;
use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::{Change, Generated};
use tonic::Code;

use crate::support::{IDE_BACKEND, TestApp, assert_invalid, assert_refused, list_request, service_user};

const SVC: &str = "svc@contoso.com";
const ANA: &str = "ana@contoso.com";

/// The emulator's rule, computed here on its own: of each twenty, one is disabled, one in maintenance,
/// one denied.
const DISABLED: [u32; 2] = [3, 7];
const DENIED: u32 = 11;

fn generated(count: u32) -> Change {
    Change::GenerateRepositories {
        organization: "contoso".into(),
        project: "website".into(),
        generated: Generated { count, prefix: "repo-".into(), denied_read: vec![SVC.into()] },
    }
}

fn pages_of(size: i32) -> pb::ListReadableReposRequest {
    pb::ListReadableReposRequest { page_size: size, ..list_request() }
}

/// The page after one.
fn after(
    page: &pb::ListReadableReposResponse,
    request: &pb::ListReadableReposRequest,
) -> pb::ListReadableReposRequest {
    assert!(!page.next_page_token.is_empty(), "there is another page");
    pb::ListReadableReposRequest { page_token: page.next_page_token.clone(), ..request.clone() }
}

/// All pages of a request.
async fn all_pages(
    app: &TestApp,
    request: &pb::ListReadableReposRequest,
) -> Vec<pb::ListReadableReposResponse> {
    let job = app.job_runner().await;
    let mut pages = vec![job.repos_page(request.clone()).await.unwrap()];
    while !pages.last().unwrap().next_page_token.is_empty() {
        let next = after(pages.last().unwrap(), request);
        pages.push(job.repos_page(next).await.unwrap());
    }
    pages
}

/// P7, P8: 20,000 repositories, each once, each judged right, all from one snapshot.
#[tokio::test]
async fn twenty_thousand_repositories_are_listed_whole_from_one_snapshot() {
    let app = TestApp::linked().await;
    app.change(generated(20_000));
    let request = pb::ListReadableReposRequest {
        project: "website".into(),
        include_unreadable: true,
        ..pages_of(1000)
    };
    let before = app.devops_requests();

    let pages = all_pages(&app, &request).await;

    let asked = app.devops_requests() - before;
    let (repos, as_of): (Vec<_>, BTreeSet<_>) = (
        pages.iter().flat_map(|page| &page.repos).collect(),
        pages.iter().map(|page| page.as_of.unwrap().seconds).collect(),
    );
    assert_eq!((pages.len(), repos.len(), as_of.len()), (21, 20_001, 1));
    for n in 0..20_000 {
        let repo = repos[n as usize];
        let expected = match n % 20 {
            place if DISABLED.contains(&place) => pb::Readability::Disabled,
            DENIED => pb::Readability::NoPermission,
            _ => pb::Readability::Readable,
        };
        assert_eq!((repo.name.as_str(), repo.readability()), (format!("repo-{n:05}").as_str(), expected));
    }
    assert_eq!(repos[20_000].name, "website");
    // One list, and one batch of 200 questions for every 200 repositories that are open.
    assert_eq!(asked, 1 + 18_001_usize.div_ceil(200), "permissions are asked once, in full batches");
}

/// Lazily: who wants one page pays for one.
#[tokio::test]
async fn a_page_asks_for_the_permissions_of_that_page_alone() {
    let app = TestApp::linked().await;
    app.change(generated(2_000));
    let before = app.devops_requests();

    let page = app.job_runner().await.repos_page(pages_of(100)).await.unwrap();

    assert!(!page.next_page_token.is_empty());
    assert_eq!(app.devops_requests() - before, 2, "the list and one batch");
}

#[tokio::test]
async fn without_the_unreadable_ones_nothing_readable_is_missing() {
    let app = TestApp::linked().await;
    app.change(generated(400));
    let request = pb::ListReadableReposRequest { project: "WEBSITE".into(), ..pages_of(7) };

    let pages = all_pages(&app, &request).await;

    let names: Vec<_> = pages.iter().flat_map(|page| &page.repos).map(|repo| repo.name.clone()).collect();
    let readable = |n: &u32| !DISABLED.contains(&(n % 20)) && n % 20 != DENIED;
    let mut expected: Vec<_> = (0..400).filter(readable).map(|n| format!("repo-{n:05}")).collect();
    expected.push("website".into());
    assert_eq!(names, expected);
    assert!(pages.iter().all(|page| page.repos.len() <= 7));
}

/// What changes meanwhile is seen by the next list, never half by this one.
#[tokio::test]
async fn pages_show_one_moment_whatever_changes_between_them() {
    let app = TestApp::linked().await;
    app.change(generated(30));
    let job = app.job_runner().await;
    let request = pb::ListReadableReposRequest { project: "website".into(), ..pages_of(10) };
    let first = job.repos_page(request.clone()).await.unwrap();
    app.change(generated(5));
    // Somebody else makes a newer list of the same connection.
    let newer =
        pb::ListReadableReposRequest { max_age: Some(prost_types::Duration::default()), ..list_request() };
    app.operator().await.repos_page(newer).await.unwrap();

    let second = job.repos_page(after(&first, &request)).await.unwrap();

    assert_eq!((second.repos[0].name.as_str(), second.as_of), ("repo-00012", first.as_of));
}

/// A page token serves whom it was made for: not another caller, not another developer, no other question.
#[tokio::test]
async fn a_page_token_serves_nobody_else() {
    let app = TestApp::linked().await;
    app.link_developer("ana", ANA).await;
    app.link_developer("ben", "ben@contoso.com").await;
    app.change(generated(300));
    let ide = app.over_tls(IDE_BACKEND).await;
    let of =
        |developer: &str| pb::ListReadableReposRequest { developer_id: developer.into(), ..pages_of(100) };
    let of_ana = ide.repos_page(of("ana")).await.unwrap();
    let headless = ide.repos_page(pages_of(100)).await.unwrap();

    let with =
        |request: pb::ListReadableReposRequest, page: &pb::ListReadableReposResponse| after(page, &request);
    let refused = [
        ide.repos_page(with(of("ben"), &of_ana)).await,
        ide.repos_page(with(pages_of(100), &of_ana)).await,
        ide.repos_page(with(of("ana"), &headless)).await,
        app.operator().await.repos_page(with(of("ana"), &of_ana)).await,
        app.job_runner().await.repos_page(with(pages_of(100), &headless)).await,
        ide.repos_page(pb::ListReadableReposRequest {
            project: "website".into(),
            ..with(of("ana"), &of_ana)
        })
        .await,
        ide.repos_page(pb::ListReadableReposRequest { include_unreadable: true, ..with(of("ana"), &of_ana) })
            .await,
    ];

    for answer in refused {
        assert_refused(answer, Code::Aborted, "SNAPSHOT_GONE");
    }
    assert_eq!(ide.repos_page(with(of("ana"), &of_ana)).await.unwrap().repos.len(), 100, "its owner's works");
}

#[tokio::test]
async fn a_page_token_ends_after_ten_minutes_and_with_the_process() {
    let mut app = TestApp::linked().await;
    app.change(generated(300));
    let request = pages_of(100);
    let first = app.job_runner().await.repos_page(request.clone()).await.unwrap();
    app.advance(Duration::from_mins(9));
    let job = app.job_runner().await;
    let second = job.repos_page(after(&first, &request)).await.unwrap();
    app.advance(Duration::from_mins(2));
    assert_refused(job.repos_page(after(&first, &request)).await, Code::Aborted, "SNAPSHOT_GONE");
    assert!(job.repos_page(after(&second, &request)).await.is_ok(), "two minutes old");

    app.restart().await;

    let refused = app.job_runner().await.repos_page(after(&second, &request)).await;
    assert_refused(refused, Code::Aborted, "SNAPSHOT_GONE");
}

#[tokio::test]
async fn what_is_no_page_token_or_age_is_invalid() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    let with_token = |text: &str| pb::ListReadableReposRequest { page_token: text.into(), ..list_request() };
    for text in ["x", "../../etc/passwd", &"A".repeat(5000)] {
        assert_invalid(job.repos_page(with_token(text)).await, "page_token");
    }
    for seconds in [-1, 3601] {
        let max_age = Some(prost_types::Duration { seconds, nanos: 0 });
        assert_invalid(
            job.repos_page(pb::ListReadableReposRequest { max_age, ..list_request() }).await,
            "max_age",
        );
    }
    assert_invalid(job.repos_page(pages_of(-1)).await, "page_size");
    let project = "p".repeat(257);
    assert_invalid(
        job.repos_page(pb::ListReadableReposRequest { project, ..list_request() }).await,
        "project",
    );
}

/// P5, P7: the next page of a list ends with the connection, and a new link does not go on with the old one's.
#[tokio::test]
async fn a_disconnect_and_a_relink_end_the_pages_of_the_link_before() {
    let app = TestApp::linked().await;
    app.change(generated(300));
    let (job, operator) = (app.job_runner().await, app.operator().await);
    let request = pages_of(100);
    let first = job.repos_page(request.clone()).await.unwrap();

    operator.disconnect_of(service_user()).await.unwrap();
    let refused = job.repos_page(after(&first, &request)).await;
    assert_refused(refused, Code::FailedPrecondition, "NOT_LINKED");

    app.link(SVC).await;
    let refused = job.repos_page(after(&first, &request)).await;
    assert_refused(refused, Code::Aborted, "SNAPSHOT_GONE");
    app.link(ANA).await;
    let listed = job.repos_page(request).await.unwrap();
    assert_eq!(listed.identity.unwrap().login, ANA, "no list of whoever was linked before");
}

/// A developer's list shows what that developer may read, to who may have the developer's token.
#[tokio::test]
async fn a_developers_list_is_theirs_and_needs_the_permission_for_their_token() {
    let app = TestApp::linked().await;
    app.link_developer("ana", ANA).await;
    let of_ana = pb::ListReadableReposRequest { developer_id: "ana".into(), ..list_request() };

    let ide = app.over_tls(IDE_BACKEND).await;
    let listed = ide.repos_page(of_ana.clone()).await.unwrap();
    let headless = ide.repos_page(list_request()).await.unwrap();

    let names = |listed: &pb::ListReadableReposResponse| {
        listed.repos.iter().map(|repo| repo.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(listed.identity.as_ref().unwrap().login, ANA);
    assert_eq!(names(&listed), ["analytics", "empty", "secret", "website"]);
    assert_eq!(names(&headless), ["analytics", "empty", "website"]);
    let denied = app.job_runner().await.repos_page(of_ana).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let of_nobody = pb::ListReadableReposRequest { developer_id: "eve".into(), ..list_request() };
    assert_refused(ide.repos_page(of_nobody).await, Code::FailedPrecondition, "NOT_LINKED");
}
