//! `watcher target`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::target::{RECORD_MAX, Target, TargetOptions, TlsListen, Variant, key_list};

/// Serve scripted HTTP and HTTPS: a peer for tests, demos and benches, and the oracle of what arrived.
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = after_long_help())]
pub struct Args {
    /// Address of plain HTTP (HTTP/1.1, and HTTP/2 with prior knowledge); port 0 for any free one.
    #[arg(
        long,
        env = "WATCHER_TARGET_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,
    /// Address of HTTPS; the name asked for decides the kind of TLS. With =VARIANT every client gets that one. May be
    /// repeated.
    #[arg(
        long,
        env = "WATCHER_TARGET_LISTEN_TLS",
        value_name = "ADDR[=VARIANT]",
        value_delimiter = ',',
        value_parser = tls_listen
    )]
    pub listen_tls: Vec<TlsListen>,
    /// Keep the certificate authority here, over restarts: ca.pem, ca-key.pem, client.pem, client-key.pem. Without it
    /// the authority lives in memory, and nobody can trust it.
    #[arg(long, env = "WATCHER_TARGET_TLS_DIR", value_name = "DIR")]
    pub tls_dir: Option<PathBuf>,
    /// Threads, each with a runtime and sockets of its own.
    #[arg(
        long,
        env = "WATCHER_TARGET_THREADS",
        value_name = "N",
        default_value = "1"
    )]
    pub threads: NonZeroUsize,
    /// Keep requests in memory, for /_log and /_count.
    #[arg(long, env = "WATCHER_TARGET_RECORD")]
    pub record: bool,
    /// How many requests --record keeps; then the oldest go, and are counted.
    #[arg(long, env = "WATCHER_TARGET_RECORD_MAX", value_name = "N", default_value_t = RECORD_MAX)]
    pub record_max: usize,
    /// Append a line of JSON for each request; - for the standard output.
    #[arg(long, env = "WATCHER_TARGET_LOG", value_name = "FILE")]
    pub log: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Before the first connection, so that no signal is missed.
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    raise_descriptor_limit();
    let target = Target::start(TargetOptions {
        listen: args.listen,
        listen_tls: args.listen_tls,
        tls_dir: args.tls_dir,
        threads: args.threads,
        record_max: args.record.then_some(args.record_max),
        log: args.log,
    })
    .await?;
    announce(&target).context("write to the standard output")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    target
        .shutdown()
        .await
        .context("write the rest of the log")?;
    Ok(ExitCode::SUCCESS)
}

/// One line for each socket, when clients can connect.
fn announce(target: &Target) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", target.http_url())?;
    for address in target.https_addrs() {
        writeln!(out, "listening on https://{address}")?;
    }
    out.flush()
}

/// Each connection takes a descriptor, and the usual soft limit of 1 024 is soon reached. Where the limit cannot be
/// raised, the server serves as many as it may.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = setrlimit(Resource::Nofile, raised);
}

fn tls_listen(text: &str) -> Result<TlsListen, String> {
    let (address, variant) = match text.split_once('=') {
        Some((address, name)) => {
            let variant = Variant::named(name);
            let known = || format!("no variant `{name}`; there are {}", Variant::names());
            (address, Some(variant.ok_or_else(known)?))
        }
        None => (text, None),
    };
    let address = address
        .parse()
        .map_err(|_| format!("`{address}` is no address; write for example 127.0.0.1:8443"))?;
    Ok(TlsListen { address, variant })
}

fn after_long_help() -> String {
    format!(
        "Keys of a URL's query, as in http://127.0.0.1:8080/any/path?latency=20ms&status=503:\n{}\n\
         TLS variants, by the name asked for, as in https://expired.test/: {}.\n\n\
         About the server: /_log?from=INDEX, /_count?prefix=PATH, /_rate, /_reset, /_keys.",
        key_list(),
        Variant::names()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_address_may_fix_its_variant() {
        let parsed = tls_listen("127.0.0.1:8443=expired").unwrap();
        assert_eq!(parsed.variant, Some(Variant::Expired));
        assert_eq!(tls_listen("[::1]:0").unwrap().variant, None);
        assert!(
            tls_listen("127.0.0.1:1=expird")
                .unwrap_err()
                .contains("selfsigned")
        );
        assert!(tls_listen("8443").unwrap_err().contains("127.0.0.1:8443"));
    }
}
