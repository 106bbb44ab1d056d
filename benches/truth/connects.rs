//! How late a busy loop notices that it is connected, by the kernel's own measure of the connect.
//!
//! Prints for each load what a connect took as the loop saw it, what the kernel says (SYN to SYN/ACK), and the difference,
//! in µs. The load is work in pieces of 100 µs on the same loop, as much of each millisecond as is asked for. On loopback
//! the kernel is done within the system call, so that nearly all is the loop's.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{MissedTickBehavior, interval};
use watcher::net::connect::{connect, kernel_rtt};

use super::Given;

const PIECE: Duration = Duration::from_micros(100);
const PERIOD: Duration = Duration::from_millis(1);
const CONNECT_EVERY: Duration = Duration::from_millis(2);

pub(super) fn run(given: &Given) {
    let count: usize = given.text("--count").parse().expect("--count is a number");
    let address = accept_all();
    for load in given.text("--loads").split(',') {
        let load: u32 = load.parse().expect("--loads are percentages");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (seen, price) = LocalSet::new().block_on(&runtime, under(load, count, address));
        report(load, &seen, price);
    }
}

fn accept_all() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || while listener.accept().is_ok() {});
    address
}

/// What the loop saw and what the kernel says, of `count` connects; and what asking the kernel takes.
async fn under(
    load: u32,
    count: usize,
    address: SocketAddr,
) -> (Vec<(Duration, Duration)>, Duration) {
    let work = spawn_local(work(PERIOD * load / 100));
    let seen = Rc::new(RefCell::new(Vec::new()));
    let price = Rc::new(RefCell::new(Duration::ZERO));
    let mut ticks = interval(CONNECT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while seen.borrow().len() < count {
        ticks.tick().await;
        let (seen, price) = (Rc::clone(&seen), Rc::clone(&price));
        spawn_local(async move {
            let began = Instant::now();
            let connected = connect(&[address], |_| ()).await;
            let stream = connected.expect("the listener").stream;
            let took = began.elapsed();
            let asked = Instant::now();
            let rtt = kernel_rtt(&stream);
            *price.borrow_mut() += asked.elapsed();
            seen.borrow_mut().extend(rtt.map(|rtt| (took, rtt)));
        });
    }
    work.abort();
    let seen = seen.take();
    let price = price.take() / seen.len().max(1) as u32;
    (seen, price)
}

/// So much of every period, in pieces between which the loop turns.
async fn work(share: Duration) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut left = share;
        while !left.is_zero() {
            let piece = left.min(PIECE);
            let began = Instant::now();
            while began.elapsed() < piece {}
            left -= piece;
            yield_now().await;
        }
    }
}

fn report(load: u32, seen: &[(Duration, Duration)], price: Duration) {
    println!(
        "{load} %: {} connects, µs: p50, p90, p99, p99.9, most",
        seen.len()
    );
    let late = |(took, rtt): &(Duration, Duration)| took.as_nanos() as f64 - rtt.as_nanos() as f64;
    let lines: [(&str, Vec<f64>); 3] = [
        (
            "seen",
            seen.iter().map(|one| one.0.as_nanos() as f64).collect(),
        ),
        (
            "kernel",
            seen.iter().map(|one| one.1.as_nanos() as f64).collect(),
        ),
        ("difference", seen.iter().map(late).collect()),
    ];
    for (name, mut values) in lines {
        values.sort_by(f64::total_cmp);
        let part = |share: f64| values[((values.len() - 1) as f64 * share) as usize] / 1e3;
        let parts = [0.5, 0.9, 0.99, 0.999, 1.0].map(|share| format!("{:.0}", part(share)));
        println!("  {name:10} {}", parts.join(" "));
    }
    println!(
        "  asking the kernel takes {:.2}",
        price.as_nanos() as f64 / 1e3
    );
}
