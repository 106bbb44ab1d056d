//! The HTTP surface: one address per container.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Connections at a time. Prometheus, an orchestrator and a person need a handful.
const CONNECTIONS_MAX: usize = 128;
/// The largest head that is read: hyper's smallest buffer.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// A client sends its head in so long.
const HEAD_READ_MAX: Duration = Duration::from_secs(5);
/// A client is through in so long, a metrics page of some 100 KiB included.
const EXCHANGE_MAX: Duration = Duration::from_secs(15);
/// After a connection that could not be taken.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

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
///
/// Anyone who reaches the address may ask, so nothing that a client does can hold more than its share: one request a
/// connection, with a head of at most [`HEAD_BYTES_MAX`]; its body is not read; asking and taking the answer must be
/// through in [`EXCHANGE_MAX`]. Of more than [`CONNECTIONS_MAX`] connections the oldest is cut: who floods the address
/// with silent ones cuts their own, and a probe of the orchestrator, which is done in a millisecond, still gets through.
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
    let mut open = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    by_age.retain(|connection| !connection.is_finished());
                    if by_age.len() >= CONNECTIONS_MAX
                        && let Some(oldest) = by_age.pop_front()
                    {
                        oldest.abort();
                    }
                    by_age.push_back(open.spawn(exchange(stream, router.clone())));
                }
                // Reset before it was taken, or no descriptor left: either passes.
                Err(_) => sleep(ACCEPT_AGAIN).await,
            },
            Some(_) = open.join_next() => {}
            // Clients that dawdle must not hold up the shutdown: dropping the set cuts them.
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// One request and its answer. What goes wrong with it is the client's.
async fn exchange(stream: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let _ = timeout(EXCHANGE_MAX, served).await;
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
