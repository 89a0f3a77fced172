//! Accounts of one platform, each below a public URL of its own, which an ingress leads to one broker.

use azdo_broker::pb;
use azure_emulator::World;

use crate::support::{Browser, Client, TestApp, assert_invalid, begin_request, developer, service_user};

const ACCOUNTS: [(&str, &str, &str); 2] = [
    ("acme", "https://acme.platform.example", "svc@contoso.com"),
    ("globex", "https://globex.platform.example", "ana@contoso.com"),
];

/// Both accounts, registered below their own URLs, of which the app in Entra knows both.
async fn two_accounts() -> TestApp {
    let mut world = World::example();
    let redirect_uris = &mut world.apps[0].redirect_uris;
    redirect_uris.clear();
    for (_, public_url, _) in ACCOUNTS {
        let base = format!("{public_url}/complete/azure_active_directory");
        redirect_uris.extend([format!("{base}_service_user"), base]);
    }
    let mut app = TestApp::empty_in(world).await;
    app.files.links_keys = r#"public_urls = ["https://*.platform.example"]"#;
    app.restart().await;
    for (account, public_url, _) in ACCOUNTS {
        let registration =
            pb::PutIntegrationRequest { public_url: public_url.into(), ..app.registration_of(account) };
        app.operator().await.put(registration).await.unwrap();
    }
    app
}

/// What the ingress makes of an address that a browser was given.
fn through_ingress(app: &TestApp, public_url: &str, address: &str) -> String {
    let path =
        address.strip_prefix(public_url).unwrap_or_else(|| panic!("{address} is not below {public_url}"));
    format!("http://localhost:{}{path}", app.links.port())
}

async fn confirm(operator: &Client, account: &str, link_id: &str, confirmation: &str) -> pb::Connection {
    let request = pb::ConfirmLinkRequest {
        account_id: account.into(),
        link_id: link_id.into(),
        confirmation: confirmation.into(),
        ..pb::ConfirmLinkRequest::default()
    };
    operator.connections().confirm_link(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn our_pages_lead_each_accounts_developer_from_its_own_address_back_to_it() {
    let app = two_accounts().await;
    let operator = app.operator().await;
    for (account, public_url, upn) in ACCOUNTS {
        let request = pb::BeginLinkRequest {
            account_id: account.into(),
            connection: Some(developer("dev")),
            return_to: "settings".into(),
            ..begin_request()
        };
        let begun = operator.begin_with(request).await.unwrap();
        let mut browser = Browser::new();
        let page = through_ingress(&app, public_url, &begun.link_url);
        assert_eq!(browser.get(&page).await.status, 200);
        let authorize_url = browser.post(&page).await.location().to_owned();

        let callback = app.emulator.sign_in(&authorize_url, upn).await.unwrap();
        let last = browser.get(&through_ingress(&app, public_url, &callback)).await;

        let target = reqwest::Url::parse(last.location()).unwrap();
        assert!(last.location().starts_with(&format!("{public_url}/settings/azure-devops?")), "{target}");
        let confirmation =
            target.query_pairs().find(|(name, _)| name == "confirmation").unwrap().1.into_owned();
        let connected = confirm(&operator, account, &begun.link_id, &confirmation).await;
        assert_eq!(
            (connected.account_id.as_str(), connected.identity.unwrap().login.as_str()),
            (account, upn)
        );
    }
}

#[tokio::test]
async fn the_platforms_pages_hand_over_what_came_to_each_accounts_own_address() {
    let app = two_accounts().await;
    let operator = app.operator().await;
    for ((account, public_url, upn), (_, foreign_url, _)) in
        ACCOUNTS.into_iter().zip(ACCOUNTS.into_iter().rev())
    {
        let request = pb::BeginLinkRequest {
            account_id: account.into(),
            connection: Some(service_user()),
            front: pb::Front::PlatformPages.into(),
            ..begin_request()
        };
        let begun = operator.begin_with(request).await.unwrap();
        let callback = app.emulator.sign_in(&begun.authorize_url, upn).await.unwrap();
        let code = reqwest::Url::parse(&callback).unwrap();
        let code = code.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
        let path = "/complete/azure_active_directory_service_user";
        assert!(callback.starts_with(&format!("{public_url}{path}?")), "{callback}");
        let received = |public_url: &str| pb::CompleteLinkRequest {
            account_id: account.into(),
            redirect_uri: format!("{public_url}{path}"),
            state: begun.state.clone(),
            code: code.clone(),
            ..pb::CompleteLinkRequest::default()
        };

        assert_invalid(operator.complete(received(foreign_url)).await, "redirect_uri");
        operator.complete(received(public_url)).await.unwrap();

        confirm(&operator, account, &begun.link_id, "").await;
        let token = operator.token_of(account, None).await.unwrap();
        assert_eq!(token.identity.unwrap().login, upn);
    }
}

/// T11: whoever may register integrations cannot send people to a place of their own.
#[tokio::test]
async fn a_public_url_that_the_operator_does_not_allow_is_refused() {
    let app = two_accounts().await;
    let operator = app.operator().await;
    for public_url in [
        "https://evil.test",
        "https://platform.example",
        "https://a.b.platform.example",
        "https://acme.platform.example:8443",
        "http://localhost:8080",
    ] {
        let request = pb::PutIntegrationRequest { public_url: public_url.into(), ..app.registration() };
        assert_invalid(operator.put(request).await, "public_url");
    }
    let stands = operator.integration("acme").await.unwrap();
    assert_eq!(stands.public_url.trim_end_matches('/'), ACCOUNTS[0].1);
}
