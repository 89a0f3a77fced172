//! f02, f03: the disk under the store is full, or says that it could not write.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use tokio::time::sleep;

use super::Stage;
use crate::outcome::{Context as _, Outcome, ensure};
use crate::processes::{Process, until};
use crate::report::Found;
use crate::scene::{LONG_WINDOW, PATIENT, Plan, Scene};

/// f02: no room for the commit of a refresh that Entra has answered.
pub(crate) async fn f02_a_full_disk(stage: Stage) -> Outcome<Found> {
    let disk = Disk::mount(&stage.dir.join("disk")).await?;
    let store = format!("path = \"{}\"", disk.path.join("azdo-broker.db").display());
    let mut scene = Scene::set(&stage.dir, Plan { users: 3, store, ..Plan::default() }).await?;
    let mut found = Found::default();
    let full = async || disk.fill();
    let room = async || disk.empty();
    spoil_a_commit(&mut scene, full, room, "a full disk", &mut found).await?;
    scene.look_for_lost_links(0, 0..3, &mut found).await?;
    scene.settle(&mut found).await?;
    Ok(found)
}

/// f03: fsync fails; the pages may be marked as written, and are not.
pub(crate) async fn f03_a_disk_that_cannot_sync(stage: Stage) -> Outcome<Found> {
    // The audit would refuse by itself if it could not sync, and nothing would be shown of the store.
    let more = format!("{}[audit]\nsync = \"kernel\"\n", crate::scene::FAST);
    let mut scene = Scene::set(&stage.dir, Plan { users: 3, more, ..Plan::default() }).await?;
    let id = scene.brokers[0].process()?.id().as_raw_nonzero().to_string();
    let log = scene.dir.join("strace.log");
    let mut found = Found::default();
    let tracer = std::cell::RefCell::new(None::<Process>);
    let spoil = async || {
        let inject = ["-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"];
        let args = [&inject[..], &["-p", &id]].concat();
        let status = format!("/proc/{id}/status");
        tracer.replace(Some(Process::start(Path::new("/usr/bin/strace"), &args, &log)?));
        let attached = async || {
            let said = std::fs::read_to_string(&status).ok()?;
            (!said.contains("TracerPid:\t0")).then_some(())
        };
        until("strace", PATIENCE, attached).await
    };
    let mend = async || {
        let tracer = tracer.borrow_mut().take();
        let mut tracer = tracer.ok_or("nothing is traced")?;
        // Lets go of the broker, and ends.
        tracer.stop(PATIENCE).await.map(drop)
    };
    spoil_a_commit(&mut scene, spoil, mend, "fsync failing", &mut found).await?;
    let injected = std::fs::read_to_string(&log)?.matches("INJECTED").count();
    ensure(0 < injected, || "strace made no call fail".to_owned())?;
    found.says(format!("{injected} calls were made to fail"));
    scene.look_for_lost_links(0, 0..3, &mut found).await?;
    scene.settle(&mut found).await?;
    Ok(found)
}

/// Spoils the store between Entra's answer and the commit: the caller is lent the token, and once the store is
/// mended the grant is committed, without another request, and is there after kill -9.
async fn spoil_a_commit(
    scene: &mut Scene,
    spoil: impl AsyncFn() -> Outcome<()>,
    mend: impl AsyncFn() -> Outcome<()>,
    what: &str,
    found: &mut Found,
) -> Outcome<()> {
    sleep(LONG_WINDOW).await;
    let before = scene.emulator.record().await?.arrived.len();
    let generation = scene.connection(0, 0).await?.generation;
    scene.emulator.switch(json!({ "switch": "entra.hold", "count": 1 })).await?;
    let caller = scene.caller(0).await?;
    let asked = tokio::spawn(async move { caller.token(0, PATIENT).await });
    scene.emulator.wait_held(1, PATIENCE).await?;
    spoil().await?;
    scene.emulator.release().await?;
    let lent = asked.await?;
    let token = scene.issued().await?.pop().and_then(|it| it.at_issued);
    let is_lent = lent.as_ref().is_ok_and(|got| Some(&got.fingerprint) == token.as_ref());
    ensure(is_lent, || format!("{what}: the caller was not lent the token: {lent:?}"))?;
    scene.ledger.lends(token.as_deref().unwrap_or_default());
    // Others are served meanwhile.
    let other = scene.caller(0).await?.token(1, Duration::ZERO).await;
    ensure(other.is_ok(), || format!("{what}: a token at hand was withheld: {other:?}"))?;
    mend().await?;
    let committed = until("the commit", PATIENCE, async || {
        sleep(Duration::from_millis(100)).await;
        (generation < scene.connection(0, 0).await.ok()?.generation).then_some(())
    });
    if committed.await.is_err() {
        found.breaks("lost_links", format!("{what}: the grant was not committed after"));
    }
    let requests = scene.emulator.record().await?.arrived.len() - before;
    ensure(requests == 1, || format!("{what}: {requests} requests for one grant"))?;
    scene.brokers[0].kill().await?;
    scene.brokers[0].start().await?;
    let kept = scene.caller(0).await?.token(0, Duration::ZERO).await;
    found.compares("lost_updates", 1);
    if kept.as_ref().ok().map(|kept| &kept.fingerprint) != token.as_ref() {
        found.breaks("lost_updates", format!("{what}: after kill -9 the token is another one: {kept:?}"));
    }
    found.says(format!(
        "{what} at the commit: the caller was lent the token; committed when mended, after {requests} request, \
         and there after kill -9"
    ));
    Ok(())
}

/// A small file system of its own.
struct Disk {
    path: std::path::PathBuf,
}

impl Disk {
    async fn mount(path: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(path)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m,mode=0700", "chaos"])
            .arg(path)
            .output()
            .await?;
        ensure(mounted.status.success(), || {
            format!("a small disk needs root: {}", String::from_utf8_lossy(&mounted.stderr))
        })?;
        Ok(Self { path: path.to_owned() })
    }

    /// No byte of room is left.
    fn fill(&self) -> Outcome<()> {
        use std::io::Write as _;
        let mut ballast = std::fs::File::create(self.path.join("ballast"))?;
        for size in [65_536, 4096, 1] {
            while ballast.write_all(&vec![7; size]).is_ok() {}
        }
        Ok(())
    }

    fn empty(&self) -> Outcome<()> {
        std::fs::remove_file(self.path.join("ballast")).context("the ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a broker may still have files there, and ends soon.
        let _left = std::process::Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
