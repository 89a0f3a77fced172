//! Connections over a named Unix socket: the name and the kernel's word for the uid are the caller.
//!
//! The file never has more rights than it should, not even between bind and chmod; a file that a crash left
//! is replaced, one that somebody answers on is not, and anything but a socket is never touched.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

use super::connection::Connection;
use super::gate::Gate;
use super::incoming::CONNECTIONS_MAX;
use super::peer::Peer;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("somebody else listens on {path}")]
    InUse { path: PathBuf },
    #[error("{path} exists and is no socket")]
    NotASocket { path: PathBuf },
    #[error("could not listen on {path}")]
    Bind {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The stream for tonic's `serve_with_incoming`. It never ends and never fails; dropped, it takes the file
/// away.
#[derive(Debug)]
pub struct SocketIncoming {
    name: Arc<str>,
    listener: UnixListener,
    gate: Gate,
    _file: SocketFile,
}

/// The socket's file, as long as it is ours.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: a successor's file of the same path is not ours to remove.
    identity: (u64, u64),
}

impl SocketIncoming {
    /// Listens on `path`, which gets exactly `mode`, whatever the umask.
    pub async fn bind(name: &str, path: &Path, mode: u32) -> Result<Self, SocketError> {
        remove_stale(path).await?;
        let bound = bind(path, mode).map_err(|source| bind_error(path, source))?;
        let (listener, file) = bound;
        Ok(Self { name: name.into(), listener, gate: Gate::new(CONNECTIONS_MAX), _file: file })
    }

    fn peer(&self, stream: &UnixStream) -> io::Result<Peer> {
        Ok(Peer::of_socket(&self.name, stream.peer_cred()?.uid()))
    }
}

impl Stream for SocketIncoming {
    type Item = Result<Connection, io::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            ready!(this.gate.poll_open(cx));
            let accepted = ready!(this.listener.poll_accept(cx));
            match accepted.and_then(|(stream, _)| this.peer(&stream).map(|peer| (stream, peer))) {
                Ok((stream, peer)) => {
                    let connection = Connection::over_socket(stream, peer, this.gate.pass());
                    return Poll::Ready(Some(Ok(connection)));
                }
                Err(error) => this.gate.on_error(&error),
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(error = %error, path = %self.path.display(), "could not remove the socket");
        }
    }
}

/// Takes away the socket of a broker that died.
async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(bind_error(path, source)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| bind_error(path, source))
        }
        // An answer, a full queue, or a socket we may not reach: somebody may be there.
        Ok(_) | Err(_) => Err(SocketError::InUse { path: path.to_owned() }),
    }
}

fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // On Linux the file gets the mode of the unbound socket, less the umask: never more than it should.
    rustix::fs::fchmod(&socket, mode.into())?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(&std::fs::symlink_metadata(path)?) };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))?;
    Ok((listener, file))
}

fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn bind_error(path: &Path, source: io::Error) -> SocketError {
    match source.kind() {
        io::ErrorKind::AddrInUse => SocketError::InUse { path: path.to_owned() },
        _ => SocketError::Bind { path: path.to_owned(), source },
    }
}

/// What std uses: a burst of job starts fits.
const BACKLOG: i32 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_has_exactly_its_mode_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        for wanted in [0o600, 0o660, 0o666] {
            let incoming = SocketIncoming::bind("s", &path, wanted).await.unwrap();
            assert_eq!(mode(&path), wanted);
            drop(incoming);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());

        let _living = SocketIncoming::bind("s", &path, 0o600).await.unwrap();
        let second = SocketIncoming::bind("s", &path, 0o600).await;

        assert!(matches!(second, Err(SocketError::InUse { .. })));
        assert!(path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for path in [&path, &link] {
            let refused = SocketIncoming::bind("s", path, 0o600).await;
            assert!(matches!(refused, Err(SocketError::NotASocket { .. })));
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_successors_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let old = SocketIncoming::bind("s", &path, 0o600).await.unwrap();
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        let _new = SocketIncoming::bind("s", &path, 0o600).await.unwrap();
        drop(old);
        assert!(path.exists());
    }
}
