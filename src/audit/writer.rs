//! The one writer: takes what is queued, writes once, flushes once, answers all, again.
//!
//! There is no timer: under load, batches grow by themselves while a flush runs; without load, a record
//! waits for nobody. Each batch runs on a blocking thread of its own rather than in one that lives as
//! long as the writer, so that a test's paused clock stands still only while something is being written.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::open::Log;
use super::{AuditError, Demand, Health, QUEUE_LEN};
use crate::clock::Clock;
use crate::event::Event;

/// Writes what handles record, until all of them are dropped.
pub struct AuditWriter {
    sink: Sink,
    queued: mpsc::Receiver<Demand>,
    health: Arc<Health>,
}

/// What moves to the blocking thread and back.
struct Sink {
    log: Log,
    clock: Arc<dyn Clock>,
    segment: Arc<str>,
    next_seq: u64,
}

/// One line of the file.
#[derive(Serialize)]
struct Line<'a> {
    at: String,
    segment: &'a str,
    seq: u64,
    #[serde(flatten)]
    event: &'a Event,
}

impl AuditWriter {
    pub(super) fn new(
        log: Log,
        queued: mpsc::Receiver<Demand>,
        health: Arc<Health>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { sink: Sink { log, clock, segment: make_segment(), next_seq: 0 }, queued, health }
    }

    /// Runs until every handle is dropped and everything queued is written.
    pub async fn run(self) {
        self.run_until(CancellationToken::new()).await;
    }

    /// The same, or until told to stop: what is queued by then is written, what comes later refused.
    pub async fn run_until(self, stop: CancellationToken) {
        let Self { mut sink, mut queued, health } = self;
        loop {
            let mut batch = Vec::new();
            let taken = tokio::select! {
                biased;
                () = stop.cancelled(), if !queued.is_closed() => {
                    queued.close();
                    continue;
                }
                taken = queued.recv_many(&mut batch, QUEUE_LEN) => taken,
            };
            if taken == 0 {
                return;
            }
            health.begin();
            let (demands, recording) = {
                let written = tokio::task::spawn_blocking(move || {
                    let outcomes = sink.record(&batch);
                    (sink, batch, outcomes)
                });
                match written.await {
                    Ok((returned, batch, outcomes)) => {
                        sink = returned;
                        (batch, outcomes)
                    }
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    // The runtime is going down: nobody is left to answer.
                    Err(_) => return,
                }
            };
            health.end(recording.iter().any(|outcome| matches!(outcome, Err(AuditError::Write(_)))));
            for (demand, outcome) in demands.into_iter().zip(recording) {
                // A caller that went away was recorded all the same.
                let _ = demand.answer.send(outcome);
            }
        }
    }
}

impl Sink {
    /// The outcome of each demand, in order. An event that cannot become a line fails alone.
    fn record(&mut self, batch: &[Demand]) -> Vec<Result<(), AuditError>> {
        let first_seq = self.next_seq;
        let mut lines = Vec::new();
        let mut outcomes: Vec<_> = batch.iter().map(|demand| self.line(&demand.event, &mut lines)).collect();
        if let Err(error) = self.log.append(&lines) {
            let error = Arc::new(error);
            tracing::error!(error = %error, records = batch.len(), "could not write the audit");
            outcomes = vec![Err(AuditError::Write(error)); batch.len()];
            if self.log.is_mended() {
                self.next_seq = first_seq;
            }
        }
        outcomes
    }

    fn line(&mut self, event: &Event, lines: &mut Vec<u8>) -> Result<(), AuditError> {
        let at = to_milliseconds(self.clock.now().wall);
        let line = Line { at, segment: &self.segment, seq: self.next_seq, event };
        let line = serde_json::to_vec(&line).map_err(|error| AuditError::Unwritable(Arc::new(error)))?;
        lines.extend_from_slice(&line);
        lines.push(b'\n');
        self.next_seq += 1;
        Ok(())
    }
}

fn to_milliseconds(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// Names the lines of this process, so that numbers that begin again are not taken for older ones.
fn make_segment() -> Arc<str> {
    let mut random = [0; SEGMENT_LEN];
    aws_lc_rs::rand::fill(&mut random).expect("the operating system gives random bytes");
    random.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")).into()
}

/// 64 bits: no two starts of one installation meet.
const SEGMENT_LEN: usize = 8;
