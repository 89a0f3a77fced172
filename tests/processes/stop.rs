//! F24: how the process ends: told to, and with what is under way.

use std::time::Duration;

use azure_emulator::Fault;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};

use crate::support::{Given, until};

#[tokio::test]
async fn f24_a_running_refresh_lands_before_the_process_ends() {
    let mut given = Given::a_linked_broker().await;
    let before = given.generation().await;
    given.emulator.fault(Fault::EntraHold { count: None });
    given.demand_refresh().await;
    given.emulator.wait_held(1).await;

    given.broker.tell_to_stop();
    until("the drain", async || given.home.log().contains("SIGTERM: draining").then_some(())).await;
    assert!(given.broker.is_running(), "it did not wait for what Entra will answer");
    given.emulator.release_held();
    assert_eq!(given.broker.ended().await.0, Some(0), "{}", given.home.log());

    given.restart().await;
    assert!(before < given.generation().await, "the refresh did not land");
    let token = given.token().await.unwrap().access_token;
    let requests = given.requests_for_users();
    assert_eq!(requests.last().unwrap().access_token.as_deref(), Some(token.as_str()));
    assert_eq!(requests.len(), 2, "the restart asked Entra again");
}

#[tokio::test]
async fn f24_an_idle_broker_ends_at_once_whoever_is_connected() {
    let mut given = Given::a_linked_broker().await;
    let _caller = given.remote().await;
    let _silent = UnixStream::connect(given.home.path("operator.sock")).await.unwrap();
    let _pages = TcpStream::connect(("127.0.0.1", given.home.links)).await.unwrap();
    let _probes = TcpStream::connect(("127.0.0.1", given.home.admin)).await.unwrap();

    given.broker.tell_to_stop();
    let (code, took) = given.broker.ended().await;

    assert_eq!(code, Some(0), "{}", given.home.log());
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(!given.home.path("operator.sock").exists(), "the socket stayed behind");
}

#[tokio::test]
async fn f24_a_browser_that_never_finishes_its_request_does_not_hold_the_end() {
    let mut given = Given::a_broker().await;
    let mut slow = TcpStream::connect(("127.0.0.1", given.home.links)).await.unwrap();
    slow.write_all(b"GET /link/style.css HTTP/1.1\r\nHost: ").await.unwrap();

    given.broker.tell_to_stop();
    let (code, took) = given.broker.ended().await;

    assert_eq!(code, Some(0), "{}", given.home.log());
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn f24_sigterm_is_obeyed_with_a_failing_refresh_under_way() {
    let mut given = Given::a_linked_broker().await;
    given.emulator.fault(Fault::EntraHang { count: None });
    given.demand_refresh().await;
    given.emulator.wait_held(1).await;

    given.broker.tell_to_stop();
    let (code, took) = given.broker.ended().await;

    assert_eq!(code, Some(0), "{}", given.home.log());
    assert!(took < Duration::from_secs(15), "Entra has 10 s to answer: {took:?}");
    given.emulator.clear_faults();
    given.restart().await;
    given.token().await.unwrap();
}

/// Whoever takes all descriptors keeps others waiting; nothing ends by it.
#[tokio::test]
async fn out_of_descriptors_the_broker_waits_and_recovers() {
    let mut given = Given::a_linked_broker().await;
    let pid = Pid::from_raw(given.broker.pid().cast_signed()).unwrap();
    let few = Rlimit { current: Some(64), maximum: Some(64) };
    prlimit(Some(pid), Resource::Nofile, few).unwrap();
    // Both queues hold more than this: nobody is refused, some wait.
    let (mut browsers, mut callers) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        browsers.push(TcpStream::connect(("127.0.0.1", given.home.links)).await.unwrap());
        callers.push(UnixStream::connect(given.home.path("operator.sock")).await.unwrap());
    }
    let descriptors = format!("/proc/{}/fd", given.broker.pid());
    let all_taken = async || (60 <= std::fs::read_dir(&descriptors).unwrap().count()).then_some(());
    until("a broker without descriptors", all_taken).await;
    drop((browsers, callers));
    until("a token after the crowd has gone", async || given.token().await.ok()).await;
    assert!(given.broker.is_running(), "{}", given.home.log());
}
