//! What the schedule costs per tick, at the sizes that one process is built for.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use watcher::domain::{EndpointId, Interval, Schedule, Timestamp};

const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);

fn filled(endpoints: i64) -> Schedule {
    let mut schedule = Schedule::new(START);
    for id in 1..=endpoints {
        let interval = Interval::from_secs(5 + id % 296).expect("5 to 300");
        schedule.upsert(EndpointId(id), interval, START);
    }
    schedule
}

fn ticks(c: &mut Criterion) {
    for endpoints in [100_000, 1_000_000] {
        let mut group = c.benchmark_group("schedule");
        let mut schedule = filled(endpoints);
        let mut now = START;
        let mut due = Vec::with_capacity(1 << 16);
        // How many ticks a second holds, for the throughput.
        let mut probe = filled(endpoints);
        probe.take_due(START.plus(Duration::from_secs(60)), usize::MAX, &mut due);
        group.throughput(Throughput::Elements(due.len() as u64 / 60));
        group.bench_function(format!("one_second_of_ticks/{endpoints}"), |b| {
            b.iter(|| {
                // A second in steps of a millisecond, as the worker takes it.
                for _ in 0..1_000 {
                    now = now.plus(Duration::from_millis(1));
                    due.clear();
                    schedule.take_due(now, usize::MAX, &mut due);
                    black_box(&due);
                    black_box(schedule.next_due());
                }
            });
        });
        group.finish();
    }
}

fn load(c: &mut Criterion) {
    let mut group = c.benchmark_group("schedule");
    group.sample_size(10);
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("load/100000", |b| {
        b.iter_batched(
            || (),
            |()| black_box(filled(100_000)),
            BatchSize::PerIteration,
        )
    });
    group.finish();
}

criterion_group!(benches, ticks, load);
criterion_main!(benches);
