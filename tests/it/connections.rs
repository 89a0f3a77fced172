//! `GetConnection`, `ListConnections`, and records of the store that somebody changed.

use azdo_broker::pb;
use tonic::Code;

use crate::support::{IDE_BACKEND, TestApp, assert_invalid, assert_refused};

fn list_request() -> pb::ListConnectionsRequest {
    pb::ListConnectionsRequest { account_id: "acme".into(), ..pb::ListConnectionsRequest::default() }
}

#[tokio::test]
async fn a_connection_shows_who_it_is_and_how_it_fares() {
    let app = TestApp::linked().await;

    let connection = app.over_tls(IDE_BACKEND).await.connection().await.unwrap();

    assert_eq!(connection.account_id, "acme");
    assert_eq!(connection.connection.unwrap().role(), pb::Role::ServiceUser);
    assert_eq!(connection.identity.unwrap().login, "svc@contoso.com");
    assert_eq!(connection.linked_at.unwrap().seconds, app.emulator.now().as_second());
    assert!(connection.token_expires_at.is_some() && connection.failure.is_none());
}

#[tokio::test]
async fn a_list_shows_live_connections_and_tombstones_only_when_asked() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let mut connections = operator.connections();
    let listed = connections.list_connections(list_request()).await.unwrap().into_inner();
    assert_eq!(listed.connections, [operator.connection().await.unwrap()]);

    operator.disconnect().await.unwrap();

    assert_eq!(connections.list_connections(list_request()).await.unwrap().into_inner().connections, []);
    let state = pb::ConnectionState::Disconnected.into();
    let ended = pb::ListConnectionsRequest { state, ..list_request() };
    let ended = connections.list_connections(ended).await.unwrap().into_inner().connections;
    assert_eq!(ended, [operator.connection().await.unwrap()]);
}

#[tokio::test]
async fn a_page_token_of_somewhere_else_is_invalid() {
    let app = TestApp::linked().await;
    for page_token in ["x", "Z2xvYmV4IHNlcnZpY2VfdXNlcg", "YWNtZSA"] {
        let request = pb::ListConnectionsRequest { page_token: page_token.into(), ..list_request() };
        let answer = app.operator().await.connections().list_connections(request).await;
        assert_invalid(answer, "page_token");
    }
}

/// A21, P9: an edited record fails itself and nothing else.
#[tokio::test]
async fn a21_a_damaged_connection_fails_alone() {
    let mut app = two_linked_accounts().await;
    app.edit_store("UPDATE connections SET sealed = zeroblob(length(sealed)) WHERE account = ?1", "acme");
    app.restart().await;

    let operator = app.operator().await;
    assert_refused(operator.token().await, Code::DataLoss, "RECORD_DAMAGED");
    assert_refused(operator.connection().await, Code::DataLoss, "RECORD_DAMAGED");
    let globex = operator.token_of("globex", None).await.unwrap();
    assert_eq!(globex.identity.unwrap().login, "ana@contoso.com");
}

/// What the refusal says can be done can be done (P10): link again.
#[tokio::test]
async fn a21_a_damaged_connection_is_mended_by_linking_again() {
    let mut app = two_linked_accounts().await;
    app.edit_store("UPDATE connections SET sealed = zeroblob(length(sealed)) WHERE account = ?1", "acme");
    app.restart().await;

    app.link("svc@contoso.com").await;

    assert_eq!(app.operator().await.token().await.unwrap().identity.unwrap().login, "svc@contoso.com");
}

/// A20: a record in another's place is not that other's.
#[tokio::test]
async fn a20_swapped_connections_are_detected() {
    let mut app = two_linked_accounts().await;
    let swap = "UPDATE connections SET
        sealed = (SELECT sealed FROM connections WHERE account <> ?1),
        generation = (SELECT generation FROM connections WHERE account <> ?1)
        WHERE account = ?1";
    app.edit_store(swap, "acme");
    app.restart().await;

    assert_refused(app.operator().await.token().await, Code::DataLoss, "RECORD_DAMAGED");
    assert!(app.operator().await.token_of("globex", None).await.is_ok());
}

/// A21: a disconnected connection does not come back by an edit of its columns.
#[tokio::test]
async fn a21_a_tombstone_edited_to_life_releases_nothing() {
    let mut app = two_linked_accounts().await;
    app.operator().await.disconnect().await.unwrap();
    app.edit_store("UPDATE connections SET live = 1 WHERE account = ?1", "acme");
    app.restart().await;

    let answer = app.operator().await.token().await;
    assert!(matches!(answer.unwrap_err().code(), Code::DataLoss | Code::FailedPrecondition));
}

async fn two_linked_accounts() -> TestApp {
    let app = TestApp::linked().await;
    app.operator().await.put(app.registration_of("globex")).await.unwrap();
    app.link_of("globex", "ana@contoso.com").await;
    app
}
