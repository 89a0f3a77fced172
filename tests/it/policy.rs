//! Who may ask what: certificates, sockets, rules, and the bounds of a request.

use azdo_broker::pb;
use tonic::{Code, Status};

use crate::support::{Client, IDE_BACKEND, STRANGER, TestApp, assert_invalid, assert_refused, service_user};

/// A refusal without any detail to learn from.
#[track_caller]
fn assert_denied<T>(answer: Result<T, Status>) -> String {
    let status = assert_refused(answer, Code::PermissionDenied, "");
    assert!(status.details().is_empty());
    status.message().to_owned()
}

/// A02, A16, P2: forbidden and unknown are one answer, whether the account exists, is linked or neither.
#[tokio::test]
async fn a16_a_forbidden_account_and_an_unknown_one_are_one_answer() {
    let app = TestApp::linked().await;
    app.operator().await.put(app.registration_of("globex")).await.unwrap();
    let stranger = app.over_tls(STRANGER).await;
    let (job, operator) = (app.job_runner().await, app.operator().await);

    let answers = [
        assert_denied(stranger.token().await),
        assert_denied(stranger.token_of("globex", None).await),
        assert_denied(stranger.token_of("nobody", None).await),
        assert_denied(job.token_of("globex", None).await),
        assert_denied(job.token_of("nobody", None).await),
        assert_denied(operator.token_of("nobody", None).await),
        assert_denied(operator.integration("nobody").await),
    ];

    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(app.released().len(), 0);
}

/// An account the policy knows and nobody registered answers as one it does not know.
#[tokio::test]
async fn a16_an_account_nobody_registered_is_as_good_as_forbidden() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let unregistered = assert_denied(operator.token_of("globex", None).await);
    assert_eq!(unregistered, assert_denied(operator.token_of("nobody", None).await));
    assert_eq!(unregistered, assert_denied(operator.integration("globex").await));
}

#[tokio::test]
async fn a_refusal_is_on_record_with_who_asked() {
    let app = TestApp::linked().await;
    assert_denied(app.over_tls(STRANGER).await.token().await);

    let denied: Vec<_> =
        app.files.audit().into_iter().filter(|line| line["outcome"]["result"] == "denied").collect();

    assert_eq!(denied.len(), 1);
    assert_eq!((&denied[0]["act"], &denied[0]["account"]), (&"GetServiceUserToken".into(), &"acme".into()));
    assert!(denied[0]["by"].to_string().contains(STRANGER), "{}", denied[0]);
}

/// A01: each caller does what its rule says and no more.
#[tokio::test]
async fn a01_a_job_runner_gets_tokens_and_changes_nothing() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    assert!(job.token().await.is_ok() && job.repos(false).await.is_ok());

    assert_denied(job.put(app.registration()).await);
    assert_denied(job.integration("acme").await);
    assert_denied(job.begin().await);
    assert_denied(job.disconnect().await);
    assert_denied(job.connection().await);
    assert_denied(job.confirm("any").await);
    assert_denied(job.integrations().list_integrations(pb::ListIntegrationsRequest::default()).await);
    assert_eq!(app.operator().await.connection().await.unwrap().state(), pb::ConnectionState::Connected);
}

/// A07: who has no certificate of ours is not even asked what they want.
#[tokio::test]
async fn a07_without_a_certificate_of_ours_the_handshake_fails() {
    let app = TestApp::linked().await;
    for tls in [app.files.tls_of(None), app.files.tls_of_another_authority(IDE_BACKEND)] {
        // TLS 1.3 tells the client only at its first read.
        let asked = async {
            let client =
                Client::over_tls(app.tcp, tls).await.map_err(|error| Status::unknown(error.to_string()))?;
            client.token().await
        };
        let status = asked.await.unwrap_err();
        assert!(matches!(status.code(), Code::Unknown | Code::Unavailable), "{status:?}");
    }
    assert!(app.files.audit().iter().all(|line| line["act"] != "GetServiceUserToken"));
}

/// A08: a name in no rule is known and forbidden; a path or case trick is nobody.
#[tokio::test]
async fn a08_a_name_like_an_allowed_one_is_not_that_one() {
    let app = TestApp::linked().await;
    for name in [
        "spiffe://platform.test/ide-backend2",
        "spiffe://platform.test/ide-backend/x",
        "spiffe://platform.test.evil/ide-backend",
        "https://platform.test/ide-backend",
    ] {
        let status = app.over_tls(name).await.token().await.unwrap_err();
        assert!(
            matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated),
            "{name}: {status:?}"
        );
    }
    for name in ["spiffe://Platform.test/ide-backend", "spiffe://platform.test/%69de-backend"] {
        let status = app.over_tls(name).await.token().await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{name}");
    }
}

#[tokio::test]
async fn what_is_not_built_yet_says_so() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let unimplemented = |status: Status| assert_eq!(status.code(), Code::Unimplemented);
    unimplemented(
        operator.operations().get_key_status(pb::GetKeyStatusRequest::default()).await.unwrap_err(),
    );
}

/// A27: names are checked at the door, and what stood in them is not repeated.
#[tokio::test]
async fn a27_malformed_names_are_invalid_and_named_by_their_field() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let long = "a".repeat(10_000);
    for account in ["", "a b", "../x", "a/b", "a\n", "a\0", "é", long.as_str()] {
        assert_invalid(operator.token_of(account, None).await, "account_id");
        assert_invalid(operator.integration(account).await, "account_id");
    }
    for id in ["", "a b", long.as_str()] {
        assert_invalid(operator.link(id).await, "link_id");
        assert_invalid(operator.confirm(id).await, "link_id");
    }
    for fingerprint in ["", "xyz", &"0".repeat(31), &"g".repeat(32), long.as_str()] {
        assert_invalid(operator.report(fingerprint).await, "token_fingerprint");
    }
}

#[tokio::test]
async fn a27_labels_are_bounded_and_printable() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    let request = |purpose: &str, actor: &str| pb::GetServiceUserTokenRequest {
        account_id: "acme".into(),
        purpose: purpose.into(),
        actor: actor.into(),
        min_ttl: None,
    };
    let long = "x".repeat(10_000);
    for bad in ["a\nb", "a\0", "\u{1b}[31m", long.as_str()] {
        assert_invalid(job.broker().get_service_user_token(request(bad, "")).await, "purpose");
        assert_invalid(job.broker().get_service_user_token(request("", bad)).await, "actor");
    }
    job.broker().get_service_user_token(request("nightly build", "ana@acme.example")).await.unwrap();
    let line = app.released().pop().unwrap();
    assert_eq!((&line["purpose"], &line["actor"]), (&"nightly build".into(), &"ana@acme.example".into()));
}

/// A39, P8: a request has 64 KiB, and the connection survives one that has more.
#[tokio::test]
async fn a39_a_request_of_more_than_64_kib_is_refused() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    let status = job.git(&"x".repeat(64 * 1024)).await.unwrap_err();
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    assert!(job.token().await.is_ok());
}

#[tokio::test]
async fn a_caller_may_use_many_streams_of_one_connection() {
    let app = TestApp::linked().await;
    let request = pb::GetConnectionRequest { account_id: "acme".into(), connection: Some(service_user()) };
    let ide = app.over_tls(IDE_BACKEND).await;
    let asking: Vec<_> = (0..300)
        .map(|_| {
            let (ide, request) = (ide.clone(), request.clone());
            tokio::spawn(async move { ide.connections().get_connection(request).await.is_ok() })
        })
        .collect();
    for asked in asking {
        assert!(asked.await.unwrap());
    }
}
