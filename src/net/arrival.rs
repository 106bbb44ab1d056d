//! When bytes came: the time at which the kernel took the last segment of what is read, by its own stamp.
//!
//! A busy thread reads bytes some time after they came, and so does an idle one that wakes late: on a virtual machine by
//! up to a millisecond that no account of the guest shows. That time is the agent's, not the target's. The kernel stamps
//! every packet as it takes it in, as long as one socket of the machine wants stamps ([`keep_stamping`]), and tells the
//! stamp to a reader by `recvmsg` on a socket that wants them ([`want_stamps`]).
//!
//! Segments that were merged while they waited carry the stamp of the last one: the end of a body is exact, the first of
//! several bytes may have come earlier.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::{LazyLock, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

/// At most so much is read at once: bytes that were never written to have to be zeroed first.
const READ_MAX: usize = 64 * 1024;

/// From here on, and for the life of the process, the kernel stamps what comes in. Switching it on takes effect some
/// milliseconds later, and on and off with each socket it would cost every core an interrupt: so one socket that nobody
/// uses holds it on.
pub fn keep_stamping() {
    static HOLDER: OnceLock<Option<Socket>> = OnceLock::new();
    HOLDER.get_or_init(|| {
        // Unbound: it has no port, and nothing is sent to it.
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)
            .or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None));
        let held = socket.and_then(|socket| {
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            Ok(socket)
        });
        held.inspect_err(|error| {
            tracing::warn!(
                %error,
                "the kernel does not stamp what it receives: durations measured under load are less exact, and say so"
            );
        })
        .ok()
    });
}

/// Whatever is read from `socket` will be told with its stamp. Where that cannot be had, reading works all the same.
pub fn want_stamps(socket: &impl AsFd) {
    let _ = setsockopt(socket, sockopt::ReceiveTimestampns, &true);
}

/// A stream that may know the age of what it reads.
pub trait Source: AsyncRead + Unpin {
    /// Reads like `poll_read`, and tells how long ago the last of the bytes came, where that is known.
    fn poll_read_aged(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<Duration>>>;
}

impl Source for TcpStream {
    fn poll_read_aged(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<Duration>>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let room = buf.remaining().min(READ_MAX);
            let into = buf.initialize_unfilled_to(room);
            match self.try_io(Interest::READABLE, || receive(&*self, into)) {
                Ok((count, age)) => {
                    if (1..room).contains(&count) {
                        // Less than there was room for: nothing is left, and what comes next is an event of its own. As
                        // tokio's own reads do, so that the next look does not ask in vain.
                        let _ = self.try_io(Interest::READABLE, || {
                            Err::<(), _>(io::ErrorKind::WouldBlock.into())
                        });
                    }
                    buf.advance(count);
                    return Poll::Ready(Ok(age));
                }
                // Its readiness is cleared: the next look waits.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Room for one stamp (a header of 16 bytes and two words), aligned as the kernel's headers are.
#[repr(align(8))]
struct Control([u8; 64]);

/// One `recvmsg`: how many bytes, and how long ago the last of them came, where the kernel says.
pub fn receive(stream: &impl AsRawFd, into: &mut [u8]) -> io::Result<(usize, Option<Duration>)> {
    let mut control = Control([0; 64]);
    let mut parts = [IoSliceMut::new(into)];
    let received = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut control.0),
        MsgFlags::empty(),
    )?;
    let stamp = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
        _ => None,
    });
    Ok((received.bytes, stamp.and_then(age)))
}

thread_local! {
    /// How far the wall clock was ahead of the monotonic one at the last stamp.
    static AHEAD: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// Slewing changes a clock by 500 in a million; what is more, and more than reading two clocks takes, is a step.
const SLEW_PER_MILLION: u32 = 1_000;
const READING: Duration = Duration::from_micros(50);

/// Of a stamp by the wall clock; none where that was set since the last stamp, or is behind it.
fn age(stamp: Duration) -> Option<Duration> {
    static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);
    let mono = Instant::now();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let ahead = wall.saturating_sub(mono.duration_since(*BASE));
    let before = AHEAD.replace(Some((mono, ahead)));
    let is_steady = before.is_none_or(|(at, before)| {
        let slewed = mono.duration_since(at) / 1_000_000 * SLEW_PER_MILLION;
        before.abs_diff(ahead) <= slewed + READING
    });
    let is_past = stamp <= wall + READING;
    (is_steady && is_past).then(|| wall.saturating_sub(stamp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream as Blocking};
    use std::thread::sleep;

    /// A stream with `bytes` in its receive buffer since 20 ms or more, and how old they are by what is read.
    async fn age_of(bytes: &[u8]) -> (Vec<u8>, Option<Duration>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = Blocking::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut near = TcpStream::from_std(near).unwrap();
        want_stamps(&near);
        far.write_all(bytes).unwrap();
        near.readable().await.unwrap();
        sleep(Duration::from_millis(20));
        let mut room = [0; 4_096];
        let mut into = ReadBuf::new(&mut room);
        let age = poll_fn(|cx| Pin::new(&mut near).poll_read_aged(cx, &mut into));
        let age = age.await.unwrap();
        (into.filled().to_vec(), age)
    }

    #[tokio::test]
    async fn bytes_are_as_old_as_they_are() {
        keep_stamping();
        // The kernel begins to stamp some time after it was asked to.
        let age = loop {
            let (read, age) = age_of(b"hello").await;
            assert_eq!(read, b"hello");
            if let Some(age) = age {
                break age;
            }
        };
        assert!(age >= Duration::from_millis(20), "{age:?}");
    }

    #[tokio::test]
    async fn the_end_is_read_like_anywhere_else() {
        let (read, age) = age_of(b"x").await;
        assert_eq!(read, b"x");
        assert!(age.is_none_or(|age| age >= Duration::from_millis(20)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = Blocking::connect(listener.local_addr().unwrap()).unwrap();
        drop(listener.accept().unwrap());
        near.set_nonblocking(true).unwrap();
        let mut near = TcpStream::from_std(near).unwrap();
        let mut room = [0; 16];
        let mut into = ReadBuf::new(&mut room);
        let read = poll_fn(|cx| Pin::new(&mut near).poll_read_aged(cx, &mut into));
        assert_eq!(read.await.unwrap(), None);
        assert!(into.filled().is_empty());
    }
}
