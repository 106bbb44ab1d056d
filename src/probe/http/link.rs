//! A connection that takes requests: hyper's half of it and what the probe holds.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use ::http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::task::{AbortHandle, JoinSet, spawn_local, yield_now};

use super::request::Body;
use super::transport::{TlsFault, Transport};
use crate::domain::Timestamp;
use crate::net::meter::{Meter, Metered};
use crate::probe::fault::Stop;
use crate::probe::progress::Progress;

/// Largest head of a response, and largest buffer of an HTTP/1 connection. Browsers and proxies take 8 to 256 KiB.
///
/// hyper starts with a buffer of 8 KiB and grows it while a head or a body fills it. An exact size would save 1.4 KB a
/// connection (measured: 14.5 KB instead of 15.9 with 2 KiB), but be the limit for heads too.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What an HTTP/2 server may send ahead of our reading.
const WINDOW_BYTES: u32 = 64 * 1024;

/// What a server may send until the head of its response is there: handshake, interim responses, pings, head and what
/// of the body comes with it. Certificates take a few KiB, a head 64 at most; all else is a flood, and ends early.
pub(super) const UNASKED_BYTES_MAX: u64 = 512 * 1024;

/// A byte stream to a server and what is known of it.
pub(super) struct Wire {
    pub(super) transport: Transport,
    pub(super) is_http2: bool,
    pub(super) meter: Rc<Meter>,
    pub(super) remote_ip: IpAddr,
    pub(super) tls_not_after: Option<Timestamp>,
}

/// A connection that takes requests. Dropping it closes it.
pub(super) struct Link {
    sender: Sender,
    tls_fault: Option<TlsFault>,
    driver: Driver,
    meter: Rc<Meter>,
    remote_ip: IpAddr,
    tls_not_after: Option<Timestamp>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Wire {
    /// Starts HTTP on it.
    ///
    /// hyper's half of the connection runs as a task of its own, which is cheaper than polling it from the probe (25
    /// instead of 31 µs a probe). Its polls are counted like the probe's. What little it does after the sample is
    /// finished (closing the socket) is put down to nobody and spread over all samples; of a kept connection, it
    /// counts for the next probe.
    pub(super) async fn start(self) -> Result<Link, Stop> {
        let tls_fault = self.transport.tls_fault();
        let io = TokioIo::new(self.transport);
        let (sender, driver) = if self.is_http2 {
            let tasks = Tasks::new(Rc::clone(&self.meter));
            let handshake = http2::Builder::new(tasks.clone())
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                .max_header_list_size(HEAD_BYTES_MAX as u32)
                .handshake(io);
            let (sender, connection) = Box::pin(handshake)
                .await
                .map_err(|error| Stop::processing(&error, None))?;
            let ended = Rc::clone(&tasks.ended_by);
            tasks.execute(async move { *ended.borrow_mut() = connection.await.err() });
            (Sender::Http2(sender), Driver::Http2(tasks))
        } else {
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(HEAD_BYTES_MAX)
                .max_header_size(HEAD_BYTES_MAX)
                .handshake(io)
                .await
                .map_err(|error| Stop::processing(&error, None))?;
            let task = spawn_local(Metered::new(connection, Rc::clone(&self.meter)));
            (Sender::Http1(sender), Driver::Http1(task.abort_handle()))
        };
        Ok(Link {
            sender,
            tls_fault,
            driver,
            meter: self.meter,
            remote_ip: self.remote_ip,
            tls_not_after: self.tls_not_after,
        })
    }
}

impl Link {
    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.meter.allow(UNASKED_BYTES_MAX);
        match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }

    /// What an error of [`Self::send`] means.
    pub(super) async fn explain(&self, error: hyper::Error) -> Stop {
        let mut error = error;
        if let Driver::Http2(tasks) = &self.driver
            && (error.is_canceled() || error.is_closed())
        {
            // The driver may end in the same turn, after its sender.
            yield_now().await;
            error = tasks.ended_by.take().unwrap_or(error);
        }
        let tls = self.tls_fault.as_ref().and_then(TlsFault::get);
        Stop::processing(&error, tls)
    }

    /// Whether it speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Waits until it takes a request; whether it does.
    pub(super) async fn is_usable(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Whether the server has closed it.
    pub(super) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Counts what goes over it.
    pub(super) fn meter(&self) -> &Rc<Meter> {
        &self.meter
    }

    /// Tells what is known of it, for a probe that did not dial it.
    pub(super) fn tell(&self, progress: &Progress) {
        progress.remote_ip.set(Some(self.remote_ip));
        progress.tls_not_after.set(self.tls_not_after);
    }
}

/// hyper's tasks of a connection, which end with it.
enum Driver {
    Http1(AbortHandle),
    Http2(Tasks),
}

impl Drop for Driver {
    fn drop(&mut self) {
        match self {
            Self::Http1(task) => task.abort(),
            Self::Http2(tasks) => tasks.set.borrow_mut().abort_all(),
        }
    }
}

/// Runs the tasks of an HTTP/2 connection on this thread and counts their polls.
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
