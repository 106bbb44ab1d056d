//! HTTP/2 on a connection, by hyper. What ends the whole connection is asked for by a stream and carried out here, on the
//! socket that hyper has let go of.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::stream;
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::answer::Request;
use super::choice::{Fault, H2Fault, Point};
use super::http1::{Flow, arrival, fail, garbage, scripted};
use super::payload::Payload;
use super::record::lock;
use super::script::Script;
use super::server::Server;
use super::wire::{Peer, Wire};

const PIECE: usize = 16 << 10;
const BODY_KEPT_MAX: usize = 1 << 20;
const HALF_OF_ENDLESS: u64 = 64 << 10;
/// For hyper to send what it has been given, and the peer to read it.
const BEFORE_ENDING: Duration = Duration::from_millis(10);
/// Length 8, type GOAWAY, stream 0; last stream 0, NO_ERROR: no request was served (RFC 9113, section 6.8).
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The stream is to be reset.
#[derive(Debug, thiserror::Error)]
#[error("the script asks for a reset of the stream")]
struct StreamReset;

/// What a stream asks for the whole connection.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Fault(Fault),
    Goaway,
    Garbage,
}

type Body = UnsyncBoxBody<Bytes, StreamReset>;

/// Serves the connection to its end. `read`: what has been read of it already.
pub(super) async fn serve<S: Wire>(stream: S, read: Vec<u8>, peer: Peer, server: &Arc<Server>) {
    let shared = Arc::new(Mutex::new(Rewound {
        stream,
        read: read.into(),
    }));
    let (endings, mut asked) = mpsc::channel(1);
    let streams = Streams::default();
    let connection = {
        let server = Arc::clone(server);
        let service = service_fn(move |request| {
            let (server, peer, endings) = (Arc::clone(&server), peer.clone(), endings.clone());
            async move { respond(request, &peer, &server, endings).await }
        });
        http2::Builder::new(streams.clone())
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(Shared(Arc::clone(&shared))), service)
    };
    let ending = tokio::select! {
        ending = asked.recv() => ending,
        // Its end, or its error, is the peer's doing.
        _ = connection => None,
    };
    // Their futures may hold the set they are in: taken out of it, they end here.
    drop(std::mem::take(&mut *lock(&streams.0)));
    // hyper's half is gone by now, and this is the last.
    let Some(Ok(Rewound { mut stream, .. })) = Arc::into_inner(shared).map(Mutex::into_inner)
    else {
        return;
    };
    let ended = match ending {
        Some(Ending::Fault(fault)) => fail(&mut stream, fault).await,
        Some(Ending::Goaway) => last_words(&mut stream, &GOAWAY).await,
        Some(Ending::Garbage) => last_words(&mut stream, &garbage()).await,
        None => Ok(Flow::Close),
    };
    if let Ok(Flow::Close) = ended {
        let _ = stream.shutdown().await;
    }
}

async fn last_words<S: Wire>(stream: &mut S, bytes: &[u8]) -> io::Result<Flow> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    Ok(Flow::Close)
}

async fn respond(
    request: http::Request<Incoming>,
    peer: &Peer,
    server: &Server,
    endings: mpsc::Sender<Ending>,
) -> Result<Response<Body>, StreamReset> {
    let started = Instant::now();
    let request = read(request, peer, server).await;
    let (script, answer) = match server.about(&request) {
        Some(answer) => (Script::default(), answer),
        None => scripted(server, peer, &request, true),
    };
    if !script.latency.is_zero() {
        sleep_until((started + script.latency).into()).await;
    }
    let ending = match (script.h2, script.fault, script.garbage) {
        (Some(H2Fault::Reset), ..) => return Err(StreamReset),
        (Some(H2Fault::Goaway), ..) => Some(Ending::Goaway),
        (_, _, true) => Some(Ending::Garbage),
        // A head cannot be sent by halves: its frame is one.
        (_, Some((fault, Point::Accept | Point::Head)), _) => Some(Ending::Fault(fault)),
        _ => None,
    };
    if let Some(ending) = ending {
        return Ok(never(endings, ending).await);
    }
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let mut add = |name: &str, value: &str| {
        let pair = (
            http::HeaderName::try_from(name),
            http::HeaderValue::try_from(value),
        );
        if let (Ok(name), Ok(value)) = pair {
            headers.append(name, value);
        }
    };
    for (name, value) in &answer.headers {
        add(name, value);
    }
    if !script.latency.is_zero() {
        let millis = started.elapsed().as_secs_f64() * 1e3;
        add("server-timing", &format!("target;dur={millis:.3}"));
    }
    if let Some(length) = answer.content_length.filter(|_| answer.has_body()) {
        add("content-length", &length.to_string());
    }
    let has_body = request.method != http::Method::HEAD && answer.has_body();
    let payload = if has_body {
        answer.payload
    } else {
        Payload::default()
    };
    Ok(response.map(|()| body(script, payload, endings)))
}

/// Asks for the connection's ending, and waits for it.
async fn never<T>(endings: mpsc::Sender<Ending>, ending: Ending) -> T {
    // When one has been asked for already, that one comes.
    let _ = endings.try_send(ending);
    std::future::pending().await
}

async fn read(request: http::Request<Incoming>, peer: &Peer, server: &Server) -> Request {
    let (parts, mut incoming) = request.into_parts();
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    if !target.starts_with("/_") {
        let arrival = arrival(&parts.method, target, parts.version, peer);
        server.recorder.arrived(&arrival);
    }
    let owned = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    let mut request = Request {
        method: parts.method.clone(),
        version: parts.version,
        target: target.to_owned(),
        headers: parts.headers.iter().map(owned).collect(),
        body: Vec::new(),
    };
    while let Some(Ok(frame)) = incoming.frame().await {
        if let Ok(data) = frame.into_data() {
            let kept = data
                .len()
                .min(BODY_KEPT_MAX.saturating_sub(request.body.len()));
            request.body.extend_from_slice(&data[..kept]);
        }
    }
    request
}

/// The body as the script paces, cuts or ends it.
fn body(script: Script, mut payload: Payload, endings: mpsc::Sender<Ending>) -> Body {
    let fault = script
        .fault
        .filter(|(_, at)| matches!(at, Point::Body | Point::End));
    if let Some((_, Point::Body)) = fault {
        let half = payload.left().map_or(HALF_OF_ENDLESS, |left| left / 2);
        payload = payload.cut(half);
    }
    let wait = script.body_latency;
    let has_steps = fault.is_some() || script.body_pace.is_some() || !wait.is_zero();
    let pace = script.body_pace;
    let piece_max = pace.map_or(PIECE, |pace| pace.bytes as usize);
    let unfolded = stream::unfold((payload, wait), move |(mut payload, wait)| {
        let endings = endings.clone();
        async move {
            if has_steps && !wait.is_zero() {
                sleep(wait).await;
            }
            let Some(piece) = payload.next(piece_max) else {
                let (fault, _) = fault?;
                sleep(BEFORE_ENDING).await;
                return never(endings, Ending::Fault(fault)).await;
            };
            let wait = pace.map(|pace| pace.every).unwrap_or_default();
            Some((Ok::<_, StreamReset>(Frame::data(piece)), (payload, wait)))
        }
    });
    StreamBody::new(unfolded).boxed_unsync()
}

/// A stream of which some bytes have been read before.
struct Rewound<S> {
    stream: S,
    read: Bytes,
}

/// hyper's hold on the connection. Never contended: one task uses it.
struct Shared<S>(Arc<Mutex<Rewound<S>>>);

impl<S: Wire> AsyncRead for Shared<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut rewound = lock(&self.0);
        if rewound.read.is_empty() {
            return Pin::new(&mut rewound.stream).poll_read(cx, buffer);
        }
        let taken = rewound.read.len().min(buffer.remaining());
        buffer.put_slice(&rewound.read[..taken]);
        rewound.read.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: Wire> AsyncWrite for Shared<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut lock(&self.0).stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_shutdown(cx)
    }
}

/// Owns the tasks that hyper starts for the streams of one connection; they end with it.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let mut tasks = lock(&self.0);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}
