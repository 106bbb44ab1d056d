//! The HTTP surface: one address per container.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the health and metrics pages are made of.
pub trait Health: Send + Sync + 'static {
    /// `Err` says, in a few words, what it is waiting for.
    fn ready(&self) -> Result<(), String>;
    /// The Prometheus text format.
    fn metrics(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>>;
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "listen on {address} for health and metrics; is the port in use? Set WATCHER_LISTEN to another address"
)]
pub struct ListenError {
    /// The address.
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Binds the address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// Serves `/live`, `/ready` and `/metrics` until `stop`.
pub async fn serve(
    listener: TcpListener,
    health: Arc<dyn Health>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    // Clients that dawdle must not hold up the shutdown.
    tokio::select! {
        result = axum::serve(listener, router) => result,
        () = stop.cancelled() => Ok(()),
    }
}

async fn ready(State(health): State<Arc<dyn Health>>) -> Response {
    match health.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(waiting_for) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {waiting_for}\n"),
        )
            .into_response(),
    }
}

async fn metrics(State(health): State<Arc<dyn Health>>) -> Response {
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        health.metrics().await,
    )
        .into_response()
}
