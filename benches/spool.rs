//! The spool: what a batch of 5 000 rows costs to encode, to decode, and to put (commit included).

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use watcher::domain::{
    AgentIdentity, Batch, EndpointId, Failure, Phases, Reason, Sample, Timestamp,
};
use watcher::spool::{Durability, Spool, SpoolOptions, SpoolThread, codec};

const ROWS: u32 = 5_000;

/// As an agent sees them: nine in ten up over TLS, one in ten with a reason and some words.
fn batch() -> Batch {
    let sample = |row: u32| {
        let at = Timestamp::from_millis(1_795_000_000_000 + i64::from(row) / 2);
        let mut sample = Sample::new(EndpointId(i64::from(row) * 7), at);
        sample.status_code = Some(200);
        sample.lag_us = Some(900 + row % 500);
        sample.phases = Phases {
            resolve_us: None,
            connect_us: Some(12_000 + row),
            tls_us: Some(25_000 + row),
            processing_us: Some(80_000 + row),
            transfer_us: Some(300 + row),
        };
        sample.duration_us = Some(117_000 + 3 * row);
        sample.error_us = Some(80);
        sample.remote_ip = Some(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + row)));
        sample.http_version = Some(11);
        sample.bytes_sent = 700;
        sample.bytes_received = 4_000 + row;
        sample.cpu_us = 300;
        sample.tls_not_after = Some(Timestamp::from_millis(1_800_000_000_000));
        if row.is_multiple_of(10) {
            sample.reason = Some(Reason::Failed(Failure::StatusMismatch));
            sample.detail = Some("status 503 is not expected".into());
        }
        sample
    };
    Batch {
        agent: Arc::new(AgentIdentity {
            name: "host/0".into(),
            location: "here".into(),
        }),
        samples: (0..ROWS).map(sample).collect(),
    }
}

fn spool(criterion: &mut Criterion) {
    let batch = batch();
    let encoded = codec::encode(&batch);
    println!(
        "{} bytes, {} a row",
        encoded.len(),
        encoded.len() / ROWS as usize
    );
    let mut group = criterion.benchmark_group("spool_5000_rows");
    group.throughput(Throughput::Elements(u64::from(ROWS)));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| codec::encode(black_box(&batch)))
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| codec::decode(black_box(&encoded)))
    });

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    for (name, durability) in [
        ("put_process", Durability::Process),
        ("put_power_cut", Durability::PowerCut),
    ] {
        let directory = tempfile::TempDir::new().unwrap();
        let options = SpoolOptions {
            // Full after some hundred puts, as in a long outage: dropping the oldest is part of the figure.
            bytes_max: 64 << 20,
            durability,
            ..SpoolOptions::default()
        };
        let path = directory.path().join("spool.db");
        let (spool, thread) = Spool::open(&path, options.clone()).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(spool.put(&batch)).unwrap());
        });
        let close = |(spool, thread): (Spool, SpoolThread)| {
            drop(spool);
            thread.join(Duration::from_secs(60)).unwrap();
        };
        close((spool, thread));
        // What a start costs that finds a full spool: the file is checked whole.
        group.bench_function(format!("open_full_after_{name}"), |bencher| {
            bencher.iter(|| close(Spool::open(&path, options.clone()).unwrap()));
        });
    }
    group.finish();
}

criterion_group!(benches, spool);
criterion_main!(benches);
