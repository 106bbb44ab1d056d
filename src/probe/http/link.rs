//! A connection that takes requests, in either version of HTTP.

use std::net::IpAddr;
use std::rc::Rc;

use ::http::Method;

use super::head::Head;
use super::hop::Hop;
use super::http1::{Appetite, Http1, Room};
use super::http2::Http2;
use super::request;
use super::transport::Transport;
use crate::domain::{Connection, HttpCheck, Timestamp};
use crate::net::meter::Meter;
use crate::probe::fault::Stop;
use crate::probe::progress::Progress;

/// What a server may send until the head of its response is there: handshake, interim responses, pings, head and what
/// of the body comes with it. Certificates take a few KiB, a head 64 at most; all else is a flood, and ends early.
pub(super) const UNASKED_BYTES_MAX: u64 = 512 * 1024;

/// A byte stream to a server and what is known of it. The probe's own meter counts it.
pub(super) struct Wire {
    pub(super) transport: Transport,
    pub(super) is_http2: bool,
    pub(super) remote_ip: IpAddr,
    pub(super) tls_not_after: Option<Timestamp>,
}

/// A connection that takes requests. Dropping it closes it.
pub(super) struct Link {
    speaks: Speaks,
    /// Of the probe that uses it now; of an HTTP/2 connection that is kept, its own.
    meter: Rc<Meter>,
    remote_ip: IpAddr,
    tls_not_after: Option<Timestamp>,
}

enum Speaks {
    Http1(Http1),
    // Boxed: what it holds would be part of every probe's future, and most speak the other.
    Http2(Box<Http2>),
}

impl Wire {
    /// Starts HTTP on it.
    ///
    /// HTTP/2 has tasks of its own, whose polls are counted like the probe's; where the connection is kept they are
    /// counted by a meter that stays with it, since they go on between the probes.
    pub(super) async fn start(
        mut self,
        connection: Connection,
        progress: &Progress,
    ) -> Result<Link, Stop> {
        let mut meter = progress.meter();
        let speaks = if self.is_http2 {
            if connection == Connection::Reuse {
                meter = Meter::new();
                meter.allow(UNASKED_BYTES_MAX);
                progress.count_kept(&meter);
                self.transport.set_meter(Rc::clone(&meter));
            }
            let started = Box::pin(Http2::start(self.transport, Rc::clone(&meter))).await;
            Speaks::Http2(Box::new(started?))
        } else {
            Speaks::Http1(Http1::new(self.transport))
        };
        Ok(Link {
            speaks,
            meter,
            remote_ip: self.remote_ip,
            tls_not_after: self.tls_not_after,
        })
    }
}

impl Link {
    /// Sends the request of `hop` and waits for the head of its response.
    pub(super) async fn ask(
        &mut self,
        hop: &Hop<'_>,
        check: &HttpCheck,
        room: &Room,
    ) -> Result<Head, Stop> {
        self.meter.allow(UNASKED_BYTES_MAX);
        match &mut self.speaks {
            Speaks::Http1(http1) => {
                let request = request::encode(hop, check);
                let is_head = hop.method == Method::HEAD;
                http1.ask(request, is_head, room).await
            }
            Speaks::Http2(http2) => Box::pin(http2.ask(request::build(hop, check))).await,
        }
    }

    /// Reads the body of the response and hands it to `take`, piece by piece, until it ends or is enough; whether it was
    /// read to its end, so that the connection can be used again.
    pub(super) async fn read_body(
        &mut self,
        room: &Room,
        take: impl FnMut(&[u8]) -> Result<Appetite, Stop>,
    ) -> Result<bool, Stop> {
        match &mut self.speaks {
            Speaks::Http1(http1) => http1.read_body(room, take).await,
            Speaks::Http2(http2) => Box::pin(http2.read_body(take)).await,
        }
    }

    /// Whether it still takes requests, which then are `progress`'s.
    pub(super) async fn resume(&mut self, progress: &Progress) -> bool {
        let is_usable = match &mut self.speaks {
            Speaks::Http1(http1) => {
                self.meter = progress.meter();
                http1.set_meter(progress.meter());
                http1.is_idle()
            }
            Speaks::Http2(http2) => Box::pin(http2.is_usable()).await,
        };
        if is_usable {
            if matches!(self.speaks, Speaks::Http2(_)) {
                progress.count_kept(&self.meter);
            }
            progress.remote_ip.set(Some(self.remote_ip));
            progress.tls_not_after.set(self.tls_not_after);
        }
        is_usable
    }

    /// Whether it takes no more requests.
    pub(super) fn is_closed(&mut self) -> bool {
        match &mut self.speaks {
            Speaks::Http1(http1) => !http1.is_idle(),
            Speaks::Http2(http2) => http2.is_closed(),
        }
    }

    /// Counts what goes over it.
    pub(super) fn meter(&self) -> &Rc<Meter> {
        &self.meter
    }
}
