//! HTTP/1 on one connection, driven by the probe that uses it: no task of its own, and no buffer while it waits.
//!
//! Bytes are read into the thread's [`Room`] and looked at there. What outlives a poll is a head that is not whole, and
//! what of a body came with its head.

mod framing;
mod head;

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(in crate::probe) use self::framing::ChunkError;
use self::framing::Framing;
pub(in crate::probe) use self::head::HeadError;
use super::head::Head;
use super::transport::Transport;
use crate::net::meter::Meter;
use crate::probe::fault::Stop;

/// Largest head of a response. Browsers and proxies take 8 to 256 KiB.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Read at once while the head is awaited: what is not the head's is copied.
const HEAD_READ_BYTES: usize = 8 * 1024;
/// Read at once of a body: what one connection may read in a turn of the loop (`net::meter`).
const ROOM_BYTES: usize = 64 * 1024;

/// Why there was no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(in crate::probe) enum Http1Error {
    /// The connection failed.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// It ended before the head did.
    #[error("the connection was closed before the head of the response was whole")]
    Closed,
    /// The head cannot be right.
    #[error("head of the response")]
    Head(#[from] HeadError),
    /// The head does not end.
    #[error("the head of the response is longer than {} KiB", HEAD_BYTES_MAX / 1024)]
    HeadTooLong,
    /// The body's chunks cannot be right.
    #[error("body of the response")]
    Chunk(#[from] ChunkError),
    /// The connection ended before the body did.
    #[error("the connection was closed before the body of the response was whole")]
    Truncated,
}

/// Room into which the connections of a thread read, one at a time and within one poll.
pub(in crate::probe) struct Room(RefCell<Box<[u8]>>);

impl Default for Room {
    fn default() -> Self {
        Self(RefCell::new(vec![0; ROOM_BYTES].into()))
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Room")
    }
}

/// Whether more of a body is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Appetite {
    More,
    Enough,
}

/// A connection that speaks HTTP/1. Dropping it closes it.
pub(super) struct Http1 {
    transport: Transport,
    /// Read, and not looked at or not understood yet.
    held: Vec<u8>,
    /// What is left of the body under way.
    framing: Framing,
    /// Whether another request may follow.
    keeps: bool,
}

/// A request on its way out.
struct Request {
    bytes: Vec<u8>,
    sent: usize,
    flushed: bool,
}

impl Http1 {
    /// On a connection over which nothing has been sent.
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            held: Vec::new(),
            framing: Framing::NONE,
            keeps: true,
        }
    }

    /// From now on `meter` counts, and says what may be received.
    pub(super) fn set_meter(&mut self, meter: Rc<Meter>) {
        self.transport.set_meter(meter);
    }

    /// Sends a request, head and body, and waits for the head of its response; answers before the answer are passed over.
    /// A server need not have read all of the request before it answers.
    pub(super) async fn ask(
        &mut self,
        request: Vec<u8>,
        is_head: bool,
        room: &Room,
    ) -> Result<Head, Stop> {
        let mut request = Request {
            bytes: request,
            sent: 0,
            flushed: false,
        };
        let head = poll_fn(|cx| {
            let sent = request.poll(&mut self.transport, cx)?;
            if sent.is_ready() {
                // Nothing is held while the answer is awaited.
                request.bytes = Vec::new();
                request.sent = 0;
            }
            let head = ready!(self.poll_head(cx, is_head, room))?;
            self.keeps &= sent.is_ready();
            Poll::Ready(Ok(head))
        });
        let head: Result<Head, Http1Error> = head.await;
        self.keeps &= head.is_ok();
        head.map_err(|error| {
            let tls = self.transport.tls_fault().and_then(|fault| fault.get());
            Stop::unanswered(&error, tls)
        })
    }

    /// Reads the body and hands it to `take`, piece by piece, until it ends or is enough; whether it was read to its end.
    pub(super) async fn read_body(
        &mut self,
        room: &Room,
        mut take: impl FnMut(&[u8]) -> Result<Appetite, Stop>,
    ) -> Result<bool, Stop> {
        let cut_off = |error: Http1Error| Stop::transfer(&error);
        poll_fn(|cx| {
            if !self.held.is_empty() {
                let held = std::mem::take(&mut self.held);
                if self.feed(&held, &mut take)? == Appetite::Enough {
                    return Poll::Ready(Ok(self.framing.is_complete()));
                }
            }
            while !self.framing.is_complete() {
                let mut room = room.0.borrow_mut();
                let count = ready!(self.poll_read(cx, &mut room)).map_err(cut_off)?;
                if count == 0 {
                    self.keeps = false;
                    return Poll::Ready(match self.framing {
                        Framing::ToTheEnd => Ok(true),
                        _ => Err(cut_off(Http1Error::Truncated)),
                    });
                }
                if self.feed(&room[..count], &mut take)? == Appetite::Enough {
                    break;
                }
            }
            Poll::Ready(Ok(self.framing.is_complete()))
        })
        .await
    }

    /// Whether another request may be sent: the server has promised to keep the connection, and has neither closed it nor
    /// said anything unasked since.
    pub(super) fn is_idle(&mut self) -> bool {
        if !self.keeps || !self.framing.is_complete() || !self.held.is_empty() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        self.keeps = self.poll_read(&mut cx, &mut [0; 1]).is_pending();
        self.keeps
    }

    fn feed(
        &mut self,
        mut input: &[u8],
        take: &mut impl FnMut(&[u8]) -> Result<Appetite, Stop>,
    ) -> Result<Appetite, Stop> {
        loop {
            let piece = self.framing.next(&mut input);
            let piece = piece.map_err(|error| Stop::transfer(&Http1Error::Chunk(error)))?;
            let Some(piece) = piece else { break };
            if take(piece)? == Appetite::Enough {
                self.keeps &= input.is_empty();
                return Ok(Appetite::Enough);
            }
        }
        // More than the body: an answer to nothing that was asked.
        self.keeps &= input.is_empty();
        Ok(Appetite::More)
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        is_head: bool,
        room: &Room,
    ) -> Poll<Result<Head, Http1Error>> {
        loop {
            let mut room = room.0.borrow_mut();
            let count = ready!(self.poll_read(cx, &mut room[..HEAD_READ_BYTES]))?;
            let input = &room[..count];
            if input.is_empty() {
                return Poll::Ready(Err(Http1Error::Closed));
            }
            let head = if self.held.is_empty() {
                self.take_head(input, is_head)?
            } else {
                self.held.extend_from_slice(input);
                // Without the end of a line there is nothing new to understand.
                if input.contains(&b'\n') {
                    let held = std::mem::take(&mut self.held);
                    self.take_head(&held, is_head)?
                } else {
                    None
                }
            };
            if let Some(head) = head {
                return Poll::Ready(Ok(head));
            }
            if self.held.len() >= HEAD_BYTES_MAX {
                return Poll::Ready(Err(Http1Error::HeadTooLong));
            }
        }
    }

    /// Takes the last head off `input`, and those of answers before it; the rest is held.
    fn take_head(&mut self, mut input: &[u8], is_head: bool) -> Result<Option<Head>, HeadError> {
        loop {
            let parsed = head::parse(input, is_head)?;
            let Some(parsed) = parsed else {
                self.held = input.to_vec();
                return Ok(None);
            };
            input = &input[parsed.bytes..];
            if !parsed.is_interim() {
                self.held = input.to_vec();
                self.framing = parsed.framing;
                self.keeps &= parsed.keeps;
                return Ok(Some(parsed.head));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize, Http1Error>> {
        let mut buf = ReadBuf::new(into);
        let read = Pin::new(&mut self.transport).poll_read(cx, &mut buf);
        ready!(read).map_err(Http1Error::Io)?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl Request {
    /// Sends what is left; ready when all is sent.
    fn poll(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Http1Error>> {
        while let Some(left @ [_, ..]) = self.bytes.get(self.sent..) {
            let sent = Pin::new(&mut *transport).poll_write(cx, left);
            let sent = ready!(sent).map_err(Http1Error::Io)?;
            if sent == 0 {
                let error = io::ErrorKind::WriteZero.into();
                return Poll::Ready(Err(Http1Error::Io(error)));
            }
            self.sent += sent;
        }
        if !self.flushed {
            ready!(Pin::new(transport).poll_flush(cx)).map_err(Http1Error::Io)?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
