//! Files of lines against a broker that answers as each test says.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::Exit;
use super::super::fake::{Fake, Ran, Run};
use super::*;

fn file(lines: &[&str]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for line in lines {
        writeln!(file, "{line}").unwrap();
    }
    file
}

async fn import(lines: &[&str], args: &[&str], broker: Fake) -> Ran {
    let file = file(lines);
    let path = file.path().to_str().unwrap();
    Run::new(&["import", path]).args(args).against(broker).await
}

/// Takes everything, and shows at each look what the test says.
fn broker_that_shows(show: impl Fn(u32) -> pb::Connection + Send + Sync + 'static) -> Fake {
    let looks = AtomicU32::new(0);
    Fake::default()
        .on("Connections/ImportConnections", |request: pb::ImportConnectionsRequest| {
            let results = request
                .items
                .into_iter()
                .map(|item| pb::ImportResult { connection: item.connection, ..pb::ImportResult::default() });
            Ok(pb::ImportConnectionsResponse { results: results.collect() })
        })
        .on("Connections/ListConnections", move |_: pb::ListConnectionsRequest| {
            let connection = show(looks.fetch_add(1, Ordering::Relaxed));
            let connection = pb::Connection { connection: name_of("developer/ana"), ..connection };
            Ok(pb::ListConnectionsResponse { connections: vec![connection], ..Default::default() })
        })
}

fn proven() -> pb::Connection {
    pb::Connection {
        state: pb::ConnectionState::Connected.into(),
        identity: Some(pb::Identity { login: "ana@contoso.com".into(), ..Default::default() }),
        ..pb::Connection::default()
    }
}

/// Proves it at the third look.
fn broker() -> Fake {
    broker_that_shows(|look| match look {
        0 | 1 => pb::Connection { state: pb::ConnectionState::Imported.into(), ..Default::default() },
        _ => proven(),
    })
}

/// Fails to prove it for this reason at the first looks.
fn broker_in_trouble(reason: &'static str, looks_in_trouble: u32) -> Fake {
    broker_that_shows(move |look| {
        if looks_in_trouble <= look {
            return proven();
        }
        let failure = pb::Failure { reason: reason.into(), message: "told".into(), ..Default::default() };
        pb::Connection {
            state: pb::ConnectionState::Failing.into(),
            failure: Some(failure),
            ..Default::default()
        }
    })
}

const ANA: &str = r#"{"role":"developer","developer_id":"ana","refresh_token":"canary-grant"}"#;

#[tokio::test]
async fn each_line_is_sent_and_waited_for_until_it_is_proven() {
    let ran = import(&[ANA, ""], &[], broker()).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert!(ran.out.contains("developer/ana  connected  ana@contoso.com"), "{ran:?}");
    assert!(ran.err.contains("1 sent …") && ran.err.contains("0 proven, 1 to go …"), "{ran:?}");
}

#[tokio::test]
async fn what_failed_is_told_and_the_exit_code_says_so() {
    let broker =
        Fake::default().on("Connections/ImportConnections", |request: pb::ImportConnectionsRequest| {
            let stands = pb::ImportResult {
                connection: request.items[0].connection.clone(),
                code: Code::AlreadyExists.into(),
                message: "a live connection stands there".into(),
                ..pb::ImportResult::default()
            };
            Ok(pb::ImportConnectionsResponse { results: vec![stands] })
        });
    let ran = import(&[ANA], &[], broker).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.out.contains("a live connection stands there") && ran.err.contains("1 of 1"), "{ran:?}");
}

#[tokio::test]
async fn trouble_that_passes_by_itself_is_waited_for_and_fails_nothing() {
    for reason in ["UPSTREAM_UNAVAILABLE", "UPSTREAM_THROTTLED", "STORE_UNAVAILABLE", "RATE_LIMITED"] {
        let ran = import(&[ANA], &[], broker_in_trouble(reason, 3)).await;
        assert_eq!(ran.exit, Exit::Done, "{reason}: {ran:?}");
        assert!(ran.out.contains("connected"), "{reason}: {ran:?}");
        let ran = import(&[ANA], &[], broker_in_trouble(reason, u32::MAX)).await;
        assert_eq!(ran.exit, Exit::Done, "{reason}: {ran:?}");
        assert!(ran.out.contains("imported") && ran.out.contains(&format!("told [{reason}]")), "{ran:?}");
    }
}

#[tokio::test]
async fn trouble_that_somebody_must_mend_is_told_at_once() {
    for reason in ["CLIENT_CREDENTIAL_REJECTED", "A_REASON_OF_LATER"] {
        let ran = import(&[ANA], &[], broker_in_trouble(reason, 3)).await;
        assert_eq!(ran.exit, Exit::Failed, "{reason}: {ran:?}");
        assert!(ran.out.contains(&format!("told [{reason}]")), "{ran:?}");
    }
}

/// A23: the line that is wrong may hold a secret, so only its number is told.
#[tokio::test]
async fn a23_a_line_that_cannot_be_read_is_told_by_its_number_alone() {
    for (line, words) in [
        ("canary-grant", "line 2 is not the JSON object"),
        (r#"{"role":"developer","refresh_token":"canary-grant"}"#, "line 2 names no developer_id"),
        (r#"{"role":"service_user","refresh_token":"canary-grant","x":1}"#, "line 2 is not the JSON"),
    ] {
        let ran = import(&[ANA, line], &["--no-wait"], Fake::default()).await;
        assert_eq!(ran.exit, Exit::Usage, "{ran:?}");
        assert!(ran.err.contains(words) && !ran.err.contains("canary"), "{ran:?}");
    }
}

#[test]
fn a_batch_is_of_one_account_and_fits_a_request() {
    let line = |account: &str, developer: usize| {
        format!(
            r#"{{"account_id":"{account}","role":"developer","developer_id":"d{developer}","refresh_token":"t"}}"#
        )
    };
    let text: Vec<String> =
        (0..25).map(|at| line("acme", at)).chain([line("globex", 0), line("globex", 0)]).collect();
    let text = text.join("\n");
    let mut lines = Lines::new(text.as_bytes(), None);
    let mut sizes = Vec::new();
    while let Some((account, items)) = lines.next_batch().unwrap() {
        sizes.push((account, items.len()));
    }
    let expected = [("acme", 20), ("acme", 5), ("globex", 1), ("globex", 1)];
    assert_eq!(sizes, expected.map(|(account, items)| (account.to_owned(), items)));
}
