//! Developers: each has a connection of their own, and nobody else's token.

use azdo_broker::pb;
use tonic::Code;

use crate::support::{
    IDE_BACKEND, TestApp, assert_invalid, assert_refused, begin_request, developer, service_user,
};

const ANALYTICS: &str = "https://dev.azure.com/contoso/Data%20Platform/_git/analytics";

#[tokio::test]
async fn a_developer_is_linked_by_the_platforms_pages_and_gets_a_token_of_their_own() {
    let app = TestApp::linked().await;
    let linked = app.link_developer("ana", "ana@contoso.com").await;
    assert_eq!(linked.identity.unwrap().login, "ana@contoso.com");

    let ide = app.over_tls(IDE_BACKEND).await;
    let token = ide.token_of_developer("ana").await.unwrap();
    let headless = ide.token().await.unwrap();

    assert_eq!(token.identity.unwrap().login, "ana@contoso.com");
    assert_eq!(token.connection, Some(developer("ana")));
    assert_eq!(headless.identity.unwrap().login, "svc@contoso.com");
    assert_ne!(token.access_token, headless.access_token);
    let released = app.released();
    assert!(released.iter().any(|line| line["role"] == "developer/ana"), "{released:?}");
}

/// P7: what one developer linked serves that developer only.
#[tokio::test]
async fn a05_one_developers_token_is_never_anothers() {
    let app = TestApp::linked().await;
    app.link_developer("ana", "ana@contoso.com").await;
    let ide = app.over_tls(IDE_BACKEND).await;
    let of_ana = ide.token_of_developer("ana").await.unwrap();

    let refused = ide.token_of_developer("ben").await;

    let status = assert_refused(refused, Code::FailedPrecondition, "NOT_LINKED");
    assert!(status.message().contains("developer") && !status.message().contains("ana"), "{status:?}");
    app.link_developer("ben", "ben@contoso.com").await;
    let of_ben = ide.token_of_developer("ben").await.unwrap();
    assert_ne!(of_ana.access_token, of_ben.access_token);
    assert_eq!(of_ben.identity.unwrap().login, "ben@contoso.com");
}

/// T03: the roles never mix, in neither direction, and neither do their errors.
#[tokio::test]
async fn a06_errors_of_one_role_never_name_the_other() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let headless = assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
    assert!(!headless.message().contains("developer"), "{headless:?}");

    app.link_developer("ana", "ana@contoso.com").await;
    let headless = assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
    assert!(!headless.message().contains("developer"), "{headless:?}");
    let other =
        assert_refused(operator.token_of_developer("eve").await, Code::FailedPrecondition, "NOT_LINKED");
    assert!(!other.message().contains("service user"), "{other:?}");
}

#[tokio::test]
async fn a06_a_caller_for_the_service_user_alone_gets_no_developers_token() {
    let app = TestApp::linked().await;
    app.link_developer("ana", "ana@contoso.com").await;
    let job = app.job_runner().await;
    let requests = app.devops_requests();

    let linked = job.token_of_developer("ana").await.unwrap_err();
    let unknown = job.token_of_developer("nobody").await.unwrap_err();
    let git = pb::GetGitCredentialRequest {
        account_id: "acme".into(),
        url: ANALYTICS.into(),
        developer_id: "ana".into(),
        ..pb::GetGitCredentialRequest::default()
    };
    let git = job.broker().get_git_credential(git).await.unwrap_err();

    for status in [&linked, &unknown, &git] {
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(status.message(), linked.message(), "nothing is learnt of who is linked");
    }
    assert_eq!(app.devops_requests(), requests);
}

#[tokio::test]
async fn a_git_credential_is_the_named_developers() {
    let app = TestApp::linked().await;
    app.link_developer("ana", "ana@contoso.com").await;
    let ide = app.over_tls(IDE_BACKEND).await;
    let request = |developer: &str, assertion: &str| pb::GetGitCredentialRequest {
        account_id: "acme".into(),
        url: ANALYTICS.into(),
        developer_id: developer.into(),
        developer_assertion: assertion.into(),
        ..pb::GetGitCredentialRequest::default()
    };

    let credential = ide.broker().get_git_credential(request("ana", "")).await.unwrap().into_inner();

    assert_eq!(credential.identity.unwrap().login, "ana@contoso.com");
    assert_eq!(credential.connection, Some(developer("ana")));
    let stray = ide.broker().get_git_credential(request("", "statement")).await;
    assert_invalid(stray.map(tonic::Response::into_inner), "developer_assertion");
}

#[tokio::test]
async fn a_developers_token_needs_a_developer() {
    let app = TestApp::linked().await;
    assert_invalid(app.operator().await.token_of_developer("").await, "developer_id");
    assert_invalid(app.operator().await.token_of_developer("a/b").await, "developer_id");
}

#[tokio::test]
async fn developers_are_listed_and_disconnected_one_by_one() {
    let app = TestApp::linked().await;
    app.link_developer("ana", "ana@contoso.com").await;
    app.link_developer("ben", "ben@contoso.com").await;
    let operator = app.operator().await;
    let listed = |role: pb::Role| pb::ListConnectionsRequest {
        account_id: "acme".into(),
        role: role.into(),
        ..pb::ListConnectionsRequest::default()
    };
    let names = |answer: tonic::Response<pb::ListConnectionsResponse>| {
        let names = answer.into_inner().connections.into_iter().map(|one| one.connection.unwrap());
        names.collect::<Vec<_>>()
    };

    let all = names(operator.connections().list_connections(listed(pb::Role::Unspecified)).await.unwrap());
    assert_eq!(all, [developer("ana"), developer("ben"), service_user()]);
    let gone = operator.disconnect_of(developer("ana")).await.unwrap();
    assert_eq!(gone.state(), pb::ConnectionState::Disconnected);

    assert_refused(operator.token_of_developer("ana").await, Code::FailedPrecondition, "NOT_LINKED");
    let left = names(operator.connections().list_connections(listed(pb::Role::Developer)).await.unwrap());
    assert_eq!(left, [developer("ben")]);
    assert!(operator.token_of_developer("ben").await.is_ok() && operator.token().await.is_ok());
}

/// Who may release may report; what is reported for another connection, or is not known, changes nothing.
#[tokio::test]
async fn a_report_replaces_only_the_token_that_the_named_connection_holds() {
    let app = TestApp::linked().await;
    app.link_developer("ana", "ana@contoso.com").await;
    app.link_developer("ben", "ben@contoso.com").await;
    let ide = app.over_tls(IDE_BACKEND).await;
    let of_ana = ide.token_of_developer("ana").await.unwrap();
    let of_ben = ide.token_of_developer("ben").await.unwrap();

    ide.report_of(Some(developer("ben")), &of_ana.token_fingerprint).await.unwrap();
    ide.report_of(Some(developer("ana")), "00112233445566778899aabbccddeeff").await.unwrap();
    ide.report_of(Some(developer("eve")), &of_ana.token_fingerprint).await.unwrap();
    ide.report(&of_ana.token_fingerprint).await.unwrap();
    let runner = app.job_runner().await;
    let refused = runner.report_of(Some(developer("ana")), &of_ana.token_fingerprint).await.unwrap_err();

    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(app.refreshes().len(), 0);
    assert_eq!(ide.token_of_developer("ana").await.unwrap().access_token, of_ana.access_token);
    assert_eq!(ide.token_of_developer("ben").await.unwrap().access_token, of_ben.access_token);
    ide.report_of(Some(developer("ana")), &of_ana.token_fingerprint).await.unwrap();
    app.tick_until(|| app.refreshes().len() == 1).await;
}

#[tokio::test]
async fn a_service_principal_is_not_linked_by_a_person() {
    let app = TestApp::start().await;
    let name = pb::ConnectionName { role: pb::Role::ServicePrincipal.into(), ..Default::default() };
    let request = pb::BeginLinkRequest { connection: Some(name), ..begin_request() };
    assert_invalid(app.operator().await.begin_with(request).await, "connection.role");
}
