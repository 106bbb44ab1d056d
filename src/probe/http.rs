//! The HTTP and HTTPS probe: hop by hop to the last response, whose head and body are judged.
//!
//! What a hostile target can make a probe hold, beside its sockets: one read buffer of at most 64 KiB, in which a head
//! must fit (HTTP/1) or a head list and one window each of at most 64 KiB (HTTP/2); rustls's record buffers (under
//! 64 KiB); one decoded body of at most `body_bytes_max`, and only where a pattern needs it: otherwise each chunk is
//! counted and dropped. Nothing else grows with what the target sends.
//!
//! What it can make a probe do: endless heads end at 64 KiB, endless bodies at `body_bytes_max`, endless interim
//! responses, pings and frames at the allowance of their phase (`net::meter`), redirects at their limit, and all waits
//! at the deadline. In one turn of the loop a connection reads 64 KiB at most, so that others have theirs.

mod answer;
mod dial;
mod hop;
mod kept;
mod link;
mod request;
mod transport;

use ::http::Version;
use hyper::Response;
use hyper::body::Incoming;

use self::hop::Hop;
pub(super) use self::kept::Kept;
use self::link::Link;
use super::Prober;
use super::fault::Stop;
use super::progress::{Phase, Progress};
use crate::domain::{Connection, Endpoint, HttpCheck};

/// Asks until the last response, and reads its body. `Ok(Some(body))` is to be judged by patterns; `Ok(None)` passes.
pub(super) async fn exchange(
    prober: &Prober,
    endpoint: &Endpoint,
    check: &HttpCheck,
    progress: &Progress,
) -> Result<Option<Vec<u8>>, Stop> {
    let mut hop = Hop::first(&endpoint.target, check);
    loop {
        let (link, response) = ask(prober, endpoint, check, &hop, progress).await?;
        let status = response.status();
        progress.status_code.set(Some(status.as_u16()));
        if check.redirects_max > 0 && hop::is_redirect(status) {
            if progress.hops.get() == check.redirects_max {
                return Err(hop::too_many(check.redirects_max));
            }
            let next = hop.follow(&response)?;
            if check.connection == Connection::Reuse && next.is_same_origin(&hop) {
                progress.enter_transfer();
                if answer::drain(response.into_body(), &link).await {
                    prober.kept.put(endpoint, &hop, link);
                }
            }
            hop = next;
            progress.hops.set(progress.hops.get() + 1);
            continue;
        }
        progress.enter_transfer();
        let read = answer::read(response, &link, check, progress, &prober.pace).await?;
        if check.connection == Connection::Reuse && read.to_the_end {
            prober.kept.put(endpoint, &hop, link);
        }
        return read.judge();
    }
}

/// Sends the request of one hop and waits for the head of its response: on the kept connection where there is one,
/// once more on a fresh one when that fails before it has said anything (the server may have closed it meanwhile).
async fn ask(
    prober: &Prober,
    endpoint: &Endpoint,
    check: &HttpCheck,
    hop: &Hop<'_>,
    progress: &Progress,
) -> Result<(Link, Response<Incoming>), Stop> {
    if check.connection == Connection::Reuse {
        progress.enter(Phase::Processing);
        if let Some(answer) = ask_again(prober, endpoint, check, hop, progress).await {
            return answer;
        }
        progress.retract();
    }
    let wire = dial::dial(prober, check, hop, progress).await?;
    progress.enter(Phase::Processing);
    let mut link = wire.start().await?;
    match send(&mut link, hop, check, progress).await {
        Ok(response) => Ok((link, response)),
        Err(error) => Err(link.explain(error).await),
    }
}

/// Asks over the endpoint's kept connection; `None` where there is none that works.
async fn ask_again(
    prober: &Prober,
    endpoint: &Endpoint,
    check: &HttpCheck,
    hop: &Hop<'_>,
    progress: &Progress,
) -> Option<Result<(Link, Response<Incoming>), Stop>> {
    let mut link = prober.kept.take(endpoint, hop).await?;
    progress.count_kept(link.meter());
    link.tell(progress);
    let silent_at = link.meter().received();
    match send(&mut link, hop, check, progress).await {
        Ok(response) => Some(Ok((link, response))),
        Err(error) if link.meter().received() > silent_at => Some(Err(link.explain(error).await)),
        Err(_) => None,
    }
}

async fn send(
    link: &mut Link,
    hop: &Hop<'_>,
    check: &HttpCheck,
    progress: &Progress,
) -> Result<Response<Incoming>, hyper::Error> {
    let response = link
        .send(request::build(hop, check, link.is_http2()))
        .await?;
    let version = match response.version() {
        Version::HTTP_10 => 10,
        Version::HTTP_2 => 20,
        _ => 11,
    };
    progress.http_version.set(Some(version));
    Ok(response)
}
