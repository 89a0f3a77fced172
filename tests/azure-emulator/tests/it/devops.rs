//! Azure DevOps REST.

use azure_emulator::{Change, Fault};
use serde_json::{Value, json};

use crate::support::{Given, TENANT};

const GIT: &str = "2e9eb7ed-3c0a-47d4-87c1-0ffdd275fd87";
const PROJECT: &str = "dddd0000-0000-4000-a000-000000000001";

#[tokio::test]
async fn connection_data_tells_who_one_is() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of("svc@contoso.com").await;

    let answer = given.get("/contoso/_apis/connectionData", &token).send().await.unwrap();
    let body: Value = answer.json().await.unwrap();

    assert_eq!(body["authenticatedUser"]["properties"]["Account"]["$value"], "svc@contoso.com");
}

/// 7, and the trap of 3.8.
#[tokio::test]
async fn a_stranger_gets_401_when_he_asks_for_it_and_a_sign_in_page_otherwise() {
    let given = Given::an_emulator().await;
    let url = "https://dev.azure.com/contoso/_apis/connectionData";
    let plain = async || given.client.get(url).send().await.unwrap();

    let asked = given.get("/contoso/_apis/connectionData", "bad").send().await.unwrap();
    let redirected = plain().await;
    given.emulator.fault(Fault::SignInMode { status: 203, always: false });
    let page = plain().await;

    assert_eq!(
        [asked.status(), redirected.status(), page.status()].map(|status| status.as_u16()),
        [401, 302, 203]
    );
    assert_eq!(asked.headers()["x-vss-resourcetenant"], TENANT);
    let challenges: Vec<_> = asked.headers().get_all("www-authenticate").iter().collect();
    assert_eq!(challenges.len(), 3);
    assert_eq!(
        challenges[0],
        &format!("Bearer authorization_uri=https://login.microsoftonline.com/{TENANT}")
    );
    assert!(page.text().await.unwrap().contains("Azure DevOps Services | Sign In"));
}

#[tokio::test]
async fn who_is_not_a_member_is_named_in_tf400813() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of("outsider@contoso.com").await;

    let answer = given.get("/contoso/_apis/projects", &token).send().await.unwrap();
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();

    assert_eq!(status, 401);
    assert!(body["message"].as_str().unwrap().starts_with("TF400813: The user 'outsider@contoso.com'"));
}

#[tokio::test]
async fn membership_counts_from_the_moment_it_changes() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of("svc@contoso.com").await;
    let (organization, user) = ("contoso".to_owned(), "svc@contoso.com".to_owned());

    given.emulator.change(Change::RemoveMember { organization, user }).unwrap();

    assert_eq!(given.get("/contoso/_apis/projects", &token).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn projects_come_in_pages() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of("svc@contoso.com").await;

    let first = given.get("/contoso/_apis/projects?$top=1", &token).send().await.unwrap();
    let next = first.headers()["x-ms-continuationtoken"].to_str().unwrap().to_owned();
    let path = format!("/contoso/_apis/projects?$top=1&continuationToken={next}");
    let second = given.get(&path, &token).send().await.unwrap();

    assert!(second.headers().get("x-ms-continuationtoken").is_none());
    let names =
        [first, second].map(async |answer| answer.json::<Value>().await.unwrap()["value"][0]["name"].clone());
    let [one, two] = names;
    assert_eq!((one.await, two.await), (json!("Data Platform"), json!("website")));
}

/// 8: which of the two the real service does is not known.
#[tokio::test]
async fn a_denied_repository_is_listed_unless_switched_and_never_opens() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of("svc@contoso.com").await;
    let names = async || {
        let answer =
            given.get("/contoso/Data%20Platform/_apis/git/repositories", &token).send().await.unwrap();
        let body: Value = answer.json().await.unwrap();
        let names = body["value"].as_array().unwrap().iter().map(|repository| repository["name"].clone());
        names.collect::<Vec<_>>()
    };

    let shown = names().await;
    given.emulator.fault(Fault::HideDenied {});
    let hidden = names().await;
    let single =
        given.get("/contoso/Data%20Platform/_apis/git/repositories/secret", &token).send().await.unwrap();

    assert_eq!(shown, ["analytics", "secret", "old", "empty"]);
    assert_eq!(hidden, ["analytics", "old", "empty"]);
    assert_eq!(single.status(), 404);
    assert!(single.text().await.unwrap().contains("GitRepositoryNotFoundException"));
}

/// 9.
#[tokio::test]
async fn both_permission_calls_agree() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of("svc@contoso.com").await;
    let tokens = [1, 2].map(|n| format!("repoV2/{PROJECT}/eeee0000-0000-4000-a000-00000000000{n}"));
    let path = format!("/contoso/_apis/permissions/{GIT}/2?tokens={}", tokens.join(","));
    let evaluations =
        tokens.map(|token| json!({ "securityNamespaceId": GIT, "token": token, "permissions": 2 }));
    let batch = given.client.post("https://dev.azure.com/contoso/_apis/security/permissionevaluationbatch");
    let batch = batch
        .bearer_auth(&token)
        .json(&json!({ "alwaysAllowAdministrators": false, "evaluations": evaluations }));

    let one: Value = given.get(&path, &token).send().await.unwrap().json().await.unwrap();
    let other: Value = batch.send().await.unwrap().json().await.unwrap();

    assert_eq!(one["value"], json!([true, false]));
    assert_eq!(
        (&other["evaluations"][0]["value"], &other["evaluations"][1]["value"]),
        (&json!(true), &json!(false))
    );
}

#[tokio::test]
async fn throttling_comes_as_429_or_as_a_hint_on_200() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of("svc@contoso.com").await;
    given.emulator.fault(Fault::DevopsThrottle { retry_after: Some(9), delayed: false, count: Some(1) });
    given.emulator.fault(Fault::DevopsThrottle { retry_after: Some(9), delayed: true, count: Some(1) });

    let blocked = given.get("/contoso/_apis/projects", &token).send().await.unwrap();
    let delayed = given.get("/contoso/_apis/projects", &token).send().await.unwrap();

    assert_eq!((blocked.status().as_u16(), delayed.status().as_u16()), (429, 200));
    assert_eq!(delayed.headers()["retry-after"], "9");
}

#[tokio::test]
async fn legacy_hosts_lead_to_the_same_organization() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of("svc@contoso.com").await;
    let get = async |url: &str| given.client.get(url).bearer_auth(&token).send().await.unwrap().status();

    assert_eq!(get("https://contoso.visualstudio.com/_apis/projects").await, 200);
    assert_eq!(get("https://contoso.visualstudio.com/DefaultCollection/_apis/projects").await, 200);
    assert_eq!(get("https://app.vssps.visualstudio.com/_apis/profile/profiles/me").await, 200);
    assert_eq!(get("https://dev.azure.com/nowhere/_apis/projects").await, 404);
}
