//! The audit: one JSON line per act, on its way to the disk before the act is answered (P3).
//!
//! # Invariants
//!
//! 1. [`Audit::record`] returns `Ok` only after the line was written whole and, with [`Sync::Disk`],
//!    flushed. Whoever gets an error must not answer with what was to be recorded.
//! 2. Lines are whole: a write that failed half-way is cut off before the next one, and what a crash
//!    left half-written is ended with a newline at the next start, where it stands as a broken line
//!    rather than as the beginning of a good one.
//! 3. `seq` counts the lines of one process (`segment`) without gaps, unless a failed write could not
//!    be cut off: then its numbers are not used again.
//! 4. A sink that hangs refuses callers within [`RECORD_WAIT_MAX`]; it never holds them for longer.
//!
//! An error says that the line is not *known* to be there. After `Blocked` it may still appear: an audit
//! that records an answer nobody got is right to be cautious, one that lacks an answer is wrong. For the
//! same reason a caller that went away is recorded all the same, or hanging up would hide a refused try.
//!
//! What it deliberately does not do: rotate files, chain or sign lines (later), read back more than [`seen_in`] does, or decide
//! what is worth recording.

mod open;
mod seen;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::event::Event;

pub use seen::{END_SEEN, LINK_SEEN, seen_in};
pub use writer::AuditWriter;

/// Where the audit goes.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// A file, or a named pipe that somebody reads.
    pub path: PathBuf,
    pub sync: Sync,
}

/// What a recorded line survives.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sync {
    /// Power loss. A pipe or device has no disk: there it means that the reader's side took it.
    #[default]
    Disk,
    /// The death of this process, but not of the machine.
    Kernel,
}

/// Why an act is not recorded.
///
/// Cloneable, because all who waited for the same write get the same answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuditError {
    #[error("could not open the audit {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: Arc<std::io::Error>,
    },
    #[error("the audit {path} may be written by others (mode {mode:03o}): take group's and others' w away")]
    WritableByOthers { path: PathBuf, mode: u32 },
    #[error("the audit {path} is neither a file nor a pipe nor a device")]
    NotAFile { path: PathBuf },
    #[error("another process writes the audit {path}")]
    InUse { path: PathBuf },
    #[error("the audit did not take a record in time")]
    Blocked,
    #[error("the audit has ended")]
    Ended,
    #[error("could not write the audit")]
    Write(#[source] Arc<std::io::Error>),
    #[error("could not put the event into a line of the audit")]
    Unwritable(#[source] Arc<serde_json::Error>),
}

/// A handle to the audit, cheap to clone. The writer ends when all are dropped.
#[derive(Clone, Debug)]
pub struct Audit {
    queue: mpsc::Sender<Demand>,
    health: Arc<Health>,
}

/// An event that somebody waits for.
#[derive(Debug)]
struct Demand {
    event: Event,
    answer: oneshot::Sender<Result<(), AuditError>>,
}

/// What the writer tells of itself.
#[derive(Debug, Default)]
struct Health(Mutex<HealthState>);

#[derive(Clone, Copy, Debug, Default)]
struct HealthState {
    failed: bool,
    writing_since: Option<Instant>,
}

impl Audit {
    /// Opens the audit; the writer must then be run.
    pub fn open(config: &AuditConfig, clock: Arc<dyn Clock>) -> Result<(Self, AuditWriter), AuditError> {
        Ok(Self::new(open::open(config)?, clock))
    }

    /// Waits until the event is recorded, for at most [`RECORD_WAIT_MAX`].
    pub async fn record(&self, event: Event) -> Result<(), AuditError> {
        let recorded = async {
            let (answer, answered) = oneshot::channel();
            self.queue.send(Demand { event, answer }).await.map_err(|_closed| AuditError::Ended)?;
            answered.await.unwrap_or(Err(AuditError::Ended))
        };
        tokio::time::timeout(RECORD_WAIT_MAX, recorded).await.unwrap_or(Err(AuditError::Blocked))
    }

    /// False from a failed write until the next good one, while a write hangs, and after the end.
    ///
    /// Only a record can make it true again, so whoever stops callers because of it must go on trying.
    pub fn is_healthy(&self) -> bool {
        let HealthState { failed, writing_since } = self.health.state();
        let hangs = writing_since.is_some_and(|since| RECORD_WAIT_MAX <= since.elapsed());
        !failed && !hangs && !self.queue.is_closed()
    }

    fn new(log: open::Log, clock: Arc<dyn Clock>) -> (Self, AuditWriter) {
        let (queue, queued) = mpsc::channel(QUEUE_LEN);
        let health = Arc::new(Health::default());
        let writer = AuditWriter::new(log, queued, health.clone(), clock);
        (Self { queue, health }, writer)
    }
}

impl Health {
    fn state(&self) -> HealthState {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).writing_since = Some(Instant::now());
    }

    fn end(&self, failed: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = HealthState { failed, writing_since: None };
    }
}

#[cfg(any(test, feature = "testing"))]
mod memory {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::{Arc, Audit, AuditWriter, Clock, open};

    /// What an audit in memory holds.
    #[derive(Debug)]
    pub struct Records(File);

    impl Audit {
        /// An audit in an unnamed file in memory, for tests of those who record.
        pub fn in_memory(clock: Arc<dyn Clock>) -> (Self, AuditWriter, Records) {
            let memory = rustix::fs::memfd_create("audit", rustix::fs::MemfdFlags::CLOEXEC);
            let file = File::from(memory.expect("memory for a file"));
            let records = Records(file.try_clone().expect("one more descriptor"));
            let (audit, writer) = Self::new(open::Log::in_memory(file), clock);
            (audit, writer, records)
        }
    }

    impl Records {
        /// All lines so far.
        pub fn lines(&self) -> Vec<serde_json::Value> {
            let len = self.0.metadata().expect("a length").len();
            let mut text = vec![0; usize::try_from(len).expect("fits memory")];
            self.0.read_exact_at(&mut text, 0).expect("readable");
            let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.map(|line| serde_json::from_slice(line).expect("whole lines of JSON")).collect()
        }
    }
}

#[cfg(any(test, feature = "testing"))]
pub use memory::Records;

/// How long an act waits for its record. A caller's own deadline is 10 s (design.md 6.19); a disk that
/// needs longer than this for one flush does not come back by waiting.
pub const RECORD_WAIT_MAX: Duration = Duration::from_secs(2);
/// As many as can be in flight with load shedding at work, with room; about 0.5 MiB of lines in one write.
const QUEUE_LEN: usize = 1_024;

#[cfg(test)]
mod tests;
