//! The hot paths by instructions instead of seconds: the same on a busy machine as on a quiet one.
//!
//! `valgrind --tool=callgrind … instructions PATH COUNT` runs one path COUNT times; scripts/bench-gate takes the
//! difference of two counts, so that what is done once falls out. Kernel time is not seen by it.

#[path = "support/probe_world.rs"]
mod probe_world;

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use watcher::domain::{
    AgentIdentity, Batch, EndpointId, Interval, Pattern, Sample, Schedule, Timestamp,
};
use watcher::pipeline::buffer::SampleBuffer;
use watcher::store::timescale::RowEncoder;

use self::probe_world::{Probes, endpoint, serve};

const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);
/// Name, what one is, and what runs COUNT of them.
type Path = (&'static str, &'static str, fn(u64));

const PATHS: [Path; 5] = [
    (
        "schedule",
        "a millisecond of ticks, 100 000 endpoints",
        ticks,
    ),
    ("buffer", "a sample, pushed and taken", buffer),
    ("copy_encode", "a row", encode),
    ("body_match", "4 KiB, an ordinary pattern", body_match),
    ("probe", "1 KiB over a new connection", probe),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => PATHS
            .iter()
            .for_each(|(name, what, _)| println!("{name}\t{what}")),
        ["serve"] => {
            println!("{}", serve(None));
            // Until the parent closes its end.
            let _ = std::io::stdin().lines().count();
        }
        [name, count] if !name.starts_with('-') => {
            let path = PATHS.iter().find(|path| path.0 == name);
            let (_, _, run) = path.expect("a path that `list` names");
            run(count.parse().expect("a count"));
        }
        // `cargo bench` without arguments, and `cargo bench -- --test`.
        _ => println!("instructions: not run, no path given"),
    }
}

fn ticks(count: u64) {
    let mut schedule = Schedule::new(START);
    for id in 1..=100_000 {
        let interval = Interval::from_secs(5 + id % 296).expect("5 to 300");
        schedule.upsert(EndpointId(id), interval, START);
    }
    let (mut now, mut due) = (START, Vec::with_capacity(1 << 16));
    for _ in 0..count {
        now = now.plus(Duration::from_millis(1));
        due.clear();
        schedule.take_due(now, usize::MAX, &mut due);
        black_box(&due);
    }
}

fn buffer(count: u64) {
    let buffer = SampleBuffer::new(10_000, 5_000);
    let mut taken = Vec::with_capacity(5_000);
    for at in 0..count {
        let sample = Sample::new(EndpointId(at.cast_signed()), START);
        assert!(buffer.push(sample).is_ok());
        if at % 1_000 == 999 {
            taken.clear();
            buffer.take(5_000, &mut taken);
            black_box(&taken);
        }
    }
}

fn encode(count: u64) {
    let agent = AgentIdentity {
        name: "node-17/3".into(),
        location: "eu-central".into(),
    };
    let sample = |id| {
        let mut sample = Sample::new(EndpointId(id), START);
        sample.status_code = Some(200);
        sample.duration_us = Some(18_300);
        sample.remote_ip = Some([192, 0, 2, 7].into());
        sample
    };
    let batch = Batch {
        agent: Arc::new(agent),
        samples: (0..1_000).map(sample).collect(),
    };
    let mut encoder = RowEncoder::default();
    for _ in 0..count / 1_000 {
        black_box(encoder.encode(black_box(&batch)));
    }
}

fn body_match(count: u64) {
    let pattern = Pattern::compile(r"\b[a-z]{3,8}\s\d{1,3}\s(?:at|in)\s\d\d:\d\d$").expect("valid");
    let words = "the quick brown fox jumps over 13 lazy dogs, and you are welcome to look on ";
    let body: String = words.chars().cycle().take(4_096).collect();
    for _ in 0..count {
        let _ = black_box(pattern.is_match(black_box(body.as_bytes()), &|| false));
    }
}

fn probe(count: u64) {
    let server = Server::start();
    let endpoint = endpoint(server.address, |_| ());
    let probes = Probes::new();
    probes.local.block_on(&probes.runtime, async {
        for _ in 0..count {
            probes.probe(&endpoint).await;
        }
    });
}

/// This program again, as the server: a child is not looked into.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let program = std::env::current_exe().expect("this program's path");
        let mut child = Command::new(program)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("the server's address");
        let address = line.trim().parse().expect("the server's address");
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
