//! Between the code and the confirmation: whose sign-in it was, and whether they belong.

use azdo_broker::pb;
use azure_emulator::Fault;
use tonic::Code;

use crate::support::{CLIENT_ID, PATIENCE, SignedIn, TestApp, assert_refused, begin_request};

/// The link is over for this reason, nobody is connected, and no confirmation revives it.
async fn assert_ended(app: &TestApp, id: &str, reason: &str) {
    let link = app.operator().await.link(id).await.unwrap();
    assert_eq!((link.state(), link.ended_reason.as_str()), (pb::LinkState::Ended, reason));
    assert!(!link.message.is_empty() && link.identity.is_none());
    let confirmed = app.operator().await.confirm(id).await;
    assert_refused(confirmed, Code::FailedPrecondition, "LINK_EXPIRED");
    app.assert_nothing_linked().await;
}

/// A sign-in whose `id_token` has these claims.
async fn signed_in_with(app: &TestApp, claims: Fault) -> SignedIn {
    let mut link = app.signed_in("svc@contoso.com").await;
    app.fault(claims);
    let page = link.come_back().await;
    assert!(page.body.contains("Not connected"), "{}", page.body);
    link
}

fn claims() -> Claims {
    Claims::default()
}

/// What is forged in an `id_token`.
#[derive(Default)]
struct Claims {
    tid: Option<&'static str>,
    aud: Option<&'static str>,
    nonce: Option<&'static str>,
    iss: Option<&'static str>,
    exp: Option<i64>,
    bad_signature: bool,
}

impl From<Claims> for Fault {
    fn from(claims: Claims) -> Self {
        let text = |claim: Option<&str>| claim.map(str::to_owned);
        Self::IdToken {
            tid: text(claims.tid),
            aud: text(claims.aud),
            nonce: text(claims.nonce),
            iss: text(claims.iss),
            exp: claims.exp,
            bad_signature: claims.bad_signature,
            count: Some(1),
        }
    }
}

#[tokio::test]
async fn a37_an_id_token_of_another_tenant_is_refused() {
    let app = TestApp::start().await;
    let tid = Some("20000000-0000-4000-a000-000000000002");
    let link = signed_in_with(&app, Claims { tid, ..claims() }.into()).await;
    assert_ended(&app, &link.id, "LINK_MISMATCH").await;
}

#[tokio::test]
async fn a37_an_id_token_of_another_issuer_is_refused() {
    let app = TestApp::start().await;
    let iss = Some("https://login.microsoftonline.com/20000000-0000-4000-a000-000000000002/v2.0");
    let link = signed_in_with(&app, Claims { iss, ..claims() }.into()).await;
    assert_ended(&app, &link.id, "LINK_MISMATCH").await;
}

#[tokio::test]
async fn a37_an_id_token_for_another_audience_is_refused() {
    let app = TestApp::start().await;
    let aud = Some("ffffffff-0000-4000-a000-000000000001");
    let link = signed_in_with(&app, Claims { aud, ..claims() }.into()).await;
    assert_ended(&app, &link.id, "LINK_MISMATCH").await;
}

#[tokio::test]
async fn a37_an_id_token_with_another_nonce_is_refused() {
    let app = TestApp::start().await;
    let link = signed_in_with(&app, Claims { nonce: Some("another"), ..claims() }.into()).await;
    assert_ended(&app, &link.id, "LINK_MISMATCH").await;
}

#[tokio::test]
async fn a37_an_id_token_with_a_bad_signature_is_refused() {
    let app = TestApp::start().await;
    let link = signed_in_with(&app, Claims { bad_signature: true, ..claims() }.into()).await;
    assert_ended(&app, &link.id, "LINK_MISMATCH").await;
}

#[tokio::test]
async fn a37_an_expired_id_token_is_refused() {
    let app = TestApp::start().await;
    let exp = Some(app.emulator.now().as_second() - 3600);
    let link = signed_in_with(&app, Claims { exp, ..claims() }.into()).await;
    assert_ended(&app, &link.id, "LINK_MISMATCH").await;
}

#[tokio::test]
async fn a_person_who_is_no_member_of_the_organization_is_refused() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("outsider@contoso.com").await;

    let page = link.come_back().await;

    assert!(page.body.contains("not a member"), "{}", page.body);
    assert_ended(&app, &link.id, "NOT_A_MEMBER").await;
}

/// Entra itself refuses a guest of nowhere; the broker ends the link without an exchange.
#[tokio::test]
async fn a_person_of_another_tenant_is_refused() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("mallory@fabrikam.com").await;

    assert!(link.come_back().await.body.contains("Not connected"));

    assert_eq!(app.exchanges().len(), 0);
    let seen = app.operator().await.link(&link.id).await.unwrap();
    assert_eq!(seen.state(), pb::LinkState::Ended);
    app.assert_nothing_linked().await;
}

/// The admin's own account is not linked silently (design.md 8).
#[tokio::test]
async fn somebody_else_than_expected_is_refused() {
    let app = TestApp::start().await;
    let request = pb::BeginLinkRequest { expected_login: "svc@contoso.com".into(), ..begin_request() };
    let mut link = app.signed_in_for(request, "ana@contoso.com").await;

    assert!(link.come_back().await.body.contains("Somebody else"));

    assert_ended(&app, &link.id, "LINK_MISMATCH").await;
}

#[tokio::test]
async fn whoever_was_expected_is_verified_whatever_the_case() {
    let app = TestApp::start().await;
    let request = pb::BeginLinkRequest { expected_login: "SVC@Contoso.com".into(), ..begin_request() };
    let mut link = app.signed_in_for(request, "svc@contoso.com").await;
    link.come_back().await;
    assert_eq!(app.operator().await.link(&link.id).await.unwrap().state(), pb::LinkState::Verified);
}

#[tokio::test]
async fn a_declined_sign_in_ends_the_link_without_an_exchange() {
    let app = TestApp::start().await;
    let mut link = app.declined().await;

    assert!(link.come_back().await.body.contains("declined"));

    assert_eq!(app.exchanges().len(), 0);
    assert_ended(&app, &link.id, "LINK_EXPIRED").await;
}

#[tokio::test]
async fn a_sign_in_without_a_grant_is_refused() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    app.fault(Fault::NoRefreshToken { count: Some(1) });
    link.come_back().await;
    assert_ended(&app, &link.id, "INTEGRATION_MISCONFIGURED").await;
}

#[tokio::test]
async fn a_client_secret_that_expired_ends_the_link_and_says_who_acts() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    app.fault(Fault::SecretExpire { client_id: CLIENT_ID.into() });

    assert!(link.come_back().await.body.contains("client secret"));

    assert_ended(&app, &link.id, "CLIENT_CREDENTIAL_REJECTED").await;
}

/// P4: what the code bought is sealed before the checks, and `GetLink` resumes them.
#[tokio::test]
async fn a_check_that_microsoft_did_not_answer_is_made_again_by_looking() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    app.fault(Fault::DevopsOutage { status: None, count: None });
    assert!(link.come_back().await.body.contains("Almost done"));
    let operator = app.operator().await;
    assert_eq!(operator.link(&link.id).await.unwrap().state(), pb::LinkState::Held);
    let early = operator.confirm(&link.id).await;
    assert_refused(early, Code::FailedPrecondition, "");

    app.emulator.clear_faults();

    assert_eq!(operator.link(&link.id).await.unwrap().state(), pb::LinkState::Verified);
    assert_eq!(operator.confirm(&link.id).await.unwrap().state(), pb::ConnectionState::Connected);
    assert_eq!(app.exchanges().len(), 1);
}

/// P4: between exchange and confirmation the process may go.
#[tokio::test]
async fn a_held_link_goes_on_after_a_restart() {
    let mut app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    app.fault(Fault::DevopsOutage { status: None, count: None });
    link.come_back().await;
    app.emulator.clear_faults();

    app.restart().await;

    let operator = app.operator().await;
    assert_eq!(operator.link(&link.id).await.unwrap().state(), pb::LinkState::Verified);
    assert!(operator.confirm(&link.id).await.is_ok());
    assert_eq!(operator.token().await.unwrap().identity.unwrap().login, "svc@contoso.com");
}

/// The browser may leave while Entra thinks: the link is finished all the same.
#[tokio::test]
async fn a_browser_that_leaves_during_the_exchange_loses_nothing() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    app.fault(Fault::EntraHold { count: Some(1) });
    let id = link.id.clone();
    let visit = tokio::spawn(async move { link.come_back().await.status });
    app.emulator.wait_held(1).await;
    visit.abort();
    assert!(visit.await.unwrap_err().is_cancelled());

    app.emulator.release_held();

    let operator = app.operator().await;
    let verified = async { while operator.link(&id).await.unwrap().state() != pb::LinkState::Verified {} };
    tokio::time::timeout(PATIENCE, verified).await.unwrap();
    assert!(operator.confirm(&id).await.is_ok());
}
