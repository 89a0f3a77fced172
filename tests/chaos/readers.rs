//! Readers in the background: they ask for what is at hand, and what they are refused is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::caller::reason_of;
use crate::outcome::{Outcome, ensure};
use crate::scene::Scene;

#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
    first: Mutex<Option<String>>,
}

pub(crate) struct Readers {
    counts: Arc<Counts>,
    tasks: JoinSet<()>,
}

/// What they saw so far.
pub(crate) struct Read {
    pub(crate) reads: u64,
    pub(crate) failed: u64,
    /// Why the first one was refused.
    pub(crate) first: Option<String>,
}

impl Readers {
    /// One for each of these brokers and connections; each asks every `every`.
    pub(crate) async fn start(
        scene: &Scene,
        connections: impl Iterator<Item = usize> + Clone,
        min_ttl: Duration,
        every: Duration,
    ) -> Outcome<Self> {
        let (counts, mut tasks) = (Arc::<Counts>::default(), JoinSet::new());
        for broker in 0..scene.brokers.len() {
            let caller = scene.caller(broker).await?;
            for connection in connections.clone() {
                let (caller, counts) = (caller.clone(), counts.clone());
                tasks.spawn(async move {
                    while !counts.stop.load(Ordering::Relaxed) {
                        let answer = caller.token(connection, min_ttl).await;
                        counts.reads.fetch_add(1, Ordering::Relaxed);
                        if let Err(status) = answer {
                            counts.failed.fetch_add(1, Ordering::Relaxed);
                            let mut first = counts.first.lock().unwrap_or_else(PoisonError::into_inner);
                            first.get_or_insert_with(|| {
                                let at = crate::caller::now();
                                format!("{at} u{connection} {} {}", reason_of(&status), status.message())
                            });
                        }
                        sleep(every).await;
                    }
                });
            }
        }
        Ok(Self { counts, tasks })
    }

    pub(crate) fn so_far(&self) -> Read {
        let first = self.counts.first.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (reads, failed) = (&self.counts.reads, &self.counts.failed);
        Read { reads: reads.load(Ordering::Relaxed), failed: failed.load(Ordering::Relaxed), first }
    }

    pub(crate) async fn stop(mut self) -> Outcome<Read> {
        self.counts.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(self.so_far())
    }
}

impl Read {
    /// How many failed since then; an error if nobody read.
    pub(crate) fn failed_since(&self, before: &Self) -> Outcome<u64> {
        ensure(before.reads < self.reads, || "it did not look: nobody read meanwhile".to_owned())?;
        Ok(self.failed - before.failed)
    }

    /// Fails if one failed, or nobody read.
    pub(crate) fn ensure_none_failed(&self) -> Outcome<()> {
        let Self { reads, failed, first } = self;
        ensure(*failed == 0 && 0 < *reads, || format!("{failed} of {reads} reads failed: {first:?}"))
    }
}
