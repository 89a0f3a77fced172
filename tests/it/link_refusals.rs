//! Callbacks that must not count. Each leaves nothing stored, and none spends somebody else's link.

use std::time::Duration;

use azdo_broker::pb;
use tonic::Code;

use crate::support::{Browser, TestApp, assert_refused, begin_request};

/// The link still waits for its own browser, no code was exchanged, nobody is connected.
async fn assert_unharmed(app: &TestApp, id: &str) {
    assert_eq!(app.exchanges().len(), 0);
    assert_eq!(app.operator().await.link(id).await.unwrap().state(), pb::LinkState::Begun);
    app.assert_nothing_linked().await;
}

/// A34, in the form of design.md 4.2: the redirect URI tells the role.
#[tokio::test]
async fn a34_a_code_at_the_other_roles_redirect_uri_is_refused() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    let elsewhere = link.callback.replace("_service_user?", "?");
    assert_ne!(elsewhere, link.callback);

    assert_eq!(link.browser.get(&elsewhere).await.status, 400);

    assert_unharmed(&app, &link.id).await;
    assert_eq!(link.come_back().await.status, 200);
}

#[tokio::test]
async fn a35_the_same_callback_twice_spends_one_code() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    assert_eq!(link.come_back().await.status, 200);

    let again = link.come_back().await;

    assert_eq!(again.status, 410);
    assert!(!again.body.contains("svc@contoso.com"));
    assert_eq!(app.exchanges().len(), 1);
    let operator = app.operator().await;
    assert_eq!(operator.link(&link.id).await.unwrap().state(), pb::LinkState::Verified);
    assert!(operator.confirm(&link.id).await.is_ok());
}

#[tokio::test]
async fn a35_the_same_callback_ten_times_at_once_spends_one_code() {
    let app = TestApp::start().await;
    let link = app.signed_in("svc@contoso.com").await;
    let visits = (0..10).map(|_| {
        let (mut browser, callback) = (link.browser.clone(), link.callback.clone());
        tokio::spawn(async move { browser.get(&callback).await.status })
    });
    let mut statuses = Vec::new();
    for visit in visits.collect::<Vec<_>>() {
        statuses.push(visit.await.unwrap());
    }

    statuses.sort_unstable();
    assert_eq!(statuses, [[200].as_slice(), &[410; 9]].concat());
    assert_eq!(app.exchanges().len(), 1);
}

#[tokio::test]
async fn a35_a_restart_does_not_make_a_used_callback_good_again() {
    let mut app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    link.come_back().await;

    app.restart().await;

    assert_eq!(link.come_back().await.status, 410);
    assert_eq!(app.exchanges().len(), 1);
    assert!(app.operator().await.confirm(&link.id).await.is_ok());
}

#[tokio::test]
async fn a35_a_state_older_than_ten_minutes_is_refused() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    app.advance(Duration::from_mins(11));

    assert_eq!(link.come_back().await.status, 410);

    assert_eq!(app.exchanges().len(), 0);
    let seen = app.operator().await.link(&link.id).await.unwrap();
    assert_eq!((seen.state(), seen.ended_reason.as_str()), (pb::LinkState::Ended, "LINK_EXPIRED"));
    let confirmed = app.operator().await.confirm(&link.id).await;
    assert_refused(confirmed, Code::FailedPrecondition, "LINK_EXPIRED");
    app.assert_nothing_linked().await;
}

/// The page of an expired link binds nobody any more.
#[tokio::test]
async fn a35_an_expired_link_is_not_entered() {
    let app = TestApp::start().await;
    let begun = app.operator().await.begin().await.unwrap();
    app.advance(Duration::from_mins(10));

    let mut browser = Browser::new();
    assert_eq!(browser.get(&begun.link_url).await.status, 410);
    assert_eq!(browser.post(&begun.link_url).await.status, 410);
    assert_eq!(browser.cookie, None);
}

#[tokio::test]
async fn a29_a_callback_in_a_browser_without_the_cookie_is_refused() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;

    let page = Browser::new().get(&link.callback).await;

    assert_eq!((page.status, page.header("set-cookie")), (400, ""));
    assert_unharmed(&app, &link.id).await;
    assert_eq!(link.come_back().await.status, 200);
}

#[tokio::test]
async fn a29_a_callback_with_another_browsers_cookie_is_refused() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    let (_, _, mut other, _) = app.entered(begin_request()).await;
    assert!(other.cookie.is_some() && other.cookie != link.browser.cookie);

    assert_eq!(other.get(&link.callback).await.status, 400);

    assert_unharmed(&app, &link.id).await;
    assert_eq!(link.come_back().await.status, 200);
}

#[tokio::test]
async fn a29_a_link_entered_by_one_browser_is_not_entered_by_another() {
    let app = TestApp::start().await;
    let link = app.signed_in("svc@contoso.com").await;
    let mut other = Browser::new();

    assert_eq!(other.post(&link.link_url).await.status, 400);

    assert_eq!(other.cookie, None);
    assert_unharmed(&app, &link.id).await;
}

/// A state is known only to the browser that pressed the button; a guess finds nothing.
#[tokio::test]
async fn a_callback_before_anybody_pressed_the_button_changes_nothing() {
    let app = TestApp::start().await;
    let begun = app.operator().await.begin().await.unwrap();
    let mut browser = Browser::new();
    let base = format!("http://localhost:{}/complete/azure_active_directory_service_user", app.links.port());
    for state in [begun.link_id.as_str(), "", "0000000000000000000000000000000000000000000"] {
        let page = browser.get(&format!("{base}?code=1.abc&state={state}")).await;
        assert_eq!(page.status, 404, "{state}");
    }
    assert_unharmed(&app, &begun.link_id).await;
}

/// T12: another site's form cannot enter a link in somebody's browser.
#[tokio::test]
async fn a_button_pressed_from_another_site_is_refused() {
    let app = TestApp::start().await;
    let begun = app.operator().await.begin().await.unwrap();
    for site in ["cross-site", "same-site", "none"] {
        let mut browser = Browser::new();
        let page = browser.post_from(&begun.link_url, site).await;
        assert_eq!((page.status, page.location()), (400, ""), "{site}");
        assert_eq!(browser.cookie, None);
    }
    assert_unharmed(&app, &begun.link_id).await;
    assert_eq!(Browser::new().post(&begun.link_url).await.status, 303);
}

/// The whole way without `ConfirmLink`: GETs alone, even the right ones, connect nobody.
#[tokio::test]
async fn no_get_connects() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    link.come_back().await;
    let url = link.link_url.clone();
    assert_eq!(link.browser.get(&url).await.status, 410);

    app.assert_nothing_linked().await;
    assert_eq!(app.operator().await.link(&link.id).await.unwrap().state(), pb::LinkState::Verified);
}
