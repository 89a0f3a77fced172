//! A wire that can be harmed: TCP, passed on, held up, spoiled or broken off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::outcome::Outcome;

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    Pass,
    /// Connections are taken, and nothing comes through: a black hole.
    Swallow,
    /// Of answers a byte a second comes through.
    Trickle,
    /// Of answers every bit is another.
    Garble,
    /// Answers end, as if that were all; questions go on being taken.
    HalfClose,
    /// Connections break off, and new ones at once.
    Cut,
    /// The same, by RST.
    Reset,
}

/// Gone when dropped.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    listening: JoinHandle<()>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Way {
    Question,
    Answer,
}

impl Wire {
    /// A wire to `target`.
    pub(crate) async fn to(target: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let modes = mode.clone();
        let listening = tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                tokio::spawn(pass(caller, target, modes.subscribe()));
            }
        });
        Ok(Self { address, mode, listening })
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.listening.abort();
        self.set(Mode::Cut);
    }
}

async fn pass(mut caller: TcpStream, target: SocketAddr, mut modes: watch::Receiver<Mode>) {
    if wait_to_pass(&mut modes).await.is_ok()
        && let Ok(mut server) = TcpStream::connect(target).await
    {
        let (from_caller, to_caller) = caller.split();
        let (from_server, to_server) = server.split();
        // Whichever ends first ends both.
        tokio::select! {
            () = pump(from_caller, to_server, Way::Question, modes.clone()) => {}
            () = pump(from_server, to_caller, Way::Answer, modes.clone()) => {}
        }
    }
    if *modes.borrow() == Mode::Reset {
        let _gone = caller.set_zero_linger();
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, way: Way, mut modes: watch::Receiver<Mode>) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let len = tokio::select! {
            read = from.read(&mut bytes) => match read {
                Ok(len) if 0 < len => len,
                _ => return,
            },
            () = end(&mut to, way, modes.clone()) => return,
        };
        let bytes = &mut bytes[..len];
        let Ok(mode) = wait_to_pass(&mut modes).await else { return };
        let written = match (mode, way) {
            (Mode::Trickle, Way::Answer) => trickle(bytes, &mut to, &mut modes).await,
            (Mode::Garble, Way::Answer) => {
                for byte in &mut *bytes {
                    *byte = !*byte;
                }
                to.write_all(bytes).await
            }
            _ => to.write_all(bytes).await,
        };
        if written.is_err() {
            return;
        }
    }
}

/// Returns when the wire has been broken off, or half of it was and is to be whole again.
async fn end(to: &mut WriteHalf<'_>, way: Way, mut modes: watch::Receiver<Mode>) {
    let is_end = |mode: &Mode| match mode {
        Mode::Cut | Mode::Reset => true,
        Mode::HalfClose => way == Way::Answer,
        Mode::Pass | Mode::Swallow | Mode::Trickle | Mode::Garble => false,
    };
    if modes.wait_for(is_end).await.as_deref().is_ok_and(|mode| *mode == Mode::HalfClose) {
        let _gone = to.shutdown().await;
        let _gone = modes.wait_for(|mode| *mode != Mode::HalfClose).await;
    }
}

/// A byte a second, for as long as that is so.
async fn trickle(
    bytes: &[u8],
    to: &mut WriteHalf<'_>,
    modes: &mut watch::Receiver<Mode>,
) -> std::io::Result<()> {
    let mut rest = bytes.iter();
    while *modes.borrow() == Mode::Trickle
        && let Some(byte) = rest.next()
    {
        to.write_all(&[*byte]).await?;
        tokio::select! {
            () = sleep(Duration::from_secs(1)) => {}
            _ = modes.wait_for(|mode| *mode != Mode::Trickle) => {}
        }
    }
    to.write_all(rest.as_slice()).await
}

/// Until bytes may pass, and how; an error if the wire is broken off.
async fn wait_to_pass(modes: &mut watch::Receiver<Mode>) -> Result<Mode, ()> {
    match modes.wait_for(|mode| *mode != Mode::Swallow).await.as_deref() {
        Ok(Mode::Cut | Mode::Reset) | Err(_) => Err(()),
        Ok(mode) => Ok(*mode),
    }
}
