//! Apps that prove themselves by assertions: signed with a certificate's key, or of an issuer they trust.

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::{Change, FederatedCredential};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use tonic_types::StatusExt as _;

use crate::support::{CLIENT_ID, PATIENCE, SECRET, TestApp, assert_invalid, reason_of};

const PAST_EXPIRY: Duration = Duration::from_hours(2);
const ISSUER: &str = "https://cluster.example";
const SUBJECT: &str = "system:serviceaccount:platform:broker";

fn rsa() -> KeyPair {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap()
}

fn certificate_of(key: &KeyPair) -> String {
    CertificateParams::new(vec!["app".to_owned()]).unwrap().self_signed(key).unwrap().pem()
}

fn request() -> pb::AddClientCredentialRequest {
    pb::AddClientCredentialRequest { account_id: "acme".into(), ..pb::AddClientCredentialRequest::default() }
}

impl TestApp {
    async fn add_alone(&self, request: pb::AddClientCredentialRequest) -> pb::ClientCredential {
        let operator = self.operator().await;
        let no_secret = pb::PutIntegrationRequest { client_secret: String::new(), ..self.registration() };
        operator.put(no_secret).await.unwrap();
        self.change(Change::RemoveSecret { client_id: CLIENT_ID.into(), value: SECRET.into() });
        operator.integrations().add_client_credential(request).await.unwrap().into_inner();
        let first = async || operator.integration("acme").await.unwrap().client_credentials.remove(0);
        let proven = async { while first().await.proven_at.is_none() {} };
        tokio::time::timeout(PATIENCE, proven).await.unwrap();
        first().await
    }

    /// Code, refresh and the app itself, all without a secret.
    async fn uses_it_for_everything(&self) {
        self.link("svc@contoso.com").await;
        self.advance(PAST_EXPIRY);
        self.operator().await.token().await.unwrap();
        let by = |grant: &str| {
            let requests = self.emulator.token_requests().into_iter();
            requests.filter(|one| one.grant_type == grant && one.outcome.is_ok()).count()
        };
        for grant in ["authorization_code", "refresh_token", "client_credentials"] {
            assert_eq!(by(grant), 1, "{grant}");
        }
        assert!(self.emulator.token_requests().iter().all(|request| request.outcome.is_ok()));
    }
}

#[tokio::test]
async fn a_certificate_proves_the_app_for_code_refresh_and_itself() {
    let app = TestApp::empty().await;
    let key = rsa();
    let certificate = certificate_of(&key);
    app.change(Change::AddCertificate { client_id: CLIENT_ID.into(), certificate: certificate.clone() });

    let added = app
        .add_alone(pb::AddClientCredentialRequest {
            certificate_pem: certificate,
            private_key_pem: key.serialize_pem(),
            ..request()
        })
        .await;

    assert_eq!(added.kind(), pb::ClientCredentialKind::Certificate);
    assert_eq!(added.fingerprint.len(), 64, "SHA-256 of the DER");
    assert!(added.expires_at.is_some(), "its own expiry");
    app.uses_it_for_everything().await;
    let store = std::fs::read(app.files.path("azdo-broker.db")).unwrap();
    let pem = key.serialize_pem();
    let line = pem.lines().nth(3).unwrap();
    assert!(store.windows(line.len()).all(|window| window != line.as_bytes()), "the key is sealed");
}

#[tokio::test]
async fn a_key_of_another_certificate_is_refused_when_it_is_added() {
    let app = TestApp::start().await;
    let mut integrations = app.operator().await.integrations();
    let request = pb::AddClientCredentialRequest {
        certificate_pem: certificate_of(&rsa()),
        private_key_pem: rsa().serialize_pem(),
        ..request()
    };
    assert_invalid(integrations.add_client_credential(request).await, "private_key_pem");
}

/// P10: the file is the operator's; no client secret would help.
#[track_caller]
fn told_the_operator(status: &tonic::Status) {
    assert_eq!(reason_of(status), "CLIENT_CREDENTIAL_REJECTED");
    let details = status.get_error_details();
    let told = &details.error_info().unwrap().metadata;
    assert_eq!(told["who_acts"], "the operator of the broker");
    assert!(told["what_to_do"].contains("federated source's file"), "{told:?}");
}

/// The file is read at each use: what its keeper writes there is what Entra sees next.
#[tokio::test]
async fn a_federated_assertion_proves_the_app_and_is_read_anew_each_time() {
    let mut app = TestApp::empty().await;
    let key = rsa();
    app.change(Change::SetIssuer { issuer: ISSUER.into(), keys: vec![certificate_of(&key).into()] });
    let credential = FederatedCredential {
        issuer: ISSUER.into(),
        subject: SUBJECT.into(),
        audiences: vec!["api://AzureADTokenExchange".into()],
    };
    app.change(Change::AddFederated { client_id: CLIENT_ID.into(), credential });
    let write = |app: &TestApp, subject: &str| {
        let now = app.emulator.now().as_second();
        let claims = serde_json::json!({"iss": ISSUER, "sub": subject, "aud": "api://AzureADTokenExchange",
            "iat": now, "nbf": now, "exp": now + 3 * 3600, "jti": now.to_string()});
        let signer = EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).unwrap();
        let mut header = Header::new(Algorithm::RS256);
        header.kid = None;
        app.files.write("assertion.jwt", &encode(&header, &claims, &signer).unwrap());
    };
    write(&app, SUBJECT);

    let added = app
        .add_alone(pb::AddClientCredentialRequest { federated_source: "cluster".into(), ..request() })
        .await;

    assert_eq!((added.kind(), added.fingerprint.as_str()), (pb::ClientCredentialKind::Federated, "cluster"));
    app.uses_it_for_everything().await;

    std::fs::remove_file(app.files.path("assertion.jwt")).unwrap();
    app.advance(PAST_EXPIRY);
    let job = app.job_runner().await;
    told_the_operator(&job.token().await.unwrap_err());
    app.restart().await;
    let job = app.job_runner().await;
    // Told from the row: what it remembers names the same person.
    told_the_operator(&job.token().await.unwrap_err());
    let failure = app.operator().await.connection().await.unwrap().failure.unwrap();
    assert!(failure.message.starts_with("The operator"), "{failure:?}");
    assert_eq!(failure.who_acts, "the operator of the broker");
    write(&app, SUBJECT);
    app.advance(Duration::from_mins(1));
    job.token().await.unwrap();
    app.restart().await;
    app.advance(PAST_EXPIRY);
    write(&app, SUBJECT);
    app.job_runner().await.token().await.unwrap();
}
