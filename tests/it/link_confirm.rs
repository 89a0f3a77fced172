//! `ConfirmLink`: the only end of a link in a connection, and only for the caller that began it.

use std::time::Duration;

use azdo_broker::pb;
use tonic::Code;

use crate::support::{IDE_BACKEND, TestApp, assert_refused};

/// A30: the victim of a bearer invitation signs in, and the inviter's confirmation is worth nothing.
/// A link of somebody else and no link at all are one answer (P2).
#[tokio::test]
async fn a30_another_caller_than_the_one_that_began_learns_and_confirms_nothing() {
    let app = TestApp::start().await;
    let (id, _) = app.verified("svc@contoso.com").await;
    let ide = app.over_tls(IDE_BACKEND).await;

    let unknown = assert_refused(ide.confirm("no-such-link").await, Code::PermissionDenied, "");
    let confirmed = assert_refused(ide.confirm(&id).await, Code::PermissionDenied, "");
    let looked = assert_refused(ide.link(&id).await, Code::PermissionDenied, "");

    assert_eq!((confirmed.message(), looked.message()), (unknown.message(), unknown.message()));
    app.assert_nothing_linked().await;
    assert!(app.operator().await.confirm(&id).await.is_ok());
}

#[tokio::test]
async fn a30_a_link_of_another_account_is_not_found_under_this_one() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    operator.put(app.registration_of("globex")).await.unwrap();
    let (id, _) = app.verified("svc@contoso.com").await;
    let request = pb::ConfirmLinkRequest {
        account_id: "globex".into(),
        link_id: id,
        ..pb::ConfirmLinkRequest::default()
    };

    let confirmed = operator.connections().confirm_link(request).await;

    assert_refused(confirmed, Code::PermissionDenied, "");
    app.assert_nothing_linked().await;
}

#[tokio::test]
async fn a_link_nobody_signed_in_for_is_not_confirmed() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let begun = operator.begin().await.unwrap();
    assert_refused(operator.confirm(&begun.link_id).await, Code::FailedPrecondition, "");

    let link = app.signed_in("svc@contoso.com").await;
    assert_refused(operator.confirm(&link.id).await, Code::FailedPrecondition, "");

    app.assert_nothing_linked().await;
    assert_eq!(operator.link(&link.id).await.unwrap().state(), pb::LinkState::Begun);
}

#[tokio::test]
async fn a_link_is_not_confirmed_ten_minutes_after_the_sign_in() {
    let app = TestApp::start().await;
    let (id, _) = app.verified("svc@contoso.com").await;
    app.advance(Duration::from_mins(10));

    let confirmed = app.operator().await.confirm(&id).await;

    assert_refused(confirmed, Code::FailedPrecondition, "LINK_EXPIRED");
    app.assert_nothing_linked().await;
}

#[tokio::test]
async fn confirming_twice_changes_nothing() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let (id, _) = app.verified("svc@contoso.com").await;
    let first = operator.confirm(&id).await.unwrap();

    let second = operator.confirm(&id).await.unwrap();

    assert_eq!(second, first);
    assert_eq!(operator.connection().await.unwrap(), first);
}

#[tokio::test]
async fn confirming_ten_times_at_once_connects_once() {
    let app = TestApp::start().await;
    let (id, _) = app.verified("svc@contoso.com").await;
    let operator = app.operator().await;
    let confirming: Vec<_> = (0..10)
        .map(|_| {
            let (operator, id) = (operator.clone(), id.clone());
            tokio::spawn(async move { operator.confirm(&id).await.unwrap() })
        })
        .collect();
    let connection = operator.confirm(&id).await.unwrap();
    for confirmed in confirming {
        assert_eq!(confirmed.await.unwrap(), connection);
    }
    assert_eq!(operator.connection().await.unwrap(), connection);
}

/// The identity to be replaced is no longer the one shown: shown again, asked again.
#[tokio::test]
async fn a_link_whose_predecessor_changed_meanwhile_is_shown_again_before_it_is_confirmed() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let (id, _) = app.verified("svc@contoso.com").await;
    assert!(operator.link(&id).await.unwrap().replaces.is_none());
    let ben = app.link_unlooked("ben@contoso.com").await;

    assert_refused(operator.confirm(&id).await, Code::Aborted, "LINK_MISMATCH");
    assert_refused(operator.confirm(&id).await, Code::Aborted, "LINK_MISMATCH");
    assert_eq!(operator.connection().await.unwrap(), ben);

    let shown = operator.link(&id).await.unwrap();
    assert_eq!(shown.replaces.unwrap().login, "ben@contoso.com");
    let confirmed = operator.confirm(&id).await.unwrap();
    assert_eq!(confirmed.identity.unwrap().login, "svc@contoso.com");
    assert!(ben.generation < confirmed.generation);
}

#[tokio::test]
async fn the_last_page_and_the_link_name_whom_it_would_replace() {
    let app = TestApp::linked().await;

    let (id, page) = app.verified("ana@contoso.com").await;

    assert!(page.body.contains("replaces") && page.body.contains("svc@contoso.com"), "{}", page.body);
    let link = app.operator().await.link(&id).await.unwrap();
    assert_eq!(link.replaces.unwrap().login, "svc@contoso.com");
    // Until then nothing changed.
    let token = app.operator().await.token().await.unwrap();
    assert_eq!(token.identity.unwrap().login, "svc@contoso.com");
}

#[tokio::test]
async fn linking_the_same_identity_again_replaces_nobody() {
    let app = TestApp::linked().await;
    let (id, _) = app.verified("svc@contoso.com").await;
    let operator = app.operator().await;
    let before = operator.connection().await.unwrap();

    assert!(operator.link(&id).await.unwrap().replaces.is_none());
    let again = operator.confirm(&id).await.unwrap();

    assert_eq!(again.generation, before.generation + 1);
    assert_eq!(operator.token().await.unwrap().identity.unwrap().login, "svc@contoso.com");
}

#[tokio::test]
async fn a_disconnect_ends_links_that_are_under_way() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let (verified, _) = app.verified("ana@contoso.com").await;
    let mut signed_in = app.signed_in("ben@contoso.com").await;

    operator.disconnect().await.unwrap();

    assert_refused(operator.confirm(&verified).await, Code::FailedPrecondition, "LINK_EXPIRED");
    assert_eq!(operator.link(&verified).await.unwrap().state(), pb::LinkState::Ended);
    let exchanged = app.exchanges().len();
    assert_eq!(signed_in.come_back().await.status, 410);
    assert_eq!(app.exchanges().len(), exchanged);
    assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
}

/// P9: an edited record fails alone. It must not keep a person from disconnecting.
#[tokio::test]
async fn a_damaged_link_does_not_keep_the_connection_from_being_ended() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let (id, _) = app.verified("ana@contoso.com").await;
    app.edit_store("UPDATE links SET sealed = zeroblob(length(sealed)) WHERE id = ?1", &id);
    assert_refused(operator.link(&id).await, Code::DataLoss, "RECORD_DAMAGED");
    assert_refused(operator.confirm(&id).await, Code::DataLoss, "RECORD_DAMAGED");

    let ended = operator.disconnect().await.unwrap();

    assert_eq!(ended.state(), pb::ConnectionState::Disconnected);
    app.link("svc@contoso.com").await;
}

/// A grant of another tenant is worth nothing to the integration: what was begun for the old one ends.
#[tokio::test]
async fn links_end_when_the_tenant_or_the_organization_changes() {
    let changes: [fn(&mut pb::PutIntegrationRequest); 2] = [
        |put| put.tenant_id = "20000000-0000-4000-a000-000000000002".into(),
        |put| put.organization = "fabrikam".into(),
    ];
    for change in changes {
        let app = TestApp::start().await;
        let operator = app.operator().await;
        let (verified, _) = app.verified("svc@contoso.com").await;
        let begun = operator.begin().await.unwrap();
        let mut put = app.registration();
        change(&mut put);
        operator.put(put).await.unwrap();

        assert_refused(operator.confirm(&verified).await, Code::FailedPrecondition, "LINK_EXPIRED");
        assert_eq!(operator.link(&begun.link_id).await.unwrap().state(), pb::LinkState::Ended);
        app.assert_nothing_linked().await;
    }
}
