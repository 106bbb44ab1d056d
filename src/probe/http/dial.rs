//! From a hop's name to bytes that flow: resolve, filter, connect, shake hands.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

use super::hop::Hop;
use super::link::{UNASKED_BYTES_MAX, Wire};
use super::transport::Transport;
use crate::domain::{Connection, Failure, HttpCheck, HttpVersion};
use crate::net::connect::{Connected, connect};
use crate::net::meter::MeteredIo;
use crate::net::resolve::{Resolved, is_of};
use crate::probe::Prober;
use crate::probe::fault::Stop;
use crate::probe::progress::{Phase, Progress};

/// Resolves, connects and, for `https`, shakes hands: a phase each.
pub(super) async fn dial(
    prober: &Prober,
    check: &HttpCheck,
    hop: &Hop<'_>,
    progress: &Progress,
) -> Result<Wire, Stop> {
    let addresses = addresses(prober, check, hop, progress).await?;
    progress.enter(Phase::Connect);
    let Connected { stream, late } = connect(&addresses, |ip| progress.remote_ip.set(Some(ip)))
        .await
        .map_err(|error| Stop::connect(&error))?;
    if let Some(late) = late {
        progress.connected(late);
    }
    if !is_one_segment(check, hop) {
        // Or the last part of a request would wait for the acknowledgement of the first. Where it cannot be set, what is
        // wrong with the connection shows when it is used.
        let _ = stream.set_nodelay(true);
    }
    // Of several addresses dialled, the one that answered.
    let remote_ip = match &addresses[..] {
        [only] => only.ip(),
        _ => stream.peer_addr().map_or(addresses[0].ip(), |a| a.ip()),
    };
    progress.remote_ip.set(Some(remote_ip));
    let meter = progress.meter();
    meter.allow(UNASKED_BYTES_MAX);
    let io = MeteredIo::new(stream, meter);
    let (transport, is_http2) = if hop.target.is_https() {
        progress.enter(Phase::Tls);
        // Boxed: most of what a TLS handshake holds would otherwise be part of every plain probe's future.
        Box::pin(secure(prober, check, hop, progress, io)).await?
    } else {
        progress.tls_not_after.set(None);
        (
            Transport::plain(io),
            check.http_version == HttpVersion::Http2,
        )
    };
    Ok(Wire {
        transport,
        is_http2,
        remote_ip,
        tls_not_after: progress.tls_not_after.get(),
    })
}

/// All that is sent over the connection, in one segment: the smallest that every network carries is 536 bytes, and our
/// own headers take less than 150.
const ONE_SEGMENT_BYTES: usize = 350;

fn is_one_segment(check: &HttpCheck, hop: &Hop<'_>) -> bool {
    let speaks_once = check.connection == Connection::Fresh
        && check.http_version != HttpVersion::Http2
        && !hop.target.is_https();
    let headers = check.headers.iter();
    let headers: usize = headers.map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    let head = hop.target.path_and_query.as_str().len() + hop.target.host.len() + headers;
    speaks_once && !hop.has_body && check.auth.is_none() && head <= ONE_SEGMENT_BYTES
}

/// Where to dial: every address has passed the policy.
async fn addresses(
    prober: &Prober,
    check: &HttpCheck,
    hop: &Hop<'_>,
    progress: &Progress,
) -> Result<Vec<SocketAddr>, Stop> {
    let mut denied = None;
    let mut allowed = |ip: IpAddr, port: u16| match prober.policy.check(ip) {
        Ok(()) => Some(SocketAddr::new(ip, port)),
        Err(_) if prober.canary.get() == Some(SocketAddr::new(ip, port)) => {
            Some(SocketAddr::new(ip, port))
        }
        Err(why) => {
            denied = Some((ip, why));
            None
        }
    };
    let addresses: Vec<SocketAddr> = match hop.pinned() {
        Some((ip, _)) if !is_of(ip, check.ip_family) => {
            let detail = format!("{ip} is not of the wanted IP family");
            return Err(Stop::failed(Failure::DnsNotFound, &detail));
        }
        Some((ip, port)) => allowed(ip, port).into_iter().collect(),
        None => {
            progress.enter(Phase::Resolve);
            let resolved = prober
                .resolver
                .resolve(&hop.target.host, check.ip_family, check.dns)
                .await
                .map_err(|error| Stop::resolve(&error))?;
            match resolved {
                Resolved { took: None, .. } => progress.retract(),
                Resolved {
                    heard: Some((at, age)),
                    ..
                } => progress.resolved(at, age),
                // Through tasks of the resolver: ends with the phase that follows.
                _ => {}
            }
            let port = hop.target.port;
            resolved
                .addresses
                .iter()
                .filter_map(|&ip| allowed(ip, port))
                .collect()
        }
    };
    match denied {
        Some((ip, why)) if addresses.is_empty() => Err(Stop::failed(
            Failure::AddressDenied,
            &format!("{ip}: {why}"),
        )),
        _ => Ok(addresses),
    }
}

async fn secure(
    prober: &Prober,
    check: &HttpCheck,
    hop: &Hop<'_>,
    progress: &Progress,
    io: MeteredIo<TcpStream>,
) -> Result<(Transport, bool), Stop> {
    let host = &hop.target.host;
    let stream = prober
        .tls
        .handshake(&hop.tls(), check.http_version, host, io, |not_after| {
            progress.tls_not_after.set(Some(not_after));
        })
        .await
        .map_err(|error| Stop::handshake(&error))?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if check.http_version == HttpVersion::Http2 && !is_http2 {
        return Err(Stop::failed(
            Failure::ProcessingProtocol,
            "the server does not offer HTTP/2",
        ));
    }
    Ok((Transport::tls(stream), is_http2))
}
