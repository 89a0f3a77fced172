//! The switches.

use std::time::Duration;

use azure_emulator::{Fault, Within};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{CLIENT, Given};

#[tokio::test]
async fn a_forced_error_has_the_usual_form_and_ends_after_its_count() {
    let given = Given::an_emulator().await;
    let refresh_token = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    let claims = Some("{}".to_owned());
    given.emulator.fault(Fault::EntraError {
        code: 50_076,
        error: None,
        suberror: None,
        claims,
        http: None,
        count: Some(1),
    });

    let forced = given.refresh(&refresh_token).await;
    let after = given.refresh(&refresh_token).await;

    assert_eq!(
        (forced.status, forced.code(), forced.text("suberror").as_str()),
        (400, 50_076, "basic_action")
    );
    assert_eq!(forced.text("claims"), "{}");
    assert_eq!(after.status, 200);
}

#[tokio::test]
async fn a_revoked_user_needs_a_new_grant_and_a_disabled_one_does_not() {
    let given = Given::an_emulator().await;
    let ana = given.tokens_of("ana@contoso.com").await.text("refresh_token");
    let svc = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    given.emulator.fault(Fault::UserRevoke { upn: "ana@contoso.com".to_owned() });
    given.emulator.fault(Fault::UserDisable { upn: "svc@contoso.com".to_owned() });

    let revoked = given.refresh(&ana).await;
    let disabled = given.refresh(&svc).await;
    given.emulator.fault(Fault::UserEnable { upn: "svc@contoso.com".to_owned() });
    let enabled = given.refresh(&svc).await;

    assert_eq!((revoked.code(), disabled.code()), (50_173, 50_057));
    assert_eq!(enabled.status, 200);
}

#[tokio::test]
async fn an_expired_secret_and_a_lost_consent_are_told_apart() {
    let given = Given::an_emulator().await;
    let refresh_token = given.tokens_of("svc@contoso.com").await.text("refresh_token");

    given.emulator.fault(Fault::ConsentDelete { upn: "svc@contoso.com".to_owned() });
    let consent = given.refresh(&refresh_token).await;
    given.emulator.fault(Fault::SecretExpire { client_id: CLIENT.to_owned() });
    let secret = given.refresh(&refresh_token).await;

    assert_eq!((consent.code(), consent.text("suberror").as_str()), (65_001, "consent_required"));
    assert_eq!((secret.status, secret.code()), (401, 7_000_222));
}

#[tokio::test]
async fn a_held_answer_is_evaluated_and_recorded_before_it_is_released() {
    let given = Given::an_emulator().await;
    let refresh_token = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    given.emulator.fault(Fault::EntraHold { count: None });

    let waiting = given.refresh(&refresh_token);
    let looking = async {
        given.emulator.wait_held(1).await;
        let recorded = given.emulator.token_requests().pop().unwrap();
        given.emulator.release_held();
        recorded
    };
    let (answer, recorded) = tokio::join!(waiting, looking);

    assert_eq!(recorded.outcome, Ok(()));
    assert_eq!(recorded.refresh_token, Some(answer.text("refresh_token")));
    assert_eq!(given.emulator.held(), 0);
}

#[tokio::test]
async fn a_client_that_goes_away_is_held_no_longer() {
    let given = Given::an_emulator().await;
    let refresh_token = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    let before = given.emulator.token_requests().len();
    given.emulator.fault(Fault::EntraHang { count: None });

    tokio::select! {
        _ = given.refresh(&refresh_token) => panic!("a hanging request was answered"),
        () = given.emulator.wait_held(1) => {}
    }

    assert_eq!(given.emulator.token_requests().len(), before, "what hangs is not evaluated");
    while given.emulator.held() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn transport_faults_look_like_those_of_a_gateway() {
    let given = Given::an_emulator().await;
    let code = given.a_code_of("svc@contoso.com").await;
    given.emulator.fault(Fault::EntraThrottle { retry_after: Some(7), count: Some(1) });
    given.emulator.fault(Fault::EntraOutage { status: None, retry_after: None, count: Some(1) });
    given.emulator.fault(Fault::EntraHtml { count: Some(1) });

    let statuses = [
        given.redeem(&code, &[]).await.status,
        given.redeem(&code, &[]).await.status,
        given.redeem(&code, &[]).await.status,
    ];

    assert_eq!(statuses, [429, 503, 200]);
    assert_eq!(given.redeem(&code, &[]).await.status, 200, "no fault has used the code up");
}

#[tokio::test]
async fn lifetimes_and_id_tokens_are_as_switched() {
    let given = Given::an_emulator().await;
    given.emulator.fault(Fault::ExpiresIn { seconds: 60 });
    given.emulator.fault(Fault::NoRefreshToken { count: Some(1) });

    let answer = given.tokens_of("svc@contoso.com").await;
    given.emulator.advance(std::time::Duration::from_secs(61));
    let expired =
        given.get("/contoso/_apis/connectionData", &answer.text("access_token")).send().await.unwrap();

    assert_eq!(answer.body["expires_in"], 60);
    assert!(answer.body.get("refresh_token").is_none());
    assert_eq!(expired.status(), 401);
}

#[tokio::test]
async fn rotated_keys_are_published_beside_the_old_ones() {
    let given = Given::an_emulator().await;
    let keys = async || {
        let url = "https://login.microsoftonline.com/common/discovery/v2.0/keys";
        let body: serde_json::Value = given.client.get(url).send().await.unwrap().json().await.unwrap();
        body["keys"].as_array().unwrap().len()
    };

    let before = keys().await;
    given.emulator.fault(Fault::RotateKeys {});

    assert_eq!((before, keys().await), (1, 2));
}

#[tokio::test]
async fn claims_of_an_id_token_are_replaced_as_switched() {
    let given = Given::an_emulator().await;
    let switch = r#"{"switch":"entra.id_token","tid":"other","nonce":"stale","count":1}"#;
    given.emulator.fault(serde_json::from_str(switch).unwrap());

    let token = given.tokens_of("svc@contoso.com").await.text("id_token");

    let claims = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(&token).unwrap().claims;
    assert_eq!((claims["tid"].as_str(), claims["nonce"].as_str()), (Some("other"), Some("stale")));
}

#[tokio::test]
async fn any_error_of_azure_devops_can_be_switched_on() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of("svc@contoso.com").await;
    let switch =
        r#"{"switch":"ado.error","status":403,"message":"VS403463: no","type_key":"VssServiceException"}"#;
    given.emulator.fault(serde_json::from_str(switch).unwrap());

    let answer = given.get("/contoso/_apis/projects", &token).send().await.unwrap();
    given.emulator.clear_faults();
    let after = given.get("/contoso/_apis/projects", &token).send().await.unwrap();

    assert_eq!((answer.status().as_u16(), after.status().as_u16()), (403, 200));
}

#[tokio::test]
async fn a_used_refresh_token_is_revoked_when_rotation_is_strict() {
    let given = Given::an_emulator().await;
    let refresh_token = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    given.emulator.fault(Fault::StrictRotation {});

    let first = given.refresh(&refresh_token).await;
    let again = given.refresh(&refresh_token).await;

    assert_eq!((first.status, again.code()), (200, 50_173));
}

fn of_tenant(tenant: &str, seconds: Option<u64>) -> Within {
    Within { tenant: Some(tenant.to_owned()), seconds, ..Within::default() }
}

#[tokio::test]
async fn a_switch_for_one_tenant_and_a_while_leaves_the_others_and_ends() {
    let given = Given::an_emulator().await;
    let outage = || Fault::EntraOutage { status: Some(503), retry_after: None, count: None };
    let refresh_token = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    let refresh = async || given.refresh(&refresh_token).await.status;

    given.emulator.fault_within(of_tenant("fabrikam.com", None), outage());
    assert_eq!(refresh().await, 200);
    // By its domain, although requests name it by its id.
    given.emulator.fault_within(of_tenant("contoso.com", Some(60)), outage());
    assert_eq!(refresh().await, 503);
    given.emulator.advance(Duration::from_secs(59));
    assert_eq!(refresh().await, 503);
    given.emulator.advance(Duration::from_secs(1));
    assert_eq!(refresh().await, 200);
}

#[tokio::test]
async fn a_switch_for_one_organization_leaves_entra_and_the_others() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of("svc@contoso.com").await;
    let list = async || {
        let answer = given.get("/contoso/_apis/git/repositories", &token).send().await.unwrap();
        answer.status().as_u16()
    };
    let switch = |organization: &str| {
        let within = json!({ "organization": organization });
        json!({ "switch": "ado.5xx", "status": 503, "within": within })
    };

    given.control(Method::POST, "faults", &switch("northwind")).await;
    assert_eq!(list().await, 200);
    let answer = given.control(Method::POST, "faults", &switch("Contoso")).await;
    assert_eq!((answer.status().as_u16(), list().await), (200, 503));

    let shown = given.control(Method::GET, "faults", &Value::Null).await.text().await.unwrap();
    assert!(shown.contains(r#""within":{"#) && shown.contains("Contoso"), "{shown}");
    assert_eq!(given.tokens_of("svc@contoso.com").await.status, 200);
}

#[tokio::test]
async fn beyond_the_limit_token_requests_are_throttled_and_nothing_is_evaluated() {
    let given = Given::an_emulator().await;
    let refresh_token = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    given.emulator.fault(Fault::EntraLimit { per_second: 3 });

    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(given.refresh(&refresh_token).await.status);
    }
    given.emulator.clear_faults();
    let after = given.refresh(&refresh_token).await.status;

    assert_eq!((statuses, after), (vec![200, 200, 200, 429], 200));
    let last = given.emulator.token_requests().into_iter().rev().nth(1).unwrap();
    assert_eq!((last.outcome, last.at_issued), (Err(0), None));
}
