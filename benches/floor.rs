//! The floor: what a bare connect–GET–read–close costs on this machine, with no agent around it.
//!
//! `cargo bench --bench floor -- --address 127.0.0.1:8080 [--path /] [--rate 2000 | --rate max] [--seconds 10]`
//! prints CPU µs per request (user and system time of this process), so that an agent driven at the same rate against
//! the same server can be put beside it. One current-thread runtime, one task a request, at most 1 000 under way.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        arguments
            .iter()
            .position(|a| a == name)
            .and_then(|at| arguments.get(at + 1))
            .cloned()
    };
    let Some(address) = value("--address") else {
        // `cargo bench` without arguments, and `cargo bench -- --test`.
        println!("floor: not run, no --address given");
        return;
    };
    let address: SocketAddr = address.parse().expect("--address is IP:PORT");
    let path = value("--path").unwrap_or_else(|| "/".to_owned());
    let rate = value("--rate").unwrap_or_else(|| "2000".to_owned());
    let seconds: u64 = value("--seconds").map_or(10, |s| s.parse().expect("--seconds is a number"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let begun = std::time::Instant::now();
    let before = cpu_us();
    let time = Duration::from_secs(seconds);
    let (done, failed) = runtime.block_on(LocalSet::new().run_until(async {
        match rate.as_str() {
            "max" => closed_loop(address, &path, time).await,
            rate => {
                open_loop(
                    address,
                    &path,
                    rate.parse().expect("--rate is a number or max"),
                    time,
                )
                .await
            }
        }
    }));
    let cpu = cpu_us() - before;
    println!(
        "floor: {done} requests in {:.1} s ({:.0}/s), {failed} failed, {:.1} us CPU each",
        begun.elapsed().as_secs_f64(),
        done as f64 / begun.elapsed().as_secs_f64(),
        cpu as f64 / done.max(1) as f64
    );
}

/// Starts `rate` requests a second, in groups a millisecond apart.
async fn open_loop(address: SocketAddr, path: &str, rate: u64, time: Duration) -> (u64, u64) {
    let request: Rc<str> = request(address, path).into();
    let mut tasks = JoinSet::new();
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    let (mut started, mut done, mut failed) = (0, 0, 0);
    while begun.elapsed() < time {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        while started < due && tasks.len() < 1_000 {
            let request = request.clone();
            tasks.spawn_local(async move { exchange(address, &request).await.is_ok() });
            started += 1;
        }
        while let Some(result) = tasks.try_join_next() {
            done += 1;
            failed += u64::from(!result.unwrap_or(false));
        }
    }
    while let Some(result) = tasks.join_next().await {
        done += 1;
        failed += u64::from(!result.unwrap_or(false));
    }
    (done, failed)
}

/// Sixteen requests always under way.
async fn closed_loop(address: SocketAddr, path: &str, time: Duration) -> (u64, u64) {
    let request: Rc<str> = request(address, path).into();
    let places = Arc::new(Semaphore::new(16));
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    let (mut done, mut failed) = (0, 0);
    while begun.elapsed() < time {
        let Ok(place) = places.clone().acquire_owned().await else {
            break;
        };
        let request = request.clone();
        tasks.spawn_local(async move {
            let ok = exchange(address, &request).await.is_ok();
            drop(place);
            ok
        });
        while let Some(result) = tasks.try_join_next() {
            done += 1;
            failed += u64::from(!result.unwrap_or(false));
        }
    }
    while let Some(result) = tasks.join_next().await {
        done += 1;
        failed += u64::from(!result.unwrap_or(false));
    }
    (done, failed)
}

async fn exchange(address: SocketAddr, request: &str) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = [0; 8192];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(total),
            read => total += read,
        }
    }
}

fn request(address: SocketAddr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: floor\r\nconnection: close\r\n\r\n"
    )
}

fn cpu_us() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage of this process");
    let us = |t: nix::sys::time::TimeVal| (t.tv_sec() * 1_000_000 + t.tv_usec()) as u64;
    us(usage.user_time()) + us(usage.system_time())
}
