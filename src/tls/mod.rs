//! How callers reach the broker and who they are: mutual TLS over TCP, and named Unix sockets.
//!
//! Our own acceptor under tonic's `serve_with_incoming`, because tonic's TLS cannot change its files while
//! it runs (design.md 6.10).
//!
//! # Invariants
//!
//! 1. Certificate, key, client CAs and CRLs are taken up together or not at all: what does not parse or does
//!    not match leaves the last good snapshot in force (F17, F18).
//! 2. There is no session resumption. A resumed session is not verified again, so that a revoked client
//!    would keep coming (A10).
//! 3. A caller's name comes from its verified certificate or from the socket it came through; nothing else,
//!    in particular no common name and no header.
//! 4. Connections, handshakes and their time are limited; nothing that one client does ends the stream of
//!    the others.
//!
//! What it deliberately does not do: decide what a caller may do (`policy`), refuse calls of callers without
//! a name (the gRPC face does, as UNAUTHENTICATED), or limit a connection's age (tonic does).

mod connection;
mod gate;
mod incoming;
mod peer;
mod reload;
mod snapshot;
mod socket;

pub use connection::Connection;
pub use incoming::TcpIncoming;
pub use peer::{Peer, PeerRefused};
pub use reload::{Tls, TlsReloader};
pub use snapshot::{TlsError, TlsFiles, TlsSnapshot};
pub use socket::{SocketError, SocketIncoming};

#[cfg(test)]
mod tests;
