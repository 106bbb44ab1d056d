//! What a sample costs on its way from the probe thread to the keeper thread.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use watcher::domain::{EndpointId, Sample, Timestamp};
use watcher::pipeline::buffer::SampleBuffer;

const BATCH: usize = 5_000;

fn through(c: &mut Criterion) {
    let mut group = c.benchmark_group("buffer");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("push_and_take_a_batch", |b| {
        let buffer = SampleBuffer::new(2 * BATCH, BATCH);
        let mut taken = Vec::with_capacity(BATCH);
        b.iter(|| {
            for id in 0..BATCH as i64 {
                let pushed = buffer.push(Sample::new(EndpointId(id), Timestamp::default()));
                assert!(pushed.is_ok());
            }
            taken.clear();
            buffer.take(BATCH, &mut taken);
            black_box(&taken);
        });
    });
    group.finish();
}

criterion_group!(benches, through);
criterion_main!(benches);
