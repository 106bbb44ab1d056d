//! HTTP/2 on one connection: its tasks, and what the probe holds of them.
//!
//! By h2 itself: hyper's client would add a queue of 9 KB a connection and keep the reason for an end to itself.

use std::future::poll_fn;
use std::rc::Rc;

use ::http::Request;
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Error, RecvStream};
use tokio::task::{AbortHandle, spawn_local};

use super::head::Head;
use super::http1::Appetite;
use super::transport::{TlsFault, Transport};
use crate::net::meter::{Meter, Metered};
use crate::probe::fault::Stop;

/// Largest list of fields in the head of a response.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// What a server may send ahead of our reading.
const WINDOW_BYTES: u32 = 64 * 1024;

/// A connection that speaks HTTP/2. Dropping it closes it.
pub(super) struct Http2 {
    sender: SendRequest<Bytes>,
    /// Reads and writes for all streams, until the connection ends.
    driver: AbortHandle,
    tls_fault: Option<TlsFault>,
    body: Option<RecvStream>,
}

impl Http2 {
    /// Starts it. The polls of its task are counted by `meter`.
    pub(super) async fn start(transport: Transport, meter: Rc<Meter>) -> Result<Self, Stop> {
        let tls_fault = transport.tls_fault();
        let handshake = Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX)
            .enable_push(false)
            .handshake(transport);
        let (sender, connection) = handshake
            .await
            .map_err(|error| unanswered(&error, tls_fault.as_ref()))?;
        let driver = Metered::new(Box::pin(connection), meter);
        Ok(Self {
            sender,
            driver: spawn_local(driver).abort_handle(),
            tls_fault,
            body: None,
        })
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn ask(&mut self, request: Request<Bytes>) -> Result<Head, Stop> {
        match self.exchange(request).await {
            Ok(head) => Ok(head),
            Err(error) => Err(unanswered(&error, self.tls_fault.as_ref())),
        }
    }

    async fn exchange(&mut self, request: Request<Bytes>) -> Result<Head, Error> {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, ());
        poll_fn(|cx| self.sender.poll_ready(cx)).await?;
        let (response, mut stream) = self.sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(body, true)?;
        }
        let (parts, body) = response.await?.into_parts();
        self.body = Some(body);
        Ok(Head::of_http2(parts.status, &parts.headers))
    }

    /// Reads the body and hands it to `take`, piece by piece, until it ends or is enough; whether it was read to its end.
    pub(super) async fn read_body(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<Appetite, Stop>,
    ) -> Result<bool, Stop> {
        let cut_off = |error: Error| Stop::transfer(&error);
        let Some(mut body) = self.body.take() else {
            return Ok(true);
        };
        while !body.is_end_stream() {
            let Some(piece) = body.data().await else {
                break;
            };
            let piece = piece.map_err(cut_off)?;
            body.flow_control()
                .release_capacity(piece.len())
                .map_err(cut_off)?;
            if take(&piece)? == Appetite::Enough {
                return Ok(body.is_end_stream());
            }
        }
        Ok(true)
    }

    /// Waits until it takes a request; whether it does.
    pub(super) async fn is_usable(&mut self) -> bool {
        let is_ready = poll_fn(|cx| self.sender.poll_ready(cx)).await.is_ok();
        is_ready && !self.is_closed()
    }

    /// Whether its connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }
}

fn unanswered(error: &Error, tls: Option<&TlsFault>) -> Stop {
    Stop::unanswered(error, tls.and_then(TlsFault::get))
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
