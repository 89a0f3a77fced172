//! What the store forgets of whoever left, and that nothing comes back by it.

use std::time::Duration;

use azdo_broker::pb;
use tonic::Code;

use crate::support::{PATIENCE, TestApp, assert_refused};

const DAY: Duration = Duration::from_hours(24);

/// Advances the clock until the connection is gone; the example keeps what ended for 30 days.
async fn forgotten_after(app: &TestApp, wait: Duration) {
    app.advance(wait);
    let operator = app.operator().await;
    let gone = async {
        while operator.connection().await.is_ok() {
            app.advance(Duration::from_mins(1));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn who_was_disconnected_is_erased_when_the_configured_time_is_over() {
    let mut app = TestApp::linked().await;
    let operator = app.operator().await;
    operator.disconnect().await.unwrap();
    app.advance(29 * DAY);
    let ended = operator.connection().await.unwrap();
    assert_eq!(ended.state(), pb::ConnectionState::Disconnected);
    assert_eq!(ended.identity.unwrap().login, "svc@contoso.com", "for people who look");

    forgotten_after(&app, DAY).await;

    assert_refused(operator.connection().await, Code::FailedPrecondition, "NOT_LINKED");
    assert_refused(operator.token().await, Code::FailedPrecondition, "NOT_LINKED");
    app.restart().await;
    assert_refused(app.job_runner().await.token().await, Code::FailedPrecondition, "NOT_LINKED");
    app.link("ana@contoso.com").await;
    app.job_runner().await.token().await.unwrap();
}

/// P9: what is erased does not come back by a backup of before the disconnect, and a backup that lacks it is good.
#[tokio::test]
async fn a22_what_was_erased_does_not_come_back_by_a_restored_backup() {
    let mut app = TestApp::start().await;
    let never_linked = app.stop_and_back_up().await;
    app.start_again().await;
    app.link("svc@contoso.com").await;
    let linked = app.stop_and_back_up().await;
    app.start_again().await;
    app.operator().await.disconnect().await.unwrap();
    forgotten_after(&app, 30 * DAY).await;
    app.stop_and_back_up().await;

    app.restore(&linked);
    app.start_again().await;
    assert_refused(app.job_runner().await.token().await, Code::FailedPrecondition, "ROLLBACK_SUSPECTED");
    app.stop_and_back_up().await;

    app.restore(&never_linked);
    app.start_again().await;
    assert_refused(app.job_runner().await.token().await, Code::FailedPrecondition, "NOT_LINKED");
}
