//! TCP connections: one address at a time, the next one when the first is refused or slow.

use std::future::Future;
use std::io;
use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nix::libc;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::GetStruct;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use super::arrival::want_stamps;
use super::attention;
use crate::domain::{Failure, SkipReason};

/// How long an address may be silent before the next one is tried beside it (RFC 8305 advises 250 ms).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Who may notice a connection later than this asks the kernel when it was made: else busy threads would put samples in
/// doubt that are right. It takes 1 to 2 µs.
const UNSURE_MAX: Duration = Duration::from_micros(500);
/// Addresses of one name that are tried; a name server may send hundreds.
pub const ADDRESSES_MAX: usize = 8;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("connect to {address}")]
pub struct ConnectError {
    /// What was dialled.
    pub address: SocketAddr,
    /// What it means.
    pub cause: ConnectCause,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// What a failed connect means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectCause {
    /// The target's doing, or the network's.
    Target(Failure),
    /// Our own.
    Agent(SkipReason),
}

/// A connection.
#[derive(Debug)]
pub struct Connected {
    /// Over which nothing was sent yet.
    pub stream: TcpStream,
    /// How long ago it was made, as the kernel has it, where that may be more than the thread knows of: no stamp tells when
    /// an answer to a SYN came.
    pub late: Option<Duration>,
}

/// Connects to the first of `addresses` that answers; they are tried in order, the next one when one fails or has been
/// silent for 250 ms. Has no deadline of its own. `on_dial` is told each address as it is dialled.
///
/// Of several failures the last one is reported, unless one was the agent's own fault: that one is, since the answer
/// might have been another without it.
pub async fn connect(
    addresses: &[SocketAddr],
    on_dial: impl Fn(IpAddr),
) -> Result<Connected, ConnectError> {
    let dial = |address: SocketAddr| {
        on_dial(address.ip());
        connect_one(address)
    };
    match addresses {
        [address] => dial(*address).await,
        _ => staggered(addresses, dial).await,
    }
}

async fn staggered<F>(
    addresses: &[SocketAddr],
    dial: impl Fn(SocketAddr) -> F,
) -> Result<Connected, ConnectError>
where
    F: Future<Output = Result<Connected, ConnectError>>,
{
    let mut waiting = addresses.iter().take(ADDRESSES_MAX).copied();
    let mut dialled = FuturesUnordered::new();
    let mut failed: Option<ConnectError> = None;
    loop {
        let next = waiting.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            dialled.push(dial(address));
        }
        let mut patience = pin!(sleep(NEXT_ADDRESS_AFTER));
        loop {
            tokio::select! {
                answer = dialled.next() => match answer {
                    Some(Ok(connected)) => return Ok(connected),
                    Some(Err(error)) => {
                        let keep = failed.as_ref().is_some_and(|f| matches!(f.cause, ConnectCause::Agent(_)));
                        if !keep {
                            failed = Some(error);
                        }
                        if !is_last {
                            break;
                        }
                    }
                    None => match failed {
                        Some(error) => return Err(error),
                        None if is_last => return Err(no_address()),
                        None => break,
                    },
                },
                () = &mut patience, if !is_last => break,
            }
        }
    }
}

fn no_address() -> ConnectError {
    ConnectError {
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        cause: ConnectCause::Agent(SkipReason::AgentError),
        source: io::Error::other("no address to dial"),
    }
}

/// Ports that the kernel gives to sockets that ask for none, as they were at the start; all, where it does not say.
static EPHEMERAL: LazyLock<RangeInclusive<u16>> = LazyLock::new(|| {
    let text =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_ascii_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => 0..=u16::MAX,
    }
});

async fn connect_one(address: SocketAddr) -> Result<Connected, ConnectError> {
    let failed = |source: io::Error| ConnectError {
        address,
        cause: cause(&source, address),
        source,
    };
    let socket = open(address).map_err(failed)?;
    let dialled = Instant::now();
    let stream = socket.connect(address).await.map_err(failed)?;
    let unsure = attention::unsure().min(dialled.elapsed());
    // A thread with little to do can afford to ask, too.
    let asks = attention::slept_long() || unsure > UNSURE_MAX;
    let asked = asks.then(|| kernel_rtt(&stream));
    let late = asked
        .flatten()
        .map(|rtt| dialled.elapsed().saturating_sub(rtt));
    // Dialling a closed port in the ephemeral range of this machine can connect a socket to itself.
    if EPHEMERAL.contains(&address.port()) && stream.local_addr().map_err(failed)? == address {
        return Err(failed(io::ErrorKind::ConnectionRefused.into()));
    }
    Ok(Connected { stream, late })
}

/// A socket that says when bytes came and, when closed, resets.
///
/// Whoever closes first keeps the port in TIME_WAIT for 60 s, and `connect` finds free ports in half of the range (14 116
/// of 28 232) before it becomes slow: 235 new connections a second to one address and port. Two thousand endpoints behind
/// one load balancer would run dry within seconds. `tcp_tw_reuse` helps on loopback only (its default). Measured with it
/// off: closed in order, 3 000 connections a second fail after 5 s; reset, 10 000 a second go on for a minute and leave
/// nothing behind. (`IP_BIND_ADDRESS_NO_PORT` is for sockets that bind; these do not.)
///
/// A probe wants nothing of a connection once the answer is there, or the deadline has passed, and the request says
/// `Connection: close`: so a reset loses nothing, stops a hostile peer's stream, and frees the server's side too.
fn open(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_zero_linger()?;
    want_stamps(&socket);
    Ok(socket)
}

fn cause(error: &io::Error, address: SocketAddr) -> ConnectCause {
    use ConnectCause::{Agent, Target};
    if let Some(skip) = exhausted(error) {
        return match skip {
            SkipReason::PortExhausted if !has_source(address) => {
                Target(Failure::ConnectUnreachable)
            }
            _ => Agent(skip),
        };
    }
    Target(match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            Failure::ConnectRefused
        }
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => Failure::ConnectUnreachable,
        io::ErrorKind::TimedOut => Failure::ConnectTimeout,
        _ => Failure::ConnectError,
    })
}

/// Whether `error` says that this process or machine has run out of something.
pub fn exhausted(error: &io::Error) -> Option<SkipReason> {
    use rustix::io::Errno;
    match Errno::from_raw_os_error(error.raw_os_error()?) {
        Errno::MFILE | Errno::NFILE => Some(SkipReason::DescriptorLimit),
        Errno::ADDRNOTAVAIL => Some(SkipReason::PortExhausted),
        Errno::NOBUFS | Errno::NOMEM => Some(SkipReason::AgentError),
        _ => None,
    }
}

/// Linux says EADDRNOTAVAIL both when no port is left and when the machine has no address to reach `address` from (IPv6
/// switched off). A UDP socket asks the routing table alone; connecting it sends nothing.
fn has_source(address: SocketAddr) -> bool {
    Socket::new(Domain::for_address(address), Type::DGRAM, None)
        .and_then(|socket| socket.connect(&address.into()))
        .map_or_else(
            |e| e.raw_os_error() != Some(rustix::io::Errno::ADDRNOTAVAIL.raw_os_error()),
            |()| true,
        )
}

/// The head of the kernel's `struct tcp_info` as words, up to `tcpi_total_retrans`. All of it is larger, and larger in
/// newer kernels; each fills what it is given.
type TcpInfoWords = [u32; offset_of!(libc::tcp_info, tcpi_total_retrans) / 4 + 1];

#[derive(Clone, Copy)]
struct TcpInfo;
nix::getsockopt_impl!(
    TcpInfo,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    TcpInfoWords,
    GetStruct<TcpInfoWords>
);

/// How long the kernel waited from SYN to SYN/ACK, however late a thread notices. To be asked of a connection over which
/// nothing was sent yet: later the figure is an average. None where the kernel does not say, or has sent the SYN again.
/// Costs 1 to 2 µs where the caches are cold, 0.7 in a loop.
pub fn kernel_rtt(stream: &TcpStream) -> Option<Duration> {
    let words = getsockopt(stream, TcpInfo).ok()?;
    let rtt = words[offset_of!(libc::tcp_info, tcpi_rtt) / 4];
    let sent_again = words[offset_of!(libc::tcp_info, tcpi_total_retrans) / 4];
    (sent_again == 0 && rtt > 0).then(|| Duration::from_micros(rtt.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::net::TcpListener;

    #[test]
    fn errors_of_the_system_are_told_apart() {
        use rustix::io::Errno;
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        for (errno, expected) in [
            (
                Errno::CONNREFUSED,
                ConnectCause::Target(Failure::ConnectRefused),
            ),
            (
                Errno::CONNRESET,
                ConnectCause::Target(Failure::ConnectRefused),
            ),
            (
                Errno::HOSTUNREACH,
                ConnectCause::Target(Failure::ConnectUnreachable),
            ),
            (
                Errno::NETUNREACH,
                ConnectCause::Target(Failure::ConnectUnreachable),
            ),
            (
                Errno::NETDOWN,
                ConnectCause::Target(Failure::ConnectUnreachable),
            ),
            (
                Errno::TIMEDOUT,
                ConnectCause::Target(Failure::ConnectTimeout),
            ),
            (Errno::ACCESS, ConnectCause::Target(Failure::ConnectError)),
            (Errno::PERM, ConnectCause::Target(Failure::ConnectError)),
            (
                Errno::MFILE,
                ConnectCause::Agent(SkipReason::DescriptorLimit),
            ),
            (
                Errno::NFILE,
                ConnectCause::Agent(SkipReason::DescriptorLimit),
            ),
            (
                Errno::ADDRNOTAVAIL,
                ConnectCause::Agent(SkipReason::PortExhausted),
            ),
            (Errno::NOBUFS, ConnectCause::Agent(SkipReason::AgentError)),
        ] {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            assert_eq!(cause(&error, address), expected, "{errno:?}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let address = closed_port().await;
        let error = connect(&[address], |_| ()).await.unwrap_err();
        assert_eq!(error.cause, ConnectCause::Target(Failure::ConnectRefused));
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_fails() {
        let closed = closed_port().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let dialled = RefCell::new(Vec::new());
        let connected = connect(&[closed, closed, open], |ip| dialled.borrow_mut().push(ip))
            .await
            .unwrap();
        // Nobody watches this thread.
        assert_eq!(connected.late, None);
        assert_eq!(connected.stream.peer_addr().unwrap(), open);
        assert_eq!(dialled.borrow().len(), 3);
    }

    #[tokio::test]
    async fn when_all_addresses_fail_so_does_the_connection() {
        let closed = closed_port().await;
        let error = connect(&[closed, closed], |_| ()).await.unwrap_err();
        assert_eq!(error.cause, ConnectCause::Target(Failure::ConnectRefused));
        assert!(connect(&[], |_| ()).await.is_err());
    }

    #[tokio::test]
    async fn ports_of_the_kernels_choice_are_among_those_that_may_meet_themselves() {
        for _ in 0..100 {
            let port = closed_port().await.port();
            assert!(EPHEMERAL.contains(&port), "{port} {EPHEMERAL:?}");
        }
        assert!(!EPHEMERAL.contains(&80), "{EPHEMERAL:?}");
    }

    #[tokio::test]
    async fn the_kernel_knows_how_long_a_connect_took_however_late_it_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let began = std::time::Instant::now();
        let stream = connect(&[address], |_| ()).await.unwrap().stream;
        std::thread::sleep(Duration::from_millis(50));
        let late = began.elapsed();
        let rtt = kernel_rtt(&stream).unwrap();
        assert!(rtt < late - Duration::from_millis(50), "{rtt:?} {late:?}");
    }

    fn watched() -> tokio::runtime::Runtime {
        attention::watch(&mut tokio::runtime::Builder::new_current_thread())
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn a_thread_that_slept_long_asks_the_kernel_when_it_was_connected() {
        let is_told = watched().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            for _ in 0..100 {
                sleep(Duration::from_millis(5)).await;
                let began = Instant::now();
                let connected = connect(&[address], |_| ()).await.unwrap();
                if let Some(late) = connected.late {
                    return late <= began.elapsed();
                }
                // It was held up between the two, so that another, shorter sleep came before the connection.
            }
            false
        });
        assert!(is_told);
    }

    #[test]
    fn a_busy_thread_is_told_how_late_it_is() {
        let late = watched().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addresses = [listener.local_addr().unwrap()];
            // From the first turn on the thread is watched.
            sleep(Duration::from_millis(1)).await;
            let work = async { std::thread::sleep(Duration::from_millis(20)) };
            let (connected, ()) = tokio::join!(connect(&addresses, |_| ()), work);
            connected.unwrap().late
        });
        let late = late.unwrap();
        assert!(late >= Duration::from_millis(19), "{late:?}");
    }

    async fn closed_port() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }
}
