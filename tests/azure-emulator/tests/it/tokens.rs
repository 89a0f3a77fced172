//! Entra ID: sign-in, codes, tokens. The numbers are those of the contract's section 6.6.

use std::time::Duration;

use azure_emulator::Change;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::Value;

use crate::support::{CALLBACK, CLIENT, Given, SCOPE, SECRET, TENANT, parameter};

#[tokio::test]
async fn a_person_who_accepts_comes_back_with_code_and_state() {
    let given = Given::an_emulator().await;

    let location = given.emulator.sign_in(&Given::authorize_url(&[]), "svc@contoso.com").await.unwrap();

    assert!(location.starts_with(CALLBACK));
    assert_eq!(parameter(&location, "state").as_deref(), Some("state-1"));
    assert!(parameter(&location, "code").unwrap().len() > 700);
}

#[tokio::test]
async fn a_person_who_declines_comes_back_with_access_denied() {
    let given = Given::an_emulator().await;

    let location = given.emulator.decline(&Given::authorize_url(&[])).await.unwrap();

    assert_eq!(parameter(&location, "error").as_deref(), Some("access_denied"));
    assert_eq!(parameter(&location, "state").as_deref(), Some("state-1"));
}

#[tokio::test]
async fn an_unregistered_redirect_uri_gets_a_page_and_no_redirect() {
    let given = Given::an_emulator().await;
    let url = Given::authorize_url(&[("redirect_uri", "http://evil.example/")]);

    let page = given.emulator.sign_in(&url, "svc@contoso.com").await.unwrap_err();

    assert!(page.contains("AADSTS50011"), "{page}");
}

#[tokio::test]
async fn a_user_of_another_tenant_is_sent_back_with_50020() {
    let given = Given::an_emulator().await;

    let location = given.emulator.sign_in(&Given::authorize_url(&[]), "mallory@fabrikam.com").await.unwrap();

    assert!(parameter(&location, "error_description").unwrap().starts_with("AADSTS50020"));
}

#[tokio::test]
async fn the_browser_port_shows_the_page_and_takes_its_form() {
    let given = Given::an_emulator().await;
    let url =
        Given::authorize_url(&[]).replace("https://login.microsoftonline.com", &given.emulator.browser_url());
    let browser =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();

    let page = browser.get(&url).send().await.unwrap().text().await.unwrap();
    let form = [("user", "ana@contoso.com"), ("action", "accept")];
    let answer = browser.post(&url).form(&form).send().await.unwrap();

    assert!(page.contains("Who are you?"), "{page}");
    assert_eq!(answer.status(), 303);
    assert!(parameter(answer.headers()["location"].to_str().unwrap(), "code").is_some());
}

/// 1.
#[tokio::test]
async fn a_refresh_gives_a_new_refresh_token_and_leaves_the_old_one_valid() {
    let given = Given::an_emulator().await;
    let first = given.tokens_of("svc@contoso.com").await.text("refresh_token");

    let second = given.refresh(&first).await;
    let again = given.refresh(&first).await;

    assert_eq!((second.status, again.status), (200, 200));
    assert_ne!(second.text("refresh_token"), first);
    assert!((3_600..=5_400).contains(&second.body["expires_in"].as_u64().unwrap()));
}

/// 2.
#[tokio::test]
async fn a_code_is_redeemed_once() {
    let given = Given::an_emulator().await;
    let code = given.a_code_of("svc@contoso.com").await;
    given.redeem(&code, &[]).await;

    let again = given.redeem(&code, &[]).await;

    assert_eq!((again.status, again.code()), (400, 54_005));
    assert_eq!(again.text("error"), "invalid_grant");
}

/// 3.
#[tokio::test]
async fn a_wrong_verifier_is_refused() {
    let given = Given::an_emulator().await;
    let code = given.a_code_of("svc@contoso.com").await;

    let answer =
        given.redeem(&code, &[("code_verifier", "wrong-wrong-wrong-wrong-wrong-wrong-wrong-wrong")]).await;

    assert_eq!((answer.status, answer.code()), (400, 501_481));
}

/// 4, and the observed order: shape before secret.
#[tokio::test]
async fn the_shape_of_a_code_is_judged_before_the_secret() {
    let given = Given::an_emulator().await;
    let code = given.a_code_of("svc@contoso.com").await;

    let malformed = given.redeem("abc", &[("client_secret", "wrong")]).await;
    let wrong_secret = given.redeem(&code, &[("client_secret", "wrong")]).await;
    let no_secret = given.redeem(&code, &[("client_secret", "")]).await;

    assert_eq!((malformed.status, malformed.code()), (400, 9_002_313));
    assert_eq!((wrong_secret.status, wrong_secret.code()), (401, 7_000_215));
    assert_eq!((no_secret.status, no_secret.code()), (401, 7_000_218));
}

/// The order of 6.3: each request has two faults, the earlier one is told.
#[tokio::test]
async fn the_earlier_fault_of_two_is_told() {
    let given = Given::an_emulator().await;
    let code = given.a_code_of("svc@contoso.com").await;

    let no_grant = given.redeem(&code, &[("grant_type", ""), ("client_id", "x")]).await;
    let bad_grant = given.redeem(&code, &[("grant_type", "password"), ("client_id", "x")]).await;
    let bad_client = given.redeem("abc", &[("client_id", "x")]).await;
    let bad_scope = given.redeem(&code, &[("scope", "https://a.example/x"), ("code_verifier", "x")]).await;
    let bad_redirect =
        given.redeem(&code, &[("redirect_uri", "http://localhost/"), ("code_verifier", "x")]).await;

    let codes = [no_grant, bad_grant, bad_client, bad_scope, bad_redirect].map(|answer| answer.code());
    assert_eq!(codes, [900_144, 70_003, 700_016, 500_011, 50_011]);
}

/// 5 and 6.
#[tokio::test]
async fn default_stands_alone_and_is_the_only_scope_of_an_app() {
    let given = Given::an_emulator().await;
    let refresh_token = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    let resource = "499b84ac-1321-427f-aa17-267ca6975798";
    let mixed = format!("{resource}/user_impersonation {resource}/.default");
    let form =
        [("grant_type", "refresh_token"), ("refresh_token", refresh_token.as_str()), ("scope", &mixed)];
    let (good, bad) = (format!("{resource}/.default"), format!("{resource}/user_impersonation"));

    let mixed = given.token(&form, &[]).await;
    let app = given.token(&[("grant_type", "client_credentials"), ("scope", &good)], &[]).await;
    let delegated = given.token(&[("grant_type", "client_credentials"), ("scope", &bad)], &[]).await;

    assert_eq!((mixed.code(), delegated.code()), (70_011, 1_002_012));
    assert_eq!(app.status, 200);
    assert!(app.body.get("refresh_token").is_none());
}

#[tokio::test]
async fn the_clock_ends_codes_and_refresh_tokens() {
    let given = Given::an_emulator().await;
    let code = given.a_code_of("svc@contoso.com").await;
    let refresh_token = given.tokens_of("ana@contoso.com").await.text("refresh_token");

    given.emulator.advance(Duration::from_secs(601));
    let late = given.redeem(&code, &[]).await;
    given.emulator.advance(Duration::from_hours(90 * 24));
    let idle = given.refresh(&refresh_token).await;

    assert_eq!((late.code(), idle.code()), (70_008, 700_082));
    assert_eq!(idle.text("suberror"), "bad_token");
}

#[tokio::test]
async fn an_id_token_verifies_with_the_published_keys() {
    let given = Given::an_emulator().await;
    let token = given.tokens_of("svc@contoso.com").await.text("id_token");
    let url = format!("https://login.microsoftonline.com/{TENANT}/discovery/v2.0/keys");
    let keys: JwkSet = given.client.get(url).send().await.unwrap().json().await.unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[CLIENT]);
    validation.set_issuer(&[format!("https://login.microsoftonline.com/{TENANT}/v2.0")]);
    // The emulator's clock stands still in the past.
    validation.validate_exp = false;

    let key = DecodingKey::from_jwk(&keys.keys[0]).unwrap();
    let claims = decode::<Value>(&token, &key, &validation).unwrap().claims;

    assert_eq!(claims["nonce"], "nonce-1");
    assert_eq!(claims["tid"], TENANT);
    assert_eq!(claims["preferred_username"], "svc@contoso.com");
}

#[tokio::test]
async fn an_unknown_tenant_is_told_in_the_form_of_each_endpoint() {
    let given = Given::an_emulator().await;
    let base = "https://login.microsoftonline.com/nowhere.example";

    let discovery =
        given.client.get(format!("{base}/v2.0/.well-known/openid-configuration")).send().await.unwrap();
    let discovery: Value = discovery.json().await.unwrap();
    let token = given
        .client
        .post(format!("{base}/oauth2/v2.0/token"))
        .form(&[("grant_type", "x")])
        .send()
        .await
        .unwrap();
    let token: Value = token.json().await.unwrap();

    assert_eq!(discovery["error"], "invalid_tenant");
    assert_eq!(token["error"], "invalid_request");
    assert_eq!((&discovery["error_codes"][0], &token["error_codes"][0]), (&90_002.into(), &90_002.into()));
}

#[tokio::test]
async fn a_secret_is_taken_in_the_header_too_but_not_twice() {
    let given = Given::an_emulator().await;
    let code = given.a_code_of("svc@contoso.com").await;
    let url = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token");
    let encoded: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", CALLBACK),
        ("scope", SCOPE),
        ("code_verifier", crate::support::VERIFIER),
        ("client_id", CLIENT),
    ];
    let twice = [form.as_slice(), &[("client_secret", SECRET)]].concat();
    let post = |form| given.client.post(&url).basic_auth(CLIENT, Some(&encoded)).form(form);

    let refused = post(&twice).send().await.unwrap();
    let taken = post(&form.to_vec()).send().await.unwrap();

    assert_eq!((refused.status().as_u16(), taken.status().as_u16()), (400, 200));
}

#[tokio::test]
async fn a_rotated_secret_works_beside_the_old_one() {
    let given = Given::an_emulator().await;
    let refresh_token = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.as_str())];

    given
        .emulator
        .change(Change::AddSecret { client_id: CLIENT.to_owned(), value: "new".to_owned() })
        .unwrap();
    let old = given.token(&form, &[]).await;
    let new = given.token(&form, &[("client_secret", "new")]).await;

    assert_eq!((old.status, new.status), (200, 200));
}
