//! Whose an import proves to be, and what becomes of one that cannot be told yet.

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::{Change, Fault, Licence};
use serde_json::Value;
use tonic::Code;

use crate::import::{grant_from_elsewhere, import, item};
use crate::support::{Client, TestApp, assert_refused, developer};

const STRANGER_OBJECT: &str = "99999999-0000-4000-a000-000000000009";

/// A broker with the grant of a person imported who is no member, and refused for it.
async fn an_outsiders_import() -> (TestApp, Client) {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "outsider@contoso.com").await;
    import(&operator, vec![item(developer("out"), &grant)], false).await;
    assert_refused(operator.token_of_developer("out").await, Code::FailedPrecondition, "NOT_A_MEMBER");
    (app, operator)
}

fn admit_the_outsider(app: &TestApp) {
    app.change(Change::AddMember {
        organization: "contoso".into(),
        user: "outsider@contoso.com".into(),
        licence: Licence::default(),
    });
}

/// An `id_token` with these claims, once.
fn forged(iss: Option<&str>, tid: Option<&str>, bad_signature: bool) -> Fault {
    let (iss, tid) = (iss.map(str::to_owned), tid.map(str::to_owned));
    Fault::IdToken { tid, aud: None, nonce: None, iss, exp: None, bad_signature, count: Some(1) }
}

/// Lines of the audit about proofs, by what they say.
fn proofs(app: &TestApp) -> Vec<Value> {
    app.files.audit().into_iter().filter(|line| line["act"] == "import.prove").collect()
}

/// P7: a grant that proves to be somebody else's is never released, and ends the import.
#[tokio::test]
async fn an_import_of_somebody_else_ends_and_releases_nothing() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "ana@contoso.com").await;
    let expected =
        pb::ImportItem { expected_object_id: STRANGER_OBJECT.into(), ..item(developer("ben"), &grant) };
    import(&operator, vec![expected], false).await;

    let refused = operator.token_of_developer("ben").await;

    assert_refused(refused, Code::FailedPrecondition, "NOT_LINKED");
    let ended = operator.connection_of(developer("ben")).await.unwrap();
    assert_eq!(ended.state(), pb::ConnectionState::Disconnected);
    let failure = ended.failure.unwrap();
    assert_eq!(failure.reason, "LINK_MISMATCH");
    assert!(
        failure.message.contains("Import") && !failure.message.contains("Look at the link"),
        "{failure:?}"
    );
    assert!(app.released().is_empty());
}

#[tokio::test]
async fn an_import_of_a_person_who_is_no_member_waits_for_the_administrator() {
    let (app, operator) = an_outsiders_import().await;
    let waiting = operator.connection_of(developer("out")).await.unwrap();
    assert_eq!(waiting.state(), pb::ConnectionState::Failing);
    assert!(!waiting.failure.unwrap().message.contains("link"), "there is no link to begin again");
    admit_the_outsider(&app);
    app.advance(Duration::from_mins(16));
    assert!(operator.token_of_developer("out").await.is_ok(), "it resumes by itself");
    assert_eq!(app.refreshes().len(), 1, "what the first refresh brought was kept");
}

/// P4: the grant waits for as long as the administrator needs, though what told whose it is grows old.
#[tokio::test]
async fn an_import_waits_for_the_administrator_longer_than_its_id_token_lives() {
    let app = TestApp::start().await;
    app.fault(Fault::ExpiresIn { seconds: 100 * 60 });
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "outsider@contoso.com").await;
    import(&operator, vec![item(developer("out"), &grant)], false).await;
    assert_refused(operator.token_of_developer("out").await, Code::FailedPrecondition, "NOT_A_MEMBER");

    app.advance(Duration::from_mins(80));

    assert_refused(operator.token_of_developer("out").await, Code::FailedPrecondition, "NOT_A_MEMBER");
    admit_the_outsider(&app);
    app.advance(Duration::from_mins(16));
    assert!(operator.token_of_developer("out").await.is_ok(), "it resumes by itself");
}

#[tokio::test]
async fn an_import_outlives_an_outage_of_azure_devops_that_outlives_its_id_token() {
    let app = TestApp::start().await;
    app.fault(Fault::ExpiresIn { seconds: 100 * 60 });
    app.fault(Fault::DevopsOutage { status: None, count: None });
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "ana@contoso.com").await;
    import(&operator, vec![item(developer("ana"), &grant)], false).await;
    assert_refused(operator.token_of_developer("ana").await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    app.advance(Duration::from_mins(80));
    assert_refused(operator.token_of_developer("ana").await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");

    app.emulator.clear_faults();
    app.advance(Duration::from_mins(1));

    assert!(operator.token_of_developer("ana").await.is_ok());
}

/// P4, P10: our own clock is no verdict on somebody's grant, and the operator is told.
#[tokio::test]
async fn an_import_outlives_a_clock_that_is_slow() {
    let app = TestApp::start().await;
    app.emulator.advance(Duration::from_mins(10));
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "ana@contoso.com").await;
    import(&operator, vec![item(developer("ana"), &grant)], false).await;

    let refused = operator.token_of_developer("ana").await;

    let status = assert_refused(refused, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    assert!(status.message().contains("operator") && status.message().contains("clock"), "{status:?}");
    let waiting = operator.connection_of(developer("ana")).await.unwrap();
    assert_eq!(waiting.state(), pb::ConnectionState::Failing);
    assert!(waiting.failure.unwrap().message.contains("clock"));
    app.advance(Duration::from_mins(16));
    assert!(operator.token_of_developer("ana").await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_verified_ends_no_import() {
    for fault in [forged(None, None, true), forged(Some("https://login.contoso.example/v2.0"), None, false)] {
        let app = TestApp::start().await;
        app.fault(Fault::ExpiresIn { seconds: 10 * 60 });
        let operator = app.operator().await;
        let grant = grant_from_elsewhere(&app, "ana@contoso.com").await;
        app.fault(fault);
        import(&operator, vec![item(developer("ana"), &grant)], false).await;
        assert_refused(operator.token_of_developer("ana").await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");

        app.advance(Duration::from_mins(16));

        assert!(operator.token_of_developer("ana").await.is_ok(), "the next refresh brings a good one");
    }
}

#[tokio::test]
async fn an_import_of_another_tenant_ends() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "ana@contoso.com").await;
    let other = "20000000-0000-4000-a000-000000000002";
    app.fault(forged(Some(&format!("https://login.microsoftonline.com/{other}/v2.0")), Some(other), false));
    import(&operator, vec![item(developer("ana"), &grant)], false).await;

    assert_refused(operator.token_of_developer("ana").await, Code::FailedPrecondition, "NOT_LINKED");
    let ended = operator.connection_of(developer("ana")).await.unwrap();
    assert_eq!(ended.state(), pb::ConnectionState::Disconnected);
}

/// P3, design.md 6.13: who it proved to be and that it ended stands in the audit, by generation.
#[tokio::test]
async fn what_becomes_of_an_import_is_on_record() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let grants = [
        grant_from_elsewhere(&app, "ana@contoso.com").await,
        grant_from_elsewhere(&app, "svc@contoso.com").await,
    ];
    let foreign =
        pb::ImportItem { expected_object_id: STRANGER_OBJECT.into(), ..item(developer("ben"), &grants[1]) };
    import(&operator, vec![item(developer("ana"), &grants[0]), foreign], false).await;
    let identity = operator.token_of_developer("ana").await.unwrap().identity.unwrap();
    assert_refused(operator.token_of_developer("ben").await, Code::FailedPrecondition, "NOT_LINKED");

    for (id, result, object_id) in
        [("ana", "done", Some(identity.object_id.as_str())), ("ben", "refused", None)]
    {
        let connection = operator.connection_of(developer(id)).await.unwrap();
        let lines = proofs(&app);
        let [line] =
            lines.iter().filter(|line| line["role"] == format!("developer/{id}")).collect::<Vec<_>>()[..]
        else {
            panic!("{lines:?}")
        };
        assert_eq!(line["outcome"]["result"], result, "{line}");
        assert_eq!(line["generation"], connection.generation, "{line}");
        assert!(object_id.is_none_or(|expected| line["object_id"] == expected), "{line}");
        assert_eq!(line["by"], "broker", "{line}");
    }
    let refused = proofs(&app).into_iter().find(|line| line["outcome"]["reason"] == "LINK_MISMATCH");
    assert_ne!(refused.expect("the end and its reason")["object_id"], STRANGER_OBJECT);
}
