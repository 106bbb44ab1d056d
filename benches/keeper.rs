//! What one keeper stores a second: the real keeper with its writer, into the real table.
//!
//! `cargo bench --bench keeper -- --url postgres://… [--rows 500000] [--batch-rows 10000]` lets a keeper connect, fills its
//! buffer with the samples of plain probes, closes it, and times how long the keeper takes to see all of them into
//! `metrics` of a migrated, empty database. scripts/bench runs it beside `psql \copy` of the same rows into the same
//! table, whose own clock leaves out connecting too.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{UsageWho, getrusage};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;
use watcher::domain::{AgentIdentity, EndpointId, Phases, Sample, Secret, Timestamp};
use watcher::pipeline::buffer::SampleBuffer;
use watcher::pipeline::keeper::{Keeper, KeeperOptions};
use watcher::pipeline::totals::Totals;
use watcher::store::timescale::{Database, SampleWriter};

/// Of so many endpoints, one sample each every five seconds, as an agent at 2 000/s takes them.
const ENDPOINTS: i64 = 10_000;
const INTERVAL_MS: i64 = 5_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1).cloned()
    };
    let Some(url) = value("--url") else {
        // `cargo bench` without arguments, and `cargo bench -- --test`.
        println!("keeper: not run, no --url given");
        return;
    };
    let number =
        |name: &str, default: usize| value(name).map_or(default, |n| n.parse().expect("a number"));
    let rows = number("--rows", 500_000);
    let batch_rows = number("--batch-rows", 10_000);
    let buffer = SampleBuffer::new(rows, batch_rows);
    let database = Database::from_url(&Secret::new(url)).expect("--url is a database's");
    let options = KeeperOptions {
        agent: Arc::new(AgentIdentity {
            name: "bench/0".into(),
            location: "default".into(),
        }),
        batch_rows,
        batch_age: Duration::from_millis(10),
        drain_grace: Duration::from_secs(10),
    };
    let (gaps, _lost) = mpsc::unbounded_channel();
    let totals = Totals::default();
    let keeper = Keeper::new(
        Rc::new(options),
        buffer.clone(),
        SampleWriter::new(Arc::new(database)),
        None,
        gaps,
        totals.clone(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (took, cpu) = LocalSet::new().block_on(&runtime, async {
        let keeping = spawn_local(keeper.run());
        let mut samples = samples(rows as i64 + 1);
        let push = |sample| assert!(buffer.push(sample).is_ok(), "there is room for all");
        // The first is written on a connection that is new.
        samples.by_ref().take(1).for_each(push);
        while totals.read().rows_stored == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        samples.for_each(push);
        buffer.close();
        // Nothing has run since they were pushed: there is one thread.
        let (begun, before) = (Instant::now(), cpu_us());
        let lost = keeping.await.expect("the keeper does not panic");
        assert_eq!(lost, 0, "samples that could not be saved");
        (begun.elapsed(), cpu_us() - before)
    });
    let stored = totals.read().rows_stored - 1;
    assert_eq!(stored, rows as u64, "stored");
    println!(
        "keeper: {stored} rows in {:.3} s ({:.0}/s), {:.3} us CPU each",
        took.as_secs_f64(),
        stored as f64 / took.as_secs_f64(),
        cpu as f64 / stored as f64
    );
}

/// Samples of plain probes that passed, the oldest first, the youngest a minute old.
fn samples(rows: i64) -> impl Iterator<Item = Sample> {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let rounds = rows / ENDPOINTS + 1;
    let begin = since_epoch.as_millis() as i64 - 60_000 - rounds * INTERVAL_MS;
    (0..rows).map(move |row| {
        let (round, endpoint) = (row / ENDPOINTS, row % ENDPOINTS);
        let phase = endpoint * INTERVAL_MS / ENDPOINTS;
        let at = Timestamp::from_millis(begin + round * INTERVAL_MS + phase);
        let vary = (row % 97) as u32;
        let mut sample = Sample::new(EndpointId(endpoint + 1), at);
        sample.status_code = Some(200);
        sample.matched = Some(true);
        sample.lag_us = Some(300 + vary);
        sample.phases = Phases {
            connect_us: Some(90 + vary),
            processing_us: Some(120 + vary),
            transfer_us: Some(15),
            ..Phases::default()
        };
        sample.duration_us = Some(225 + 2 * vary);
        sample.error_us = Some(30);
        sample.remote_ip = Some([127, 0, 0, 1].into());
        sample.http_version = Some(11);
        sample.bytes_sent = 120;
        sample.bytes_received = 1_180;
        sample.cpu_us = 70;
        sample
    })
}

fn cpu_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage");
    let us = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    us(usage.user_time()) + us(usage.system_time())
}
