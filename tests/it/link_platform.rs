//! Front B: the platform's own pages receive the redirect and hand it over.

use azdo_broker::pb;
use azure_emulator::Fault;
use tonic::Code;

use crate::support::{
    Browser, IDE_BACKEND, TestApp, assert_invalid, assert_refused, begin_request, developer, service_user,
};

fn front_b(name: pb::ConnectionName) -> pb::BeginLinkRequest {
    pb::BeginLinkRequest { connection: Some(name), front: pb::Front::PlatformPages.into(), ..begin_request() }
}

#[tokio::test]
async fn a_service_user_is_linked_by_the_platforms_pages() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let received = app.received(service_user(), "svc@contoso.com").await;

    let link = operator.complete(received.request.clone()).await.unwrap();

    assert_eq!(link.state(), pb::LinkState::Verified);
    assert_eq!(link.identity.unwrap().login, "svc@contoso.com");
    assert!(!link.confirmation_required);
    assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
    operator.confirm(&received.id).await.unwrap();
    assert!(operator.token().await.is_ok());
    // Repeating it answers the link as it is.
    let again = operator.complete(received.request).await.unwrap();
    assert_eq!(again.state(), pb::LinkState::Connected);
    assert_eq!(app.exchanges().len(), 1);
}

#[tokio::test]
async fn a35_the_same_callback_handed_over_ten_times_at_once_spends_one_code() {
    let app = TestApp::start().await;
    let received = app.received(service_user(), "svc@contoso.com").await;
    let operator = app.operator().await;
    let calls = (0..10).map(|_| {
        let (operator, request) = (operator.clone(), received.request.clone());
        tokio::spawn(async move { operator.complete(request).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(app.exchanges().len(), 1);
    assert_eq!(operator.link(&received.id).await.unwrap().state(), pb::LinkState::Verified);
}

/// T01: only the caller that began the link, and nobody learns that it exists.
#[tokio::test]
async fn a_callback_handed_over_by_another_caller_is_not_known() {
    let app = TestApp::start().await;
    let received = app.received(service_user(), "svc@contoso.com").await;
    let other = app.over_tls(IDE_BACKEND).await;

    let foreign = other.complete(received.request.clone()).await.unwrap_err();
    let request = pb::CompleteLinkRequest { state: "unknown".into(), ..received.request.clone() };
    let unknown = other.complete(request).await.unwrap_err();

    assert_eq!((foreign.code(), foreign.message()), (Code::NotFound, unknown.message()));
    assert_eq!(app.exchanges().len(), 0);
    assert!(app.operator().await.complete(received.request).await.is_ok());
}

/// T03, A34: a service user's code completes no developer's link, whichever redirect URI is claimed.
#[tokio::test]
async fn a34_a_service_users_code_completes_no_developers_link() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let of_service_user = app.received(service_user(), "svc@contoso.com").await;
    let of_ana = app.received(developer("ana"), "ana@contoso.com").await;

    // The service user's redirect URI does not fit the developer's link, and spends nothing.
    let mixed = pb::CompleteLinkRequest {
        redirect_uri: of_service_user.request.redirect_uri.clone(),
        code: of_service_user.request.code.clone(),
        ..of_ana.request.clone()
    };
    assert_invalid(operator.complete(mixed).await, "redirect_uri");
    assert_eq!(app.exchanges().len(), 0);

    // With the developer's own redirect URI, Entra refuses the code: PKCE and redirect URI are not its.
    let disguised =
        pb::CompleteLinkRequest { code: of_service_user.request.code.clone(), ..of_ana.request.clone() };
    let link = operator.complete(disguised).await.unwrap();
    assert_eq!(link.state(), pb::LinkState::Ended, "{link:?}");
    let confirmed = operator.confirm(&of_ana.id).await;
    assert_refused(confirmed, Code::FailedPrecondition, "LINK_EXPIRED");
    assert_refused(operator.token_of_developer("ana").await, Code::FailedPrecondition, "NOT_LINKED");
}

#[tokio::test]
async fn our_pages_know_nothing_of_a_link_by_the_platforms() {
    let app = TestApp::start().await;
    let begun = app.operator().await.begin_with(front_b(service_user())).await.unwrap();
    assert!(begun.link_url.is_empty() && !begun.state.is_empty());
    let base = format!("http://localhost:{}", app.links.port());
    let mut browser = Browser::new();

    assert_eq!(browser.get(&format!("{base}/link/{}", begun.link_id)).await.status, 404);
    assert_eq!(browser.post(&format!("{base}/link/{}", begun.link_id)).await.status, 404);
    let callback = app.emulator.sign_in(&begun.authorize_url, "svc@contoso.com").await.unwrap();
    assert_eq!(browser.get(&callback).await.status, 404);
    assert_eq!(app.exchanges().len(), 0);
}

#[tokio::test]
async fn the_platform_cannot_hand_over_a_link_of_our_pages() {
    let app = TestApp::start().await;
    let link = app.signed_in("svc@contoso.com").await;
    let callback = reqwest::Url::parse(&link.callback).unwrap();
    let field = |name: &str| callback.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    let request = pb::CompleteLinkRequest {
        account_id: "acme".into(),
        redirect_uri: link.callback.split('?').next().unwrap().into(),
        state: field("state"),
        code: field("code"),
        ..pb::CompleteLinkRequest::default()
    };
    assert_eq!(app.operator().await.complete(request).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(app.exchanges().len(), 0);
}

#[tokio::test]
async fn a_person_who_declined_ends_the_link() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let begun = operator.begin_with(front_b(developer("ana"))).await.unwrap();
    let request = pb::CompleteLinkRequest {
        account_id: "acme".into(),
        redirect_uri: format!("http://localhost:{}/complete/azure_active_directory", app.links.port()),
        state: begun.state,
        error: "access_denied".into(),
        error_description: "AADSTS65004: <script>canary</script>".into(),
        ..pb::CompleteLinkRequest::default()
    };

    let link = operator.complete(request).await.unwrap();

    assert_eq!(link.state(), pb::LinkState::Ended);
    assert!(!link.message.is_empty() && !link.message.contains("canary"), "{link:?}");
    assert_eq!(app.exchanges().len(), 0);
}

#[tokio::test]
async fn a_callback_has_exactly_one_of_code_and_error() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let received = app.received(service_user(), "svc@contoso.com").await;
    let with = |code: &str, error: &str| pb::CompleteLinkRequest {
        code: code.into(),
        error: error.into(),
        ..received.request.clone()
    };
    assert_invalid(operator.complete(with("", "")).await, "code");
    assert_invalid(operator.complete(with("c", "access_denied")).await, "code");
    let request = pb::CompleteLinkRequest { state: String::new(), ..received.request.clone() };
    assert_invalid(operator.complete(request).await, "state");
    assert_eq!(operator.link(&received.id).await.unwrap().state(), pb::LinkState::Begun);
}

/// What was taken is finished although Azure DevOps does not answer at first.
#[tokio::test]
async fn a_link_that_could_not_be_checked_is_held_and_checked_again() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let received = app.received(service_user(), "svc@contoso.com").await;
    app.fault(Fault::DevopsOutage { status: None, count: Some(2) });

    // The hand-over looks once more by itself: two failures leave it held.
    let link = operator.complete(received.request).await.unwrap();
    assert_eq!(link.state(), pb::LinkState::Held, "{link:?}");

    assert_eq!(operator.link(&received.id).await.unwrap().state(), pb::LinkState::Verified);
    assert!(operator.confirm(&received.id).await.is_ok());
}

/// Relinking by another person names who is replaced, to the caller that confirms.
#[tokio::test]
async fn relinking_names_who_is_replaced() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let received = app.received(service_user(), "ana@contoso.com").await;

    let link = operator.complete(received.request).await.unwrap();

    assert_eq!(link.replaces.unwrap().login, "svc@contoso.com");
    assert_eq!(operator.token().await.unwrap().identity.unwrap().login, "svc@contoso.com");
    operator.confirm(&received.id).await.unwrap();
    assert_eq!(operator.token().await.unwrap().identity.unwrap().login, "ana@contoso.com");
}

#[tokio::test]
async fn a_return_target_is_for_our_pages_only() {
    let app = TestApp::start().await;
    let request = pb::BeginLinkRequest { return_to: "settings".into(), ..front_b(service_user()) };
    assert_invalid(app.operator().await.begin_with(request).await, "return_to");
}
