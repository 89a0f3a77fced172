//! Connections over TCP, after their TLS handshake.
//!
//! Handshakes run beside each other in this stream's own tasks, so that a client that stalls its handshake
//! holds up nobody. Failed ones are logged at debug: anybody can cause them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::connection::Connection;
use super::gate::Gate;
use super::reload::Tls;
use super::snapshot::ALPN_H2;

/// The stream for tonic's `serve_with_incoming`. It never ends and never fails.
#[derive(Debug)]
pub struct TcpIncoming {
    listener: TcpListener,
    tls: Tls,
    gate: Gate,
    handshakes: JoinSet<Option<Connection>>,
}

impl TcpIncoming {
    pub fn new(listener: TcpListener, tls: Tls) -> Self {
        Self { listener, tls, gate: Gate::new(CONNECTIONS_MAX), handshakes: JoinSet::new() }
    }

    /// The next connection whose handshake is done, whatever became of the others.
    fn poll_handshakes(&mut self, cx: &mut Context<'_>) -> Poll<Connection> {
        while let Some(ended) = ready!(self.handshakes.poll_join_next(cx)) {
            match ended {
                Ok(Some(connection)) => return Poll::Ready(connection),
                Ok(None) => {}
                Err(error) => tracing::error!(error = %error, "a TLS handshake ended by a panic"),
            }
        }
        // Without handshakes there is nobody to wake us but the listener, which the caller asks.
        Poll::Pending
    }

    /// Accepts what there is and there is room for.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if HANDSHAKES_MAX <= self.handshakes.len() {
            return Poll::Pending;
        }
        ready!(self.gate.poll_open(cx));
        match ready!(self.listener.poll_accept(cx)) {
            Ok((stream, _address)) => {
                let acceptor = TlsAcceptor::from(self.tls.config());
                let permit = self.gate.pass();
                self.handshakes.spawn(handshake(acceptor, stream, permit));
            }
            Err(error) => self.gate.on_error(&error),
        }
        Poll::Ready(())
    }
}

impl Stream for TcpIncoming {
    type Item = Result<Connection, io::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Poll::Ready(connection) = this.poll_handshakes(cx) {
                return Poll::Ready(Some(Ok(connection)));
            }
            ready!(this.poll_accept(cx));
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
) -> Option<Connection> {
    // Answers are small; waiting to fill a packet would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "a client was gone before its TLS handshake");
        return None;
    }
    match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(ALPN_H2) => {
            Some(Connection::over_tls(stream, permit))
        }
        Ok(Ok(_)) => {
            tracing::debug!("a client did not ask for HTTP/2");
            None
        }
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "a TLS handshake failed");
            None
        }
        Err(_elapsed) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
}

/// A caller needs one connection for all its calls; a thousand is a large fleet, and well below the usual
/// limit of open files.
pub(super) const CONNECTIONS_MAX: usize = 1_024;
/// Clients without a certificate get no further than this, so they can hold no more than a quarter.
const HANDSHAKES_MAX: usize = 256;
/// A handshake takes two round trips; this is enough for the slowest honest one.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
