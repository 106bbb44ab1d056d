//! The floor: what a bare request costs on this machine, with no agent around it.
//!
//! `cargo bench --bench floor -- --address 127.0.0.1:8080 [--path /] [--rate 2000 | --rate max] [--seconds 10]
//! [--tls CA.pem] [--keep-alive]` prints CPU µs per request (user and system time of this process), so that an agent
//! driven at the same rate against the same server can be put beside it. One current-thread runtime, one task a
//! request, at most 1 000 under way. Connect, GET, read to the end, close; with `--keep-alive` on connections that
//! stay; with `--tls` after a full handshake, the certificate verified against that authority each time (the agent
//! remembers what it found good, see `net::tls::remembered`). scripts/bench runs it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_rustls::TlsConnector;

/// What a read may take at once; kept between requests, as a good client would.
const BUFFER_BYTES: usize = 64 * 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| arguments.iter().position(|a| a == name);
    let value = |name: &str| given(name).and_then(|at| arguments.get(at + 1)).cloned();
    let Some(address) = value("--address") else {
        // `cargo bench` without arguments, and `cargo bench -- --test`.
        println!("floor: not run, no --address given");
        return;
    };
    let address: SocketAddr = address.parse().expect("--address is IP:PORT");
    let path = value("--path").unwrap_or_else(|| "/".to_owned());
    let rate = value("--rate").unwrap_or_else(|| "2000".to_owned());
    let time = value("--seconds").map_or(10, |s| s.parse().expect("--seconds is a number"));
    let client = Rc::new(Client::new(
        address,
        &path,
        value("--tls").as_deref(),
        given("--keep-alive").is_some(),
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (begun, before) = (std::time::Instant::now(), cpu_us());
    let time = Duration::from_secs(time);
    let (done, failed) = runtime.block_on(LocalSet::new().run_until(async {
        match rate.as_str() {
            "max" => closed_loop(client, time).await,
            rate => open_loop(client, rate.parse().expect("--rate: a number or max"), time).await,
        }
    }));
    let cpu = cpu_us() - before;
    println!(
        "floor: {done} requests in {:.1} s ({:.0}/s), {failed} failed, {:.1} us CPU each",
        begun.elapsed().as_secs_f64(),
        done as f64 / begun.elapsed().as_secs_f64(),
        cpu as f64 / done.max(1) as f64
    );
}

/// Starts `rate` requests a second, in groups a millisecond apart.
async fn open_loop(client: Rc<Client>, rate: u64, time: Duration) -> (u64, u64) {
    let mut tasks = JoinSet::new();
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    let (mut started, mut done, mut failed) = (0, 0, 0);
    while begun.elapsed() < time {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        while started < due && tasks.len() < 1_000 {
            let client = client.clone();
            tasks.spawn_local(async move { client.exchange().await.is_ok() });
            started += 1;
        }
        while let Some(result) = tasks.try_join_next() {
            done += 1;
            failed += u64::from(!result.unwrap_or(false));
        }
    }
    while let Some(result) = tasks.join_next().await {
        done += 1;
        failed += u64::from(!result.unwrap_or(false));
    }
    (done, failed)
}

/// Sixteen requests always under way.
async fn closed_loop(client: Rc<Client>, time: Duration) -> (u64, u64) {
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..16 {
        let client = client.clone();
        tasks.spawn_local(async move {
            let (mut done, mut failed) = (0, 0);
            while begun.elapsed() < time {
                done += 1;
                failed += u64::from(client.exchange().await.is_err());
            }
            (done, failed)
        });
    }
    let mut sum = (0, 0);
    while let Some(result) = tasks.join_next().await {
        let (done, failed) = result.unwrap_or((0, 0));
        sum = (sum.0 + done, sum.1 + failed);
    }
    sum
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// What the requests share.
struct Client {
    address: SocketAddr,
    request: String,
    tls: Option<TlsConnector>,
    keep_alive: bool,
    idle: RefCell<Vec<Box<dyn Stream>>>,
    buffers: RefCell<Vec<Vec<u8>>>,
}

impl Client {
    fn new(address: SocketAddr, path: &str, ca: Option<&str>, keep_alive: bool) -> Self {
        let connection = if keep_alive { "keep-alive" } else { "close" };
        Self {
            address,
            request: format!(
                "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: floor\r\nconnection: {connection}\r\n\r\n"
            ),
            tls: ca.map(connector),
            keep_alive,
            idle: RefCell::default(),
            buffers: RefCell::default(),
        }
    }

    async fn exchange(&self) -> std::io::Result<()> {
        let kept = self.idle.borrow_mut().pop();
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        let kept = self.buffers.borrow_mut().pop();
        let mut buffer = kept.unwrap_or_else(|| vec![0; BUFFER_BYTES]);
        stream.write_all(self.request.as_bytes()).await?;
        let done = self.read(&mut stream, &mut buffer).await;
        self.buffers.borrow_mut().push(buffer);
        done?;
        if self.keep_alive {
            self.idle.borrow_mut().push(stream);
        }
        Ok(())
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::IpAddress(self.address.ip().into());
                Box::new(tls.connect(name, stream).await?)
            }
        })
    }

    /// To the end of the connection, or of the body when the connection stays.
    async fn read(&self, stream: &mut dyn Stream, buffer: &mut [u8]) -> std::io::Result<()> {
        let (mut got, mut wanted) = (0, None);
        loop {
            // Only the head has to stay; a body longer than the buffer goes over it.
            let at = if wanted.is_none() { got } else { 0 };
            let read = stream.read(&mut buffer[at..]).await?;
            got += read;
            if read == 0 {
                let whole = wanted.is_none_or(|wanted| got >= wanted);
                return if got > 0 && whole {
                    Ok(())
                } else {
                    Err(std::io::ErrorKind::UnexpectedEof.into())
                };
            }
            wanted = wanted.or_else(|| length(&buffer[..got]));
            if self.keep_alive && wanted.is_some_and(|wanted| got >= wanted) {
                return Ok(());
            }
        }
    }
}

/// Bytes of the whole answer, once its head is there.
fn length(answer: &[u8]) -> Option<usize> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    Some(end + body?)
}

/// Full handshakes only.
fn connector(ca: &str) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).expect("--tls names a PEM file") {
        roots
            .add(certificate.expect("a certificate"))
            .expect("an authority's certificate");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

fn cpu_us() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage of this process");
    let us = |t: nix::sys::time::TimeVal| (t.tv_sec() * 1_000_000 + t.tv_usec()) as u64;
    us(usage.user_time()) + us(usage.system_time())
}
