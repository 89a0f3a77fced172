//! How many connections a listener has at once, and how it behaves when accepting fails.
//!
//! A permit is taken before a connection is accepted, so that what is too much waits in the kernel and costs
//! us nothing. A failed accept never ends a listener: descriptors come back when connections end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::PollSemaphore;

/// Asked before each accept.
#[derive(Debug)]
pub(super) struct Gate {
    permits: PollSemaphore,
    permit: Option<OwnedSemaphorePermit>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Gate {
    pub(super) fn new(connections_max: usize) -> Self {
        let permits = PollSemaphore::new(Arc::new(Semaphore::new(connections_max)));
        Self { permits, permit: None, pause: None }
    }

    /// Ready with the permit for one more connection in hand.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        if self.permit.is_none() {
            self.permit = ready!(self.permits.poll_acquire(cx));
        }
        Poll::Ready(())
    }

    /// Hands out the permit that `poll_open` took.
    pub(super) fn pass(&mut self) -> OwnedSemaphorePermit {
        self.permit.take().expect("the gate is open: nobody closes its semaphore")
    }

    /// A client that gave up is no reason to pause; anything else, such as too many open files, is.
    pub(super) fn on_error(&mut self, error: &io::Error) {
        let gave_up = matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
        );
        if !gave_up {
            tracing::warn!(error = %error, "could not accept a connection");
            self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
        }
    }
}

/// Long enough not to spin, short enough that nobody notices.
const PAUSE: Duration = Duration::from_millis(100);
