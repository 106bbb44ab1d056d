//! The truth: a server whose delays are known to the microsecond, for `scripts/bench --accuracy`.
//!
//! `truth --serve --plain IP:PORT --tls IP:PORT --cert PEM --key PEM --body FILE [--dns IP:PORT --answer IP] --log FILE
//! [--resolve-us N] [--tls-us N] [--first-us N] [--transfer-us N]` delays each phase, and logs what it really did: delays
//! are asked for, truth is what the log says. One thread, epoll, a timer by the nanosecond. All stamps are nanoseconds of
//! the wall clock, which agents on the same machine share.
//!
//! * When something arrived is the kernel's receive stamp (`SO_TIMESTAMPNS`), not when this process ran.
//! * When something left lies between the clock before the write and the clock after it: on loopback the peer's
//!   kernel has it within the call. Both are logged.
//! * A name server answers `eN.…` with `--answer`, late.
//! * `truth --serve --syns --connect-us N --log FILE` has a packet socket as its standard input, at the end of a link to
//!   which SYNs are routed: each is put back as it was, late. It is a process of its own, that goes before the other one
//!   and has little to do: what it sends is sent in time.
//!
//! SIGTERM writes the log and ends it. `truth --client` is a calm, spinning client of it: what even that sees above the
//! truth is the machine's floor, and its kernel's stamps show that the log is true. `truth --work PATTERN --body FILE`
//! times one search. `truth --connects --loads 50,95 --count N` puts what a busy loop takes
//! a connect to last beside what the kernel says.

mod client;
mod connects;
mod exchange;
mod names;
mod server;
mod stamp;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use watcher::domain::Pattern;

fn main() {
    let given = Given(std::env::args().skip(1).collect());
    if given.has("--serve") {
        server::serve(&given);
    } else if given.has("--client") {
        client::run(&given);
    } else if given.has("--connects") {
        connects::run(&given);
    } else if given.has("--work") {
        work(&given.text("--work"), &given.body());
    } else {
        // `cargo bench` without arguments, and `cargo bench -- --test`.
        println!("truth: not run, none of --serve, --client, --connects and --work given");
    }
}

/// Prints the median time of one search, in microseconds.
fn work(pattern: &str, body: &[u8]) {
    let pattern = Pattern::compile(pattern).expect("--work is a pattern");
    let mut times: Vec<_> = (0..1_001)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(
                std::hint::black_box(pattern.is_match(body, &|| false)).ok(),
                Some(true)
            );
            begun.elapsed()
        })
        .collect();
    times.sort();
    println!("{:.1}", times[times.len() / 2].as_nanos() as f64 / 1_000.0);
}

/// The arguments.
struct Given(Vec<String>);

impl Given {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|given| given == name)
    }

    fn get(&self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|given| given == name)?;
        self.0.get(at + 1).cloned()
    }

    fn text(&self, name: &str) -> String {
        self.get(name)
            .unwrap_or_else(|| panic!("{name} is missing"))
    }

    fn address(&self, name: &str) -> SocketAddr {
        self.text(name)
            .parse()
            .unwrap_or_else(|_| panic!("{name} is IP:PORT"))
    }

    fn ip(&self, name: &str) -> IpAddr {
        self.text(name)
            .parse()
            .unwrap_or_else(|_| panic!("{name} is an address"))
    }

    /// Of a flag in microseconds, nanoseconds; 0 without it.
    fn nanos(&self, name: &str) -> i64 {
        self.get(name).map_or(0, |us| {
            us.parse::<i64>()
                .unwrap_or_else(|_| panic!("{name} is a number"))
                * 1_000
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.text(name).into()
    }

    fn body(&self) -> Vec<u8> {
        std::fs::read(self.path("--body")).expect("--body names a file")
    }
}
