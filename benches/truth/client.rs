//! A calm client: one exchange at a time, on a thread that has nothing else to do. It spins; with `--sleep` it waits as
//! agents do, and shows how late this machine wakes a thread.
//!
//! Prints a line for each: `client id start connected cpu shaken first_rx first_seen last_rx last_seen`, in nanoseconds
//! of the wall clock but for `cpu`, the time that the handshake took of this thread. `_rx` is the kernel's stamp.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use watcher::domain::{HttpVersion, TlsSettings};
use watcher::net::tls::TlsClients;

use super::Given;
use super::stamp::{Received, now, receive, stamped};

pub(super) fn run(given: &Given) {
    let address = given.address("--address");
    let name = given
        .get("--name")
        .unwrap_or_else(|| address.ip().to_string());
    let tls = given.get("--ca").map(|ca| {
        let name = ServerName::try_from(name.clone()).expect("--name is a name");
        (config(&ca), name)
    });
    let wait: fn(&TcpStream) = if given.has("--sleep") { asleep } else { |_| () };
    let count: u64 = given.text("--count").parse().expect("--count is a number");
    let first: u64 = given
        .get("--first")
        .map_or(1, |first| first.parse().expect("--first is a number"));
    let mut lines = String::new();
    for id in first..first + count {
        lines.push_str(&exchange(id, address, &name, tls.as_ref(), wait));
        sleep(Duration::from_millis(2));
    }
    print!("{lines}");
}

fn exchange(
    id: u64,
    address: SocketAddr,
    name: &str,
    tls: Option<&(Arc<ClientConfig>, ServerName<'static>)>,
    wait: fn(&TcpStream),
) -> String {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    stamped(&socket);
    socket.set_tcp_nodelay(true).expect("TCP_NODELAY");
    let start = now();
    socket
        .connect(&address.into())
        .expect("the server is there");
    let connected = now();
    let mut stream = TcpStream::from(socket);
    let mut cpu = Duration::ZERO;
    let mut session = tls.map(|(config, name)| {
        let mut session = ClientConnection::new(Arc::clone(config), name.clone())
            .expect("a configuration that was checked");
        cpu = shake(&mut session, &mut stream, connected, wait);
        session
    });
    let shaken = now();
    let request = format!("GET /e/{id} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
    match &mut session {
        None => stream
            .write_all(request.as_bytes())
            .expect("the request goes out"),
        Some(session) => {
            session
                .writer()
                .write_all(request.as_bytes())
                .expect("a buffer");
            session
                .write_tls(&mut stream)
                .expect("the request goes out");
        }
    }
    let mut answer = Vec::new();
    let mut first = None;
    let (last_rx, last_seen) = loop {
        let mut buffer = [0; 64 * 1024];
        let received = heard(&stream, &mut buffer, wait);
        let mut bytes = &buffer[..received.bytes];
        match &mut session {
            None => answer.extend(bytes),
            Some(session) => {
                while !bytes.is_empty() {
                    session.read_tls(&mut bytes).expect("records");
                    session.process_new_packets().expect("good records");
                    let mut plain = [0; 16 * 1024];
                    while let Ok(count @ 1..) = session.reader().read(&mut plain) {
                        answer.extend(&plain[..count]);
                    }
                }
            }
        }
        let seen = now();
        first.get_or_insert((received.at, seen));
        if is_whole(&answer) {
            break (received.at, seen);
        }
    };
    let (first_rx, first_seen) = first.unwrap_or_default();
    let cpu = cpu.as_nanos();
    format!(
        "client\t{id}\t{start}\t{connected}\t{cpu}\t{shaken}\t{first_rx}\t{first_seen}\t{last_rx}\t{last_seen}\n"
    )
}

/// The handshake; the time that it took of this thread, which is all but the waiting.
fn shake(
    session: &mut ClientConnection,
    stream: &mut TcpStream,
    begun: i64,
    wait: fn(&TcpStream),
) -> Duration {
    let mut cpu = Duration::from_nanos((now() - begun).max(0) as u64);
    while session.is_handshaking() {
        let work = Instant::now();
        while session.wants_write() {
            session.write_tls(stream).expect("the handshake goes out");
        }
        cpu += work.elapsed();
        if !session.is_handshaking() {
            break;
        }
        let mut buffer = [0; 16 * 1024];
        let received = heard(stream, &mut buffer, wait);
        let work = Instant::now();
        let mut bytes = &buffer[..received.bytes];
        while !bytes.is_empty() {
            session.read_tls(&mut bytes).expect("records");
            session.process_new_packets().expect("a handshake");
        }
        cpu += work.elapsed();
    }
    let work = Instant::now();
    while session.wants_write() {
        session.write_tls(stream).expect("the handshake goes out");
    }
    cpu + work.elapsed()
}

fn asleep(stream: &TcpStream) {
    let mut readable = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut readable, PollTimeout::NONE);
}

fn heard(stream: &TcpStream, buffer: &mut [u8], wait: fn(&TcpStream)) -> Received {
    wait(stream);
    loop {
        match receive(stream, buffer) {
            Ok(received) if received.bytes > 0 => return received,
            Ok(_) => panic!("the server closed"),
            Err(nix::Error::EAGAIN) => {}
            Err(error) => panic!("receive: {error}"),
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    answer.len() >= end + 4 + length.expect("a content-length")
}

/// The agent's own: what verifying takes is part of the truth.
fn config(ca: &str) -> Arc<ClientConfig> {
    let settings = TlsSettings {
        ca_pem: Some(
            std::fs::read_to_string(ca)
                .expect("--ca names a file")
                .into(),
        ),
        ..TlsSettings::default()
    };
    TlsClients::new()
        .config(&settings, HttpVersion::Http1)
        .expect("--ca names a PEM file")
}
