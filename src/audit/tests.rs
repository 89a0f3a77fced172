//! The audit on real files, pipes and `/dev/full`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::caller::Caller;
use crate::clock::SystemClock;
use crate::event::{By, Outcome};
use crate::testing::ManualClock;

fn event(act: &'static str) -> Event {
    let caller = Caller::Socket { name: "job-runner".into(), uid: 1000 };
    Event::new(act, By::Caller(caller), Outcome::Done)
}

fn config(path: &Path) -> AuditConfig {
    AuditConfig { path: path.to_owned(), sync: Sync::Disk }
}

fn open(path: &Path) -> Result<(Audit, AuditWriter), AuditError> {
    Audit::open(&config(path), Arc::new(ManualClock::default()))
}

fn start(path: &Path) -> (Audit, JoinHandle<()>) {
    let (audit, writer) = open(path).unwrap();
    (audit, tokio::spawn(writer.run()))
}

fn folder_and_file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    (folder, path)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or(Value::Null)).collect()
}

fn pipe(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
}

#[tokio::test]
async fn a_recorded_event_stands_in_the_file_when_its_caller_is_answered() {
    let (_folder, path) = folder_and_file();
    let (audit, _running) = start(&path);

    audit.record(event("First")).await.unwrap();

    let text = std::fs::read_to_string(&path).unwrap();
    let line = &lines(&path)[0];
    assert!(text.starts_with(r#"{"at":"2026-01-01T00:00:00.000Z","segment":""#) && text.ends_with("}\n"));
    assert_eq!((&line["act"], &line["seq"]), (&Value::from("First"), &Value::from(0)));
    assert_eq!(line["by"]["caller"], "socket:job-runner (uid 1000)");
    assert_eq!(line["outcome"]["result"], "done");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(audit.is_healthy());
}

#[tokio::test]
async fn a_thousand_at_once_are_each_recorded_once_in_whole_lines() {
    let (_folder, path) = folder_and_file();
    let (audit, running) = start(&path);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..2_000 {
        let audit = audit.clone();
        asking.spawn(async move { audit.record(event("Many")).await });
    }
    drop(audit);

    let all = asking.join_all().await;
    running.await.unwrap();

    assert!(all.iter().all(Result::is_ok));
    let seqs: Vec<_> = lines(&path).iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (0..2_000).collect::<Vec<_>>());
}

/// A caller must not be able to hide a refused try by hanging up.
#[tokio::test]
async fn a_caller_that_went_away_is_recorded_all_the_same() {
    let (_folder, path) = folder_and_file();
    let (audit, writer) = open(&path).unwrap();
    let mut asking = Box::pin(audit.record(event("Gone")));
    assert!(futures_util::poll!(&mut asking).is_pending());
    drop(asking);
    drop(audit);

    writer.run().await;

    assert_eq!(lines(&path)[0]["act"], "Gone");
}

#[tokio::test]
async fn f23_a_full_disk_is_an_error_and_not_a_record() {
    let (audit, _running) = start(Path::new("/dev/full"));
    for _ in 0..2 {
        let refused = audit.record(event("Refused")).await;
        assert!(matches!(refused, Err(AuditError::Write(_))), "{refused:?}");
        assert!(!audit.is_healthy());
    }
}

#[tokio::test]
async fn f23_a_pipe_without_a_reader_refuses_at_once_instead_of_hanging() {
    let (_folder, path) = folder_and_file();
    pipe(&path);
    assert!(matches!(open(&path), Err(AuditError::Open { .. })));
}

/// A real pipe that nobody empties, and a clock that is moved by hand: nothing sleeps.
#[tokio::test(start_paused = true)]
async fn f23_a_sink_that_hangs_refuses_within_two_seconds_and_recovers() {
    let (_folder, path) = folder_and_file();
    pipe(&path);
    let reader =
        rustix::fs::open(&path, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK, 0o600.into());
    let reader = std::fs::File::from(reader.unwrap());
    let (audit, running) = start(&path);
    fill(&path);

    let mut asking = Box::pin(audit.record(event("Hangs")));
    assert!(futures_util::poll!(&mut asking).is_pending());
    tokio::task::yield_now().await;
    tokio::time::advance(RECORD_WAIT_MAX).await;
    let refused = asking.await;

    assert!(matches!(refused, Err(AuditError::Blocked)), "{refused:?}");
    assert!(!audit.is_healthy());
    let health = audit.health.clone();
    drop(audit);
    let drained = tokio::task::spawn_blocking(move || drain(reader));
    running.await.unwrap();
    assert!(drained.await.unwrap().contains("Hangs"));
    assert!(!health.state().failed);
}

/// Fills the pipe until it takes nothing more.
fn fill(path: &Path) {
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let writer = rustix::fs::open(path, flags, 0o600.into()).unwrap();
    while rustix::io::write(&writer, &[b'\n'; 4096]).is_ok() {}
}

fn drain(mut reader: std::fs::File) -> String {
    rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::empty()).unwrap();
    std::io::read_to_string(&mut reader).unwrap()
}

#[tokio::test]
async fn f02_a_failed_write_leaves_no_half_line_and_its_numbers_are_used_again() {
    let (_folder, path) = folder_and_file();
    let mut log = open::open(&config(&path)).unwrap();
    log.room = Some(40);
    let (audit, writer) = Audit::new(log, Arc::new(ManualClock::default()));
    let _running = tokio::spawn(writer.run());

    let refused = audit.record(event("Half")).await;

    assert!(matches!(refused, Err(AuditError::Write(_))), "{refused:?}");
    assert!(!audit.is_healthy());
    assert_eq!(std::fs::read(&path).unwrap(), b"");
    audit.record(event("Whole")).await.unwrap();
    assert!(audit.is_healthy());
    let lines = lines(&path);
    assert_eq!((lines.len(), &lines[0]["act"], &lines[0]["seq"]), (1, &"Whole".into(), &0.into()));
}

#[tokio::test]
async fn a_line_torn_by_a_crash_is_ended_before_the_next() {
    let (_folder, path) = folder_and_file();
    std::fs::write(&path, "{\"whole\":1}\n{\"torn\":").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (audit, _running) = start(&path);

    audit.record(event("After")).await.unwrap();

    let lines = lines(&path);
    assert_eq!((lines.len(), &lines[1]), (3, &Value::Null));
    assert_eq!(lines[2]["act"], "After");
}

#[tokio::test]
async fn a_sink_that_others_could_forge_or_share_is_refused() {
    let (folder, path) = folder_and_file();
    for mode in [0o620, 0o602, 0o666] {
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(open(&path), Err(AuditError::WritableByOthers { .. })), "{mode:o}");
    }
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
    assert!(matches!(open(&path), Err(AuditError::Open { .. })));
    assert!(!folder.path().join("elsewhere").exists());
    assert!(matches!(open(&folder.path().join("no/such/folder")), Err(AuditError::Open { .. })));
    assert!(open(folder.path()).is_err());

    let (_held, _writer) = open(&folder.path().join("held")).unwrap();
    assert!(matches!(open(&folder.path().join("held")), Err(AuditError::InUse { .. })));
}

#[tokio::test]
async fn without_its_writer_the_audit_refuses() {
    let (audit, writer, records) = Audit::in_memory(Arc::new(SystemClock::default()));
    let running = tokio::spawn(writer.run());
    audit.record(event("Kept")).await.unwrap();
    assert_eq!(records.lines()[0]["act"], "Kept");
    running.abort();
    assert!(running.await.is_err());

    assert!(matches!(audit.record(event("Lost")).await, Err(AuditError::Ended)));
    assert!(!audit.is_healthy());
}
