//! HTTP/1 on a connection: requests one after the other, the constant answer straight from memory, scripts by `respond`.
//!
//! Hands the connection to `http2` when the client begins with that version's preface.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

mod head;
mod respond;

use head::{Framing, HEAD_MAX, Head};
pub(super) use respond::{Flow, fail, garbage};

use super::answer::{Answer, Request};
use super::http2;
use super::record::Arrival;
use super::script::Script;
use super::server::Server;
use super::wire::{Peer, Wire};

/// The first read of a connection: a usual head fits, and 10 000 idle connections stay below 20 MB.
const BUFFER: usize = 2_048;
/// How long a refused peer may go on sending.
const REFUSED_LINGER: Duration = Duration::from_secs(1);
/// How HTTP/2 begins in the clear.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Serves the connection to its end. Errors of the connection end it: the peer is the one under test, and may do as it
/// likes.
pub(super) async fn serve<S: Wire>(mut stream: S, peer: Peer, server: &Arc<Server>) {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let head_length = match read_head(&mut stream, &mut buffer).await {
            Ok(ReadHead::Complete(length)) => length,
            Ok(ReadHead::Preface) => {
                return Box::pin(http2::serve(stream, buffer, peer, server)).await;
            }
            Ok(ReadHead::TooLong) => {
                let _ = refuse(&mut stream, 431, "the head is longer than 64 KiB\n").await;
                return;
            }
            Ok(ReadHead::End) | Err(_) => return,
        };
        let Some(head) = Head::parse(&buffer[..head_length]) else {
            let _ = refuse(&mut stream, 400, "this is no HTTP/1 request\n").await;
            return;
        };
        let flow = match ready(server, &peer, &head) {
            Some((bytes, flow)) => {
                buffer.drain(..head_length);
                stream.write_all(&bytes).await.map(|()| flow)
            }
            // Boxed: a connection that needs none of it should not carry its state.
            None => {
                Box::pin(exchange(
                    &mut stream,
                    &mut buffer,
                    head_length,
                    &peer,
                    server,
                ))
                .await
            }
        };
        match flow {
            Ok(Flow::KeepAlive) => {}
            Ok(Flow::Close) if !S::ENDS_BY_DROP => {
                let _ = stream.shutdown().await;
                return;
            }
            Ok(Flow::Close | Flow::Drop) | Err(_) => return,
        }
    }
}

/// The whole answer to a GET over HTTP/1.1.
pub(super) fn rendered(answer: Answer) -> Bytes {
    let mut bytes = respond::head(&answer, Version::HTTP_11, true, None);
    bytes.append(&mut answer.payload.collected());
    bytes.into()
}

/// The constant answer, if that is what the request gets.
fn ready(server: &Server, peer: &Peer, head: &Head<'_>) -> Option<(Bytes, Flow)> {
    let is_plain = head.method == Method::GET
        && head.version == Version::HTTP_11
        && head.framing == Framing::None
        && !head.target.starts_with("/_");
    if !is_plain {
        return None;
    }
    let bytes = server.plan(head.target).ok()?.ready.clone()?;
    server
        .recorder
        .arrived(&arrival(&head.method, head.target, head.version, peer));
    let flow = if head.keep_alive {
        Flow::KeepAlive
    } else {
        Flow::Close
    };
    Some((bytes, flow))
}

/// One request, read whole, and its answer by the script.
async fn exchange<S: Wire>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    head_length: usize,
    peer: &Peer,
    server: &Server,
) -> io::Result<Flow> {
    let started = Instant::now();
    let head = Head::parse(&buffer[..head_length]).ok_or(io::ErrorKind::InvalidData)?;
    let (framing, keep_alive) = (head.framing, head.keep_alive);
    let expects_continue = head.expects_continue;
    let mut request = head.to_request();
    buffer.drain(..head_length);

    let about = server.about(&request);
    if about.is_none() {
        let arrival = arrival(&request.method, &request.target, request.version, peer);
        server.recorder.arrived(&arrival);
    }
    if expects_continue && framing != Framing::None && buffer.is_empty() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        stream.flush().await?;
    }
    request.body = head::read_body(stream, buffer, framing).await?;
    let (script, answer) = match about {
        Some(answer) => (Script::default(), answer),
        None => scripted(server, peer, &request, false),
    };
    respond::respond(stream, &script, &request, answer, keep_alive, started).await
}

/// The script that holds for `request`, and its answer; a plain 400 when the query is none.
pub(super) fn scripted(
    server: &Server,
    peer: &Peer,
    request: &Request,
    over_http2: bool,
) -> (Script, Answer) {
    let plan = match server.plan(&request.target) {
        Ok(plan) => plan,
        Err(error) => return (Script::default(), Answer::text(400, format!("{error}\n"))),
    };
    if let Some(key) = plan.script.misplaced(over_http2) {
        let version = if over_http2 { "HTTP/1" } else { "HTTP/2" };
        let text = format!("`{key}` works over {version} only\n");
        return (Script::default(), Answer::text(400, text));
    }
    let script = server.script_for_turn(&plan, &request.target);
    let answer = Answer::scripted(&script, request, peer.sni.as_deref(), peer.port);
    (script, answer)
}

pub(super) fn arrival<'a>(
    method: &'a Method,
    target: &'a str,
    version: Version,
    peer: &'a Peer,
) -> Arrival<'a> {
    Arrival {
        method,
        target,
        sni: peer.sni.as_ref(),
        port: peer.port,
        version,
    }
}

enum ReadHead {
    /// So many bytes of the buffer.
    Complete(usize),
    /// Of HTTP/2.
    Preface,
    TooLong,
    /// The peer closed between requests, or within a head.
    End,
}

async fn read_head<S: Wire>(stream: &mut S, buffer: &mut Vec<u8>) -> io::Result<ReadHead> {
    loop {
        if let Some(length) = head::head_end(buffer) {
            let is_preface = buffer.starts_with(H2_PREFACE);
            return Ok(if is_preface {
                ReadHead::Preface
            } else {
                ReadHead::Complete(length)
            });
        }
        if buffer.len() > HEAD_MAX {
            return Ok(ReadHead::TooLong);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(ReadHead::End);
        }
    }
}

async fn refuse<S: Wire>(stream: &mut S, status: u16, text: &'static str) -> io::Result<()> {
    let answer = Answer::text(status, text);
    let mut bytes = respond::head(&answer, Version::HTTP_11, false, None);
    bytes.append(&mut answer.payload.collected());
    stream.write_all(&bytes).await?;
    stream.shutdown().await?;
    // A close with bytes unread would be a reset, which may overtake the answer.
    let _ = timeout(REFUSED_LINGER, respond::until_peer_leaves(stream)).await;
    Ok(())
}
