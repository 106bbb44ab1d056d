//! The loop: what has arrived, and what is to leave by now.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Stdin;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::write;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Given;
use super::exchange::{Exchange, Manners, Turn};
use super::names::{self, Answer};
use super::stamp::{now, receive, stamped};

const TIMER: u64 = 0;
const SIGNAL: u64 = 1;
const PLAIN: u64 = 2;
const TLS: u64 = 3;
const NAMES: u64 = 4;
const SYNS: u64 = 5;
/// Connections are numbered from here on.
const FIRST: u64 = 16;
/// What comes before the IP header on the packet socket: `struct virtio_net_hdr`, and Ethernet's.
const LINK_HEADERS: usize = 10 + 14;

/// What is to be sent at its time.
enum Due {
    Part { slot: usize, serial: u64 },
    Name(Answer),
    Syn { frame: Vec<u8>, came: i64 },
}

struct Server {
    epoll: Epoll,
    timer: TimerFd,
    armed: Option<i64>,
    /// Plain and TLS, or none.
    listeners: Vec<TcpListener>,
    config: Option<Arc<ServerConfig>>,
    names: Option<(UdpSocket, IpAddr)>,
    syns: Option<Stdin>,
    manners: Manners,
    resolve: i64,
    connect: i64,
    /// Each with a number of its own, since slots are used again.
    exchanges: Vec<Option<(u64, Exchange)>>,
    free: Vec<usize>,
    due: BTreeMap<(i64, u64), Due>,
    serial: u64,
    log: String,
}

pub(super) fn serve(given: &Given) {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTERM);
    stop.thread_block().expect("a signal mask");
    let signal = SignalFd::new(&stop).expect("a signal descriptor");
    let log: PathBuf = given.path("--log");
    let mut server = Server::new(given);
    server.watch(&signal, SIGNAL);
    server.run();
    std::fs::write(log, &server.log).expect("--log can be written");
}

impl Server {
    fn new(given: &Given) -> Self {
        let listen = |name: &str| {
            let listener = socket2::Socket::new(
                socket2::Domain::IPV4,
                socket2::Type::STREAM.nonblocking(),
                None,
            )
            .expect("a socket");
            listener.set_reuse_address(true).expect("SO_REUSEADDR");
            let address = given.address(name);
            listener
                .bind(&address.into())
                .unwrap_or_else(|e| panic!("{name} {address}: {e}"));
            listener.listen(8_192).expect("listen");
            stamped(&listener);
            TcpListener::from(listener)
        };
        let names = given.has("--dns").then(|| {
            let socket = UdpSocket::bind(given.address("--dns")).expect("--dns can be bound");
            socket.set_nonblocking(true).expect("non-blocking");
            stamped(&socket);
            (socket, given.ip("--answer"))
        });
        let server = Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll"),
            timer: TimerFd::new(
                ClockId::CLOCK_REALTIME,
                TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
            )
            .expect("a timer"),
            armed: None,
            listeners: ["--plain", "--tls"]
                .into_iter()
                .filter(|name| given.has(name))
                .map(listen)
                .collect(),
            config: given.has("--tls").then(|| config(given)),
            names,
            syns: given.has("--syns").then(std::io::stdin),
            manners: Manners {
                tls: given.nanos("--tls-us"),
                first: given.nanos("--first-us"),
                transfer: given.nanos("--transfer-us"),
                body: given.get("--body").map_or_else(Vec::new, |_| given.body()),
            },
            resolve: given.nanos("--resolve-us"),
            connect: given.nanos("--connect-us"),
            exchanges: Vec::new(),
            free: Vec::new(),
            due: BTreeMap::new(),
            serial: 0,
            log: String::with_capacity(64 << 20),
        };
        server.watch(&server.timer, TIMER);
        for (listener, number) in server.listeners.iter().zip([PLAIN, TLS]) {
            server.watch(listener, number);
        }
        if let Some((socket, _)) = &server.names {
            server.watch(socket, NAMES);
        }
        if let Some(syns) = &server.syns {
            server.watch(syns, SYNS);
        }
        server
    }

    fn watch(&self, what: impl std::os::fd::AsFd, number: u64) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
        self.epoll.add(what, event).expect("epoll takes it");
    }

    fn run(&mut self) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            self.arm();
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => continue,
                Err(error) => panic!("epoll: {error}"),
            };
            for event in &events[..count] {
                self.send_due();
                match event.data() {
                    TIMER => drop(self.timer.wait()),
                    SIGNAL => return,
                    PLAIN => self.accept(0),
                    TLS => self.accept(1),
                    NAMES => self.asked(),
                    SYNS => self.dialled(),
                    number => self.hear((number - FIRST) as usize),
                }
            }
            self.send_due();
        }
    }

    fn arm(&mut self) {
        let Some((&(at, _), _)) = self.due.first_key_value() else {
            return;
        };
        if self.armed != Some(at) {
            let at_time = Expiration::OneShot(Duration::from_nanos(at.max(1) as u64).into());
            self.timer
                .set(at_time, TimerSetTimeFlags::TFD_TIMER_ABSTIME)
                .expect("a timer");
            self.armed = Some(at);
        }
    }

    fn later(&mut self, at: i64, due: Due) {
        self.serial += 1;
        self.due.insert((at, self.serial), due);
    }

    fn send_due(&mut self) {
        while let Some(first) = self.due.first_entry()
            && first.key().0 <= now()
        {
            match first.remove() {
                Due::Part { slot, serial } => self.send(slot, serial),
                Due::Name(answer) => {
                    let (socket, _) = self.names.as_ref().expect("a question came by it");
                    self.log.push_str(&answer.send(socket));
                }
                Due::Syn { frame, came } => {
                    let before = now();
                    let syns = self.syns.as_ref().expect("a frame came by it");
                    let _ = write(syns, &frame);
                    let tcp = &frame[LINK_HEADERS + 20..];
                    let port = u16::from_be_bytes([tcp[0], tcp[1]]);
                    let after = now();
                    let _ = writeln!(self.log, "syn\t{port}\t{came}\t{before}\t{after}");
                }
            }
        }
    }

    fn send(&mut self, slot: usize, serial: u64) {
        if let Some((own, exchange)) = &mut self.exchanges[slot]
            && *own == serial
        {
            let turn = exchange.send(&self.manners, &mut self.log);
            self.follow(slot, turn);
        }
    }

    fn hear(&mut self, slot: usize) {
        if let Some((_, exchange)) = &mut self.exchanges[slot] {
            let turn = exchange.hear(&self.manners);
            self.follow(slot, turn);
        }
    }

    fn follow(&mut self, slot: usize, turn: Turn) {
        match turn {
            Turn::Wait => {}
            Turn::At(at) => {
                let serial = self.exchanges[slot]
                    .as_ref()
                    .map_or(0, |(serial, _)| *serial);
                self.later(at, Due::Part { slot, serial });
            }
            Turn::Close => {
                self.exchanges[slot] = None;
                self.free.push(slot);
            }
        }
    }

    fn accept(&mut self, which: usize) {
        while let Ok((stream, peer)) = self.listeners[which].accept() {
            let _ = stream.set_nodelay(true);
            let tls = self.config.as_ref().filter(|_| which == 1);
            let exchange = Exchange::new(stream, peer.port(), tls);
            let slot = self.free.pop().unwrap_or_else(|| {
                self.exchanges.push(None);
                self.exchanges.len() - 1
            });
            self.watch(exchange.stream(), FIRST + slot as u64);
            self.serial += 1;
            self.exchanges[slot] = Some((self.serial, exchange));
            // The request is mostly there already.
            self.hear(slot);
        }
    }

    fn asked(&mut self) {
        let mut buffer = [0; 2_048];
        let Some((socket, address)) = &self.names else {
            return;
        };
        let Ok(received) = receive(socket, &mut buffer) else {
            return;
        };
        let Some(from) = received.from else { return };
        let from = SocketAddr::from((from.ip(), from.port()));
        let question = &buffer[..received.bytes];
        if let Some((answer, waits)) = names::answer(question, *address, from, received.at) {
            if waits {
                self.later(received.at + self.resolve, Due::Name(answer));
            } else {
                let _ = answer.send(socket);
            }
        }
    }

    /// A SYN, or whatever else the machine says to a new link: only IPv4 TCP is put back.
    fn dialled(&mut self) {
        let mut frame = vec![0; 2_048];
        let Some(syns) = &self.syns else { return };
        let Ok(received) = receive(syns, &mut frame) else {
            return;
        };
        frame.truncate(received.bytes);
        let is_plain_tcp = frame
            .get(LINK_HEADERS..)
            .is_some_and(|packet| packet.len() >= 40 && packet[0] == 0x45 && packet[9] == 6);
        if is_plain_tcp {
            let came = received.at;
            self.later(came + self.connect, Due::Syn { frame, came });
        }
    }
}

/// TLS 1.3 without tickets: nothing but the flight and the answers leaves us.
fn config(given: &Given) -> Arc<ServerConfig> {
    let certificates = CertificateDer::pem_file_iter(given.path("--cert"))
        .expect("--cert names a PEM file")
        .collect::<Result<Vec<_>, _>>()
        .expect("certificates");
    let key = PrivateKeyDer::from_pem_file(given.path("--key")).expect("--key names a PEM file");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .expect("a certificate and its key");
    config.send_tls13_tickets = 0;
    Arc::new(config)
}
