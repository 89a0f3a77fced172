//! Probes and metrics, on a listener of their own. No tenant data: counts and states alone.
//!
//! `/livez`: the process answers. `/readyz`: it can release, which needs the audit (P3); a store that
//! is away costs no read of what is held (P6), so it does not take readiness with it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;

/// What the probes look at.
#[derive(Clone)]
pub struct Admin {
    pub audit: Audit,
    pub metrics: Arc<Registry>,
    /// Cancelled when the process drains: no longer ready, still alive.
    pub draining: CancellationToken,
}

/// Serves the probes until told to stop.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    if !admin.audit.is_healthy() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the audit cannot be written\n");
    }
    (StatusCode::OK, "ready\n")
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let mut body = String::new();
    match text::encode(&mut body, &admin.metrics) {
        Ok(()) => ([(CONTENT_TYPE, CONTENT)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
