//! Decisions, and what a policy file may say.

use proptest::prelude::*;

use super::*;

const POLICY: &str = r#"
[[rule]]
name = "jobs"
callers = ["socket:job-runner", "spiffe://platform.example/ns/*/runner", "dns:ide.example"]
accounts = ["acme", "team-*"]
allow = ["release.service_user", "git"]

[[rule]]
callers = ["socket:operator"]
allow = ["operate"]

[[rule]]
name = "admin"
callers = ["socket:admin"]
accounts = ["*"]
allow = ["*"]
"#;

fn policy() -> Policy {
    Policy::from_toml(POLICY).unwrap()
}

fn account(name: &str) -> AccountId {
    name.parse().unwrap()
}

fn socket(name: &str) -> Caller {
    Caller::Socket { name: name.into(), uid: 1000 }
}

#[test]
fn a01_a_rule_allows_what_it_says_and_the_decision_remembers_it() {
    let allowed = policy().decide(&socket("job-runner"), Permission::Git, &account("team-a")).unwrap();
    assert_eq!(allowed.caller(), &socket("job-runner"));
    assert_eq!(allowed.permission(), Permission::Git);
    assert_eq!(allowed.account(), &account("team-a"));
}

#[test]
fn a02_what_no_rule_allows_is_denied() {
    let policy = policy();
    let job = socket("job-runner");
    for name in ["acme2", "acm", "Acme", "ACME", "team", "xacme"] {
        assert!(policy.decide(&job, Permission::Git, &account(name)).is_none(), "{name}");
    }
    for permission in Permission::ALL {
        let given = policy.decide(&job, permission, &account("acme")).is_some();
        assert_eq!(given, matches!(permission, Permission::Git | Permission::ReleaseServiceUser));
    }
    assert!(policy.decide(&socket("Job-runner"), Permission::Git, &account("acme")).is_none());
}

#[test]
fn a14_permissions_about_the_broker_and_about_accounts_are_asked_apart() {
    let policy = policy();
    let operator = socket("operator");
    assert!(policy.allows_about_broker(&operator, Permission::Operate));
    assert!(!policy.allows_about_broker(&operator, Permission::Reflect));
    assert!(policy.decide(&operator, Permission::Operate, &account("acme")).is_none());
    assert!(!policy.allows_about_broker(&socket("job-runner"), Permission::Operate));
    let admin = socket("admin");
    for permission in Permission::ALL {
        let about_broker = policy.allows_about_broker(&admin, permission);
        let about_account = policy.decide(&admin, permission, &account("any")).is_some();
        assert_eq!(
            (about_broker, about_account),
            (permission.is_about_broker(), !permission.is_about_broker())
        );
    }
}

#[test]
fn an_explanation_names_the_rules_that_decided() {
    let policy = policy();
    let acme = account("acme");
    assert_eq!(policy.explain(&socket("job-runner"), Permission::Git, Some(&acme)), ["jobs"]);
    assert_eq!(policy.explain(&socket("operator"), Permission::Operate, None), ["rule[1]"]);
    assert!(policy.explain(&socket("operator"), Permission::Git, Some(&acme)).is_empty());
}

#[test]
fn everything_wrong_with_a_policy_is_told_at_once_with_its_place() {
    let text = r#"
        [[rule]]
        name = "same"
        callers = ["socket:a", "dns:*.example"]
        accounts = ["a*b", "acme"]
        allow = ["git", "everything", "*"]
        [[rule]]
        name = "same"
        allow = []
        [[rule]]
        callers = ["socket:a"]
        allow = ["git", "operate"]
    "#;
    let Err(PolicyError::Invalid { problems }) = Policy::from_toml(text) else { panic!("must be refused") };
    let places: Vec<_> = problems.iter().map(|problem| problem.place.as_str()).collect();
    assert_eq!(
        places,
        [
            "rule[0].callers[1]",
            "rule[0].accounts[0]",
            "rule[0].allow[1]",
            "rule[0].allow[2]",
            "rule[1].allow",
            "rule[1].callers",
            "rule[1].name",
            "rule[2].accounts",
        ]
    );
}

#[test]
fn a_key_nobody_knows_is_refused() {
    let unknown =
        ["[[rules]]\n", "[[rule]]\nallows = [\"git\"]\n", "deny = []\n", "[[rule]]\ncallers = \"*\"\n"];
    for text in unknown {
        assert!(matches!(Policy::from_toml(text), Err(PolicyError::Syntax(_))), "{text}");
    }
    let many = "[[rule]]\ncallers=[\"socket:a\"]\nallow=[\"reflect\"]\n".repeat(1_001);
    assert!(matches!(Policy::from_toml(&many), Err(PolicyError::TooManyRules { rules: 1_001 })));
}

fn any_caller() -> impl Strategy<Value = Caller> {
    prop_oneof![
        "[a-z]{1,3}(/[a-c*.]{0,2}){0,3}".prop_map(|rest| Caller::Uri(format!("spiffe://{rest}").into())),
        "[a-zA-Z.*:]{0,6}".prop_map(|name| Caller::Dns(name.into())),
        ("[a-z*:]{0,4}", any::<u32>()).prop_map(|(name, uid)| Caller::Socket { name: name.into(), uid }),
    ]
}

fn any_permission() -> impl Strategy<Value = Permission> {
    proptest::sample::select(Permission::ALL.to_vec())
}

proptest! {
    #[test]
    fn an_empty_policy_allows_nothing(caller in any_caller(), permission in any_permission(), name in "[a-z]{1,5}") {
        for policy in [Policy::default(), Policy::from_toml("").unwrap()] {
            prop_assert!(policy.decide(&caller, permission, &account(&name)).is_none());
            prop_assert!(!policy.allows_about_broker(&caller, permission));
        }
    }

    #[test]
    fn a_rule_for_one_account_never_allows_another(one in "[aA]{1,4}", other in "[aA]{1,4}", permission in any_permission()) {
        let text = format!("[[rule]]\ncallers=[\"socket:job\"]\naccounts=[\"{one}\"]\nallow=[\"*\"]");
        let allowed = Policy::from_toml(&text).unwrap().decide(&socket("job"), permission, &account(&other));
        prop_assert_eq!(allowed.is_some(), one == other && !permission.is_about_broker());
    }

    #[test]
    fn a_rule_without_wildcard_allows_its_own_caller_only(one in any_caller(), other in any_caller()) {
        let rule = format!("[[rule]]\ncallers=['{}']\nallow=[\"operate\"]", one.policy_name());
        if let Ok(policy) = Policy::from_toml(&rule) && !one.policy_name().contains('*') {
            let allowed = policy.allows_about_broker(&other, Permission::Operate);
            prop_assert_eq!(allowed, one.policy_name() == other.policy_name());
        }
    }
}
