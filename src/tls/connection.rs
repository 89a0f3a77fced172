//! One accepted connection: bytes, and whose they are.
//!
//! It holds its listener's permit until it is dropped, and knows nothing of HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::peer::Peer;

/// A connection whose peer is known, or known to be refused.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    peer: Peer,
    /// Runs out unless the peer says something: a silent one would hold its permit for ever.
    silence: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Io {
    Tls(Box<TlsStream<TcpStream>>),
    Socket(UnixStream),
}

impl Connection {
    pub(super) fn over_tls(stream: TlsStream<TcpStream>, permit: OwnedSemaphorePermit) -> Self {
        let certificates = stream.get_ref().1.peer_certificates();
        let leaf = certificates.and_then(|chain| chain.first());
        let peer = Peer::of_certificate(leaf.map(AsRef::as_ref));
        Self { io: Io::Tls(Box::new(stream)), peer, silence: Some(silence()), _permit: permit }
    }

    pub(super) fn over_socket(stream: UnixStream, peer: Peer, permit: OwnedSemaphorePermit) -> Self {
        Self { io: Io::Socket(stream), peer, silence: Some(silence()), _permit: permit }
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = match &mut this.io {
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Io::Socket(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        let Some(silence) = &mut this.silence else {
            return read;
        };
        if read.is_ready() {
            this.silence = None;
            return read;
        }
        silence.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn silence() -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(FIRST_WORD_WITHIN))
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Socket(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Io::Socket(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tls(stream) => stream.is_write_vectored(),
            Io::Socket(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Io::Socket(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Socket(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Every client of HTTP/2 speaks first, and at once.
const FIRST_WORD_WITHIN: Duration = Duration::from_secs(10);
