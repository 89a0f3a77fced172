//! A37: every way an `id_token` can be wrong, each signed as well as it can be.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

const TENANT: &str = "11111111-1111-1111-1111-111111111111";
const CLIENT: &str = "22222222-2222-2222-2222-222222222222";
const PERSON: &str = "33333333-3333-3333-3333-333333333333";
const ISSUER: &str = "https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111/v2.0";
const NOW: i64 = 1_767_225_600;

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).unwrap());

fn public_key() -> DecodingKey {
    let public = KEY.public_key();
    DecodingKey::from_rsa_raw_components(
        public.modulus().big_endian_without_leading_zero(),
        public.exponent().big_endian_without_leading_zero(),
    )
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn sign(header: &Value, claims: &Value, encoding: &'static dyn RsaEncoding) -> RawIdToken {
    let message = format!("{}.{}", encode(header), encode(claims));
    let mut signature = vec![0; KEY.public_modulus_len()];
    KEY.sign(encoding, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    RawIdToken::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": CLIENT, "tid": TENANT, "oid": PERSON, "nonce": "the-nonce", "ver": "2.0",
        "exp": NOW + 3600, "nbf": NOW, "iat": NOW, "sub": "pairwise",
        "preferred_username": "svc@contoso.com", "name": "Service\u{1b}[1m User",
    })
}

fn judged(token: &RawIdToken, at: i64) -> Result<Identity, IdTokenError> {
    let expected = Expected {
        tenant: &TENANT.parse().unwrap(),
        client_id: &CLIENT.parse().unwrap(),
        nonce: Some("the-nonce"),
    };
    assert_eq!(issuer(&"https://login.microsoftonline.com".parse().unwrap(), expected.tenant), ISSUER);
    parse_key_id(token)?;
    verify(token, &public_key(), &expected, ISSUER, Timestamp::from_second(at).unwrap())
}

fn rs256(claims: &Value) -> RawIdToken {
    sign(&json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}), claims, &RSA_PKCS1_SHA256)
}

fn with(name: &str, value: Value) -> Value {
    let mut changed = claims();
    changed[name] = value;
    changed
}

#[test]
fn a_good_token_names_who_signed_in() {
    let identity = judged(&rs256(&claims()), NOW).unwrap();
    assert_eq!(identity.object_id.as_str(), PERSON);
    assert_eq!(identity.tenant.as_str(), TENANT);
    assert_eq!(identity.login, "svc@contoso.com");
    assert_eq!(identity.display_name, "Service[1m User", "without what a terminal would obey");
}

#[test]
fn the_login_falls_back_to_the_email_and_then_to_nothing() {
    let mut claims = with("email", json!("e@contoso.com"));
    claims.as_object_mut().unwrap().remove("preferred_username");
    assert_eq!(judged(&rs256(&claims), NOW).unwrap().login, "e@contoso.com");
    claims.as_object_mut().unwrap().remove("email");
    assert_eq!(judged(&rs256(&claims), NOW).unwrap().login, "");
}

#[test]
fn a37_each_wrong_claim_is_refused() {
    let other = "99999999-9999-9999-9999-999999999999";
    let refused = |name: &str, value: Value| judged(&rs256(&with(name, value)), NOW).unwrap_err();
    assert!(matches!(refused("tid", json!(other)), IdTokenError::Tenant));
    assert!(matches!(refused("iss", json!(ISSUER.replace(TENANT, other))), IdTokenError::Issuer));
    assert!(matches!(refused("iss", json!(format!("{ISSUER}/"))), IdTokenError::Issuer));
    assert!(matches!(refused("aud", json!(other)), IdTokenError::Audience));
    assert!(matches!(refused("nonce", json!("another")), IdTokenError::Nonce));
    assert!(matches!(refused("nonce", Value::Null), IdTokenError::Nonce));
    assert!(matches!(refused("oid", Value::Null), IdTokenError::ObjectId));
    assert!(matches!(refused("oid", json!("svc@contoso.com")), IdTokenError::ObjectId));
    assert!(matches!(refused("exp", Value::Null), IdTokenError::Malformed));
    assert!(matches!(refused("aud", json!([CLIENT, other])), IdTokenError::Malformed));
}

#[test]
fn a37_time_is_kept_within_five_minutes() {
    let token = rs256(&claims());
    assert!(judged(&token, NOW + 3600 + 299).is_ok());
    assert!(matches!(judged(&token, NOW + 3600 + 300), Err(IdTokenError::Expired)));
    assert!(judged(&token, NOW - 300).is_ok());
    assert!(matches!(judged(&token, NOW - 301), Err(IdTokenError::NotYetValid)));
    let later = rs256(&with("nbf", json!(NOW + 301)));
    assert!(matches!(judged(&later, NOW), Err(IdTokenError::NotYetValid)));
}

#[test]
fn a37_no_other_algorithm_is_believed() {
    let none =
        RawIdToken::new(format!("{}.{}.", encode(&json!({"alg": "none", "kid": "k1"})), encode(&claims())));
    assert!(judged(&none, NOW).is_err());

    let pss = sign(&json!({"alg": "PS256", "kid": "k1"}), &claims(), &RSA_PSS_SHA256);
    assert!(matches!(judged(&pss, NOW), Err(IdTokenError::Signature)));

    // HS256 with the public key as its secret: the classic confusion.
    let message = format!("{}.{}", encode(&json!({"alg": "HS256", "kid": "k1"})), encode(&claims()));
    let public = KEY.public_key().as_der().unwrap();
    let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_ref());
    let tag = aws_lc_rs::hmac::sign(&secret, message.as_bytes());
    let confused = RawIdToken::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref())));
    assert!(matches!(judged(&confused, NOW), Err(IdTokenError::Signature)));
}

#[test]
fn a37_changed_or_unsigned_tokens_are_refused() {
    let good = rs256(&claims());
    let parts: Vec<&str> = good.expose().split('.').collect();
    let changed = encode(&with("oid", json!("99999999-9999-9999-9999-999999999999")));
    let forged = RawIdToken::new(format!("{}.{changed}.{}", parts[0], parts[2]));
    assert!(matches!(judged(&forged, NOW), Err(IdTokenError::Signature)));
    for text in ["", "a.b", "a.b.c", &format!("{}.{}.", parts[0], parts[1])] {
        assert!(judged(&RawIdToken::new(text.to_owned()), NOW).is_err(), "{text}");
    }
    let keyless = sign(&json!({"alg": "RS256"}), &claims(), &RSA_PKCS1_SHA256);
    assert!(matches!(judged(&keyless, NOW), Err(IdTokenError::UnknownKey)));
}
