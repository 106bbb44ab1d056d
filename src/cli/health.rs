//! `watcher health`: the container's health check, which has no shell and no curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

const PATIENCE: Duration = Duration::from_secs(2);

/// Arguments of `watcher health`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where the watcher listens for health and metrics
    #[arg(
        long,
        env = "WATCHER_LISTEN",
        default_value = "0.0.0.0:9464",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,
}

/// Asks `/ready` and prints the answer.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut address = args.listen;
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        };
        address.set_ip(loopback);
    }
    let answer = ask(address).with_context(|| format!("ask http://{address}/ready"))?;
    let ready = answer.starts_with("HTTP/1.1 200 ");
    println!(
        "{}",
        answer
            .split("\r\n\r\n")
            .nth(1)
            .unwrap_or_default()
            .trim_end()
    );
    Ok(if ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}
