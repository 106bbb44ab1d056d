//! What judging a body costs: sizes × engines. The figures stand beside `NANOS_PER_POSITION` and `LOOKS_PER_CHECK` in
//! `domain::pattern`, and behind `MatcherOptions::inline_max`.

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use watcher::domain::Pattern;
use watcher::probe::body::{BodyDecoder, Progress};

const CUSTOMER: &str = r"(?=^.*you.*welcome)(?!.*forbidden).*\b(?:[a-zA-Z]{3,6}\s?){2,4}\b(?<=\b[a-zA-Z]+\b)\s\d{1,3}(?<!100|200)\s(?:at|on)\s[0-9]{2}:[0-9]{2}(?=\s(?:AM|PM)$)";

const HIT: &str = "hello you are welcome to stay with us, see you there 42 at 10:30 PM";

/// Text of one line, of `bytes` bytes, that ends in `end`.
fn line(bytes: usize, end: &str) -> String {
    let words = "the quick brown fox jumps over 13 lazy dogs, and you are welcome to look on ";
    let mut text: String = words.chars().cycle().take(bytes - end.len()).collect();
    text.push_str(end);
    text
}

/// A name, a pattern, and how its body is made.
type Case = (&'static str, &'static str, fn(usize) -> String);

fn bench(c: &mut Criterion) {
    let cases: [Case; 10] = [
        ("literal", "no such words", |n| line(n, HIT)),
        (
            "typical",
            r"\b[a-z]{3,8}\s\d{1,3}\s(?:at|in)\s\d\d:\d\d$",
            |n| line(n, ""),
        ),
        // Unicode's \b keeps the lazy DFA off a body that is not ASCII.
        (
            "typical_not_ascii",
            r"\b[a-z]{3,8}\s\d{1,3}\s(?:at|in)\s\d\d:\d\d$",
            |n| line(n, "é"),
        ),
        // 61 and 3 001 positions, all alive; no literal that the second cannot do without.
        ("worst_linear", "(?:x{0,20}){3}y", |n| "x".repeat(n)),
        ("worst_linear_wide", "(?:x{0,1000}){3}[yz]", |n| {
            "x".repeat(n)
        }),
        ("split", "^(?=.*you.*welcome)(?!.*forbidden)", |n| {
            line(n, HIT)
        }),
        // The same without parts: the second branch keeps it whole.
        ("whole", "^(?=.*you.*welcome)(?!.*forbidden)|(?!)", |n| {
            line(n, HIT)
        }),
        ("customer_hit", CUSTOMER, |n| line(n, HIT)),
        ("customer_miss", CUSTOMER, |n| line(n, "")),
        ("customer_forbidden", CUSTOMER, |n| line(n, "forbidden")),
    ];
    for (name, text, body) in cases {
        let pattern = Pattern::compile(text).expect(text);
        let mut group = c.benchmark_group(name);
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(300));
        group.measurement_time(Duration::from_millis(700));
        for bytes in [1 << 10, 64 << 10, 1 << 20] {
            let body = body(bytes).into_bytes();
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_with_input(BenchmarkId::from_parameter(bytes), &body, |b, body| {
                b.iter(|| {
                    // As the match thread asks: the clock is part of the price.
                    let started = Instant::now();
                    let expired = || started.elapsed() >= Duration::from_millis(50);
                    pattern.is_match(black_box(body), &expired)
                });
            });
        }
        group.finish();
    }
}

/// A budget of 50 ms: how late it ends.
fn overrun(c: &mut Criterion) {
    let mut group = c.benchmark_group("budget_50ms");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100));
    for (name, text) in [
        ("tempered_dot", r"(?s)(?:(?!.*Z)x)*y(?<!y)"),
        (
            "delegate",
            r"(?s)(?:(?=.*(?:[a-z]{0,40}){3}Z)x|x)*(?<=y)y(?<!y)",
        ),
        ("behind", r"(?s)(?:(?<=x.*)x|x)*y(?<!y)"),
        ("unanchored", r"(?s)(?=.*you.*welcome)(?!.*x)"),
    ] {
        let pattern = Pattern::compile(text).expect(text);
        for bytes in [64 << 10, 1 << 20] {
            let body = [&vec![b'x'; bytes - 1][..], b"y"].concat();
            group.bench_with_input(BenchmarkId::new(name, bytes), &body, |b, body| {
                b.iter(|| {
                    let started = Instant::now();
                    let expired = || started.elapsed() >= Duration::from_millis(50);
                    pattern.is_match(black_box(body), &expired)
                });
            });
        }
    }
    group.finish();
}

/// 1 MiB of text, and a bomb of 256 MiB that ends at the cap, in chunks of 16 KiB.
fn decode(c: &mut Criterion) {
    let plain = line(1 << 20, "");
    let bomb = vec![0; 1 << 28];
    let mut group = c.benchmark_group("decode");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100));
    group.measurement_time(Duration::from_millis(500));
    for encoding in ["identity", "gzip", "br", "zstd"] {
        for (kind, plain) in [("text", plain.as_bytes()), ("bomb", &bomb)] {
            let encoded = encode(encoding, plain);
            group.bench_function(format!("{encoding}/{kind}"), |b| {
                b.iter(|| {
                    let mut decoder = BodyDecoder::new([encoding], None, 1 << 20).expect("known");
                    for chunk in encoded.chunks(16 << 10) {
                        if decoder.push(chunk).expect("sound") == Progress::Full {
                            break;
                        }
                    }
                    decoder.finish().expect("whole")
                });
            });
        }
    }
    group.finish();
}

fn encode(encoding: &str, plain: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    match encoding {
        "gzip" => {
            let mut writer =
                flate2::write::GzEncoder::new(&mut encoded, flate2::Compression::fast());
            writer.write_all(plain).expect("memory is writable");
        }
        "br" => {
            let mut writer = brotli::CompressorWriter::new(&mut encoded, 4_096, 1, 20);
            writer.write_all(plain).expect("memory is writable");
        }
        "zstd" => encoded = zstd::encode_all(plain, 1).expect("zstd encodes"),
        _ => encoded = plain.to_vec(),
    }
    encoded
}

criterion_group!(benches, bench, overrun, decode);
criterion_main!(benches);
