//! What a probe cost: bytes on the wire and time in polls. And what its peer may send.
//!
//! Every poll of a probe's futures is timed by the monotonic clock; [`CpuScale`] makes CPU time of it.

mod scale;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::ops::AddAssign;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::arrival::Source;
use super::attention::{Arrival, Lateness};

pub use self::scale::CpuScale;

/// Most that is read in one poll of a [`Metered`] future. A peer that sends faster than we read would otherwise keep
/// the thread for as long as tokio's budget of 128 reads lasts: 16 MB of interim responses took 3 s.
const TURN_BYTES_MAX: u64 = 64 * 1024;

/// Counts of one probe, or of one kept connection, and what its peers may still send.
#[derive(Debug)]
pub struct Meter {
    sent: Cell<u64>,
    received: Cell<u64>,
    polled_ns: Cell<u64>,
    /// Bytes read in the poll under way.
    turn: Cell<u64>,
    allowed: Cell<u64>,
    lateness: Cell<Lateness>,
    /// The last bytes: when they came, and what the agent had added by then. None when the last read found the end.
    arrived: Cell<Option<(Instant, Arrival)>>,
}

/// What a [`Meter`] showed at some time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Reading {
    /// Bytes written to sockets.
    pub sent: u64,
    /// Bytes read from sockets.
    pub received: u64,
    /// Time spent in polls, by the monotonic clock.
    pub polled: Duration,
}

impl Meter {
    /// Starts at zero.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            sent: Cell::new(0),
            received: Cell::new(0),
            polled_ns: Cell::new(0),
            turn: Cell::new(0),
            allowed: Cell::new(u64::MAX),
            lateness: Cell::new(Lateness::from_now()),
            arrived: Cell::default(),
        })
    }

    /// From now on `bytes` may be received; the read after them fails with [`io::ErrorKind::QuotaExceeded`].
    pub fn allow(&self, bytes: u64) {
        self.allowed.set(bytes);
    }

    /// Bytes read from sockets so far.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Upper bound on what the agent has added up to `now`, by being late for the polls since the counts started; `None`
    /// where the thread is not watched.
    pub fn error(&self, now: Instant) -> Option<Duration> {
        self.polled(now);
        self.lateness.get().error()
    }

    /// Likewise, up to the last poll.
    pub fn error_so_far(&self) -> Option<Duration> {
        self.lateness.get().error()
    }

    fn polled(&self, now: Instant) {
        let mut lateness = self.lateness.get();
        lateness.polled(now);
        self.lateness.set(lateness);
    }

    /// Something other than the connection's bytes was read at `now`, of this age by the kernel's stamp: how much of that
    /// counts, none where the thread is not watched.
    pub fn heard(&self, now: Instant, age: Option<Duration>) -> Duration {
        let mut lateness = self.lateness.get();
        let arrival = lateness.arrived(now, age);
        self.lateness.set(lateness);
        arrival.map_or(Duration::ZERO, |arrival| arrival.age)
    }

    /// What the probe sees `now` came `late` ago.
    pub fn noticed(&self, now: Instant, late: Duration) {
        let mut lateness = self.lateness.get();
        lateness.noticed(now, late);
        self.lateness.set(lateness);
    }

    /// When the last bytes came, as well as it is known, and what the agent had added by then. `None` when there were none,
    /// when the last read found the end, and where the thread is not watched.
    pub fn arrived(&self) -> Option<(Instant, Duration)> {
        let (at, arrival) = self.arrived.get()?;
        Some((at, arrival.error))
    }

    fn read(&self, now: Instant, count: u64, age: Option<Duration>) {
        add(&self.received, count);
        add(&self.turn, count);
        self.allowed.set(self.allowed.get().saturating_sub(count));
        let mut lateness = self.lateness.get();
        let arrival = lateness.arrived(now, age);
        self.lateness.set(lateness);
        let at = |arrival: Arrival| Some((now.checked_sub(arrival.age)?, arrival));
        self.arrived.set(arrival.filter(|_| count > 0).and_then(at));
    }

    /// The counts so far, which start anew: each is put down to one probe.
    pub fn take(&self) -> Reading {
        self.lateness.set(Lateness::from_now());
        self.arrived.set(None);
        Reading {
            sent: self.sent.take(),
            received: self.received.take(),
            polled: Duration::from_nanos(self.polled_ns.take()),
        }
    }
}

impl AddAssign for Reading {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.polled += other.polled;
    }
}

fn add(cell: &Cell<u64>, n: u64) {
    cell.set(cell.get().saturating_add(n));
}

/// A stream whose bytes are counted; put under TLS, it counts what is on the wire.
#[derive(Debug)]
pub struct MeteredIo<T> {
    inner: T,
    meter: Rc<Meter>,
}

impl<T> MeteredIo<T> {
    /// Counts into `meter`.
    pub fn new(inner: T, meter: Rc<Meter>) -> Self {
        Self { inner, meter }
    }

    /// Counts into `meter` from now on: another probe uses the stream.
    pub fn set_meter(&mut self, meter: Rc<Meter>) {
        self.meter = meter;
    }
}

impl<T: Source> AsyncRead for MeteredIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.meter.allowed.get() == 0 {
            let error = io::Error::new(io::ErrorKind::QuotaExceeded, "the peer sends too much");
            return Poll::Ready(Err(error));
        }
        if self.meter.turn.get() >= TURN_BYTES_MAX {
            self.meter.turn.set(0);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let age = ready!(Pin::new(&mut self.inner).poll_read_aged(cx, buf))?;
        let count = (buf.filled().len() - before) as u64;
        self.meter.read(Instant::now(), count, age);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for MeteredIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = written {
            add(&self.meter.sent, n as u64);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(n)) = written {
            add(&self.meter.sent, n as u64);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A future whose polls are timed into a [`Meter`]. Wrap what is polled by the runtime (a probe, a spawned connection)
/// and nothing inside it: a poll within a poll would be counted twice.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Metered<F> {
    inner: F,
    meter: Rc<Meter>,
}

impl<F> Metered<F> {
    /// Times the polls of `inner` into `meter`.
    pub fn new(inner: F, meter: Rc<Meter>) -> Self {
        Self { inner, meter }
    }
}

impl<F: Future + Unpin> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let start = Instant::now();
        self.meter.turn.set(0);
        let polled = Pin::new(&mut self.inner).poll(cx);
        let end = Instant::now();
        add(&self.meter.polled_ns, (end - start).as_nanos() as u64);
        self.meter.polled(end);
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Source for tokio::io::Repeat {
        fn poll_read_aged(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<Option<Duration>>> {
            self.poll_read(cx, buf).map_ok(|()| None)
        }
    }

    impl Source for tokio::io::DuplexStream {
        fn poll_read_aged(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<Option<Duration>>> {
            self.poll_read(cx, buf).map_ok(|()| None)
        }
    }

    #[tokio::test]
    async fn polls_are_timed_and_waits_are_not() {
        let meter = Meter::new();
        let work = Box::pin(async {
            let until = Instant::now() + Duration::from_millis(5);
            while Instant::now() < until {}
            tokio::time::sleep(Duration::from_millis(100)).await;
        });
        Metered::new(work, Rc::clone(&meter)).await;
        let polled = meter.take().polled;
        assert!(polled >= Duration::from_millis(5), "{polled:?}");
        assert!(polled < Duration::from_millis(100), "{polled:?}");
    }

    #[tokio::test]
    async fn a_peer_may_send_what_it_is_allowed_and_a_turns_worth_at_a_time() {
        use std::future::poll_fn;
        let meter = Meter::new();
        meter.allow(200_000);
        let mut endless = MeteredIo::new(tokio::io::repeat(0), Rc::clone(&meter));
        let mut buf = vec![0; 50_000];
        let turns = Cell::new(0);
        let reading = poll_fn(|cx| {
            turns.set(turns.get() + 1);
            loop {
                let mut buf = ReadBuf::new(&mut buf);
                match Pin::new(&mut endless).poll_read(cx, &mut buf) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(error.kind()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let ended = Metered::new(reading, Rc::clone(&meter)).await;
        assert_eq!(ended, io::ErrorKind::QuotaExceeded);
        assert_eq!((meter.take().received, turns.get()), (200_000, 2));
    }

    #[tokio::test]
    async fn bytes_are_counted_both_ways() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let meter = Meter::new();
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = MeteredIo::new(near, Rc::clone(&meter));
        near.write_all(b"hello").await.unwrap();
        far.write_all(b"hi").await.unwrap();
        let mut buf = [0; 2];
        near.read_exact(&mut buf).await.unwrap();
        let reading = meter.take();
        assert_eq!((reading.sent, reading.received), (5, 2));
    }
}
