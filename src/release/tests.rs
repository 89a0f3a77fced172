//! A release whose record takes its time.

use tokio::sync::oneshot;

use super::*;
use crate::audit::{Audit, AuditConfig, Sync};
use crate::caller::Caller;
use crate::policy::Policy;
use crate::tokens::tests::given::Given;

const POLICY: &str = r#"
[[rule]]
name = "all"
callers = ["dns:test"]
accounts = ["acme"]
allow = ["release.service_user"]
"#;

/// P7: a token runs short while it is recorded, and its successor leaves in its place, recorded too.
#[tokio::test(start_paused = true)]
async fn a_token_that_runs_short_while_it_is_recorded_stays_and_its_successor_leaves() {
    let given = Given::a_linked_connection().await;
    let first = given.ask().await.unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let config = AuditConfig { path: path.clone(), sync: Sync::Kernel };
    let (audit, writer) = Audit::open(&config, given.clock.clone()).unwrap();
    let release = Release {
        gate: Gate::new(Arc::new(Policy::from_toml(POLICY).unwrap()), audit),
        accounts: given.accounts.clone(),
        tokens: given.tokens.clone(),
        clock: given.clock.clone(),
    };
    let left = first.validity.left(given.clock.now());
    let wish = Wish {
        asking: Asking {
            act: "GetServiceUserToken",
            caller: Caller::Dns("test".into()),
            actor: None,
            purpose: None,
        },
        account: "acme".parse().unwrap(),
        min_ttl: left - Duration::from_secs(1),
    };
    let (start, started) = oneshot::channel::<()>();
    tokio::spawn(async move {
        started.await.unwrap();
        writer.run().await;
    });
    let releasing = tokio::spawn(async move { release.service_user_token(wish).await });

    // Nothing is written yet, and the token that was found for it lives a second more than it must.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    start.send(()).unwrap();

    let released = releasing.await.unwrap().unwrap();
    assert_ne!(released.token.fingerprint, first.fingerprint);
    let recorded = std::fs::read_to_string(&path).unwrap();
    assert_eq!(recorded.matches("\"released\"").count(), 2, "{recorded}");
    assert!(recorded.contains(first.fingerprint.as_str()), "{recorded}");
}
