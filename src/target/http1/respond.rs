//! Carrying a script out over HTTP/1, byte by byte, since half of what it may ask for is what no HTTP library sends.

use std::io;
use std::io::Write as _;
use std::time::{Duration, Instant};

use http::{Method, StatusCode, Version};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::super::answer::{Answer, Request};
use super::super::choice::{Fault, Point};
use super::super::payload::Payload;
use super::super::script::Script;
use super::super::value::Pace;
use super::super::wire::Wire;

/// One write of a body.
const PIECE: usize = 64 << 10;
/// A head and a body up to this size leave in one write.
const TOGETHER_MAX: u64 = 64 << 10;
/// What an endless body sends before a fault inside it.
const HALF_OF_ENDLESS: u64 = 64 << 10;
/// Between the last bytes and a reset, so that the peer can read them: a reset may discard what is on its way.
const BEFORE_RESET: Duration = Duration::from_millis(10);

/// What becomes of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Flow {
    KeepAlive,
    /// In order: `close_notify`, FIN.
    Close,
    /// At once, as the socket is.
    Drop,
}

/// How the pieces of a body go on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framed {
    Bare,
    Chunked,
}

/// The head of an answer, up to and with its empty line.
pub(super) fn head(
    answer: &Answer,
    version: Version,
    keep_alive: bool,
    server_timing: Option<Duration>,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    let reason = StatusCode::from_u16(answer.status)
        .ok()
        .and_then(|status| status.canonical_reason());
    let status = answer.status;
    let reason = reason.unwrap_or("Unknown");
    // Writing to a vector cannot fail.
    let _ = write!(head, "HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in &answer.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if let Some(elapsed) = server_timing {
        let millis = elapsed.as_secs_f64() * 1e3;
        let _ = write!(head, "server-timing: target;dur={millis:.3}\r\n");
    }
    match answer.content_length {
        _ if !answer.has_body() => {}
        Some(length) => {
            let _ = write!(head, "content-length: {length}\r\n");
        }
        None if version == Version::HTTP_11 => {
            head.extend_from_slice(b"transfer-encoding: chunked\r\n")
        }
        None => {}
    }
    if !keep_alive {
        head.extend_from_slice(b"connection: close\r\n");
    } else if version == Version::HTTP_10 {
        head.extend_from_slice(b"connection: keep-alive\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Sends `answer` with whatever `script` makes of it. `started`: when the request's head had been read.
pub(super) async fn respond<S: Wire>(
    stream: &mut S,
    script: &Script,
    request: &Request,
    answer: Answer,
    keep_alive: bool,
    started: Instant,
) -> io::Result<Flow> {
    if !script.latency.is_zero() {
        tokio::time::sleep_until((started + script.latency).into()).await;
    }
    let fault_at = |point| {
        script
            .fault
            .filter(|(_, at)| *at == point)
            .map(|(fault, _)| fault)
    };
    if let Some(fault) = fault_at(Point::Accept) {
        return fail(stream, fault).await;
    }
    if script.garbage {
        stream.write_all(&garbage()).await?;
        return Ok(Flow::Close);
    }
    if script.http09 {
        write_body(stream, answer.payload, script.body_pace, Framed::Bare).await?;
        return Ok(Flow::Close);
    }
    write_continues(stream, script.continues).await?;

    let has_body = request.method != Method::HEAD && answer.has_body();
    let has_length = answer.content_length.is_some();
    let framed = match request.version {
        Version::HTTP_11 if has_body && !has_length => Framed::Chunked,
        _ => Framed::Bare,
    };
    let ends_by_close = has_body && !has_length && framed == Framed::Bare;
    let keep_alive =
        keep_alive && !script.connection_close && script.lie.is_none() && !ends_by_close;
    let timing = (!script.latency.is_zero()).then(|| started.elapsed());
    let mut bytes = head(&answer, request.version, keep_alive, timing);
    if let Some(fault) = fault_at(Point::Head) {
        bytes.truncate(bytes.len() / 2);
        write_head(stream, &bytes, script).await?;
        return fail(stream, fault).await;
    }
    let mut payload = if has_body {
        answer.payload
    } else {
        Payload::default()
    };
    let fault_in_body = fault_at(Point::Body);
    if fault_in_body.is_some() {
        let half = payload.left().map_or(HALF_OF_ENDLESS, |left| left / 2);
        payload = payload.cut(half);
    }
    let has_steps = script.body_pace.is_some() || !script.body_latency.is_zero();
    let is_short = payload.left().is_some_and(|left| left <= TOGETHER_MAX);
    if framed == Framed::Bare && is_short && !has_steps {
        bytes.append(&mut payload.collected());
        write_head(stream, &bytes, script).await?;
    } else {
        write_head(stream, &bytes, script).await?;
        if !script.body_latency.is_zero() {
            sleep(script.body_latency).await;
        }
        write_body(stream, payload, script.body_pace, framed).await?;
        if framed == Framed::Chunked && fault_in_body.is_none() {
            stream.write_all(b"0\r\n\r\n").await?;
            stream.flush().await?;
        }
    }
    match fault_in_body.or(fault_at(Point::End)) {
        Some(fault) => fail(stream, fault).await,
        None if keep_alive => Ok(Flow::KeepAlive),
        None => Ok(Flow::Close),
    }
}

/// Lets the connection end as `fault` says.
pub(in super::super) async fn fail<S: Wire>(stream: &mut S, fault: Fault) -> io::Result<Flow> {
    match fault {
        Fault::Reset => {
            sleep(BEFORE_RESET).await;
            SockRef::from(stream.tcp()).set_linger(Some(Duration::ZERO))?;
        }
        Fault::Close => {}
        Fault::Hang => until_peer_leaves(stream).await?,
    }
    Ok(Flow::Drop)
}

/// 1 KiB that no version of HTTP begins with.
pub(in super::super) fn garbage() -> [u8; 1_024] {
    std::array::from_fn(|at| (at as u8).wrapping_mul(167) ^ 0xa5)
}

/// Reads and forgets.
pub(super) async fn until_peer_leaves<S: Wire>(stream: &mut S) -> io::Result<()> {
    let mut ignored = [0; 256];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

async fn write_continues<S: Wire>(stream: &mut S, count: u32) -> io::Result<()> {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    const BATCH: u32 = 512;
    let batch = CONTINUE.repeat(count.min(BATCH) as usize);
    let mut left = count as usize;
    while left > 0 {
        let now = left.min(BATCH as usize);
        stream.write_all(&batch[..now * CONTINUE.len()]).await?;
        stream.flush().await?;
        left -= now;
    }
    Ok(())
}

/// The head, with what may follow it, at the script's pace.
async fn write_head<S: Wire>(stream: &mut S, bytes: &[u8], script: &Script) -> io::Result<()> {
    let first_line = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let (first, rest) = if script.head_latency.is_zero() {
        (&[][..], bytes)
    } else {
        bytes.split_at(first_line)
    };
    if !first.is_empty() {
        write_paced(stream, first, script.head_pace).await?;
        sleep(script.head_latency).await;
    }
    write_paced(stream, rest, script.head_pace).await
}

async fn write_paced<S: Wire>(stream: &mut S, bytes: &[u8], pace: Option<Pace>) -> io::Result<()> {
    let Some(pace) = pace else {
        stream.write_all(bytes).await?;
        return stream.flush().await;
    };
    for piece in bytes.chunks(pace.bytes as usize) {
        stream.write_all(piece).await?;
        stream.flush().await?;
        sleep(pace.every).await;
    }
    Ok(())
}

async fn write_body<S: Wire>(
    stream: &mut S,
    mut payload: Payload,
    pace: Option<Pace>,
    framed: Framed,
) -> io::Result<()> {
    let piece_max = pace.map_or(PIECE, |pace| pace.bytes as usize);
    while let Some(piece) = payload.next(piece_max) {
        if framed == Framed::Chunked {
            let size = format!("{:x}\r\n", piece.len());
            stream.write_all(size.as_bytes()).await?;
            stream.write_all(&piece).await?;
            stream.write_all(b"\r\n").await?;
        } else {
            stream.write_all(&piece).await?;
        }
        stream.flush().await?;
        if let Some(pace) = pace
            && payload.left() != Some(0)
        {
            sleep(pace.every).await;
        }
    }
    Ok(())
}
