//! P3 and A64: what cannot be recorded is not released.

use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{Broker, Given, until};

#[tokio::test]
async fn a64_a_full_disk_under_the_audit_refuses_the_token_and_readiness() {
    let mut given = Given::a_linked_broker().await;
    given.broker.kill().await;
    given.home.configure("\"audit.jsonl\"", "\"/dev/full\"");
    given.restart().await;

    refuses_in_time(&given).await;

    until("an unready broker", async || (given.probe("/readyz").await == 503).then_some(())).await;
    assert_eq!(given.probe("/livez").await, 200);
    let told = given.home.run(&["token", "--reveal"]).await;
    assert_eq!(told.out, "", "a token left");
    assert!(told.refused(1).contains("audit"), "who must act is not told");
}

/// A pipe whose reader sleeps: nothing can be recorded, and the end does not wait for it for ever.
#[tokio::test]
async fn a64_a_blocked_audit_refuses_the_token_and_the_end_is_a_failure() {
    let mut given = Given::a_linked_broker().await;
    given.broker.kill().await;
    let pipe = given.home.path("audit.pipe");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let flags = OFlags::RDWR | OFlags::NONBLOCK;
    let sleeping = rustix::fs::open(&pipe, flags, Mode::empty()).unwrap();
    while rustix::io::write(&sleeping, &[b'\n'; 4096]).is_ok() {}
    given.home.configure("\"audit.jsonl\"", "\"audit.pipe\"");
    given.broker = Broker::start(&given.home).await;

    refuses_in_time(&given).await;
    until("an unready broker", async || (given.probe("/readyz").await == 503).then_some(())).await;

    given.broker.tell_to_stop();
    let (code, took) = given.broker.ended().await;
    assert_eq!(code, Some(1), "records were cut off, and the exit code does not say so");
    assert!(took < Duration::from_secs(30), "orchestrators kill after 30 s: {took:?}");
}

async fn refuses_in_time(given: &Given) {
    let began = tokio::time::Instant::now();
    let refused = given.token().await.unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(refused.get_details_error_info().unwrap().reason, "AUDIT_UNAVAILABLE");
}
