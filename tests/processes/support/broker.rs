//! `azdo-broker serve` as a child process.

use std::fs::OpenOptions;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::Instant;

use super::home::CONFIG;
use super::{Home, PATIENCE, until};

/// Killed when dropped.
pub(crate) struct Broker(Child);

impl Broker {
    /// Starts and waits until it can be called. Its log grows at `broker.log`.
    pub(crate) async fn start(home: &Home) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(home.path("broker.log")).unwrap();
        let mut command = home.command(&["serve", "--config", CONFIG, "--log", "trace"]);
        command.env_remove("AZDO_BROKER_ADDRESS").env_remove("AZDO_BROKER_ACCOUNT");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let mut broker = Self(child.unwrap());
        until("a broker that can be called", async || {
            if let Some(status) = broker.0.try_wait().unwrap() {
                panic!("the broker ended with {status}: {}", home.log());
            }
            UnixStream::connect(home.path("operator.sock")).await.ok()
        })
        .await;
        broker
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id().expect("the broker is running")
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) {
        self.0.start_kill().unwrap();
        self.0.wait().await.unwrap();
    }

    pub(crate) fn tell_to_stop(&self) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// The exit code, and how long it took to come.
    pub(crate) async fn ended(&mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        let status = tokio::time::timeout(PATIENCE, self.0.wait()).await.expect("the broker does not end");
        (status.unwrap().code(), began.elapsed())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}
