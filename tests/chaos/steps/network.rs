//! f09, f10: what lies between the broker and Entra is bad.
//!
//! Of everything the same is expected: whoever asks for more than is at hand is told within Entra's deadline, what
//! is at hand is released, and the grant is used again when the way is good.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

use super::Stage;
use crate::emulator::Emulator;
use crate::outcome::{Context as _, Outcome, ensure};
use crate::processes::until;
use crate::report::Found;
use crate::scene::{FRESH, Plan, Scene, WINDOW, binaries};
use crate::wire::{Mode, Wire};

/// A scene whose broker reaches the emulator by a wire.
async fn behind_a_wire(stage: &Stage, users: usize) -> Outcome<(Scene, Wire)> {
    let emulator = Emulator::start(&binaries()?, &stage.dir.join("emulator"), users).await?;
    let proxy: SocketAddr = emulator.proxy.trim_start_matches("http://").parse()?;
    let wire = Wire::to(proxy).await?;
    let upstreams = vec![format!("http://{}", wire.address)];
    let mut scene = Scene::around(&stage.dir, Plan { users, upstreams, ..Plan::default() }, emulator).await?;
    scene.start_all().await?;
    scene.brokers[0].register().await?;
    scene.link_all().await?;
    sleep(WINDOW).await;
    Ok((scene, wire))
}

/// f09: an answer that comes a byte a second, is garbage, half closed or cut off by RST.
pub(crate) async fn f09_a_bad_wire(stage: Stage) -> Outcome<Found> {
    let harms = [Mode::Trickle, Mode::Garble, Mode::HalfClose, Mode::Reset, Mode::Cut];
    let (scene, wire) = behind_a_wire(&stage, harms.len()).await?;
    let mut found = Found::default();
    let caller = scene.caller(0).await?;
    for (user, harm) in harms.into_iter().enumerate() {
        let before = scene.issued().await?.len();
        scene.emulator.switch(json!({ "switch": "entra.hold", "count": 1 })).await?;
        let (asking, began) = (caller.clone(), Instant::now());
        let asked = tokio::spawn(async move { asking.token(user, FRESH).await });
        scene.emulator.wait_held(1, TOLD_WITHIN).await?;
        wire.set(harm);
        scene.emulator.release().await?;
        // The answer that was on its way: nobody can have it.
        let lost = scene.issued().await?.split_off(before).into_iter().find_map(|it| it.at_issued);
        let lost = lost.ok_or("nothing was issued")?;
        ensure_at_hand(&scene, user, &format!("{harm:?}")).await?;
        let answer = asked.await?;
        let took = began.elapsed();
        ensure(took < TOLD_WITHIN, || format!("{harm:?} cost a caller {took:?}"))?;
        let is_whole = answer.is_ok_and(|got| got.fingerprint == lost);
        ensure(!is_whole, || format!("{harm:?} did no harm"))?;
        wire.set(Mode::Pass);
        found.says(format!(
            "{harm:?}: told after {:.1} s; the token at hand was released",
            took.as_secs_f64()
        ));
    }
    scene.look_for_lost_links(0, 0..scene.users, &mut found).await?;
    scene.settle(&mut found).await?;
    Ok(found)
}

/// f10: Entra's name is not known, or leads to where nothing ever answers, by IPv4 and by IPv6.
pub(crate) async fn f10_no_name_and_black_holes(stage: Stage) -> Outcome<Found> {
    let (mut scene, wire) = behind_a_wire(&stage, 5).await?;
    let mut found = Found::default();
    // By a name, of which a file tells.
    let names = Names::beside(&stage.dir);
    names.set(&["127.0.0.1"])?;
    scene.brokers[0].kill().await?;
    scene.brokers[0].reach(&format!("http://{NAME}:{}", wire.address.port()))?;
    scene.brokers[0].start_under(&names.wrapper()).await?;
    refreshed(&scene, 0).await?;

    wire.set(Mode::Swallow);
    let swallowed = refused(&scene, 1, "a black hole").await?;
    break_off(&wire).await;
    names.set(&[])?;
    let unknown = refused(&scene, 2, "no name").await?;
    let hole = BlackHole::at(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], wire.address.port()))).await?;
    names.set(&["::1"])?;
    let unreachable = refused(&scene, 3, "a black hole of IPv6").await?;
    ensure(CONNECT_DEADLINE <= unreachable + Duration::from_millis(100), || {
        format!("nobody was in the black hole: told after {unreachable:?}")
    })?;
    // What does not answer by IPv6 does by IPv4.
    names.set(&["::1", "127.0.0.1"])?;
    let began = Instant::now();
    let (fell, mended) = tokio::join!(hole.wait_for_somebody(), refreshed(&scene, 4));
    fell?;
    mended?;
    let mended = began.elapsed();
    ensure(mended < CONNECT_DEADLINE, || format!("IPv4 was tried after {mended:?}"))?;
    names.set(&["127.0.0.1"])?;
    found.says(format!(
        "told after: a black hole {swallowed:.1?}, no name {unknown:.1?}, a black hole of IPv6 {unreachable:.1?}; with \
         IPv4 beside it a new token after {mended:.1?}"
    ));
    scene.look_for_lost_links(0, 0..scene.users, &mut found).await?;
    scene.settle(&mut found).await?;
    Ok(found)
}

/// How long it took until a caller was told that there is no token of the life that it wants.
async fn refused(scene: &Scene, user: usize, why: &str) -> Outcome<Duration> {
    let began = Instant::now();
    let answer = scene.caller(0).await?.token(user, FRESH).await;
    let took = began.elapsed();
    ensure(answer.is_err(), || format!("{why}: there was a new token all the same"))?;
    ensure(took < TOLD_WITHIN, || format!("{why} cost a caller {took:?}"))?;
    ensure_at_hand(scene, user, why).await?;
    Ok(took)
}

async fn ensure_at_hand(scene: &Scene, user: usize, why: &str) -> Outcome<()> {
    let held = scene.caller(0).await?.token(user, Duration::from_secs(5)).await;
    ensure(held.is_ok(), || format!("{why}: what was at hand was withheld: {held:?}"))
}

async fn refreshed(scene: &Scene, user: usize) -> Outcome<()> {
    let caller = scene.caller(0).await?;
    until("a refresh", TOLD_WITHIN, async || caller.token(user, FRESH).await.ok()).await.map(drop)
}

/// Connections that are at hand would go on, whatever their name leads to by now.
async fn break_off(wire: &Wire) {
    wire.set(Mode::Cut);
    sleep(Duration::from_millis(100)).await;
    wire.set(Mode::Pass);
}

/// What a broker knows of names: a file of its own in place of the machine's.
struct Names {
    file: PathBuf,
}

impl Names {
    fn beside(dir: &Path) -> Self {
        Self { file: dir.join("hosts") }
    }

    /// In place: the broker sees this very file.
    fn set(&self, addresses: &[&str]) -> Outcome<()> {
        let lines = addresses
            .iter()
            .fold("127.0.0.1 localhost\n".to_owned(), |lines, address| format!("{lines}{address} {NAME}\n"));
        std::fs::write(&self.file, lines).context(self.file.display())
    }

    fn wrapper(&self) -> [&str; 6] {
        let mounted = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", mounted, self.file.to_str().unwrap_or_default()]
    }
}

/// An address where connections are neither taken nor refused.
struct BlackHole {
    address: SocketAddr,
    _listener: TcpListener,
    /// All that fits.
    _queued: TcpStream,
}

impl BlackHole {
    async fn at(address: SocketAddr) -> Outcome<Self> {
        let socket = TcpSocket::new_v6()?;
        socket.bind(address).context(address)?;
        let listener = socket.listen(0)?;
        Ok(Self { address, _listener: listener, _queued: TcpStream::connect(address).await? })
    }

    /// Until somebody has asked for a connection that does not come.
    async fn wait_for_somebody(&self) -> Outcome<()> {
        let (port, asked) = (format!(":{:04X}", self.address.port()), "02");
        until("somebody in the black hole", TOLD_WITHIN, async || {
            let all = std::fs::read_to_string("/proc/net/tcp6").ok()?;
            let is_it = |line: &str| {
                let mut words = line.split_whitespace().skip(2);
                words.next().is_some_and(|to| to.ends_with(&port)) && words.next() == Some(asked)
            };
            all.lines().any(is_it).then_some(())
        })
        .await
    }
}

const NAME: &str = "entra.invalid";
/// Design 6.1, and what answering takes.
const TOLD_WITHIN: Duration = Duration::from_secs(12);
/// Of the broker, to any address.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
