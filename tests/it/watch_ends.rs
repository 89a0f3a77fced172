//! How a watch ends, and that there are only so many.

use std::time::Duration;

use azdo_broker::lifecycle::Ended;
use azdo_broker::pb::ConnectionEventKind as Kind;
use tonic::Code;

use crate::import::{import, item};
use crate::support::{Client, PATIENCE, TestApp, assert_refused, developer};
use crate::watch::Watcher;

/// F24: who only watches is not waited for, and hears that it goes on elsewhere.
#[tokio::test]
async fn f24_a_drain_ends_a_watch_that_goes_on_after_the_restart() {
    let mut app = TestApp::linked().await;
    let (mut watcher, _) = Watcher::synced(&app.operator().await, "acme").await;

    app.tell_to_stop();

    let ended = watcher.end().await;
    assert_refused(Err::<(), _>(ended), Code::Unavailable, "SHUTTING_DOWN");
    assert_eq!(app.ended().await, Ended::Drained);
    app.start_again().await;
    let operator = app.operator().await;
    operator.disconnect().await.unwrap();
    let mut watcher = Watcher::on(&operator, "acme", &watcher.cursor).await.unwrap();
    assert_eq!(watcher.news().await.0, Kind::Disconnected);
}

/// P8: there are only so many, and a place comes free when a watch ends.
#[tokio::test]
async fn one_watch_too_many_is_refused() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let mut watchers = Vec::new();
    for _ in 0..64 {
        watchers.push(Watcher::on(&operator, "acme", "").await.unwrap());
    }
    let refused = Watcher::on(&operator, "acme", "").await.map(drop);
    assert_refused(refused, Code::ResourceExhausted, "RATE_LIMITED");

    watchers.pop();

    let again = async { while Watcher::on(&operator, "acme", "").await.is_err() {} };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}

/// P8: a queue is short, and who does not take what is told is let go.
#[tokio::test]
async fn a_watcher_that_is_too_slow_is_ended() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    // More than the transport and the queue hold together.
    let long = "x".repeat(100);
    for call in 0..12 {
        let one = |number| item(developer(&format!("{long}-{call}-{number}")), "grant");
        import(&operator, (0..20).map(one).collect(), false).await;
    }
    let slow = Client::that_takes_little(&app.files.path("operator.sock")).await;
    let ends = async {
        loop {
            let mut watcher = Watcher::on(&slow, "acme", "").await.unwrap();
            watcher.next().await.unwrap();
            // Until the queue is full, it is no matter how late it is.
            let mut looks = tokio::time::interval(Duration::from_millis(10));
            for _ in 0..20 {
                looks.tick().await;
                app.advance(Duration::from_secs(31));
            }
            let mut told = 1;
            let status = loop {
                match watcher.next().await {
                    Ok(one) if one.kind() == Kind::Present => told += 1,
                    Ok(_) => break None,
                    Err(status) => break Some(status),
                }
            };
            if let Some(status) = status {
                return (told, status);
            }
        }
    };
    let (told, status) = tokio::time::timeout(2 * PATIENCE, ends).await.unwrap();
    assert_refused(Err::<(), _>(status), Code::ResourceExhausted, "RATE_LIMITED");
    assert!(told < 240, "{told}");
}
