//! Probes and metrics, and the end of a process.

use std::time::Duration;

use azdo_broker::lifecycle::Ended;
use azdo_broker::pb;
use azure_emulator::Fault;

use crate::support::{Browser, PATIENCE, Page, TestApp};

async fn get(app: &TestApp, path: &str) -> Page {
    Browser::new().get(&format!("http://localhost:{}{path}", app.admin.port())).await
}

pub(crate) async fn shows(app: &TestApp, line: String) {
    let looking = async { while !get(app, "/metrics").await.body.contains(&line) {} };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("{line} is missing"));
}

#[tokio::test]
async fn the_probes_say_that_it_lives_and_is_ready() {
    let app = TestApp::empty().await;
    assert_eq!((get(&app, "/livez").await.status, get(&app, "/readyz").await.status), (200, 200));
    assert_eq!(get(&app, "/").await.status, 404);
}

/// Design 6.20: counts, and no name of anybody.
#[tokio::test]
async fn a15_metrics_count_and_name_nobody() {
    let app = TestApp::linked().await;
    app.advance(Duration::from_hours(2));
    let token = app.job_runner().await.token().await.unwrap();

    let metrics = get(&app, "/metrics").await;

    assert_eq!(metrics.status, 200);
    assert!(
        metrics.body.contains("azdo_broker_refreshes_total{outcome=\"Committed\"} 1"),
        "{}",
        metrics.body
    );
    for name in ["acme", "contoso", "svc", "service_user", token.token_fingerprint.as_str()] {
        assert!(!metrics.body.contains(name), "{name}");
    }
}

/// Counts and the first expiry, at each step towards it, without a name.
#[tokio::test]
async fn what_expires_is_counted_by_the_days_that_are_left() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let seconds = app.emulator.now().as_second() + 13 * 24 * 3600;
    let client_secret_expires_at = Some(prost_types::Timestamp { seconds, nanos: 0 });
    operator.put(pb::PutIntegrationRequest { client_secret_expires_at, ..app.registration() }).await.unwrap();
    let shows = async |line| shows(&app, line).await;
    let line =
        |what: &str, within: &str| format!("azdo_broker_expiring{{what=\"{what}\",within=\"{within}\"}} 1");

    app.advance(Duration::from_hours(1));
    shows(line("client_credential", "days_14")).await;
    shows(format!("azdo_broker_first_expiry_seconds{{what=\"client_credential\"}} {seconds}")).await;

    app.fault(Fault::EntraOutage { status: Some(503), retry_after: None, count: None });
    app.advance(Duration::from_hours(24 * 62));
    shows(line("client_credential", "expired")).await;
    shows(line("grant", "days_30")).await;
    let warnings = operator.connection().await.unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.code == "GRANT_EXPIRES"), "{warnings:?}");
    shows("azdo_broker_first_expiry_seconds{what=\"client_credential\"} 0".to_owned()).await;
}

/// What is dead already, by Entra's word, is no expiry to come: its connection waits for a person.
#[tokio::test]
async fn a_grant_that_entra_refuses_is_not_counted_as_one_that_expires() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let seconds = app.emulator.now().as_second() + 62 * 24 * 3600 + 60;
    let client_secret_expires_at = Some(prost_types::Timestamp { seconds, nanos: 0 });
    operator.put(pb::PutIntegrationRequest { client_secret_expires_at, ..app.registration() }).await.unwrap();
    app.fault(Fault::UserRevoke { upn: "svc@contoso.com".into() });
    app.advance(Duration::from_hours(24 * 62));
    let needs_relink =
        async { while operator.connection().await.unwrap().state() != pb::ConnectionState::NeedsRelink {} };
    tokio::time::timeout(PATIENCE, needs_relink).await.unwrap();

    app.advance(Duration::from_hours(1));
    shows(&app, "azdo_broker_expiring{what=\"client_credential\",within=\"expired\"} 1".to_owned()).await;

    let metrics = get(&app, "/metrics").await.body;
    let counts =
        |line: &&str| line.starts_with("azdo_broker_expiring{what=\"grant\"") && !line.ends_with(" 0");
    assert_eq!(metrics.lines().find(counts), None);
    assert!(metrics.contains("azdo_broker_first_expiry_seconds{what=\"grant\"} 0"), "{metrics}");
    let warnings = operator.connection().await.unwrap().warnings;
    assert!(warnings.iter().all(|warning| warning.code != "GRANT_EXPIRES"), "{warnings:?}");
}

/// A15: they are on listeners of their own, and the pages are not among them.
#[tokio::test]
async fn a15_probes_and_pages_are_not_on_each_others_listeners() {
    let app = TestApp::empty().await;
    let at_links = format!("http://localhost:{}", app.links.port());
    for path in ["/metrics", "/readyz", "/livez"] {
        assert_eq!(Browser::new().get(&format!("{at_links}{path}")).await.status, 404);
    }
    assert_eq!(get(&app, "/link/x").await.status, 404);
}

/// P4: whoever is told to stop lands what is under way.
#[tokio::test]
async fn a_refresh_in_flight_lands_before_the_process_ends() {
    let mut app = TestApp::linked().await;
    let before = app.operator().await.connection().await.unwrap().generation;
    app.advance(Duration::from_hours(2));
    app.fault(Fault::EntraHold { count: None });
    let job = app.job_runner().await;
    let asked = tokio::spawn(async move { job.token().await });
    app.emulator.wait_held(1).await;

    app.tell_to_stop();
    app.emulator.release_held();

    assert_eq!(app.ended().await, Ended::Drained);
    assert!(asked.await.unwrap().is_ok());
    app.start_again().await;
    assert!(before < app.operator().await.connection().await.unwrap().generation);
    app.job_runner().await.token().await.unwrap();
    assert_eq!(app.refreshes().len(), 1);
}
