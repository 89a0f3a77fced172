//! Links of our pages that lead back to the platform: the confirmation travels through the browser alone.

use azdo_broker::pb;
use azure_emulator::Fault;
use tonic::Code;

use crate::support::{Page, SignedIn, TestApp, assert_invalid, assert_refused, begin_request, developer};

async fn signed_in(app: &TestApp, id: &str, upn: &str) -> SignedIn {
    let request = pb::BeginLinkRequest {
        connection: Some(developer(id)),
        return_to: "settings".into(),
        ..begin_request()
    };
    app.signed_in_for(request, upn).await
}

/// The confirmation that the browser was sent to the platform with.
fn confirmation(page: &Page, app: &TestApp, link: &SignedIn) -> String {
    assert_eq!(page.status, 303, "{}", page.body);
    let target = reqwest::Url::parse(page.location()).unwrap();
    assert_eq!(target.path(), "/settings/azure-devops");
    assert_eq!(target.port(), Some(app.links.port()), "below the account's own public URL");
    let pairs: Vec<(String, String)> = target.query_pairs().into_owned().collect();
    let [(link_id, of_link), (name, value)] = pairs.as_slice() else { panic!("{pairs:?}") };
    assert_eq!((link_id.as_str(), of_link, name.as_str()), ("link_id", &link.id, "confirmation"));
    value.clone()
}

#[tokio::test]
async fn a_developer_links_by_our_pages_and_comes_back_with_a_confirmation() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let mut link = signed_in(&app, "ana", "ana@contoso.com").await;
    let page = link.come_back().await;
    let confirmation = confirmation(&page, &app, &link);

    let shown = operator.link(&link.id).await.unwrap();
    assert!(shown.confirmation_required && shown.state() == pb::LinkState::Verified);
    assert!(!format!("{shown:?}").contains(&confirmation), "GetLink never shows it");
    assert_invalid(operator.confirm(&link.id).await, "confirmation");
    let wrong = operator.confirm_with(&link.id, "of another browser").await;
    assert_refused(wrong, Code::Aborted, "LINK_MISMATCH");
    assert_refused(operator.token_of_developer("ana").await, Code::FailedPrecondition, "NOT_LINKED");

    operator.confirm_with(&link.id, &confirmation).await.unwrap();
    assert_eq!(operator.token_of_developer("ana").await.unwrap().identity.unwrap().login, "ana@contoso.com");
}

/// T01: Mallory's own link, opened by Victor: Victor's browser has the confirmation, Mallory's has none.
#[tokio::test]
async fn one_links_confirmation_is_not_anothers() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let mut of_ana = signed_in(&app, "ana", "ana@contoso.com").await;
    let mut of_ben = signed_in(&app, "ben", "ben@contoso.com").await;
    let page = of_ana.come_back().await;
    let anas = confirmation(&page, &app, &of_ana);
    of_ben.come_back().await;

    let refused = operator.confirm_with(&of_ben.id, &anas).await;

    assert_refused(refused, Code::Aborted, "LINK_MISMATCH");
    assert_refused(operator.token_of_developer("ben").await, Code::FailedPrecondition, "NOT_LINKED");
}

#[tokio::test]
async fn a_browser_is_sent_back_although_a_check_is_still_open() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let mut link = signed_in(&app, "ana", "ana@contoso.com").await;
    app.fault(Fault::DevopsOutage { status: None, count: Some(1) });
    let page = link.come_back().await;

    let confirmation = confirmation(&page, &app, &link);

    assert_eq!(operator.link(&link.id).await.unwrap().state(), pb::LinkState::Verified);
    assert!(operator.confirm_with(&link.id, &confirmation).await.is_ok());
}

#[tokio::test]
async fn a_link_that_ended_stays_on_our_page() {
    let app = TestApp::start().await;
    let mut link = signed_in(&app, "out", "outsider@contoso.com").await;

    let page = link.come_back().await;

    assert_eq!(page.status, 200);
    assert!(page.body.contains("not a member"), "{}", page.body);
}

#[tokio::test]
async fn a_developers_link_by_our_pages_needs_a_configured_target() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    for target in ["", "elsewhere", "https://evil.test/"] {
        let request = pb::BeginLinkRequest {
            connection: Some(developer("ana")),
            return_to: target.into(),
            ..begin_request()
        };
        assert_invalid(operator.begin_with(request).await, "return_to");
    }
}

#[tokio::test]
async fn a_confirmation_nobody_asked_for_is_refused() {
    let app = TestApp::start().await;
    let (id, _) = app.verified("svc@contoso.com").await;
    assert_invalid(app.operator().await.confirm_with(&id, "something").await, "confirmation");
}
