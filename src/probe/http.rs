//! The HTTP and HTTPS probe: hop by hop to the last response, whose head and body are judged.
//!
//! What a hostile target can make a probe hold, beside its sockets: a head of at most 64 KiB (HTTP/1), or a head list and
//! one window each of at most 64 KiB (HTTP/2); rustls's record buffers (under 64 KiB); one decoded body of at most `body_bytes_max`, and only where a pattern needs it: otherwise each chunk is
//! counted and dropped. Nothing else grows with what the target sends.
//!
//! What it can make a probe do: endless heads end at 64 KiB, endless bodies at `body_bytes_max`, endless interim
//! responses, pings and frames at the allowance of their phase (`net::meter`), redirects at their limit, and all waits
//! at the deadline. In one turn of the loop a connection reads 64 KiB at most, so that others have theirs.

mod answer;
mod dial;
mod head;
mod hop;
mod http1;
mod http2;
mod kept;
mod link;
mod request;
mod transport;

use self::head::Head;
use self::hop::Hop;
pub(super) use self::http1::{Http1Error, Room};
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
        let (mut link, head) = ask(prober, endpoint, check, &hop, progress).await?;
        progress.http_version.set(Some(head.http_version));
        progress.status_code.set(Some(head.status.as_u16()));
        if check.redirects_max > 0 && hop::is_redirect(head.status) {
            if progress.hops.get() == check.redirects_max {
                return Err(hop::too_many(check.redirects_max));
            }
            let next = hop.follow(&head)?;
            if check.connection == Connection::Reuse && next.is_same_origin(&hop) {
                progress.enter_transfer();
                if answer::drain(&mut link, &prober.room).await {
                    prober.kept.put(endpoint, &hop, link);
                }
            }
            hop = next;
            progress.hops.set(progress.hops.get() + 1);
            continue;
        }
        progress.enter_transfer();
        let read = answer::read(&head, &mut link, check, progress, prober).await?;
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
) -> Result<(Link, Head), Stop> {
    if check.connection == Connection::Reuse {
        progress.enter(Phase::Processing);
        if let Some(answer) = ask_again(prober, endpoint, check, hop, progress).await {
            return answer;
        }
        progress.retract();
    }
    let wire = dial::dial(prober, check, hop, progress).await?;
    progress.enter(Phase::Processing);
    let mut link = wire.start(check.connection, progress).await?;
    let head = link.ask(hop, check, &prober.room).await?;
    Ok((link, head))
}

/// Asks over the endpoint's kept connection; `None` where there is none that works.
async fn ask_again(
    prober: &Prober,
    endpoint: &Endpoint,
    check: &HttpCheck,
    hop: &Hop<'_>,
    progress: &Progress,
) -> Option<Result<(Link, Head), Stop>> {
    let mut link = prober.kept.take(endpoint, hop)?;
    if !link.resume(progress).await {
        return None;
    }
    let silent_at = link.meter().received();
    match link.ask(hop, check, &prober.room).await {
        Ok(head) => Some(Ok((link, head))),
        Err(stop) if link.meter().received() > silent_at => Some(Err(stop)),
        Err(_) => None,
    }
}
