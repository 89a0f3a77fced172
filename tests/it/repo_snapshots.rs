//! How long a list serves, who shares it, and what is shown while Azure DevOps does not answer (A28).

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::{Change, Fault, Generated};
use tonic::Code;

use crate::support::{PATIENCE, TestApp, assert_refused, list_request};

fn at_most(age: Duration) -> pb::ListReadableReposRequest {
    let max_age = Some(age.try_into().unwrap());
    pb::ListReadableReposRequest { max_age, ..list_request() }
}

fn generated(count: u32) -> Change {
    let generated = Generated { count, prefix: "repo-".into(), denied_read: Vec::new() };
    Change::GenerateRepositories { organization: "contoso".into(), project: "website".into(), generated }
}

fn codes(listed: &pb::ListReadableReposResponse) -> Vec<&str> {
    listed.warnings.iter().map(|warning| warning.code.as_str()).collect()
}

#[tokio::test]
async fn a_list_serves_whoever_finds_it_young_enough() {
    let app = TestApp::linked().await;
    let (job, operator) = (app.job_runner().await, app.operator().await);
    let first = job.repos_page(list_request()).await.unwrap();
    let before = app.devops_requests();

    app.advance(Duration::from_mins(4));
    let again = operator.repos_page(list_request()).await.unwrap();
    assert_eq!((app.devops_requests() - before, again.as_of), (0, first.as_of));

    let younger = operator.repos_page(at_most(Duration::from_mins(3))).await.unwrap();
    assert!(first.as_of.unwrap().seconds < younger.as_of.unwrap().seconds);
    let anew = operator.repos_page(at_most(Duration::ZERO)).await.unwrap();
    assert!(before + 2 < app.devops_requests(), "zero is always made anew");
    assert!(anew.warnings.is_empty());
    app.advance(Duration::from_mins(6));
    let later = job.repos_page(list_request()).await.unwrap();
    assert!(younger.as_of.unwrap().seconds < later.as_of.unwrap().seconds, "five minutes if nothing is said");
}

/// Whoever comes while a list is made waits for it, and whoever goes away does not waste it.
#[tokio::test]
async fn many_who_ask_at_once_share_one_list() {
    let app = TestApp::linked().await;
    let before = app.devops_requests();
    app.fault(Fault::DevopsHold { path: Some("git/repositories".into()), count: None });
    let job = app.job_runner().await;
    let ask = || {
        let job = job.clone();
        tokio::spawn(async move { job.repos_page(list_request()).await })
    };
    let impatient = ask();
    app.emulator.wait_held(1).await;
    impatient.abort();
    let listing: Vec<_> = (0..20).map(|_| ask()).collect();
    // Each of them is in the broker before the list arrives: another caller's token says so.
    for _ in 0..20 {
        job.token().await.unwrap();
    }

    app.emulator.release_held();

    for listed in listing {
        assert_eq!(listed.await.unwrap().unwrap().repos.len(), 3);
    }
    assert_eq!(app.devops_requests() - before, 2, "one list, one batch of permissions");
}

/// A list that was begun before somebody asked for a new one is not what they asked for.
#[tokio::test]
async fn who_wants_a_list_made_anew_is_not_answered_by_one_begun_before() {
    let app = TestApp::linked().await;
    let before = app.devops_requests();
    app.fault(Fault::DevopsHold { path: Some("git/repositories".into()), count: Some(1) });
    let job = app.job_runner().await;
    let ask = |request: pb::ListReadableReposRequest| {
        let job = job.clone();
        tokio::spawn(async move { job.repos_page(request).await.unwrap() })
    };
    let first = ask(list_request());
    app.emulator.wait_held(1).await;
    // What is asked from here on is not in the list that is held.
    app.advance(Duration::from_secs(7));
    app.change(generated(5));
    let anew: Vec<_> = (0..10).map(|_| ask(at_most(Duration::ZERO))).collect();
    // Each of them is in the broker before the list arrives: another caller's token says so.
    for _ in 0..10 {
        job.token().await.unwrap();
    }

    app.emulator.release_held();

    let first = first.await.unwrap();
    for listed in anew {
        let listed = listed.await.unwrap();
        assert_eq!(listed.as_of.unwrap().seconds - first.as_of.unwrap().seconds, 7);
        assert!(first.repos.len() < listed.repos.len());
    }
    assert!(app.devops_requests() - before <= 4, "two lists, a batch of permissions each");
}

/// P7: however the second list fails, the first is shown with its time, or an error; never a part of one.
#[tokio::test]
async fn a28_while_azure_devops_fails_the_last_list_is_shown_with_its_time() {
    let app = TestApp::linked().await;
    app.change(generated(100));
    let job = app.job_runner().await;
    let first = job.repos_page(list_request()).await.unwrap();
    let once = Some(1);
    let path = || Some("git/repositories".to_owned());
    for fault in [
        Fault::Truncate { bytes: 5_000, cleanly: false, path: path(), count: once },
        Fault::Truncate { bytes: 5_000, cleanly: true, path: path(), count: once },
        Fault::DevopsOutage { status: Some(503), count: once },
        Fault::EdgeBlocked { count: once },
        Fault::DevopsThrottle { retry_after: Some(5), delayed: false, count: once },
    ] {
        let which = format!("{fault:?}");
        app.advance(Duration::from_mins(6));
        app.fault(fault);
        let listed = job.repos_page(list_request()).await.unwrap();
        assert_eq!((listed.as_of, &listed.repos), (first.as_of, &first.repos), "{which}");
        assert_eq!(codes(&listed), ["LIST_STALE"], "{which}");
        // Who wants it new is told that it cannot be had.
        app.advance(Duration::from_secs(10));
    }
    app.fault(Fault::DevopsOutage { status: None, count: once });
    assert_refused(job.repos_page(at_most(Duration::ZERO)).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    let listed = job.repos_page(list_request()).await.unwrap();
    assert!(first.as_of.unwrap().seconds < listed.as_of.unwrap().seconds && codes(&listed).is_empty());
}

/// A page with success is a sign-in (azure.md 3.8), whoever wrote it: its token is replaced once, and then
/// nothing of before is shown to an identity that may be nobody's any more.
#[tokio::test]
async fn a28_a_page_instead_of_a_list_is_a_refused_token_also_where_a_list_is_held() {
    for status in [200, 203] {
        let app = TestApp::linked().await;
        let job = app.job_runner().await;
        job.repos_page(list_request()).await.unwrap();
        app.advance(Duration::from_mins(6));
        app.fault(Fault::DevopsOutage { status: Some(status), count: Some(1) });
        let replaced = job.repos_page(list_request()).await.unwrap();
        assert_eq!((replaced.repos.len(), codes(&replaced)), (3, Vec::new()), "{status}");
        assert_eq!(app.refreshes().len(), 1, "{status}");

        app.advance(Duration::from_mins(6));
        app.fault(Fault::DevopsOutage { status: Some(status), count: Some(2) });
        assert_refused(job.repos_page(list_request()).await, Code::FailedPrecondition, "NOT_A_MEMBER");

        let anew = job.repos_page(list_request()).await.unwrap();
        assert_eq!((anew.repos.len(), codes(&anew)), (3, Vec::new()), "{status}");
        assert!(replaced.as_of.unwrap().seconds < anew.as_of.unwrap().seconds);
    }
}

/// The same with nothing to show: an error each time.
#[tokio::test]
async fn a28_a_first_list_that_breaks_off_is_an_error() {
    let app = TestApp::linked().await;
    app.change(generated(100));
    let job = app.job_runner().await;
    for (bytes, cleanly) in [(0, true), (1, false), (5_000, false), (5_000, true)] {
        let path = Some("git/repositories".to_owned());
        app.fault(Fault::Truncate { bytes, cleanly, path, count: Some(1) });
        assert_refused(job.repos_page(list_request()).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    }
    app.fault(Fault::EdgeBlocked { count: Some(1) });
    assert_refused(job.repos_page(list_request()).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    assert_eq!(job.repos_page(list_request()).await.unwrap().repos.len(), 93, "the open ones");
}

/// Azure DevOps that takes longer than it may is an outage, with a list to show and without.
#[tokio::test]
async fn a28_a_list_that_takes_too_long_is_an_error_or_the_last_one() {
    let mut app = TestApp::start().await;
    app.files.devops_keys = "list_timeout = \"400ms\"";
    app.restart().await;
    app.link("svc@contoso.com").await;
    let job = app.job_runner().await;
    let hold = || Fault::DevopsHold { path: Some("git/repositories".into()), count: Some(1) };
    app.fault(hold());
    assert_refused(job.repos_page(list_request()).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    app.emulator.release_held();
    let first = job.repos_page(list_request()).await.unwrap();

    app.advance(Duration::from_mins(6));
    app.fault(hold());
    let stale = job.repos_page(list_request()).await.unwrap();

    assert_eq!((stale.as_of, codes(&stale)), (first.as_of, vec!["LIST_STALE"]));
    app.emulator.release_held();
}

/// Stale, but not for ever: after an hour an error is more honest.
#[tokio::test]
async fn a_list_of_an_hour_ago_is_shown_no_more() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    job.repos_page(list_request()).await.unwrap();
    app.advance(Duration::from_mins(61));
    app.fault(Fault::DevopsOutage { status: None, count: None });
    assert_refused(job.repos_page(list_request()).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
}

/// P2: what the identity lost is not shown from memory.
#[tokio::test]
async fn who_is_no_longer_a_member_is_shown_no_list_of_before() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    job.repos_page(list_request()).await.unwrap();
    let user = "svc@contoso.com".to_owned();
    app.change(Change::RemoveMember { organization: "contoso".into(), user });

    app.advance(Duration::from_mins(6));

    assert_refused(job.repos_page(list_request()).await, Code::FailedPrecondition, "NOT_A_MEMBER");
    // Nor within the five minutes of another caller's list.
    assert_refused(job.repos_page(list_request()).await, Code::FailedPrecondition, "NOT_A_MEMBER");
}

#[tokio::test]
async fn a_suspended_account_shows_no_list() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    job.repos_page(list_request()).await.unwrap();
    let request = pb::SuspendRequest { account_id: "acme".into(), ..Default::default() };
    app.operator().await.integrations().suspend(request).await.unwrap();
    assert_refused(job.repos_page(list_request()).await, Code::FailedPrecondition, "SUSPENDED");
}

/// A list of nothing says what is likely missing (azure.md 3.5).
#[tokio::test]
async fn an_identity_that_sees_nothing_is_warned() {
    let app = TestApp::start().await;
    app.link("ben@contoso.com").await;
    let listed = app.job_runner().await.repos_page(list_request()).await.unwrap();
    assert_eq!((listed.repos.len(), codes(&listed)), (0, vec!["NO_REPOSITORY_VISIBLE"]));
}

/// Asked to slow down, the broker does, and the answer is as good as any.
#[tokio::test]
async fn who_is_asked_to_slow_down_waits_and_the_list_is_whole() {
    let app = TestApp::linked().await;
    app.fault(Fault::DevopsThrottle { retry_after: Some(3), delayed: true, count: Some(1) });
    let job = app.job_runner().await;
    let listing = tokio::spawn(async move { job.repos_page(list_request()).await });
    let waiting = async {
        while !listing.is_finished() {
            app.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    assert_eq!(listing.await.unwrap().unwrap().repos.len(), 3);
}
