//! All services on one set of routes, and one HTTP/2 server per listener.

use std::io;
use std::time::Duration;

use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::service::{InterceptorLayer, Routes};
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tower::Layer as _;

use super::Face;
use super::reflect::{self, MayReflect};
use crate::pb::connections_server::ConnectionsServer;
use crate::pb::credential_broker_server::CredentialBrokerServer;
use crate::pb::integrations_server::IntegrationsServer;
use crate::pb::operations_server::OperationsServer;
use crate::tls::Connection;

/// What bounds one connection.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// A certificate that was revoked or expired stays in use at most this long (threat T20).
    pub connection_age_max: Duration,
}

/// The routes, and the handle by which health is told.
pub fn services(face: &Face) -> (Routes, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let may_reflect = InterceptorLayer::new(MayReflect(face.policy.clone()));
    let v1 = reflect::builder().build_v1().expect("the descriptors were compiled into this program");
    let v1alpha =
        reflect::builder().build_v1alpha().expect("the descriptors were compiled into this program");
    let routes = Routes::new(health)
        .add_service(may_reflect.layer(v1))
        .add_service(may_reflect.layer(v1alpha))
        .add_service(CredentialBrokerServer::new(face.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(ConnectionsServer::new(face.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(IntegrationsServer::new(face.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(OperationsServer::new(face.clone()).max_decoding_message_size(REQUEST_BYTES_MAX));
    (routes, reporter)
}

/// Serves the routes to what a listener accepts, until told to stop; then finishes what is in flight.
pub async fn serve(
    routes: Routes,
    limits: ServerLimits,
    incoming: impl Stream<Item = Result<Connection, io::Error>>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_WITHIN))
        .max_connection_age(limits.connection_age_max)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}

/// The largest request is an import of a few items.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Per connection; an IDE backend has one connection for many people.
const STREAMS_MAX: u32 = 256;
const HEADER_BYTES_MAX: u32 = 8 * 1024;
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(10);
