//! Narrower scopes, several secrets, and strict rotation.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use azure_emulator::{Change, Fault, Options, World};
use serde_json::Value;

use crate::support::{Answer, CLIENT, Given, parameter};

const RESOURCE: &str = "499b84ac-1321-427f-aa17-267ca6975798";
const LIST: &str = "/contoso/_apis/git/repositories";
const CLONE: &str = "/contoso/Data%20Platform/_git/analytics/info/refs?service=git-upload-pack";
const PUSH: &str = "/contoso/Data%20Platform/_git/analytics/info/refs?service=git-receive-pack";

async fn granting(permissions: &[&str]) -> Given {
    let mut world = World::example();
    world.apps[0].permissions = permissions.iter().map(|name| (*name).to_owned()).collect();
    Given::with(Options { world, ..Options::default() }).await
}

async fn tokens_for(given: &Given, permission: &str) -> Answer {
    let scope = format!("{RESOURCE}/{permission} offline_access openid profile");
    let url = Given::authorize_url(&[("scope", &scope)]);
    let location = given.emulator.sign_in(&url, "svc@contoso.com").await.unwrap();
    let code = parameter(&location, "code").unwrap();
    given.redeem(&code, &[("scope", &scope)]).await
}

async fn statuses(given: &Given, token: &str) -> [u16; 3] {
    let get = async |path: &str| given.get(path, token).send().await.unwrap().status().as_u16();
    [get(LIST).await, get(CLONE).await, get(PUSH).await]
}

#[tokio::test]
async fn a_token_opens_what_its_scope_says() {
    let given = granting(&["vso.code", "vso.code_write", "vso.project"]).await;

    let read = tokens_for(&given, "vso.code").await;
    let write = tokens_for(&given, "vso.code_write").await;
    let project = tokens_for(&given, "vso.project").await;
    let all = tokens_for(&given, ".default").await;

    assert_eq!(read.text("scope"), format!("{RESOURCE}/vso.code"));
    assert_eq!(statuses(&given, &read.text("access_token")).await, [200, 200, 401]);
    assert_eq!(statuses(&given, &write.text("access_token")).await, [200, 200, 200]);
    assert_eq!(statuses(&given, &project.text("access_token")).await, [401, 401, 401]);
    assert_eq!(statuses(&given, &all.text("access_token")).await, [200, 200, 200]);
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(&all.text("access_token")).unwrap().claims;
    assert_eq!(claims["scp"], "vso.code vso.code_write vso.project");
}

#[tokio::test]
async fn a_scope_the_app_does_not_list_is_refused_at_sign_in_and_at_refresh() {
    let given = granting(&["vso.code"]).await;
    let refresh_token = tokens_for(&given, "vso.code").await.text("refresh_token");
    let wide = format!("{RESOURCE}/user_impersonation offline_access");
    let form = [("grant_type", "refresh_token"), ("refresh_token", &refresh_token), ("scope", &wide)];

    let url = Given::authorize_url(&[("scope", &wide)]);
    let location = given.emulator.sign_in(&url, "svc@contoso.com").await.unwrap();
    let refreshed = given.token(&form, &[]).await;

    assert!(parameter(&location, "error_description").unwrap().starts_with("AADSTS650057"));
    assert_eq!((refreshed.code(), refreshed.text("suberror").as_str()), (65_001, "consent_required"));
}

#[tokio::test]
async fn each_secret_has_its_own_end_and_is_named_in_the_record() {
    let given = Given::an_emulator().await;
    let expires_at = Some(given.emulator.now() + std::time::Duration::from_mins(1));
    let value = "new~secret".to_owned();
    given.emulator.change(Change::SetSecret { client_id: CLIENT.to_owned(), value, expires_at }).unwrap();
    let form = [("grant_type", "client_credentials"), ("scope", &format!("{RESOURCE}/.default"))];

    let new = given.token(&form, &[("client_secret", "new~secret")]).await;
    let recorded = given.emulator.token_requests().pop().unwrap().credential;
    given.emulator.advance(std::time::Duration::from_mins(1));
    let late = given.token(&form, &[("client_secret", "new~secret")]).await;
    let other = given.token(&form, &[]).await;

    assert_eq!((new.status, recorded.as_deref()), (200, Some("secret:new")));
    assert_eq!((late.code(), other.status), (7_000_222, 200));
}

#[tokio::test]
async fn under_strict_rotation_a_used_token_that_comes_again_revokes_its_family() {
    let given = Given::an_emulator().await;
    let other_family = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    let first = given.tokens_of("svc@contoso.com").await.text("refresh_token");
    given.emulator.fault(Fault::StrictRotation {});

    let second = given.refresh(&first).await.text("refresh_token");
    let third = given.refresh(&second).await.text("refresh_token");
    let reused = given.refresh(&first).await;

    assert_eq!((reused.code(), given.refresh(&third).await.code()), (50_173, 50_173));
    assert_eq!(given.refresh(&other_family).await.status, 200);
}
