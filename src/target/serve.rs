//! Listening sockets, and the threads that serve them: each thread has a runtime and sockets of its own, so that
//! connections never move between threads.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::server::Server;
use super::tls::{self, Tls};
use super::variant::Variant;
use super::wire::Peer;
use super::{http1, http2};

/// The kernel cuts it to `net.core.somaxconn`, usually 4 096: one second of new connections at that rate may wait.
const BACKLOG: i32 = 8_192;
/// After an accept for which there is no descriptor.
const NO_DESCRIPTOR_WAIT: Duration = Duration::from_millis(10);
/// How old a line of the log file may get before the file has it.
const LOG_FLUSH: Duration = Duration::from_millis(200);

/// What a socket speaks.
#[derive(Clone)]
pub(super) enum Speaks {
    Http,
    /// The variant, where the port and not the name decides.
    Https(Arc<Tls>, Option<Variant>),
}

/// A listening socket and what it speaks.
pub(super) struct Listener {
    pub(super) socket: StdListener,
    pub(super) speaks: Speaks,
}

/// `shared`: further sockets are to be bound to the same port by other threads.
pub(super) fn bind(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // On Linux accepted sockets inherit it, which saves a system call each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One thread's work, until `stop`. Everything that it started ends with it.
pub(super) fn run(
    listeners: Vec<Listener>,
    server: &Arc<Server>,
    stop: &CancellationToken,
) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for Listener { socket, speaks } in listeners {
            let listener = TcpListener::from_std(socket)?;
            tasks.spawn(accept(listener, speaks, Arc::clone(server)));
        }
        tasks.spawn(flush_log(Arc::clone(server)));
        stop.cancelled().await;
        Ok(())
    })
}

/// Owns the connections of one socket.
async fn accept(listener: TcpListener, speaks: Speaks, server: Arc<Server>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let server = Arc::clone(&server);
                match &speaks {
                    Speaks::Http => connections.spawn(serve_http(stream, peer.port(), server)),
                    Speaks::Https(tls, variant) => {
                        let (tls, variant) = (Arc::clone(tls), *variant);
                        connections.spawn(serve_https(stream, peer.port(), server, tls, variant))
                    }
                };
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => sleep(NO_DESCRIPTOR_WAIT).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_http(stream: TcpStream, port: u16, server: Arc<Server>) {
    http1::serve(stream, Peer { port, sni: None }, &server).await;
}

async fn serve_https(
    stream: TcpStream,
    port: u16,
    server: Arc<Server>,
    tls: Arc<Tls>,
    variant: Option<Variant>,
) {
    // Boxed: the handshake's state is large, and gone when HTTP begins.
    let Some((stream, sni)) = Box::pin(tls.accept(stream, variant)).await else {
        return;
    };
    let peer = Peer { port, sni };
    if tls::chose_http2(&stream) {
        Box::pin(http2::serve(stream, Vec::new(), peer, &server)).await;
    } else {
        http1::serve(stream, peer, &server).await;
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

async fn flush_log(server: Arc<Server>) {
    let mut ticks = interval(LOG_FLUSH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed_before = false;
    loop {
        ticks.tick().await;
        let flushed = server.recorder.flush();
        if let Err(error) = &flushed
            && !failed_before
        {
            let error: &dyn std::error::Error = error;
            tracing::warn!(error, "the target's log lacks lines");
        }
        failed_before = flushed.is_err();
    }
}
