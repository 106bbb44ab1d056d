//! What one whole probe costs, beside the floor: the same exchange on a bare tokio socket, in the same run. Machines
//! differ by a factor of two in the price of a system call, so only ratios to the floor travel.
//!
//! `probe` is the wall time of one probe at a time. `probe_cpu` is the CPU time of the probing thread a probe, kernel
//! included, with 32 under way: what a core's capacity is made of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use http::uri::{PathAndQuery, Scheme};
use rustix::time::{ClockId, clock_gettime};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;
use watcher::domain::{
    Check, Connection, DnsMode, Endpoint, EndpointId, HttpCheck, HttpVersion, Interval, IpFamily,
    Pattern, StatusRanges, Target, Timestamp, TlsSettings,
};
use watcher::net::policy::PolicyOptions;
use watcher::probe::matcher::{MatchThread, Matcher, MatcherOptions};
use watcher::probe::{Prober, ProberOptions, SUSPECT_ABOVE};

const BODY_BYTES: usize = 1_024;
const UNDER_WAY: usize = 32;

/// Answers every request with 1 KiB on a thread of its own; for ever.
fn serve(tls: Option<Arc<ServerConfig>>) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let acceptor = tls.map(TlsAcceptor::from);
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                match acceptor.clone() {
                    None => drop(tokio::spawn(answer(stream))),
                    Some(acceptor) => drop(tokio::spawn(async move {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            answer(stream).await;
                        }
                    })),
                }
            }
        });
    });
    told.recv().unwrap()
}

/// Answers until the client leaves, or asks for the end.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut response =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY_BYTES}\r\n\r\n").into_bytes();
    response.resize(response.len() + BODY_BYTES, b'x');
    let mut request = [0; 4_096];
    let mut len = 0;
    while let Ok(count @ 1..) = stream.read(&mut request[len..]).await {
        len += count;
        if request[..len].ends_with(b"\r\n\r\n") {
            let closes = request[..len]
                .windows(17)
                .any(|w| w == b"connection: close");
            if stream.write_all(&response).await.is_err() || closes {
                return;
            }
            len = 0;
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A server's certificate for localhost, and the client's trust in it (PEM).
fn certificate() -> (Arc<ServerConfig>, String) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), certified.cert.pem())
}

fn endpoint(address: SocketAddr, change: impl FnOnce(&mut HttpCheck)) -> Endpoint {
    let mut check = HttpCheck {
        method: http::Method::GET,
        headers: http::HeaderMap::new(),
        body: Box::default(),
        expected_status: StatusRanges::default(),
        must_match: None,
        must_not_match: None,
        auth: None,
        redirects_max: 5,
        connect_to: None,
        ip_family: IpFamily::Any,
        http_version: HttpVersion::Auto,
        tls: TlsSettings::default(),
        connection: Connection::Fresh,
        dns: DnsMode::Cached,
        body_bytes_max: 1 << 20,
    };
    change(&mut check);
    let is_https = check.tls.ca_pem.is_some();
    Endpoint {
        id: EndpointId(1),
        target: Target {
            scheme: if is_https {
                Scheme::HTTPS
            } else {
                Scheme::HTTP
            },
            host: address.ip().to_string().into(),
            port: address.port(),
            path_and_query: PathAndQuery::from_static("/a/path?with=query"),
        },
        interval: Interval::from_secs(60).unwrap(),
        timeout: Duration::from_secs(10),
        degraded_after: None,
        cert_warn: None,
        check: Arc::new(Check::Http(check)),
    }
}

struct Probes {
    prober: Prober,
    local: LocalSet,
    runtime: Runtime,
    _matching: MatchThread,
}

impl Probes {
    fn new() -> Self {
        let (matcher, matching) = Matcher::start(MatcherOptions::default()).unwrap();
        let options = ProberOptions {
            policy: PolicyOptions::default(),
            name_servers: None,
            matcher,
            suspect_above: SUSPECT_ABOVE,
        };
        Self {
            prober: Prober::new(options),
            local: LocalSet::new(),
            runtime: runtime(),
            _matching: matching,
        }
    }

    async fn probe(&self, endpoint: &Endpoint) {
        let now = Timestamp::from_millis(0);
        let sample = self.prober.probe(endpoint, now, now).await;
        assert_eq!(sample.reason, None, "{sample:?}");
    }

    /// CPU time of this thread for `count` runs of `one`, [`UNDER_WAY`] at a time.
    fn cpu<F: Future>(&self, count: u64, one: impl Fn() -> F) -> Duration {
        let lane = async |turns: u64| {
            for _ in 0..turns {
                one().await;
            }
        };
        let start = thread_cpu();
        self.local.block_on(&self.runtime, async {
            let lanes = (0..UNDER_WAY as u64).map(|n| {
                let turns = count / UNDER_WAY as u64;
                lane(turns + u64::from(n < count % UNDER_WAY as u64))
            });
            futures_util::future::join_all(lanes).await;
        });
        thread_cpu() - start
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The same exchange on a bare socket.
async fn bare(address: SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_zero_linger().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = b"GET /a/path?with=query HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: watcher\r\naccept: */*\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut buf = [0; 8_192];
    let mut len = 0;
    while len < BODY_BYTES + 40 {
        len += stream.read(&mut buf[len..]).await.unwrap();
    }
}

fn bench(c: &mut Criterion) {
    let (config, ca) = certificate();
    let (plain, tls) = (serve(None), serve(Some(config)));
    let probes = Probes::new();
    let fresh = endpoint(plain, |_| ());
    let pattern = endpoint(plain, |check| {
        check.must_match = Some(Arc::new(Pattern::compile("x{3}").unwrap()));
    });
    let secure = endpoint(tls, |check| {
        check.tls.ca_pem = Some(ca.as_str().into());
        check.tls.server_name = Some("localhost".into());
    });
    let kept = endpoint(plain, |check| check.connection = Connection::Reuse);
    let cases = [("plain", &fresh), ("pattern", &pattern), ("tls", &secure)];

    let mut group = c.benchmark_group("probe");
    group.bench_function("floor", |b| {
        b.iter_custom(|count| {
            let start = Instant::now();
            probes.local.block_on(&probes.runtime, async {
                for _ in 0..count {
                    bare(plain).await;
                }
            });
            start.elapsed()
        });
    });
    for (name, endpoint) in cases.iter().copied().chain([("kept", &kept)]) {
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                let start = Instant::now();
                probes.local.block_on(&probes.runtime, async {
                    for _ in 0..count {
                        probes.probe(endpoint).await;
                    }
                });
                start.elapsed()
            });
        });
    }
    group.finish();

    let mut group: BenchmarkGroup<'_, _> = c.benchmark_group("probe_cpu");
    group.bench_function("floor", |b| {
        b.iter_custom(|count| probes.cpu(count, || bare(plain)));
    });
    for (name, endpoint) in cases {
        group.bench_function(name, |b| {
            b.iter_custom(|count| probes.cpu(count, || probes.probe(endpoint)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = bench
}
criterion_main!(benches);
