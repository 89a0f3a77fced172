//! The switches of Azure DevOps and of states, and those of the token endpoint's answers.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use azure_emulator::Fault;
use serde_json::{Value, json};

use crate::support::{CLIENT, Given, SECRET, TENANT};

const LIST: &str = "/contoso/_apis/git/repositories";

async fn ready() -> (Given, String) {
    let given = Given::an_emulator().await;
    let token = given.access_token_of("svc@contoso.com").await;
    (given, token)
}

fn switch(given: &Given, switch: Value) {
    given.emulator.fault(serde_json::from_value(switch).unwrap());
}

#[tokio::test]
async fn refusals_by_policy_edge_and_membership_are_told_apart() {
    let (given, token) = ready().await;
    for name in ["ado.vs403463", "ado.edge_blocked_html", "ado.tf400813"] {
        switch(&given, json!({ "switch": name, "count": 1 }));
    }
    let get = async || {
        let answer = given.get(LIST, &token).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };

    let (policy, edge, member, after) = (get().await, get().await, get().await, get().await);

    assert!(policy.0 == 403 && policy.1.contains("VS403463"), "{policy:?}");
    assert!(edge.0 == 403 && edge.1.contains("The request is blocked."), "{edge:?}");
    assert!(member.0 == 401 && member.1.contains("TF400813: The user 'svc@contoso.com'"), "{member:?}");
    assert_eq!(after.0, 200);
}

#[tokio::test]
async fn challenges_come_in_three_forms() {
    let (given, _) = ready().await;
    let challenges = async || {
        let answer = given.get(LIST, "bad").send().await.unwrap();
        let headers = answer.headers().clone();
        let all: Vec<String> = headers
            .get_all("www-authenticate")
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        (all, headers["x-vss-resourcetenant"].to_str().unwrap().to_owned())
    };

    switch(&given, json!({ "switch": "ado.challenge", "kind": "old" }));
    let (old, _) = challenges().await;
    switch(&given, json!({ "switch": "ado.challenge", "kind": "msa" }));
    let (msa, tenant) = challenges().await;
    switch(&given, json!({ "switch": "ado.challenge", "kind": "aad" }));
    let (aad, _) = challenges().await;

    assert_eq!(old[0], format!("Bearer authorization_uri=https://login.windows.net/{TENANT}"));
    assert_eq!(aad[0], format!("Bearer authorization_uri=https://login.microsoftonline.com/{TENANT}"));
    assert_eq!((msa.len(), tenant.as_str()), (2, "00000000-0000-0000-0000-000000000000"));
}

#[tokio::test]
async fn a_list_breaks_off_in_the_middle_or_ends_too_early() {
    let (given, token) = ready().await;
    switch(
        &given,
        json!({ "switch": "ado.truncate", "bytes": 100, "path": "/git/repositories", "count": 1 }),
    );
    switch(&given, json!({ "switch": "ado.truncate", "bytes": 100, "cleanly": true, "count": 1 }));

    let broken = async { given.get(LIST, &token).send().await?.bytes().await }.await;
    let early = given.get(LIST, &token).send().await.unwrap().bytes().await.unwrap();
    let whole = given.get(LIST, &token).send().await.unwrap().bytes().await.unwrap();

    assert!(broken.is_err());
    assert_eq!(early, whole.slice(..100));
}

#[tokio::test]
async fn a_held_list_waits_while_other_requests_go_on() {
    let (given, token) = ready().await;
    switch(&given, json!({ "switch": "ado.hold", "path": "/git/repositories" }));

    let waiting = given.get(LIST, &token).send();
    let looking = async {
        given.emulator.wait_held(1).await;
        let other = given.get("/contoso/_apis/projects", &token).send().await.unwrap().status();
        given.emulator.release_held();
        other
    };
    let (list, other) = tokio::join!(waiting, looking);

    assert_eq!((list.unwrap().status().as_u16(), other.as_u16()), (200, 200));
}

#[tokio::test]
async fn a_token_of_another_tenant_looks_like_throttling_when_switched() {
    let given = Given::an_emulator().await;
    let url = "https://login.microsoftonline.com/fabrikam.com/oauth2/v2.0/token";
    let principal = json!({
        "change": "service_principal.set", "client_id": CLIENT, "tenant": "fabrikam.com", "present": true,
    });
    given.emulator.change(serde_json::from_value(principal).unwrap()).unwrap();
    let form = [
        ("client_id", CLIENT),
        ("client_secret", SECRET),
        ("grant_type", "client_credentials"),
        ("scope", "499b84ac-1321-427f-aa17-267ca6975798/.default"),
    ];
    let answer = given.client.post(url).form(&form).send().await.unwrap();
    let token = answer.json::<Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned();

    let usual = given.get(LIST, &token).send().await.unwrap();
    switch(&given, json!({ "switch": "ado.throttle_wrong_tenant", "retry_after": 7 }));
    let throttled = given.get(LIST, &token).send().await.unwrap();

    assert_eq!((usual.status().as_u16(), throttled.status().as_u16()), (401, 429));
    assert_eq!(throttled.headers()["retry-after"], "7");
    assert_eq!(throttled.headers()["x-ratelimit-remaining"], "0");
}

#[tokio::test]
async fn what_an_identity_has_left_is_told_until_nothing_is() {
    let (given, token) = ready().await;
    let other = given.access_token_of("ana@contoso.com").await;
    switch(&given, json!({ "switch": "ado.limit", "limit": 4 }));
    let get = async |token: &str| {
        let answer = given.get(LIST, token).send().await.unwrap();
        let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), header("x-ratelimit-remaining"), header("retry-after"))
    };

    let told = [get(&token).await, get(&token).await, get(&token).await, get(&token).await];
    let (beyond, of_another) = (get(&token).await, get(&other).await);
    given.emulator.advance(std::time::Duration::from_mins(6));
    let later = get(&token).await;

    let text = |text: &str| Some(text.to_owned());
    assert_eq!(told, [(200, None, None), (200, None, None), (200, text("1"), None), (200, text("0"), None)]);
    assert_eq!((beyond.0, beyond.1), (429, text("0")));
    assert!(beyond.2.is_some_and(|seconds| seconds.parse::<u64>().unwrap() <= 301));
    assert_eq!((of_another.0, later.0), (200, 200));
}

#[tokio::test]
async fn endless_pages_always_announce_another() {
    let (given, token) = ready().await;
    switch(&given, json!({ "switch": "ado.endless_pages" }));
    let mut next = "0".to_owned();

    for _ in 0..5 {
        let path = format!("/contoso/_apis/projects?$top=1&continuationToken={next}");
        let answer = given.get(&path, &token).send().await.unwrap();
        next = answer.headers()["x-ms-continuationtoken"].to_str().unwrap().to_owned();
        assert_eq!(answer.json::<Value>().await.unwrap()["count"], 1);
    }
}

#[tokio::test]
async fn a_disconnected_organization_names_no_tenant() {
    let (given, token) = ready().await;
    given.emulator.fault(Fault::Disconnect { organization: "contoso".to_owned() });

    let answer = given.get(LIST, &token).send().await.unwrap();

    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["x-vss-resourcetenant"], "00000000-0000-0000-0000-000000000000");
}

#[tokio::test]
async fn a_new_password_revokes_only_when_told() {
    let given = Given::an_emulator().await;
    let refresh_token = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    let changed = |revokes| Fault::PasswordChanged { upn: "svc@contoso.com".to_owned(), revokes };

    given.emulator.fault(changed(false));
    let alive = given.refresh(&refresh_token).await.status;
    given.emulator.fault(changed(true));
    let revoked = given.refresh(&refresh_token).await.code();

    assert_eq!((alive, revoked), (200, 50_173));
}

#[tokio::test]
async fn token_answers_vary_as_switched() {
    let given = Given::an_emulator().await;
    let refresh_token = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    switch(&given, json!({ "switch": "entra.404_empty", "count": 1 }));
    switch(&given, json!({ "switch": "entra.scope_reordered" }));
    switch(&given, json!({ "switch": "entra.refresh_in", "seconds": 900 }));

    let nothing = given.refresh(&refresh_token).await;
    let answer = given.refresh(&refresh_token).await;

    assert_eq!((nothing.status, nothing.body), (404, Value::Null));
    let scope = "email profile openid offline_access 499b84ac-1321-427f-aa17-267ca6975798/user_impersonation";
    assert_eq!((answer.text("scope").as_str(), &answer.body["refresh_in"]), (scope, &json!(900)));
}
