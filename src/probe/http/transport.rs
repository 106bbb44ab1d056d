//! What HTTP runs over: a socket, or TLS on one.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::domain::Failure;
use crate::net::meter::{Meter, MeteredIo};
use crate::net::tls::classify;

type Socket = MeteredIo<TcpStream>;

/// One type for both, so that what runs over it is compiled once.
pub(super) struct Transport {
    io: Io,
    /// Whether a write has failed for good.
    is_cut: bool,
}

enum Io {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>, TlsFault),
}

/// What went wrong with TLS after the handshake. TLS 1.3 servers refuse a client's certificate only then, and HTTP/2
/// makes plain text of the errors of what it runs over.
#[derive(Clone, Default, Debug)]
pub(super) struct TlsFault(Rc<Cell<Option<Failure>>>);

impl TlsFault {
    /// The fault, if there was one.
    pub(super) fn get(&self) -> Option<Failure> {
        self.0.get()
    }

    fn note<T>(&self, polled: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(error)) = polled
            && let Some(failure) = classify(error)
        {
            self.0.set(Some(failure));
        }
    }
}

impl Transport {
    /// In the clear.
    pub(super) fn plain(socket: Socket) -> Self {
        Self {
            io: Io::Plain(socket),
            is_cut: false,
        }
    }

    /// Through TLS.
    pub(super) fn tls(stream: TlsStream<Socket>) -> Self {
        Self {
            io: Io::Tls(Box::new(stream), TlsFault::default()),
            is_cut: false,
        }
    }

    /// From now on `meter` counts, and says what may be received.
    pub(super) fn set_meter(&mut self, meter: Rc<Meter>) {
        match &mut self.io {
            Io::Plain(io) => io.set_meter(meter),
            Io::Tls(io, _) => io.get_mut().0.set_meter(meter),
        }
    }

    /// Where faults of TLS will be noted, if there is TLS.
    pub(super) fn tls_fault(&self) -> Option<TlsFault> {
        match &self.io {
            Io::Plain(_) => None,
            Io::Tls(_, fault) => Some(fault.clone()),
        }
    }

    /// A server that refuses us says so, closes, and resets what we are still sending: its last words may be waiting
    /// to be read when the write fails. So once a connection is cut, writes lead nowhere and succeed; reading tells
    /// what there was to tell, and then the end.
    fn wrote<T>(&mut self, written: Poll<io::Result<T>>, all: T) -> Poll<io::Result<T>> {
        match &written {
            Poll::Ready(Err(error)) if is_cut(error) => {
                self.is_cut = true;
                Poll::Ready(Ok(all))
            }
            _ => {
                if let Io::Tls(_, fault) = &self.io {
                    fault.note(&written);
                }
                written
            }
        }
    }
}

fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io, fault) => {
                let read = Pin::new(io).poll_read(cx, buf);
                fault.note(&read);
                read
            }
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let transport = self.get_mut();
        if transport.is_cut {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = match &mut transport.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io, _) => Pin::new(io).poll_write(cx, buf),
        };
        transport.wrote(written, buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let transport = self.get_mut();
        let all = bufs.iter().map(|buf| buf.len()).sum();
        if transport.is_cut {
            return Poll::Ready(Ok(all));
        }
        let written = match &mut transport.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Tls(io, _) => Pin::new(io).poll_write_vectored(cx, bufs),
        };
        transport.wrote(written, all)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io, _) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let transport = self.get_mut();
        if transport.is_cut {
            return Poll::Ready(Ok(()));
        }
        let flushed = match &mut transport.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io, _) => Pin::new(io).poll_flush(cx),
        };
        transport.wrote(flushed, ())
    }

    /// Nothing: the socket resets when it is closed (see `net::connect`), so neither a FIN nor TLS's farewell would
    /// arrive before it, and two system calls a probe are saved.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
