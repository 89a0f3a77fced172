//! Client authentication by certificate and by federated assertion.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256};
use azure_emulator::{Change, FederatedCredential};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::{Answer, CLIENT, Given, TENANT};

const APP_SCOPE: &str = "499b84ac-1321-427f-aa17-267ca6975798/.default";
const ISSUER: &str = "https://issuer.example/cluster";
const SUBJECT: &str = "system:serviceaccount:broker:broker";

/// A key, with its certificate.
struct Signer {
    key: KeyPair,
    der: Vec<u8>,
}

impl Signer {
    fn make() -> Self {
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).unwrap();
        let for_certificate = rcgen::KeyPair::try_from(pkcs8.as_ref()).unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let der = params.self_signed(&for_certificate).unwrap().der().to_vec();
        Self { key, der }
    }

    fn pem(&self) -> String {
        let body = STANDARD.encode(&self.der);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.der))
    }

    fn legacy_thumbprint(&self) -> String {
        let sha1 = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
        URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(sha1, &self.der))
    }

    fn jwk(&self) -> Value {
        let public = self.key.public_key();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "RSA", "kid": "one",
            "n": encode(public.modulus().big_endian_without_leading_zero()),
            "e": encode(public.exponent().big_endian_without_leading_zero()),
        })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let (random, bytes) = (SystemRandom::new(), signed.as_bytes());
        match header["alg"].as_str() {
            Some("PS256") => self.key.sign(&RSA_PSS_SHA256, &random, bytes, &mut signature).unwrap(),
            _ => self.key.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap(),
        }
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// As the broker writes it; `changes` replace claims.
    fn assertion(&self, given: &Given, changes: &Value) -> String {
        let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": self.thumbprint() });
        self.sign(&header, &with(claims(given), changes))
    }
}

fn claims(given: &Given) -> Value {
    let now = given.emulator.now().as_second();
    json!({
        "aud": format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token"),
        "iss": CLIENT, "sub": CLIENT, "jti": "one", "nbf": now, "iat": now, "exp": now + 600,
    })
}

fn federated_claims(given: &Given) -> Value {
    let changes = json!({ "iss": ISSUER, "sub": SUBJECT, "aud": ["api://AzureADTokenExchange"] });
    with(claims(given), &changes)
}

fn with(mut claims: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

async fn ask(given: &Given, assertion: &str) -> Answer {
    let form = [("grant_type", "client_credentials"), ("scope", APP_SCOPE)];
    let changes = [
        ("client_secret", ""),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
    ];
    given.token(&form, &changes).await
}

async fn with_certificate() -> (Given, Signer) {
    let (given, signer) = (Given::an_emulator().await, Signer::make());
    let change = Change::AddCertificate { client_id: CLIENT.to_owned(), certificate: signer.pem() };
    given.emulator.change(change).unwrap();
    (given, signer)
}

async fn with_issuer() -> (Given, Signer) {
    let (given, signer) = (Given::an_emulator().await, Signer::make());
    let credential = FederatedCredential {
        issuer: ISSUER.to_owned(),
        subject: SUBJECT.to_owned(),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
    };
    let keys = vec![signer.jwk()];
    given.emulator.change(Change::SetIssuer { issuer: ISSUER.to_owned(), keys }).unwrap();
    given.emulator.change(Change::AddFederated { client_id: CLIENT.to_owned(), credential }).unwrap();
    (given, signer)
}

#[tokio::test]
async fn a_certificate_takes_the_place_of_a_secret_and_is_recorded() {
    let (given, signer) = with_certificate().await;
    let assertion = signer.assertion(&given, &json!({}));

    let first = ask(&given, &assertion).await;
    let again = ask(&given, &assertion).await;

    assert_eq!((first.status, again.status), (200, 200), "{}", first.body);
    let recorded = given.emulator.token_requests().pop().unwrap().credential;
    assert_eq!(recorded, Some(format!("certificate:{}", signer.thumbprint())));
    let token = jsonwebtoken::dangerous::insecure_decode::<Value>(&first.text("access_token")).unwrap();
    assert_eq!(token.claims["appidacr"], "2");
}

#[tokio::test]
async fn the_forms_in_which_microsofts_libraries_write_assertions_are_taken() {
    let (given, signer) = with_certificate().await;
    let now = given.emulator.now().as_second();
    let float = |seconds: i64| json!(f64::from(i32::try_from(seconds).unwrap()) + 0.5);
    let issuer = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    let padded = format!("{}=", signer.legacy_thumbprint());
    let legacy = json!({ "alg": "RS256", "typ": "JWT", "x5t": padded });

    let forms = [
        signer.assertion(&given, &json!({ "nbf": now.to_string(), "exp": (now + 600).to_string() })),
        signer.assertion(&given, &json!({ "iat": float(now), "exp": float(now + 600), "nbf": null })),
        signer.assertion(&given, &json!({ "aud": issuer })),
        signer.assertion(
            &given,
            &json!({ "aud": "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token" }),
        ),
        signer.sign(&legacy, &claims(&given)),
    ];

    for assertion in forms {
        let answer = ask(&given, &assertion).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[tokio::test]
async fn each_fault_of_an_assertion_has_its_code() {
    let (given, signer) = with_certificate().await;
    let other = Signer::make();
    let now = given.emulator.now().as_second();
    let forged_header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": signer.thumbprint() });
    let unsigned = json!({ "alg": "none", "typ": "JWT", "x5t#S256": signer.thumbprint() });
    let elsewhere = "https://login.microsoftonline.com/fabrikam.com/oauth2/v2.0/token";

    let cases = [
        (other.assertion(&given, &json!({})), 401, 700_027),
        (other.sign(&forged_header, &claims(&given)), 401, 700_027),
        (signer.sign(&unsigned, &claims(&given)), 401, 700_027),
        (signer.assertion(&given, &json!({ "aud": elsewhere })), 401, 700_023),
        (signer.assertion(&given, &json!({ "exp": now - 301 })), 401, 700_024),
        (signer.assertion(&given, &json!({ "exp": null })), 401, 700_024),
        (signer.assertion(&given, &json!({ "nbf": now + 301 })), 401, 700_024),
        (signer.assertion(&given, &json!({ "sub": "somebody" })), 401, 700_021),
        (signer.assertion(&given, &json!({ "iss": "somebody" })), 401, 70_021),
        ("nonsense".to_owned(), 400, 50_027),
    ];

    for (assertion, status, code) in cases {
        let answer = ask(&given, &assertion).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_certificate_ends_when_it_expires_and_when_it_is_removed() {
    let (given, signer) = with_certificate().await;
    let (expiring, client_id) = (with_certificate().await, CLIENT.to_owned());

    given.emulator.change(Change::RemoveCertificate { client_id, certificate: signer.pem() }).unwrap();
    let removed = ask(&given, &signer.assertion(&given, &json!({}))).await;
    let (given, signer) = expiring;
    given.emulator.advance(Duration::from_hours(24 * 365));
    let expired = ask(&given, &signer.assertion(&given, &json!({}))).await;

    assert_eq!((removed.code(), expired.code()), (700_027, 700_027));
    assert!(expired.text("error_description").contains("expired"));
}

#[tokio::test]
async fn a_trusted_issuer_takes_the_place_of_a_secret() {
    let (given, signer) = with_issuer().await;
    let header = json!({ "alg": "RS256", "kid": "one" });

    let answer = ask(&given, &signer.sign(&header, &federated_claims(&given))).await;

    assert_eq!(answer.status, 200, "{}", answer.body);
    let recorded = given.emulator.token_requests().pop().unwrap().credential;
    assert_eq!(recorded, Some(format!("federated:{ISSUER} {SUBJECT}")));
}

#[tokio::test]
async fn a_federated_assertion_must_match_exactly_and_verify() {
    let (given, signer) = with_issuer().await;
    let other = Signer::make();
    let now = given.emulator.now().as_second();
    let (rs256, ps256) = (json!({ "alg": "RS256" }), json!({ "alg": "PS256" }));
    let changed = |changes: Value| signer.sign(&rs256, &with(federated_claims(&given), &changes));

    let cases = [
        (changed(json!({ "sub": SUBJECT.to_uppercase() })), 70_021),
        (changed(json!({ "iss": format!("{ISSUER}/") })), 70_021),
        (changed(json!({ "aud": "api://azureadtokenexchange" })), 70_021),
        (changed(json!({ "exp": now - 301 })), 700_024),
        (other.sign(&rs256, &federated_claims(&given)), 700_027),
        (signer.sign(&ps256, &federated_claims(&given)), 700_027),
    ];

    for (assertion, code) in cases {
        let answer = ask(&given, &assertion).await;
        assert_eq!((answer.status, answer.code()), (401, code), "{}", answer.body);
    }
}

#[tokio::test]
async fn trust_in_an_issuer_can_be_taken_back() {
    let (given, signer) = with_issuer().await;
    let assertion = signer.sign(&json!({ "alg": "RS256" }), &federated_claims(&given));
    let keys = vec![json!(Signer::make().pem())];

    given.emulator.change(Change::SetIssuer { issuer: ISSUER.to_owned(), keys }).unwrap();
    let rotated = ask(&given, &assertion).await;
    let change = Change::RemoveFederated {
        client_id: CLIENT.to_owned(),
        issuer: ISSUER.to_owned(),
        subject: SUBJECT.to_owned(),
    };
    given.emulator.change(change).unwrap();
    let removed = ask(&given, &assertion).await;

    assert_eq!((rotated.code(), removed.code()), (700_027, 70_021));
}

#[tokio::test]
async fn a_secret_and_an_assertion_at_once_are_refused() {
    let (given, signer) = with_certificate().await;
    let assertion = signer.assertion(&given, &json!({}));
    let form = [("grant_type", "client_credentials"), ("scope", APP_SCOPE)];

    let answer = given.token(&form, &[("client_assertion", &assertion)]).await;

    assert_eq!((answer.status, answer.text("error").as_str()), (400, "invalid_request"));
}
