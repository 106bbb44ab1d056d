//! Two questions about patterns. Do those on the linear engine cost what the `regex` crate alone costs? And how long
//! does any pattern over any body hold up the probe loop?
//!
//! `cargo bench --bench patterns -- --run` prints a line of JSON for each case. The first: our judgement and the crate's
//! own over the same body, taken in turns, medians of CPU time. The second: real probes of a server that sends these bodies, on a
//! runtime like the probe thread's, beside a task that only yields; the longest CPU time between two of its turns is
//! what one body did to all other probes. CPU time, since a wait for a core is not the pattern's doing.

#[path = "support/bodies.rs"]
mod bodies;
#[allow(dead_code, reason = "its own server is for other benches")]
#[path = "support/probe_world.rs"]
mod probe_world;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use watcher::domain::{EndpointId, Pattern, Timestamp};

use self::bodies::{CASES, Case, bombs, serve};
use self::probe_world::{Probes, endpoint};

/// As the match thread's.
const BUDGET: Duration = Duration::from_millis(50);
/// What may take the crate alone longer is not asked of it.
const HOPELESS: Duration = Duration::from_secs(1);
const SIZES: [usize; 3] = [1 << 10, 64 << 10, 1 << 20];

fn main() {
    if !std::env::args().any(|argument| argument == "--run") {
        // `cargo bench` without arguments, and `cargo bench -- --test`.
        println!("patterns: not run, no --run given");
        return;
    }
    for case in CASES {
        for bytes in SIZES {
            compare(case, bytes);
        }
    }
    stalls();
}

/// Ours beside the crate's, where the linear engine takes the pattern and its worst is not meant to be reached.
fn compare(case: &Case, bytes: usize) {
    let pattern = Pattern::compile(case.pattern).expect(case.pattern);
    let Ok(alone) = regex::bytes::Regex::new(case.pattern) else {
        return;
    };
    let body = (case.body)(bytes).into_bytes();
    let ours = || {
        let started = Instant::now();
        pattern.is_match(black_box(&body), &|| started.elapsed() >= BUDGET)
    };
    let began = Instant::now();
    let Ok(matched) = ours() else {
        println!(
            "{}",
            json!({"undecided": case.name, "bytes": bytes, "ms": began.elapsed().as_secs_f64() * 1e3})
        );
        return;
    };
    if pattern.worst_case(bytes) > Some(HOPELESS) {
        println!(
            "{}",
            json!({"hopeless": case.name, "bytes": bytes, "ours_ms": began.elapsed().as_secs_f64() * 1e3})
        );
        return;
    }
    // The second call finds what the first had to make.
    let began = Instant::now();
    assert_eq!(ours(), Ok(matched), "{}", case.name);
    assert_eq!(matched, alone.is_match(&body), "{}", case.name);
    // So many in a row that the clock does not matter, and so many turns that the machine's moods do not.
    let once = began.elapsed().max(Duration::from_nanos(20));
    let repeats = (200_000 / once.as_nanos() as u64).clamp(1, 5_000);
    let turns = if once > Duration::from_millis(5) {
        5
    } else {
        41
    };
    let time = |search: &dyn Fn() -> bool| {
        let began = cpu_time();
        for _ in 0..repeats {
            assert_eq!(black_box(search()), matched);
        }
        (cpu_time() - began).as_nanos() as f64 / repeats as f64
    };
    let (mut mine, mut others, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..turns {
        let our = time(&|| ours() == Ok(true));
        let theirs = time(&|| {
            black_box(Instant::now());
            alone.is_match(black_box(&body))
        });
        mine.push(our);
        others.push(theirs);
        ratios.push(our / theirs);
    }
    println!(
        "{}",
        json!({"linear": case.name, "bytes": bytes, "ours_ns": median(mine), "crate_ns": median(others),
            "ratio": median(ratios)})
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The longest turn that each pattern and body gives the probe loop.
fn stalls() {
    let mut cases: Vec<(String, &str, usize, Vec<u8>, &'static str)> = Vec::new();
    for case in CASES {
        for bytes in SIZES {
            let body = (case.body)(bytes).into_bytes();
            cases.push((case.name.to_owned(), case.pattern, bytes, body, "identity"));
        }
    }
    for (encoding, bytes, body) in bombs() {
        cases.push((
            format!("bomb_{encoding}"),
            "you.*welcome",
            bytes,
            body,
            encoding,
        ));
    }
    let served: Vec<_> = cases.iter().map(|case| (case.3.clone(), case.4)).collect();
    let address = serve(served);
    let probes = Probes::new();
    for (at, (name, pattern, bytes, ..)) in cases.iter().enumerate() {
        let pattern = Arc::new(Pattern::compile(pattern).expect(pattern));
        let mut target = endpoint(address, |check| check.must_match = Some(pattern));
        target.id = EndpointId(at as i64 + 1);
        target.target.path_and_query = format!("/{at}").parse().expect("a path");
        // The first finds caches cold; the second is what every interval brings.
        let longest = [(); 2].map(|()| {
            probes
                .runtime
                .block_on(probes.local.run_until(longest_turn(&probes, &target)))
        });
        println!(
            "{}",
            json!({"stall": name, "bytes": bytes, "first_us": longest[0].0, "us": longest[1].0,
                "outcome": longest[1].1})
        );
    }
}

/// CPU time of the longest turn, µs, and what came of the probe.
async fn longest_turn(probes: &Probes, target: &watcher::domain::Endpoint) -> (f64, &'static str) {
    let mut probe = std::pin::pin!(probes.sample(target, Timestamp::from_millis(0)));
    let mut longest = Duration::ZERO;
    let mut turn = cpu_time();
    // The probe is polled in each turn here, and what it spawned by the runtime in between.
    let sample = std::future::poll_fn(|context| {
        let polled = probe.as_mut().poll(context);
        let now = cpu_time();
        longest = longest.max(now - turn);
        turn = now;
        if polled.is_pending() {
            // Once round the loop.
            context.waker().wake_by_ref();
        }
        polled
    })
    .await;
    (
        longest.as_secs_f64() * 1e6,
        sample.reason.map_or("up", |reason| reason.label()),
    )
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
