//! Many repositories and projects, refs, and how SDKs find the routes.

use azure_emulator::{Change, Generated, World};
use serde_json::{Value, json};

use crate::support::Given;

const SVC: &str = "svc@contoso.com";

fn generate(count: u32) -> Change {
    Change::GenerateRepositories {
        organization: "contoso".to_owned(),
        project: "website".to_owned(),
        generated: Generated { count, prefix: "repo-".to_owned(), denied_read: vec![SVC.to_owned()] },
    }
}

#[tokio::test]
async fn twenty_thousand_repositories_come_in_one_list_by_the_rule() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of(SVC).await;

    given.emulator.change(generate(20_000)).unwrap();
    let answer = given.get("/contoso/website/_apis/git/repositories", &token).send().await.unwrap();
    let body: Value = answer.json().await.unwrap();

    let all = body["value"].as_array().unwrap();
    let count = |is: fn(&Value) -> bool| all.iter().filter(|it| is(it)).count();
    assert_eq!(all.len(), 20_001, "and the one that was there");
    assert_eq!(count(|it| it["isDisabled"] == true), 1_000);
    assert_eq!(count(|it| it["isInMaintenance"] == true), 1_000);
    assert_eq!(count(|it| it.get("defaultBranch").is_none()), 1_000);
}

#[tokio::test]
async fn a_generated_repository_opens_as_its_number_says() {
    let given = Given::an_emulator().await;
    given.emulator.change(generate(40)).unwrap();
    let token = given.access_token_of(SVC).await;
    let status = async |name: &str| {
        let rest = given.get(&format!("/contoso/website/_apis/git/repositories/{name}"), &token);
        let git = format!("/contoso/website/_git/{name}/info/refs?service=git-upload-pack");
        let git = given.get(&git, &token);
        (rest.send().await.unwrap().status().as_u16(), git.send().await.unwrap().status().as_u16())
    };

    assert_eq!(status("repo-00020").await, (200, 200));
    for number in [23, 27, 31] {
        assert_eq!(status(&format!("repo-{number:05}")).await, (404, 404));
    }
    assert_eq!(status("repo-00033").await, (200, 200), "an empty one opens");
    assert_eq!(status("repo-00040").await, (404, 404), "beyond the count");
}

#[tokio::test]
async fn a_generated_repository_can_be_changed_alone() {
    let given = Given::an_emulator().await;
    given.emulator.change(generate(20)).unwrap();
    let token = given.access_token_of(SVC).await;
    let path = "/contoso/website/_apis/git/repositories";
    let disable = json!({
        "change": "repository.set", "organization": "contoso", "project": "website",
        "repository": "repo-00001", "disabled": true,
    });

    given.emulator.change(serde_json::from_value(disable).unwrap()).unwrap();
    let single = given.get(&format!("{path}/repo-00001"), &token).send().await.unwrap();
    let list: Value = given.get(path, &token).send().await.unwrap().json().await.unwrap();

    assert_eq!(single.status(), 404);
    assert_eq!(list["count"], 21);
}

#[tokio::test]
async fn projects_and_repositories_are_added_while_it_runs() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of(SVC).await;
    let project = json!({
        "change": "project.add", "organization": "contoso",
        "project": { "id": "dddd0000-0000-4000-a000-000000000009", "name": "New" },
    });
    let repository = json!({
        "change": "repository.add", "organization": "contoso", "project": "New",
        "repository": { "id": "eeee0000-0000-4000-a000-000000000009", "name": "fresh", "files": { "a": "b" } },
    });

    for change in [&project, &repository] {
        given.emulator.change(serde_json::from_value(change.clone()).unwrap()).unwrap();
        let again = given.emulator.change(serde_json::from_value(change.clone()).unwrap());
        assert!(again.is_err(), "{change}");
    }
    let refs = given.get("/contoso/_git/fresh/info/refs?service=git-upload-pack", &token);
    let refs_of_new = given.get("/contoso/New/_git/fresh/info/refs?service=git-upload-pack", &token);

    assert_eq!(refs.send().await.unwrap().status(), 404, "there is no project of that name");
    assert_eq!(refs_of_new.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn refs_come_in_pages_and_by_filter() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of(SVC).await;
    let path = "/contoso/Data%20Platform/_apis/git/repositories/analytics/refs";
    let get = async |query: &str| given.get(&format!("{path}?{query}"), &token).send().await.unwrap();

    let all: Value = get("filter=heads/&$top=1").await.json().await.unwrap();
    let none: Value = get("filter=tags/").await.json().await.unwrap();
    let after: Value = get("continuationToken=refs/heads/main").await.json().await.unwrap();

    assert_eq!(all["value"][0]["name"], "refs/heads/main");
    assert_eq!(all["value"][0]["objectId"].as_str().unwrap().len(), 40);
    assert_eq!((&none["count"], &after["count"]), (&json!(0), &json!(0)));
}

/// Contract 6.1: what the Python SDK asks before anything else.
#[tokio::test]
async fn an_sdk_finds_its_routes_and_areas() {
    let given = Given::an_emulator().await;
    let token = given.access_token_of(SVC).await;
    let options = reqwest::Method::OPTIONS;

    let routes = given.client.request(options, "https://dev.azure.com/contoso/_apis").send().await.unwrap();
    let routes: Value = routes.json().await.unwrap();
    let areas = given.get("/contoso/_apis/ResourceAreas", &token).send().await.unwrap();
    let areas: Value = areas.json().await.unwrap();

    let ids: Vec<&str> =
        routes["value"].as_array().unwrap().iter().filter_map(|it| it["id"].as_str()).collect();
    for id in [
        "225f7195-f9c7-4d14-ab28-a83f7ff77e1f",
        "603fe2ac-9723-48b9-88ad-09305aa6c6e1",
        "00d9565f-ed9c-4a06-9a50-00e7896ccab4",
    ] {
        assert!(ids.contains(&id), "{id}");
    }
    let git = areas["value"].as_array().unwrap().iter().find(|it| it["name"] == "git").unwrap();
    assert_eq!(git["locationUrl"], "https://dev.azure.com/contoso/");
}

#[test]
fn a_world_file_can_generate_repositories() {
    let text = "[[organizations]]\nname = \"a\"\n[[organizations.projects]]\nid = \"p\"\nname = \"p\"\n\
                generated = { count = 3 }\n";

    let world = World::from_toml(text).unwrap();

    assert_eq!(world.organizations[0].projects[0].all_repositories().count(), 3);
}
