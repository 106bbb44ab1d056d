//! The canary: a target of our own on this machine, probed like any other a few times a second. What its probe takes
//! beyond what the target took is the agent's error, measured from outside: by a thread that does nothing else, and by
//! the kernel's stamp of the request.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use ::http::uri::{PathAndQuery, Scheme};
use ::http::{HeaderMap, Method};
use tokio::time::{MissedTickBehavior, interval};

use super::Prober;
use crate::domain::{
    Check, Connection, DnsMode, Endpoint, EndpointId, HttpCheck, HttpVersion, Interval, IpFamily,
    StatusRanges, Target, Timestamp, TlsSettings,
};
use crate::net::arrival;
use crate::telemetry;

/// Often enough to see a convoy within a second, at 0.1 % of a core.
const EVERY: Duration = Duration::from_millis(250);
/// Who holds a connection to it open longer is cut off, so that the next probe has its turn.
const PATIENCE: Duration = Duration::from_millis(100);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The canary's server: answers on a port of the kernel's choice on loopback, until dropped.
#[derive(Debug)]
pub struct Canary {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default, Debug)]
struct Shared {
    is_over: AtomicBool,
    /// What the last answer took from the arrival of its request to its sending.
    took_us: AtomicU64,
}

impl Canary {
    /// Starts to answer.
    ///
    /// # Errors
    /// There is no loopback to listen on, or no thread.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let thread = Builder::new().name("canary".into()).spawn(move || {
            while !serving.is_over.load(Relaxed) {
                // Nobody but ourselves is waiting for the answer; what failed shows in the probe.
                let _ = listener.accept().and_then(|(s, _)| answer(&s, &serving));
            }
        })?;
        Ok(Self {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has it probed for ever; the prober tells by [`Prober::canary_error`] what came out.
    pub async fn probe(&self, prober: &Prober) {
        prober.canary.set(Some(self.address));
        let endpoint = self.endpoint();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let sample = prober
                .probe(&endpoint, Timestamp::default(), Timestamp::default())
                .await;
            let Some(duration_us) = sample.duration_us.filter(|_| sample.reason.is_none()) else {
                continue;
            };
            let took_us = self.shared.took_us.load(Relaxed);
            let error = Duration::from_micros(u64::from(duration_us).saturating_sub(took_us));
            telemetry::canary(error);
            prober.canary_error.set(Some(error));
        }
    }

    fn endpoint(&self) -> Endpoint {
        let check = HttpCheck {
            method: Method::GET,
            headers: HeaderMap::new(),
            body: Box::default(),
            expected_status: StatusRanges::default(),
            must_match: None,
            must_not_match: None,
            auth: None,
            redirects_max: 0,
            connect_to: None,
            ip_family: IpFamily::Any,
            http_version: HttpVersion::Auto,
            tls: TlsSettings::default(),
            connection: Connection::Fresh,
            dns: DnsMode::Cached,
            body_bytes_max: 1_024,
        };
        Endpoint {
            id: EndpointId(0),
            target: Target {
                scheme: Scheme::HTTP,
                host: self.address.ip().to_string().into(),
                port: self.address.port(),
                path_and_query: PathAndQuery::from_static("/"),
            },
            interval: Interval::SHORTEST,
            timeout: Duration::from_secs(1),
            degraded_after: None,
            cert_warn: None,
            check: Arc::new(Check::Http(check)),
        }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        // It waits for somebody to come.
        let woken = TcpStream::connect_timeout(&self.address, PATIENCE);
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn answer(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    arrival::want_stamps(stream);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = [0; 1_024];
    let (count, age) = arrival::receive(stream, &mut request)?;
    let read_at = Instant::now();
    if !request[..count].ends_with(b"\r\n\r\n") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Told before it is sent: the probe may look before this thread runs again. What sending takes is the agent's error.
    let took = age.unwrap_or_default() + read_at.elapsed();
    shared.took_us.store(took.as_micros() as u64, Relaxed);
    (&*stream).write_all(ANSWER)
}
