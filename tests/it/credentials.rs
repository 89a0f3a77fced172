//! Client credentials: added, proven, chosen, rejected, removed (design.md 6.8).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::{Change, Fault, World};
use tonic::Code;

use crate::support::{CLIENT_ID, PATIENCE, SECRET, TestApp, assert_invalid, assert_refused};

const PAST_EXPIRY: Duration = Duration::from_hours(2);
const NEW: &str = "new~secret.of+acme";

fn add(value: &str) -> Change {
    Change::AddSecret { client_id: CLIENT_ID.into(), value: value.into() }
}

fn remove(value: &str) -> Change {
    Change::RemoveSecret { client_id: CLIENT_ID.into(), value: value.into() }
}

impl TestApp {
    async fn credentials(&self) -> Vec<pb::ClientCredential> {
        self.operator().await.integration("acme").await.unwrap().client_credentials
    }

    /// Waits until the credential with this id is proven; time moves when the prover sleeps.
    async fn proven(&self, id: &str) -> Vec<pb::ClientCredential> {
        let proven = async {
            loop {
                let credentials = self.credentials().await;
                let is_proven = |one: &pb::ClientCredential| one.id == id && one.proven_at.is_some();
                if credentials.iter().any(is_proven) {
                    return credentials;
                }
            }
        };
        tokio::time::timeout(PATIENCE, proven).await.unwrap()
    }
}

/// A new secret is proven by a request that needs no person, and only then tried first.
#[tokio::test]
async fn a_new_secret_is_proven_and_then_stands_first() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    app.change(add(NEW));

    let added = operator.add_secret(NEW).await.unwrap();

    assert_eq!((added.kind(), added.proven_at), (pb::ClientCredentialKind::Secret, None));
    let credentials = app.proven(&added.id).await;
    assert_eq!(credentials.len(), 2);
    assert_eq!(credentials[0].id, added.id, "tried first");
    assert_eq!(app.requests_of_the_app().len(), 2);
}

/// Entra needs minutes until every server knows a secret: it is asked again, and nobody has to act.
#[tokio::test]
async fn a_secret_that_needs_minutes_to_spread_is_proven_when_entra_knows_it() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let before = app.requests_of_the_app().len();
    let added = operator.add_secret(NEW).await.unwrap();
    app.asked_by_the_app(before + 3).await;
    assert_eq!(app.credentials().await[1].id, added.id, "last until it is proven");
    assert_eq!(app.credentials().await[1].rejected_at, None, "no verdict yet");

    app.change(add(NEW));
    app.advance(Duration::from_secs(16));

    assert_eq!(app.proven(&added.id).await[0].id, added.id);
}

/// After five minutes the verdict stands; the links never hear of it, since another secret works.
#[tokio::test]
async fn a_secret_that_entra_never_takes_is_rejected_and_no_link_suffers() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let added = operator.add_secret("wrong").await.unwrap();
    let rejected = async {
        loop {
            app.advance(Duration::from_secs(16));
            let credentials = app.credentials().await;
            if let Some(one) = credentials.iter().find(|one| one.id == added.id && one.rejected_at.is_some())
            {
                return one.clone();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let rejected = tokio::time::timeout(PATIENCE, rejected).await.unwrap();
    assert_eq!(rejected.warnings[0].code, "CLIENT_CREDENTIAL_REJECTED");
    app.advance(PAST_EXPIRY);
    operator.token().await.unwrap();
}

/// Rotation with 0 failed releases: when the old secret goes away, the new one is tried in the same refresh.
#[tokio::test]
async fn a_rotation_under_load_fails_no_release() {
    let app = TestApp::start().await;
    app.fault(Fault::ExpiresIn { seconds: 3600 });
    app.link("svc@contoso.com").await;
    let app = Arc::new(app);
    let operator = app.operator().await;
    let old = app.credentials().await.remove(0);
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (app, stop) = (app.clone(), stop.clone());
            tokio::spawn(async move {
                let (job, mut releases) = (app.job_runner().await, 0);
                while !stop.load(Ordering::Relaxed) {
                    job.token().await.unwrap();
                    releases += 1;
                }
                releases
            })
        })
        .collect();
    app.change(add(NEW));
    let added = operator.add_secret(NEW).await.unwrap();
    app.proven(&added.id).await;
    app.change(remove(SECRET));
    for refreshes in 1..4 {
        app.advance(Duration::from_mins(31));
        app.tick_until(|| refreshes <= app.refreshes().len()).await;
        if refreshes == 2 {
            operator.remove_credential(&old.id, false).await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for one in load {
        assert!(0 < one.await.unwrap());
    }
    assert!(app.refreshes().iter().all(|refresh| refresh.outcome.is_ok()), "the proven one was first");
}

/// When the one in use is refused, nobody waits for a probe: the next one refreshes at once.
#[tokio::test]
async fn a_refused_secret_makes_way_for_the_next_in_the_same_refresh() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    app.change(add(NEW));
    let added = operator.add_secret(NEW).await.unwrap();
    app.proven(&added.id).await;
    app.change(remove(NEW));
    app.advance(PAST_EXPIRY);

    operator.token().await.unwrap();

    let outcomes: Vec<_> = app.refreshes().into_iter().map(|refresh| refresh.outcome).collect();
    assert_eq!(outcomes, [Err(7_000_215), Ok(())]);
    let credentials = app.credentials().await;
    assert!(credentials[0].rejected_at.is_some() && credentials[1].rejected_at.is_none());
    // It is not tried again with each refresh.
    app.advance(Duration::from_mins(5));
    operator.token_lasting(Duration::from_mins(30)).await.unwrap();
    assert!(app.refreshes().len() <= 3);
}

/// P4: with every credential rejected the links stay, and all resumes by itself after rotation.
#[tokio::test]
async fn links_outlive_the_loss_of_every_credential_and_resume_by_themselves() {
    let mut app = TestApp::linked().await;
    let job = app.job_runner().await;
    app.change(remove(SECRET));
    app.advance(PAST_EXPIRY);
    assert_refused(job.token().await, Code::FailedPrecondition, "CLIENT_CREDENTIAL_REJECTED");
    app.restart().await;
    let (operator, job) = (app.operator().await, app.job_runner().await);
    assert_refused(job.token().await, Code::FailedPrecondition, "CLIENT_CREDENTIAL_REJECTED");
    let integration = operator.integration("acme").await.unwrap();
    assert_eq!(integration.warnings[0].code, "CLIENT_CREDENTIAL_REJECTED");

    app.change(add(NEW));
    let added = operator.add_secret(NEW).await.unwrap();
    app.proven(&added.id).await;

    assert_eq!(job.token().await.unwrap().identity.unwrap().login, "svc@contoso.com");
    assert_eq!(operator.connection().await.unwrap().state(), pb::ConnectionState::Connected);
    assert_eq!(app.exchanges().len(), 1, "nobody linked again");
}

/// The same when Entra takes the old one again: one probe finds out.
#[tokio::test]
async fn a_rejected_secret_that_works_again_is_found_by_a_probe() {
    let app = TestApp::linked().await;
    let (operator, job) = (app.operator().await, app.job_runner().await);
    app.change(remove(SECRET));
    app.advance(PAST_EXPIRY);
    assert_refused(job.token().await, Code::FailedPrecondition, "CLIENT_CREDENTIAL_REJECTED");
    app.change(add(SECRET));
    app.advance(Duration::from_mins(11));

    job.token().await.unwrap();

    // Written once the grant is safe, off the caller's path.
    let lifted = async {
        while operator.integration("acme").await.unwrap().client_credentials[0].rejected_at.is_some() {}
    };
    tokio::time::timeout(PATIENCE, lifted).await.unwrap();
}

#[tokio::test]
async fn an_expired_secret_is_never_tried() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    app.change(add(NEW));
    let request = pb::AddClientCredentialRequest {
        client_secret_expires_at: Some(prost_types::Timestamp {
            seconds: app.emulator.now().as_second() + 3600,
            nanos: 0,
        }),
        ..secret(NEW)
    };
    let added = operator.integrations().add_client_credential(request).await.unwrap().into_inner();
    assert_eq!(added.warnings[0].code, "CLIENT_CREDENTIAL_EXPIRES");
    app.proven(&added.id).await;
    // Would Entra be asked with it, it would say so.
    app.change(remove(NEW));
    app.advance(PAST_EXPIRY);

    operator.token().await.unwrap();

    assert!(app.refreshes().iter().all(|refresh| refresh.outcome.is_ok()));
    let expired = app.credentials().await.remove(0);
    assert_eq!((expired.rejected_at, expired.warnings[0].code.as_str()), (None, "CLIENT_CREDENTIAL_EXPIRED"));
}

#[tokio::test]
async fn the_last_credential_in_force_stays_under_live_connections() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let only = app.credentials().await.remove(0);
    assert_refused(operator.remove_credential(&only.id, false).await, Code::FailedPrecondition, "");
    assert_refused(operator.remove_credential("unknown", false).await, Code::NotFound, "");

    let left = operator.remove_credential(&only.id, true).await.unwrap();

    assert!(left.client_credentials.is_empty());
    assert_eq!(operator.connection().await.unwrap().state(), pb::ConnectionState::Connected, "links stay");
}

/// P4: one that nobody has seen working is no reason to let the one go that works.
#[tokio::test]
async fn the_last_credential_that_works_stays_while_the_other_is_not_proven() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let works = app.credentials().await.remove(0);
    let mistyped = operator.add_secret("mistyped").await.unwrap();

    let refused = operator.remove_credential(&works.id, false).await;

    let status = assert_refused(refused, Code::FailedPrecondition, "");
    assert!(status.message().contains("proven yet: wait"), "{}", status.message());
    operator.remove_credential(&mistyped.id, false).await.unwrap();
    app.change(add(NEW));
    let added = operator.add_secret(NEW).await.unwrap();
    app.proven(&added.id).await;
    operator.remove_credential(&works.id, false).await.unwrap();
}

#[tokio::test]
async fn a_credential_that_is_there_already_is_answered_as_it_is_and_eight_are_enough() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let known = app.credentials().await.remove(0);
    assert_eq!(operator.add_secret(SECRET).await.unwrap().id, known.id);
    for number in 1..8 {
        operator.add_secret(&format!("secret-{number}")).await.unwrap();
    }
    assert_refused(operator.add_secret("one too many").await, Code::FailedPrecondition, "");
    assert_eq!(app.credentials().await.len(), 8);
}

#[tokio::test]
async fn a_credential_of_no_kind_of_two_or_of_an_unknown_source_is_refused() {
    let app = TestApp::start().await;
    let mut integrations = app.operator().await.integrations();
    let none = pb::AddClientCredentialRequest { client_secret: String::new(), ..secret("") };
    for (request, field) in [
        (none.clone(), "client_secret"),
        (pb::AddClientCredentialRequest { federated_source: "x".into(), ..secret("y") }, "client_secret"),
        (pb::AddClientCredentialRequest { federated_source: "x".into(), ..none.clone() }, "federated_source"),
        (pb::AddClientCredentialRequest { certificate_pem: "x".into(), ..none.clone() }, "private_key_pem"),
        (
            pb::AddClientCredentialRequest {
                certificate_pem: "x".into(),
                private_key_pem: "y".into(),
                ..none.clone()
            },
            "certificate_pem",
        ),
    ] {
        assert_invalid(integrations.add_client_credential(request).await, field);
    }
}

/// P8: who adds the same secret in a loop takes no place from anybody else's proof.
#[tokio::test]
async fn a_secret_that_is_added_again_and_again_is_proven_once_at_a_time() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let before = app.requests_of_the_app().len();
    for _ in 0..70 {
        operator.add_secret("mistyped").await.unwrap();
    }
    app.change(add(NEW));

    let added = operator.add_secret(NEW).await.unwrap();

    app.proven(&added.id).await;
    assert_eq!(app.requests_of_the_app().len(), before + 2);
}

/// Entra's outage is no verdict: the proof is made when it is over, and nobody has to act.
#[tokio::test]
async fn a_proof_that_met_an_outage_is_taken_up_again() {
    let app = TestApp::linked().await;
    app.change(add(NEW));
    app.fault(Fault::EntraOutage { status: None, retry_after: None, count: None });
    let before = app.requests_of_the_app().len();
    let added = app.operator().await.add_secret(NEW).await.unwrap();
    app.asked_by_the_app(before + 21).await;
    app.emulator.clear_faults();

    app.advance(Duration::from_mins(11));

    assert_eq!(app.proven(&added.id).await[0].id, added.id);
}

/// A proof that a process left is taken up by the next one.
#[tokio::test]
async fn a_proof_goes_on_after_a_restart() {
    let mut app = TestApp::linked().await;
    let before = app.requests_of_the_app().len();
    let added = app.operator().await.add_secret(NEW).await.unwrap();
    app.asked_by_the_app(before + 1).await;
    app.restart().await;
    app.change(add(NEW));
    app.advance(Duration::from_secs(16));
    app.proven(&added.id).await;
}

/// Narrower permissions are asked for at every step, with one and the same text.
#[tokio::test]
async fn a_narrower_scope_is_the_same_on_code_and_refresh() {
    let mut world = World::example();
    world.apps[0].permissions.push("vso.code".into());
    let app = TestApp::empty_in(world).await;
    let operator = app.operator().await;
    let request = pb::PutIntegrationRequest { devops_scopes: vec!["vso.code".into()], ..app.registration() };
    assert_eq!(operator.put(request).await.unwrap().devops_scopes, ["vso.code"]);
    let odd = pb::PutIntegrationRequest { devops_scopes: vec![".default".into()], ..app.registration() };
    assert_invalid(operator.put(odd).await, "devops_scopes");
    app.link("svc@contoso.com").await;
    app.advance(PAST_EXPIRY);
    let token = operator.token().await.unwrap();

    assert!(token.scopes.iter().all(|scope| scope.ends_with("/vso.code")), "{:?}", token.scopes);
    let scopes: Vec<_> = app.requests_for_users().into_iter().map(|request| request.scope).collect();
    assert_eq!(scopes.len(), 2);
    assert!(scopes[0].contains("/vso.code ") && scopes[0] == scopes[1]);
}

fn secret(value: &str) -> pb::AddClientCredentialRequest {
    pb::AddClientCredentialRequest {
        account_id: "acme".into(),
        client_secret: value.into(),
        ..pb::AddClientCredentialRequest::default()
    }
}

impl TestApp {
    /// Waits until the app itself has asked so often: a quarter of a minute apart, of the five minutes
    /// that it asks.
    async fn asked_by_the_app(&self, times: usize) {
        let asked = async {
            while self.requests_of_the_app().len() < times {
                tokio::time::sleep(Duration::from_millis(50)).await;
                self.advance(Duration::from_secs(4));
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap();
    }
}
