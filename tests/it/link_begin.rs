//! `BeginLink` and the way of a person from the first page to the last (design.md 4.2).

use std::collections::HashSet;

use azdo_broker::pb;
use url::Url;

use crate::support::{Browser, TestApp, assert_invalid, begin_request};

/// The whole way, through the sign-in page a person sees.
#[tokio::test]
async fn a_service_user_is_linked_through_the_pages_and_confirmed() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let begun = operator.begin().await.unwrap();
    let mut browser = Browser::new();

    let first = browser.get(&begun.link_url).await;
    assert_eq!(first.status, 200);
    assert!(first.body.contains("service user") && first.body.contains("dev.azure.com/contoso"));
    let authorize_url = browser.post(&begun.link_url).await.location().to_owned();
    assert!(authorize_url.starts_with(&app.emulator.browser_url()), "{authorize_url}");
    let mut at_entra = Browser::new();
    assert!(at_entra.get(&authorize_url).await.body.contains("svc@contoso.com"));
    let choice = [("user", "svc@contoso.com"), ("action", "accept")];
    let callback = at_entra.post_form(&authorize_url, &choice).await.location().to_owned();
    let last = browser.get(&callback).await;
    assert!(last.body.contains("svc@contoso.com") && last.body.contains("confirm"), "{}", last.body);

    let link = operator.link(&begun.link_id).await.unwrap();
    assert_eq!(link.state(), pb::LinkState::Verified);
    assert_eq!(link.identity.unwrap().login, "svc@contoso.com");
    let connection = operator.confirm(&begun.link_id).await.unwrap();
    assert_eq!(connection.state(), pb::ConnectionState::Connected);
    assert_eq!(connection.identity.unwrap().display_name, "Service Account");
    assert_eq!(operator.link(&begun.link_id).await.unwrap().state(), pb::LinkState::Connected);
}

#[tokio::test]
async fn a_begun_link_has_a_page_below_the_public_url_and_ten_minutes() {
    let app = TestApp::start().await;
    let begun = app.operator().await.begin().await.unwrap();

    let page = format!("http://localhost:{}/link/{}", app.links.port(), begun.link_id);
    assert_eq!(begun.link_url, page);
    assert_eq!(begun.expires_at.unwrap().seconds, app.emulator.now().as_second() + 600);
    // Front A gives neither: they belong to the browser.
    assert_eq!((begun.authorize_url.as_str(), begun.state.as_str()), ("", ""));
}

#[tokio::test]
async fn a36_every_link_has_a_challenge_a_state_and_a_nonce_of_its_own() {
    let app = TestApp::start().await;
    let mut seen = HashSet::new();
    for _ in 0..10 {
        let (.., authorize_url) = app.entered(begin_request()).await;
        let query: Vec<(String, String)> =
            Url::parse(&authorize_url).unwrap().query_pairs().into_owned().collect();
        let value = |name: &str| query.iter().find(|(other, _)| other == name).unwrap().1.clone();

        assert_eq!(value("code_challenge_method"), "S256");
        assert_eq!((value("response_mode"), value("prompt")), ("query".into(), "select_account".into()));
        for name in ["code_challenge", "state", "nonce"] {
            assert_eq!(value(name).len(), 43, "{name}");
            assert!(seen.insert(value(name)), "{name} came twice");
        }
        assert!(query.iter().all(|(name, _)| !name.contains("verifier") && !name.contains("secret")));
    }
}

/// A GET binds nothing: it gives a browser its cookie, but the link is free until somebody enters it.
#[tokio::test]
async fn looking_at_the_first_page_binds_nobody() {
    let app = TestApp::start().await;
    let begun = app.operator().await.begin().await.unwrap();
    let mut curious = Browser::new();
    for _ in 0..2 {
        assert_eq!(curious.get(&begun.link_url).await.status, 200);
    }
    assert_eq!(app.operator().await.link(&begun.link_id).await.unwrap().state(), pb::LinkState::Begun);

    assert_eq!(Browser::new().post(&begun.link_url).await.status, 303);
    app.assert_nothing_linked().await;
}

#[tokio::test]
async fn a31_two_links_of_one_browser_share_its_cookie_and_not_their_fate() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let (first, second) = (operator.begin().await.unwrap(), operator.begin().await.unwrap());
    let mut browser = Browser::new();
    let to_first = browser.post(&first.link_url).await.location().to_owned();
    let cookie = browser.cookie.clone();
    let to_second = browser.post(&second.link_url).await.location().to_owned();
    assert_eq!(browser.cookie, cookie);

    let declined = app.emulator.decline(&to_first).await.unwrap();
    browser.get(&declined).await;
    let callback = app.emulator.sign_in(&to_second, "svc@contoso.com").await.unwrap();
    browser.get(&callback).await;

    assert_eq!(operator.link(&first.link_id).await.unwrap().state(), pb::LinkState::Ended);
    assert_eq!(operator.link(&second.link_id).await.unwrap().state(), pb::LinkState::Verified);
}

#[tokio::test]
async fn a_link_that_cannot_be_is_refused_by_its_field() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let named = |role: pb::Role, developer: &str| {
        Some(pb::ConnectionName { role: role.into(), developer_id: developer.into() })
    };
    let with_connection = |connection| pb::BeginLinkRequest { connection, ..begin_request() };
    let with_front = |front: pb::Front| pb::BeginLinkRequest { front: front.into(), ..begin_request() };
    for (request, field) in [
        (with_connection(None), "connection.role"),
        (with_connection(named(pb::Role::ServicePrincipal, "")), "connection.role"),
        (with_connection(named(pb::Role::ServiceUser, "ana")), "connection.developer_id"),
        (with_connection(named(pb::Role::Developer, "")), "connection.developer_id"),
        (with_front(pb::Front::Unspecified), "front"),
        (pb::BeginLinkRequest { return_to: "https://evil.test".into(), ..begin_request() }, "return_to"),
        (pb::BeginLinkRequest { actor: "a\nb".into(), ..begin_request() }, "actor"),
    ] {
        assert_invalid(operator.begin_with(request).await, field);
    }
}

/// A double click is one browser, also when the answer to the first never came.
#[tokio::test]
async fn a31_two_clicks_of_one_browser_come_to_the_same_and_another_browser_comes_too_late() {
    let app = TestApp::start().await;
    let begun = app.operator().await.begin().await.unwrap();
    let mut first = Browser::new();
    first.get(&begun.link_url).await;
    let mut second = Browser::new();
    second.cookie.clone_from(&first.cookie);

    let (one, other) = tokio::join!(first.post(&begun.link_url), second.post(&begun.link_url));

    assert_eq!((one.status, other.status), (303, 303));
    assert_eq!(one.location(), other.location());
    assert_eq!(Browser::new().post(&begun.link_url).await.status, 400);
}
