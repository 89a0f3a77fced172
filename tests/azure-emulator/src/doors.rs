//! The listeners: the CONNECT proxy, HTTPS, the browser's port and the control port.
//!
//! Invariants:
//!
//! 1. The proxy connects to nothing. It answers for the hosts in [`crate::hosts`] and refuses
//!    the others with 403.
//! 2. The control API is not reachable through the proxy.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::call::{Answer, Call, Door, text};
use crate::dispatch;
use crate::hosts;
use crate::state::Shared;

#[derive(Clone)]
pub(crate) struct Doors {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tls: TlsAcceptor,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Doors {
    /// Takes connections until stopped. A connection's task ends with the stop, too.
    pub(crate) async fn serve(self, listener: TcpListener, door: Door) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            // A failed accept concerns one client; the next one may be well.
            let Ok((stream, _)) = accepted else { continue };
            let _ = stream.set_nodelay(true);
            let doors = self.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = doors.stop.cancelled() => {}
                    // What goes wrong on a connection is the client's to see.
                    _ = doors.connection(stream, door) => {}
                }
            });
        }
    }

    async fn connection(&self, stream: tokio::net::TcpStream, door: Door) -> io::Result<()> {
        match door {
            Door::Https => {
                let stream = self.tls.accept(stream).await?;
                self.answer_all(TokioIo::new(stream), door, None).await
            }
            Door::Proxy => self.proxy(TokioIo::new(stream)).await,
            Door::Browser | Door::Control => self.answer_all(TokioIo::new(stream), door, None).await,
        }
    }

    async fn proxy(&self, stream: TokioIo<tokio::net::TcpStream>) -> io::Result<()> {
        let service =
            service_fn(
                |request: Request<Incoming>| async move { Ok::<_, Infallible>(self.connect(request)) },
            );
        hyper::server::conn::http1::Builder::new()
            .serve_connection(stream, service)
            .with_upgrades()
            .await
            .map_err(io::Error::other)
    }

    /// The answer to a request to the proxy itself.
    fn connect(&self, request: Request<Incoming>) -> Answer {
        let authority = request.uri().authority().map(|name| name.as_str().to_lowercase());
        let authority = authority.unwrap_or_default();
        let host = authority.strip_suffix(":443").filter(|host| hosts::role(host).is_some());
        let (&Method::CONNECT, Some(host)) = (request.method(), host) else {
            let mut call = Call::new(Door::Proxy, &authority, request.method().clone(), request.uri().path());
            dispatch::record(&self.shared, &mut call);
            self.shared.state().log.answered(call.n, 403);
            return text(403, "this proxy leads only to the hosts it plays itself\n");
        };
        let (host, doors) = (host.to_owned(), self.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = doors.stop.cancelled() => {}
                _ = doors.tunnel(request, host) => {}
            }
        });
        Answer::new(Body::empty())
    }

    async fn tunnel(&self, request: Request<Incoming>, host: String) -> io::Result<()> {
        let stream = hyper::upgrade::on(request).await.map_err(io::Error::other)?;
        let stream = self.tls.accept(TokioIo::new(stream)).await?;
        self.answer_all(TokioIo::new(stream), Door::Proxy, Some(&host)).await
    }

    /// Answers the requests of one connection. `host` is where it was tunnelled to.
    async fn answer_all<S>(&self, stream: S, door: Door, host: Option<&str>) -> io::Result<()>
    where
        S: Read + Write + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| async move {
            Ok::<_, Infallible>(self.one(request, door, host).await)
        });
        hyper::server::conn::http1::Builder::new()
            .serve_connection(stream, service)
            .await
            .map_err(io::Error::other)
    }

    async fn one(&self, request: Request<Incoming>, door: Door, tunnel: Option<&str>) -> Answer {
        let (parts, body) = request.into_parts();
        let named = parts.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
        let named = named.rsplit_once(':').map_or(named, |(host, _)| host).to_lowercase();
        if tunnel.is_some_and(|tunnel| tunnel != named) {
            return text(421, "this connection leads to another host\n");
        }
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            return text(413, "the request is too large\n");
        };
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut call = Call::new(door, &named, parts.method, target);
        call.headers = parts.headers;
        call.body = body.to_bytes();
        dispatch::answer(&self.shared, call).await
    }
}

/// Uploads are kept in memory; a push larger than this has no place in a test.
const MAX_BODY: usize = 64 * 1024 * 1024;
