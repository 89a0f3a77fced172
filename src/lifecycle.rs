//! Start, drain, end: components as tasks, and what their ends mean (S27).
//!
//! # Invariants
//!
//! 1. A component that ends before it was told to is a crash: everything drains, the exit code is 1.
//! 2. Order of the drain: faces finish what is in flight, then owned tasks land, then actors; faces have
//!    [`FACES_MAX`], so that a caller cannot keep a grant from landing, and all together [`DRAIN_MAX`].
//!    A call cut off is no crash: what it began goes on in tasks of ours.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A set of components that stop together.
#[derive(Default)]
pub struct Stage {
    pub stop: CancellationToken,
    running: JoinSet<(&'static str, Result<(), String>)>,
}

/// How the process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// Told to stop, and all landed.
    Drained,
    /// A component ended by itself, or the drain took too long.
    Crashed,
}

impl Stage {
    /// Starts a component; it must watch [`stop`](Self::stop).
    pub fn start<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        component: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.running.spawn(async move { (name, component.await.map_err(|error| error.to_string())) });
    }

    /// Starts a component that cannot fail.
    pub fn start_actor(&mut self, name: &'static str, actor: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(async move {
            actor.await;
            (name, Ok(()))
        });
    }

    /// Waits for the first component that ends although nobody told it to.
    pub async fn crashed(&mut self) -> Ended {
        match self.running.join_next().await {
            Some(Ok((name, Ok(())))) => tracing::error!(component = name, "ended by itself"),
            Some(Ok((name, Err(error)))) => tracing::error!(component = name, error, "failed"),
            Some(Err(error)) => tracing::error!(error = &error as &dyn std::error::Error, "panicked"),
            None => std::future::pending().await,
        }
        Ended::Crashed
    }

    /// Tells all to stop and waits for them. A failure on the way out is a crash too.
    pub async fn drain(&mut self) -> Ended {
        self.stop.cancel();
        let mut ended = Ended::Drained;
        while let Some(joined) = self.running.join_next().await {
            match joined {
                Ok((_, Ok(()))) => {}
                Ok((name, Err(error))) => {
                    tracing::error!(component = name, error, "failed while stopping");
                    ended = Ended::Crashed;
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "panicked while stopping");
                    ended = Ended::Crashed;
                }
            }
        }
        ended
    }

    /// As [`drain`](Self::drain), but lets go of what is still connected once `needed` has resolved.
    pub async fn drain_while(&mut self, needed: impl Future<Output = ()>) -> Ended {
        let drained = tokio::time::timeout(FACES_MAX, async {
            tokio::select! {
                biased;
                ended = self.drain() => ended,
                () = needed => Ended::Drained,
            }
        });
        let ended = drained.await.unwrap_or_else(|_| {
            tracing::warn!("calls in flight took longer than the drain may; they are cut off");
            Ended::Drained
        });
        self.running.abort_all();
        ended
    }
}

impl Ended {
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Drained, Self::Drained) => Self::Drained,
            _ => Self::Crashed,
        }
    }
}

/// Cancelled by SIGTERM or SIGINT.
pub async fn told_to_stop() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
    }
    Ok(())
}

/// Orchestrators kill after 30 s by default; what has not landed by then has had its chance.
pub const DRAIN_MAX: Duration = Duration::from_secs(25);
/// Leaves what Entra may take (10 s), and time to write it down.
const FACES_MAX: Duration = Duration::from_secs(13);

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[tokio::test]
    async fn a_component_that_ends_untold_is_a_crash() {
        let mut stage = Stage::default();
        stage.start("short", async { Ok::<(), Infallible>(()) });
        assert_eq!(stage.crashed().await, Ended::Crashed);
    }

    #[tokio::test]
    async fn components_that_stop_when_told_drain() {
        let mut stage = Stage::default();
        let stop = stage.stop.clone();
        stage.start_actor("patient", async move { stop.cancelled().await });
        assert_eq!(stage.drain().await, Ended::Drained);
    }

    #[tokio::test]
    async fn f24_who_only_stays_connected_is_not_waited_for() {
        let mut stage = Stage::default();
        stage.start_actor("stubborn", std::future::pending());
        assert_eq!(stage.drain_while(async {}).await, Ended::Drained);
    }

    #[tokio::test(start_paused = true)]
    async fn f24_calls_that_never_end_are_cut_off_in_time_for_the_rest() {
        let mut stage = Stage::default();
        stage.start_actor("stubborn", std::future::pending());
        let drain = stage.drain_while(std::future::pending());
        assert_eq!(
            tokio::time::timeout(DRAIN_MAX / 2 + Duration::from_secs(1), drain).await,
            Ok(Ended::Drained)
        );
    }

    #[tokio::test]
    async fn a_component_that_panics_is_a_crash() {
        let mut stage = Stage::default();
        stage.start_actor("hasty", async { panic!("on purpose") });
        assert_eq!(stage.crashed().await, Ended::Crashed);
    }
}
