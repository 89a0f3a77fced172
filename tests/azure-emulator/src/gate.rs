//! Where requests wait until somebody lets them go on.
//!
//! Invariant: a request whose client went away is not counted, because its future and with it
//! its place in the gate are dropped.

use std::time::Duration;

use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Gate {
    held: watch::Sender<usize>,
    releases: watch::Sender<u64>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { held: watch::Sender::new(0), releases: watch::Sender::new(0) }
    }

    /// Returns at the next release.
    pub(crate) async fn wait(&self) {
        let mut releases = self.releases.subscribe();
        let before = *releases.borrow_and_update();
        self.held.send_modify(|held| *held += 1);
        let _place = Place(&self.held);
        // An error means that the gate is gone, and with it the emulator.
        let _ = releases.wait_for(|now| *now > before).await;
    }

    pub(crate) fn release(&self) {
        self.releases.send_modify(|releases| *releases += 1);
    }

    pub(crate) fn held(&self) -> usize {
        *self.held.borrow()
    }

    /// Whether `n` were held within [`PATIENCE`]. Under a paused clock that is no time at all:
    /// sockets and paused time do not go together.
    pub(crate) async fn wait_held(&self, n: usize) -> bool {
        let mut held = self.held.subscribe();
        let reached = held.wait_for(|held| *held >= n);
        tokio::time::timeout(PATIENCE, reached).await.is_ok()
    }
}

struct Place<'a>(&'a watch::Sender<usize>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}

/// Long enough for a busy machine, short enough to see what a stuck test waits for.
const PATIENCE: Duration = Duration::from_secs(10);
