//! Apps that speak for themselves: their tokens, and Azure DevOps' view of them.

use azure_emulator::{Change, Licence};
use serde_json::Value;

use crate::support::{Answer, CLIENT, Given, SECRET};

const SCOPE: &str = "499b84ac-1321-427f-aa17-267ca6975798/.default";
const FABRIKAM: &str = "20000000-0000-4000-a000-000000000002";

async fn app_token(given: &Given, scope: &str) -> Answer {
    given.token(&[("grant_type", "client_credentials"), ("scope", scope)], &[]).await
}

fn principal(tenant: &str, oid: Option<&str>, present: bool) -> Change {
    let (client_id, oid) = (CLIENT.to_owned(), oid.map(str::to_owned));
    Change::SetServicePrincipal { client_id, tenant: tenant.to_owned(), oid, present }
}

#[tokio::test]
async fn an_app_gets_a_token_and_nothing_else() {
    let given = Given::an_emulator().await;

    let answer = app_token(&given, SCOPE).await;

    let mut names: Vec<&String> = answer.body.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["access_token", "expires_in", "ext_expires_in", "token_type"]);
    let claims =
        jsonwebtoken::dangerous::insecure_decode::<Value>(&answer.text("access_token")).unwrap().claims;
    assert_eq!(claims["oid"], claims["sub"]);
    assert!(claims.get("scp").is_none() && claims.get("upn").is_none(), "{claims}");
}

#[tokio::test]
async fn an_app_asks_for_default_alone() {
    let given = Given::an_emulator().await;

    let delegated = app_token(&given, "499b84ac-1321-427f-aa17-267ca6975798/user_impersonation").await;
    let offline = app_token(&given, &format!("{SCOPE} offline_access")).await;
    let encoded = app_token(&given, &SCOPE.replace('/', "%2F")).await;

    assert_eq!([delegated.code(), offline.code(), encoded.code()], [1_002_012; 3]);
}

#[tokio::test]
async fn an_app_needs_a_service_principal_in_the_tenant() {
    let given = Given::an_emulator().await;
    let elsewhere = async || {
        let url = format!("https://login.microsoftonline.com/{FABRIKAM}/oauth2/v2.0/token");
        let form = [
            ("client_id", CLIENT),
            ("client_secret", SECRET),
            ("grant_type", "client_credentials"),
            ("scope", SCOPE),
        ];
        let answer = given.client.post(url).form(&form).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["error_codes"][0].clone())
    };

    assert_eq!(elsewhere().await, (401, 7_000_229.into()));
    given.emulator.change(principal("fabrikam.com", None, true)).unwrap();
    assert_eq!(elsewhere().await.0, 200);
    given.emulator.change(principal("contoso.com", None, false)).unwrap();
    let deleted = app_token(&given, SCOPE).await;
    assert_eq!((deleted.status, deleted.code()), (401, 7_000_229));
}

#[tokio::test]
async fn an_app_is_a_member_only_when_it_was_added_itself() {
    let given = Given::an_emulator().await;
    let oid = "cccc0000-0000-4000-a000-000000000001";
    given.emulator.change(principal("contoso.com", Some(oid), true)).unwrap();
    let token = app_token(&given, SCOPE).await.text("access_token");
    let get = async |path: &str| given.get(path, &token).send().await.unwrap();

    let stranger = get("/contoso/_apis/connectionData").await;
    let (status, body) = (stranger.status(), stranger.text().await.unwrap());
    let (organization, user) = ("contoso".to_owned(), CLIENT.to_owned());
    given.emulator.change(Change::AddMember { organization, user, licence: Licence::Basic }).unwrap();
    let who: Value = get("/contoso/_apis/connectionData").await.json().await.unwrap();

    assert_eq!(status, 401);
    assert!(body.contains("TF401444") && body.contains(oid), "{body}");
    let who = &who["authenticatedUser"];
    assert_eq!(who["providerDisplayName"], "Data platform (account acme)");
    assert_eq!(who["properties"], serde_json::json!({}));
    assert!(who["descriptor"].as_str().unwrap().ends_with(oid), "{who}");
    for path in ["/contoso/_apis/projects", "/contoso/_apis/git/repositories"] {
        assert_eq!(get(path).await.status(), 200);
    }
    let clone = "/contoso/Data%20Platform/_git/analytics/info/refs?service=git-upload-pack";
    assert_eq!(get(clone).await.status(), 200);
}
