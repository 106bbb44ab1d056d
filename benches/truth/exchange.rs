//! One connection: a handshake, requests, answers in two parts; each part waits for its time, ready to be sent.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use super::stamp::{now, receive};

/// What every connection needs to know.
pub(super) struct Manners {
    pub(super) tls: i64,
    pub(super) first: i64,
    pub(super) transfer: i64,
    pub(super) body: Vec<u8>,
}

/// What follows for the connection.
pub(super) enum Turn {
    /// It waits for its peer.
    Wait,
    /// [`Exchange::send`] is wanted at this time.
    At(i64),
    /// It is over.
    Close,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// For the hello, or for a request.
    Heard,
    Flight,
    First,
    Rest,
}

/// When things arrived, and before and after which instants they left.
#[derive(Default)]
struct Stamps {
    hello: i64,
    flight: [i64; 2],
    request: i64,
    first: [i64; 2],
    rest: [i64; 2],
}

pub(super) struct Exchange {
    stream: TcpStream,
    port: u16,
    tls: Option<ServerConnection>,
    step: Step,
    id: u64,
    heard: Vec<u8>,
    /// Ready to be sent now, and after it.
    ready: [Vec<u8>; 2],
    stamps: Stamps,
}

impl Exchange {
    pub(super) fn new(stream: TcpStream, port: u16, tls: Option<&Arc<ServerConfig>>) -> Self {
        let tls = tls.map(|config| {
            ServerConnection::new(Arc::clone(config)).expect("a configuration that was checked")
        });
        Self {
            stream,
            port,
            tls,
            step: Step::Heard,
            id: 0,
            heard: Vec::new(),
            ready: Default::default(),
            stamps: Stamps::default(),
        }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Takes in what is there.
    pub(super) fn hear(&mut self, manners: &Manners) -> Turn {
        let mut buffer = [0; 16 * 1024];
        let received = match receive(&self.stream, &mut buffer) {
            Ok(received) if received.bytes > 0 => received,
            Err(nix::Error::EAGAIN) => return Turn::Wait,
            _ => return Turn::Close,
        };
        let bytes = &buffer[..received.bytes];
        let Some(tls) = &mut self.tls else {
            self.heard.extend(bytes);
            return self.requested(received.at, manners);
        };
        let was_handshaking = tls.is_handshaking();
        let mut rest = bytes;
        while !rest.is_empty() {
            if tls.read_tls(&mut rest).is_err() || tls.process_new_packets().is_err() {
                return Turn::Close;
            }
        }
        let mut plain = [0; 16 * 1024];
        while let Ok(count @ 1..) = tls.reader().read(&mut plain) {
            self.heard.extend(&plain[..count]);
        }
        if was_handshaking && tls.wants_write() {
            self.stamps.hello = received.at;
            self.ready[0] = records(tls);
            self.step = Step::Flight;
            return Turn::At(received.at + manners.tls);
        }
        self.requested(received.at, manners)
    }

    fn requested(&mut self, at: i64, manners: &Manners) -> Turn {
        if self.step != Step::Heard || !self.heard.ends_with(b"\r\n\r\n") {
            return Turn::Wait;
        }
        self.id = number(&self.heard);
        self.heard.clear();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
            manners.body.len()
        );
        let (begin, end) = manners.body.split_at(manners.body.len() / 2);
        self.ready = [[head.as_bytes(), begin].concat(), end.to_vec()];
        if let Some(tls) = &mut self.tls {
            self.ready = std::mem::take(&mut self.ready).map(|part| {
                tls.writer()
                    .write_all(&part)
                    .expect("less than rustls buffers");
                records(tls)
            });
        }
        self.stamps.request = at;
        self.step = Step::First;
        Turn::At(at + manners.first)
    }

    /// Sends what is ready. What is to be logged is added to `log`.
    pub(super) fn send(&mut self, manners: &Manners, log: &mut String) -> Turn {
        let [ready, next] = &mut self.ready;
        let before = now();
        let sent = (&self.stream).write_all(ready);
        let stamps = [before, now()];
        if sent.is_err() {
            return Turn::Close;
        }
        *ready = std::mem::take(next);
        match self.step {
            Step::Heard => Turn::Wait,
            Step::Flight => {
                self.stamps.flight = stamps;
                self.step = Step::Heard;
                Turn::Wait
            }
            Step::First => {
                self.stamps.first = stamps;
                self.step = Step::Rest;
                Turn::At(before + manners.transfer)
            }
            Step::Rest => {
                self.stamps.rest = stamps;
                log.push_str(&self.line());
                self.stamps = Stamps::default();
                self.step = Step::Heard;
                Turn::Wait
            }
        }
    }

    fn line(&self) -> String {
        let Stamps {
            hello,
            flight,
            request,
            first,
            rest,
        } = &self.stamps;
        let [flight, first, rest] =
            [flight, first, rest].map(|[before, after]| format!("{before}\t{after}"));
        let (id, port) = (self.id, self.port);
        format!("http\t{id}\t{port}\t{hello}\t{flight}\t{request}\t{first}\t{rest}\n")
    }
}

fn records(tls: &mut ServerConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes).expect("a vector takes all");
    }
    bytes
}

/// The last segment of the path of `GET /…/N HTTP/1.1`.
fn number(request: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(request);
    let path = text.split(' ').nth(1).unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    last.parse().unwrap_or_default()
}
