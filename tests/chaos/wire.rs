//! A wire that can be cut: TCP, passed on, held up or broken off.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::outcome::Outcome;

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    Pass,
    /// Connections are taken, and nothing comes through: a black hole.
    Swallow,
    /// Connections break off, and new ones at once.
    Cut,
}

/// Gone when dropped.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    listening: JoinHandle<()>,
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

async fn pass(caller: TcpStream, target: SocketAddr, mut modes: watch::Receiver<Mode>) {
    if wait_to_pass(&mut modes).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_caller, to_caller) = caller.into_split();
    let (from_server, to_server) = server.into_split();
    let other = modes.clone();
    // Whichever ends first ends both.
    tokio::select! {
        () = pump(from_caller, to_server, modes) => {}
        () = pump(from_server, to_caller, other) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut modes: watch::Receiver<Mode>) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let len = tokio::select! {
            read = from.read(&mut bytes) => match read {
                Ok(len) if 0 < len => len,
                _ => return,
            },
            _ = modes.wait_for(|mode| *mode == Mode::Cut) => return,
        };
        if wait_to_pass(&mut modes).await.is_err() || to.write_all(&bytes[..len]).await.is_err() {
            return;
        }
    }
}

/// Until bytes may pass; an error if the wire is cut.
async fn wait_to_pass(modes: &mut watch::Receiver<Mode>) -> Result<(), ()> {
    match modes.wait_for(|mode| *mode != Mode::Swallow).await.as_deref() {
        Ok(Mode::Pass) => Ok(()),
        _ => Err(()),
    }
}
