//! What people and jobs do with git beside a plain clone: push, submodules, shallow and partial clones.

use crate::support::{ANALYTICS, Job, OTHER_ORGANIZATION};

const WEBSITE: &str = "https://dev.azure.com/contoso/_git/website";

/// The service user may read `website` and not push to it; the developer may.
#[tokio::test]
async fn a_push_is_made_with_the_rights_of_the_developer_who_is_named() {
    let job = Job::ready().await;
    job.given.link_developer("ana", "ana@contoso.com").await;
    job.set_up_over("operator").await;
    job.git(&["clone", "--quiet", WEBSITE, "site"]).await.done();
    job.commit("site", "about.html", "<p>About\n").await;

    let refused = job.git(&["-C", "site", "push", "--quiet"]).await;
    assert!(refused.refused(128).contains("403"), "the service user may not push");
    job.git(&["config", "--global", "azdo-broker.developer", "ana"]).await.done();
    job.git(&["-C", "site", "push", "--quiet"]).await.done();

    job.git(&["clone", "--quiet", WEBSITE, "again"]).await.done();
    assert!(job.home.path().join("again/about.html").exists());
    let pushed = job.given.emulator.requests().into_iter();
    let pushed: Vec<_> = pushed.filter(|request| request.path.ends_with("git-receive-pack")).collect();
    let of_ana = job.given.emulator.token_requests().into_iter();
    let of_ana = of_ana.filter(|request| request.user_upn.as_deref() == Some("ana@contoso.com"));
    let tokens: Vec<_> = of_ana.filter_map(|request| request.access_token).collect();
    let fingerprints: Vec<_> = tokens.iter().map(|token| azure_emulator::fingerprint(token)).collect();
    let last = pushed.last().and_then(|request| request.access_token.clone()).unwrap();
    assert!(fingerprints.contains(&last), "the push carried another token than ana's");
}

#[tokio::test]
async fn a_submodule_of_the_same_organization_is_cloned_too() {
    let job = Job::ready().await;
    job.set_up().await;
    job.git(&["clone", "--quiet", WEBSITE, "site"]).await.done();
    let head = job.git(&["-C", "site", "rev-parse", "HEAD"]).await.done();
    job.push_a_submodule_at(WEBSITE, Some(head.trim())).await;

    job.git(&["clone", "--quiet", "--recurse-submodules", ANALYTICS, "whole"]).await.done();

    assert!(job.home.path().join("whole/evil/index.html").exists());
}

/// The service user is a member there as well; the account is not integrated with it all the same.
#[tokio::test]
async fn a52_a_submodule_of_another_organization_gets_no_credential() {
    let job = Job::ready().await;
    job.set_up().await;
    let foreign = WEBSITE.replace("contoso", OTHER_ORGANIZATION);
    job.push_a_submodule_at(&foreign, None).await;
    let released = job.released();

    let cloned = job.git(&["clone", "--recurse-submodules", ANALYTICS, "caught"]).await;

    cloned.refused(1);
    assert_eq!(job.released(), released + 1, "a credential was released for more than the repository");
    let sent = job.given.emulator.requests().into_iter();
    let sent = sent.filter(|request| request.path.contains(OTHER_ORGANIZATION));
    let sent: Vec<_> = sent.map(|request| request.authorization).collect();
    assert!(!sent.is_empty() && sent.iter().all(Option::is_none), "{sent:?}");
}

#[tokio::test]
async fn shallow_and_partial_clones_work_as_far_as_the_server_offers_them() {
    let job = Job::ready().await;
    job.set_up().await;
    job.git(&["clone", "--quiet", ANALYTICS, "author"]).await.done();
    job.commit("author", "second.sql", "select 2\n").await;
    job.git(&["-C", "author", "push", "--quiet"]).await.done();

    job.git(&["clone", "--quiet", "--depth=1", ANALYTICS, "shallow"]).await.done();
    job.git(&["clone", "--quiet", "--filter=blob:none", ANALYTICS, "partial"]).await.done();

    let count = job.git(&["-C", "shallow", "rev-list", "--count", "HEAD"]).await.done();
    assert_eq!(count.trim(), "1");
    assert!(job.home.path().join("shallow/second.sql").exists());
    assert!(job.home.path().join("partial/second.sql").exists());
    job.git(&["-C", "shallow", "fetch", "--quiet", "--unshallow"]).await.done();
    job.git(&["-C", "partial", "fetch", "--quiet"]).await.done();
}

#[tokio::test]
async fn the_optimized_address_is_cloned_too() {
    let job = Job::ready().await;
    job.set_up().await;
    let optimized = ANALYTICS.replace("/_git/", "/_git/_optimized/");
    job.git(&["clone", "--quiet", &optimized, "optimized"]).await.done();
    assert!(job.home.path().join("optimized/README.md").exists());
}
