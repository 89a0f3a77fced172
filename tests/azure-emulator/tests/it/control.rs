//! The doors themselves and the control API.

use azure_emulator::{Emulator, Options, StartError, fingerprint};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Given;

#[tokio::test]
async fn an_address_which_is_not_loopback_is_refused() {
    let bind = "0.0.0.0".parse().unwrap();

    let outcome = Emulator::start(Options { bind, ..Options::default() }).await;

    assert!(matches!(outcome, Err(StartError::NotLoopback(address)) if address == bind));
}

#[tokio::test]
async fn a_foreign_host_is_refused_and_recorded() {
    let given = Given::an_emulator().await;

    let outcome = given.client.get("https://example.com/").send().await;

    assert!(outcome.is_err());
    let recorded = given.emulator.requests().pop().unwrap();
    assert_eq!(
        (recorded.method.as_str(), recorded.host.as_str(), recorded.status),
        ("CONNECT", "example.com:443", Some(403))
    );
}

#[tokio::test]
async fn the_control_api_is_not_behind_the_proxy() {
    let given = Given::an_emulator().await;

    let answer = given.client.get("https://dev.azure.com/_emu/tokens?reveal=1").send().await.unwrap();

    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn records_carry_fingerprints_and_no_secrets() {
    let given = Given::an_emulator().await;
    let tokens = given.tokens_of("svc@contoso.com").await;

    let records = given.control(Method::GET, "requests", &Value::Null).await.text().await.unwrap();
    let listed = given.control(Method::GET, "tokens", &Value::Null).await.text().await.unwrap();
    let revealed = given.control(Method::GET, "tokens?reveal=1", &Value::Null).await.text().await.unwrap();

    for name in ["access_token", "refresh_token"] {
        let token = tokens.text(name);
        assert!(records.contains(&fingerprint(&token)));
        assert!(!records.contains(&token) && !listed.contains(&token) && revealed.contains(&token));
    }
}

#[tokio::test]
async fn the_control_api_switches_advances_and_changes() {
    let given = Given::an_emulator().await;
    let before = given.emulator.now();
    let fault = json!({ "switch": "entra.error", "code": 700_082, "count": 1 });
    let change = json!({ "change": "member.add", "organization": "contoso", "user": "outsider@contoso.com" });

    assert_eq!(given.control(Method::POST, "faults", &fault).await.status(), 200);
    assert_eq!(given.control(Method::POST, "clock", &json!({ "advance_s": 5 })).await.status(), 200);
    assert_eq!(given.control(Method::POST, "world", &change).await.status(), 200);
    assert_eq!(given.control(Method::POST, "faults", &json!({ "switch": "nonsense" })).await.status(), 400);

    assert_eq!(given.emulator.now().as_second() - before.as_second(), 5);
    let code = given.a_code_of("outsider@contoso.com").await;
    assert_eq!(given.redeem(&code, &[]).await.code(), 700_082);
    let token = given.redeem(&code, &[]).await.text("access_token");
    assert_eq!(given.get("/contoso/_apis/projects", &token).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_control_api_signs_in() {
    let given = Given::an_emulator().await;
    let body = json!({ "authorize_url": Given::authorize_url(&[]), "user": "ana@contoso.com" });

    let answer: Value = given.control(Method::POST, "sign-in", &body).await.json().await.unwrap();

    assert!(answer["location"].as_str().unwrap().contains("code="), "{answer}");
}

#[tokio::test]
async fn the_https_port_plays_all_hosts_by_path() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of("svc@contoso.com").await;
    let authority = reqwest::Certificate::from_pem(given.emulator.ca_pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap();
    let get = async |path: &str| {
        let url = format!("{}{path}", given.emulator.https_url());
        client.get(url).bearer_auth(&token).send().await.unwrap().status()
    };

    assert_eq!(get("/contoso.com/v2.0/.well-known/openid-configuration").await, 200);
    assert_eq!(get("/contoso/_apis/connectionData").await, 200);
    assert_eq!(get("/_apis/accounts").await, 200);
    assert_eq!(get("/_emu/ca").await, 200);
}
