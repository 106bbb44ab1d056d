//! What a probe cost: bytes on the wire and CPU time.
//!
//! The thread's CPU clock is a system call (0.2–0.5 µs, and a probe has some seven polls), the monotonic clock is not
//! (22 ns). So every poll of a probe's futures is timed by the monotonic clock, and [`CpuScale`] compares the sums with
//! the thread's CPU clock about once a second: what polls took in wall time is scaled so that the `cpu_us` of all
//! samples add up to what the thread really used, its idle wake-ups, timers and dropped futures included.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::ops::AddAssign;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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

    /// The counts so far, which start anew: each is put down to one probe.
    pub fn take(&self) -> Reading {
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
}

impl<T: AsyncRead + Unpin> AsyncRead for MeteredIo<T> {
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
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let count = (buf.filled().len() - before) as u64;
        add(&self.meter.received, count);
        add(&self.meter.turn, count);
        let allowed = &self.meter.allowed;
        allowed.set(allowed.get().saturating_sub(count));
        read
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
        add(&self.meter.polled_ns, start.elapsed().as_nanos() as u64);
        polled
    }
}

/// How often the sums are compared with the thread's clock. Shorter gives noisier factors, longer makes them stale.
const PERIOD: Duration = Duration::from_secs(1);
/// A longer time without a sample is the process's overhead, and no sample is charged with it.
const QUIET: Duration = Duration::from_secs(10);
/// Furthest that one period's factor may lie from the plain ratio while the difference of earlier periods is paid off.
const CORRECTION_MAX: f64 = 2.0;

/// Turns poll times into CPU times that add up to the thread's own. Belongs to one thread.
///
/// What was polled for no sample (a probe that was cut off, a connection that outlived its probe) and what was used
/// between polls is spread over the samples that finish: the factor of each period is chosen so that its samples carry
/// that period's CPU time and what is still owed from the periods before.
#[derive(Debug)]
pub struct CpuScale {
    used: fn() -> Duration,
    base: Duration,
    compared_at: Instant,
    used_then: f64,
    factor: f64,
    /// Poll time of the samples finished in this period, µs.
    polled_us: f64,
    /// What samples were given, in all, µs.
    given_us: f64,
    /// Below one µs, owed to the next sample.
    rest_us: f64,
}

impl CpuScale {
    /// For the calling thread, from now on.
    pub fn of_this_thread() -> Self {
        Self::new(thread_cpu, Instant::now())
    }

    fn new(used: fn() -> Duration, now: Instant) -> Self {
        Self {
            used,
            base: used(),
            compared_at: now,
            used_then: 0.0,
            factor: 1.0,
            polled_us: 0.0,
            given_us: 0.0,
            rest_us: 0.0,
        }
    }

    /// CPU time of a sample whose polls took `polled`, µs.
    pub fn charge(&mut self, polled: Duration, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.compared_at);
        if elapsed >= PERIOD {
            self.compare(now, elapsed >= QUIET);
        }
        let polled_us = polled.as_nanos() as f64 / 1_000.0;
        self.polled_us += polled_us;
        let exact = polled_us * self.factor + self.rest_us;
        let whole = exact.floor().clamp(0.0, f64::from(u32::MAX));
        self.rest_us = exact - whole;
        self.given_us += whole;
        whole as u32
    }

    fn compare(&mut self, now: Instant, quiet: bool) {
        let used_us = (self.used)().saturating_sub(self.base).as_nanos() as f64 / 1_000.0;
        if quiet {
            self.given_us = used_us;
        } else if self.polled_us > 0.0 {
            let plain = (used_us - self.used_then) / self.polled_us;
            let owed = (used_us - self.given_us) / self.polled_us;
            self.factor = (plain + owed).clamp(plain / CORRECTION_MAX, plain * CORRECTION_MAX);
        } else {
            return;
        }
        self.used_then = used_us;
        self.polled_us = 0.0;
        self.compared_at = now;
    }
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    thread_local! {
        static USED_US: AtomicU64 = const { AtomicU64::new(0) };
    }

    fn use_us(us: u64) {
        USED_US.with(|u| u.fetch_add(us, Relaxed));
    }

    fn used() -> Duration {
        Duration::from_micros(USED_US.with(|u| u.load(Relaxed)))
    }

    #[test]
    fn the_samples_add_up_to_what_the_thread_used() {
        let start = Instant::now();
        let mut scale = CpuScale::new(used, start);
        let mut given = 0_u64;
        // 100 samples a second whose polls take 30 µs while the thread spends 45 µs on each, then 80 µs.
        for n in 0..6_000_u64 {
            let now = start + Duration::from_millis(10 * n);
            use_us(if n < 3_000 { 45 } else { 80 });
            given += u64::from(scale.charge(Duration::from_micros(30), now));
        }
        let used = used().as_micros() as f64;
        assert!(
            (given as f64 / used - 1.0).abs() < 0.02,
            "{given} of {used}"
        );
    }

    #[test]
    fn the_first_sample_after_a_quiet_time_is_not_charged_with_it() {
        let start = Instant::now();
        let mut scale = CpuScale::new(used, start);
        for n in 0..200_u64 {
            use_us(30);
            scale.charge(
                Duration::from_micros(30),
                start + Duration::from_millis(10 * n),
            );
        }
        use_us(1_000_000);
        let late = start + Duration::from_secs(3_600);
        assert_eq!(scale.charge(Duration::from_micros(30), late), 30);
    }

    #[test]
    fn parts_of_a_microsecond_are_not_lost() {
        let start = Instant::now();
        let mut scale = CpuScale::new(used, start);
        let given: u32 = (0..1_000)
            .map(|_| scale.charge(Duration::from_nanos(500), start))
            .sum();
        assert!((499..=500).contains(&given), "{given}");
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
