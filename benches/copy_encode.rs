//! Samples into binary COPY: what the keeper thread pays per row before anything is sent.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use watcher::domain::{
    AgentIdentity, Batch, EndpointId, Failure, Phases, Reason, Sample, Timestamp,
};
use watcher::store::timescale::RowEncoder;

/// Mostly passing HTTPS probes, one in twenty failed with a few words.
fn batch(rows: i64) -> Batch {
    let agent = AgentIdentity {
        name: "node-17/3".into(),
        location: "eu-central".into(),
    };
    let samples = (0..rows)
        .map(|id| {
            let at = Timestamp::from_millis(1_780_000_000_000 + id);
            let mut sample = Sample::new(EndpointId(id), at);
            sample.status_code = Some(200);
            sample.matched = Some(true);
            sample.lag_us = Some(420);
            sample.phases = Phases {
                resolve_us: None,
                connect_us: Some(900),
                tls_us: Some(2_100),
                processing_us: Some(15_000),
                transfer_us: Some(300),
            };
            sample.duration_us = Some(18_300);
            sample.error_us = Some(40);
            sample.remote_ip = Some([192, 0, 2, 7].into());
            sample.http_version = Some(11);
            sample.bytes_sent = 700;
            sample.bytes_received = 5_300;
            sample.cpu_us = 270;
            sample.tls_not_after = Some(Timestamp::from_millis(1_790_000_000_000));
            if id % 20 == 0 {
                sample.reason = Some(Reason::Failed(Failure::ConnectRefused));
                sample.detail = Some("connect to 192.0.2.7:443: connection refused".into());
            }
            sample
        })
        .collect();
    Batch {
        agent: Arc::new(agent),
        samples,
    }
}

fn copy_encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("copy_encode");
    for rows in [100, 1_000, 10_000] {
        let batch = batch(rows);
        let mut encoder = RowEncoder::default();
        group.throughput(Throughput::Elements(rows.cast_unsigned()));
        group.bench_with_input(
            BenchmarkId::from_parameter(rows),
            &batch,
            |bencher, batch| {
                bencher.iter(|| black_box(encoder.encode(black_box(batch))));
            },
        );
    }
    group.finish();
}

criterion_group!(benches, copy_encode);
criterion_main!(benches);
