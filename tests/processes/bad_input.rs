//! Bad input on the command line and in files that people write: a clear sentence, the right exit code.

use tonic::Code;

use crate::support::{ACCOUNT, Given, Home, SERVICE_USER};

const CONFIG: &str = "azdo-broker.toml";

#[tokio::test]
async fn a66_unknown_keys_are_all_told_at_once_with_their_paths() {
    let home = Home::with_store(None).await;
    let good = home.read(CONFIG);
    let bad = "[lisen]\ntcp = 1\n[limits]\nin_flght = 1\n[refresh]\ntick = \"soon\"\n[keys]\nfil = 2\n";
    home.write(CONFIG, [good.as_slice(), bad.as_bytes()].concat());
    for args in [["check", "--config", CONFIG].as_slice(), &["serve", "--config", CONFIG]] {
        let told = home.run(args).await.refused(64);
        for place in ["lisen", "limits.in_flght", "refresh", "keys.fil"] {
            assert!(told.contains(place), "{place} is not told by {args:?}: {told}");
        }
    }
    home.write(CONFIG, "listen = [unclosed");
    assert!(home.run(&["serve", "--config", CONFIG]).await.refused(64).contains("line 1"));
    let told = home.run(&["serve", "--config", "nowhere.toml"]).await.refused(64);
    assert!(told.contains("nowhere.toml"), "{told}");
}

#[tokio::test]
async fn a66_a_policy_with_mistakes_tells_them_all_and_nothing_starts() {
    let home = Home::with_store(None).await;
    let bad = "[[rule]]\ncallers = [\"socket:\"]\naccounts = [\"a*b\"]\nallow = [\"fly\"]\n";
    home.write("policy.toml", bad);
    let policy = ["policy", "check", "policy.toml"].as_slice();
    for args in [policy, &["check", "--config", CONFIG], &["serve", "--config", CONFIG]] {
        let told = home.run(args).await.refused(64);
        for place in ["rule[0].callers[0]", "rule[0].accounts[0]", "rule[0].allow[0]"] {
            assert!(told.contains(place), "{place} is not told by {args:?}: {told}");
        }
    }
}

#[tokio::test]
async fn help_is_no_failure_and_bad_flags_are_bad_usage() {
    let home = Home::new(None);
    for args in [["--help"].as_slice(), &["serve", "--help"], &["link", "service-user", "--help"]] {
        assert!(home.run(args).await.done().contains("Usage"), "{args:?}");
    }
    assert!(home.run(&["--version"]).await.done().starts_with("azdo-broker "));
    let wrong: [&[&str]; 6] = [
        &[],
        &["fly"],
        &["serve"],
        &["serve", "--config", CONFIG, "--log", "loud"],
        &["token", "--min-ttl", "soon"],
        &["connections", "disconnect", "developer"],
    ];
    for args in wrong {
        home.run(args).await.refused(64);
    }
}

#[tokio::test]
async fn malformed_and_endless_names_are_bad_usage_or_invalid_and_change_nothing() {
    let given = Given::a_linked_broker().await;
    let endless = "a".repeat(10_000);
    for account in ["", " ", "../a", "a/b", "a\nb", "a b", "ä", &endless] {
        for command in ["token", "connections", "repos"] {
            let ran = given.home.run(&[command, "--account", account]).await;
            assert!(ran.err.len() < 2_000 && ran.out.is_empty(), "{account:?}: {ran:?}");
            ran.refused(64);
        }
    }
    let put = |organization: &str, tenant: &str| {
        let public_url = ("public-url", "https://platform.example");
        let fields =
            [("organization", organization), ("tenant-id", tenant), ("client-id", tenant), public_url];
        let fields = fields.map(|(name, value)| format!("--{name}={value}"));
        ["integration".to_owned(), "put".to_owned()].into_iter().chain(fields).collect::<Vec<_>>()
    };
    let guid = "10000000-0000-4000-a000-000000000001";
    for (organization, tenant) in
        [(&*endless, guid), ("a/../b", guid), ("contoso", "common"), ("contoso", &endless)]
    {
        let args = put(organization, tenant);
        let ran = given.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(ran.err.len() < 2_000, "{ran:?}");
        ran.refused(1);
    }
    assert_eq!(given.connections().await[0]["identity"]["login"], SERVICE_USER);
    given.token().await.unwrap();
}

#[tokio::test]
async fn endless_fields_over_grpc_are_invalid_and_the_log_stays_short() {
    let given = Given::a_linked_broker().await;
    let endless = "a".repeat(10_000);
    let asked = azdo_broker::pb::GetServiceUserTokenRequest {
        account_id: ACCOUNT.into(),
        purpose: endless.clone(),
        ..Default::default()
    };
    let foreign = azdo_broker::pb::GetServiceUserTokenRequest { account_id: endless, ..Default::default() };
    for request in [asked, foreign] {
        let refused = given.remote().await.credentials().get_service_user_token(request).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(!given.home.log().contains(&"a".repeat(300)));
    assert!(!String::from_utf8(given.home.read("audit.jsonl")).unwrap().contains(&"a".repeat(300)));
}
