//! The body of a response: read up to the cap, counted, decoded where a pattern needs it.

use super::head::Head;
use super::http1::{Appetite, Room};
use super::link::Link;
use crate::domain::HttpCheck;
use crate::probe::Prober;
use crate::probe::body::{BodyDecoder, Progress as Decoded};
use crate::probe::fault::Stop;
use crate::probe::pace::Pace;
use crate::probe::progress::Progress;

/// Body of a redirect read so that its connection can be used again; a longer one is not worth it.
const DRAINED_BYTES_MAX: usize = 64 * 1024;

/// A body that has been read.
pub(super) struct Read {
    /// Whether it was read to its end, so that the connection can be used again.
    pub(super) to_the_end: bool,
    unexpected_status: Option<u16>,
    decoder: Option<BodyDecoder>,
}

impl Read {
    /// The decoded body, if patterns are to judge it.
    pub(super) fn judge(self) -> Result<Option<Vec<u8>>, Stop> {
        if let Some(status) = self.unexpected_status {
            return Err(Stop::status(status));
        }
        let decoded = self.decoder.map(BodyDecoder::finish).transpose();
        decoded.map_err(|error| Stop::decode(&error))
    }
}

/// Reads the body. The status is judged first: where it is not an expected one the body is measured, but whatever is
/// wrong with it does not matter any more.
pub(super) async fn read(
    head: &Head,
    link: &mut Link,
    check: &HttpCheck,
    progress: &Progress,
    prober: &Prober,
) -> Result<Read, Stop> {
    let status = head.status.as_u16();
    let is_expected = check.expected_status.contains(status);
    progress.status_unexpected.set(!is_expected);
    let bytes_max = check.body_bytes_max as usize;
    let needs_body = check.must_match.is_some() || check.must_not_match.is_some();
    let decoder = (is_expected && needs_body)
        .then(|| BodyDecoder::new(&head.encodings, head.body_bytes, bytes_max))
        .transpose()
        .map_err(|error| Stop::decode(&error))?;
    let mut read = Read {
        to_the_end: false,
        unexpected_status: (!is_expected).then_some(status),
        decoder,
    };
    // Decoded bytes are capped by the decoder. Compressed they are fewer, but for framing that carries nothing.
    let wire_bytes_max = match read.decoder {
        Some(_) => bytes_max + bytes_max / 16 + 4_096,
        None => bytes_max,
    };
    link.meter().allow(framed(wire_bytes_max));
    let decoder = read.decoder.as_mut();
    let decoder = decoder.map(|decoder| (decoder, &prober.pace));
    match drink(link, &prober.room, wire_bytes_max, decoder).await {
        Ok(to_the_end) => read.to_the_end = to_the_end,
        Err(_) if !is_expected => {}
        Err(stop) => return Err(stop),
    }
    Ok(read)
}

/// What a body of so many bytes may take on the wire: sixteen times as much (in chunks or frames of one byte it is ten),
/// and what is not the body's (pings, empty frames).
fn framed(bytes_max: usize) -> u64 {
    bytes_max as u64 * 16 + (1 << 20)
}

/// Reads a body that nobody needs; whether its end was reached.
pub(super) async fn drain(link: &mut Link, room: &Room) -> bool {
    link.meter().allow(framed(DRAINED_BYTES_MAX));
    let drunk = drink(link, room, DRAINED_BYTES_MAX, None).await;
    drunk.unwrap_or(false)
}

async fn drink(
    link: &mut Link,
    room: &Room,
    bytes_max: usize,
    mut decoder: Option<(&mut BodyDecoder, &Pace)>,
) -> Result<bool, Stop> {
    let mut seen = 0_usize;
    link.read_body(room, |piece| {
        seen += piece.len();
        if let Some((decoder, pace)) = &mut decoder {
            let decoded = pace.work_now(|| decoder.push(piece));
            let decoded = decoded.map_err(|error| Stop::decode(&error))?;
            if decoded == Decoded::Full {
                return Ok(Appetite::Enough);
            }
        }
        Ok(if seen >= bytes_max {
            Appetite::Enough
        } else {
            Appetite::More
        })
    })
    .await
}
