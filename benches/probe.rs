//! What one whole probe costs, beside the floor: the same exchange on a bare tokio socket, in the same run. Machines
//! differ by a factor of two in the price of a system call, so only ratios to the floor travel.
//!
//! `probe` is the wall time of one probe at a time. `probe_cpu` is the CPU time of the probing thread a probe, kernel
//! included, with 32 under way: what a core's capacity is made of.

#[path = "support/probe_world.rs"]
mod probe_world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use watcher::domain::{Connection, Pattern};

use self::probe_world::{BODY_BYTES, Probes, endpoint, serve};

const UNDER_WAY: usize = 32;

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

/// CPU time of this thread for `count` runs of `one`, [`UNDER_WAY`] at a time.
fn cpu<F: Future>(probes: &Probes, count: u64, one: impl Fn() -> F) -> Duration {
    let lane = async |turns: u64| {
        for _ in 0..turns {
            one().await;
        }
    };
    let start = thread_cpu();
    probes.local.block_on(&probes.runtime, async {
        let lanes = (0..UNDER_WAY as u64).map(|n| {
            let turns = count / UNDER_WAY as u64;
            lane(turns + u64::from(n < count % UNDER_WAY as u64))
        });
        futures_util::future::join_all(lanes).await;
    });
    thread_cpu() - start
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
        b.iter_custom(|count| cpu(&probes, count, || bare(plain)));
    });
    for (name, endpoint) in cases {
        group.bench_function(name, |b| {
            b.iter_custom(|count| cpu(&probes, count, || probes.probe(endpoint)));
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
