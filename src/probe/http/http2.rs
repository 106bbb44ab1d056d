//! HTTP/2 on one connection, by hyper: its tasks, and what the probe holds of them.

use std::cell::RefCell;
use std::rc::Rc;

use ::http::Request;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::task::{JoinSet, yield_now};

use super::head::Head;
use super::http1::Appetite;
use super::request::Body;
use super::transport::{TlsFault, Transport};
use crate::net::meter::{Meter, Metered};
use crate::probe::fault::Stop;

/// Largest list of fields in the head of a response.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// What a server may send ahead of our reading.
const WINDOW_BYTES: u32 = 64 * 1024;

/// A connection that speaks HTTP/2. Dropping it closes it.
pub(super) struct Http2 {
    sender: SendRequest<Body>,
    tasks: Tasks,
    tls_fault: Option<TlsFault>,
    body: Option<Incoming>,
}

impl Http2 {
    /// Starts it. Its tasks' polls are counted by `meter`.
    pub(super) async fn start(transport: Transport, meter: Rc<Meter>) -> Result<Self, Stop> {
        let tls_fault = transport.tls_fault();
        let tasks = Tasks::new(meter);
        let handshake = Builder::new(tasks.clone())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(transport));
        let (sender, connection) = handshake
            .await
            .map_err(|error| unanswered(&error, tls_fault.as_ref()))?;
        let ended = Rc::clone(&tasks.ended_by);
        tasks.execute(async move { *ended.borrow_mut() = connection.await.err() });
        Ok(Self {
            sender,
            tasks,
            tls_fault,
            body: None,
        })
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn ask(&mut self, request: Request<Body>) -> Result<Head, Stop> {
        match self.sender.send_request(request).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                self.body = Some(body);
                Ok(Head::of_http2(parts.status, &parts.headers))
            }
            Err(error) => Err(self.explain(error).await),
        }
    }

    async fn explain(&self, error: hyper::Error) -> Stop {
        let mut error = error;
        if error.is_canceled() || error.is_closed() {
            // The driver may end in the same turn, after its sender.
            yield_now().await;
            error = self.tasks.ended_by.take().unwrap_or(error);
        }
        unanswered(&error, self.tls_fault.as_ref())
    }

    /// Reads the body and hands it to `take`, piece by piece, until it ends or is enough; whether it was read to its end.
    pub(super) async fn read_body(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<Appetite, Stop>,
    ) -> Result<bool, Stop> {
        let Some(mut body) = self.body.take() else {
            return Ok(true);
        };
        while !body.is_end_stream() {
            let Some(frame) = body.frame().await else {
                break;
            };
            let frame = frame.map_err(|error| Stop::transfer(&error))?;
            let Some(piece) = frame.data_ref() else {
                continue;
            };
            if take(piece)? == Appetite::Enough {
                return Ok(body.is_end_stream());
            }
        }
        Ok(true)
    }

    /// Waits until it takes a request; whether it does.
    pub(super) async fn is_usable(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Whether the server has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

fn unanswered(error: &hyper::Error, tls: Option<&TlsFault>) -> Stop {
    Stop::unanswered(error, tls.and_then(TlsFault::get))
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.tasks.set.borrow_mut().abort_all();
    }
}

/// Runs the tasks of a connection on this thread and counts their polls.
#[derive(Clone)]
struct Tasks {
    set: Rc<RefCell<JoinSet<()>>>,
    meter: Rc<Meter>,
    /// Why the connection ended: the sender is only told that it did.
    ended_by: Rc<RefCell<Option<hyper::Error>>>,
}

impl Tasks {
    fn new(meter: Rc<Meter>) -> Self {
        Self {
            set: Rc::default(),
            meter,
            ended_by: Rc::default(),
        }
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let mut set = self.set.borrow_mut();
        // A kept connection runs a task or two per request; those that are through leave nothing behind.
        while set.try_join_next().is_some() {}
        set.spawn_local(Metered::new(Box::pin(task), Rc::clone(&self.meter)));
    }
}
