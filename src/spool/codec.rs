//! A batch as bytes: one row of the spool's file.
//!
//! ```text
//! offset  bytes  content (integers little-endian)
//! 0       3      "wsb"
//! 3       1      version of the body: 1
//! 4       4      length of the head
//! 8       4      CRC-32 of bytes 0..8, 12..16 and the head
//! 12      4      CRC-32 of the body
//! 16      …      head: rows u32, earliest and latest scheduled time i64 (µs since the epoch), length of the body u64,
//!                agent's name and location (varint length, UTF-8)
//! …       …      body (version 1): labels of the reasons used (varint count; each varint length, UTF-8), then the rows
//! ```
//!
//! **What stays readable.** The first 16 bytes and the head are the same in every version, so that any release can say
//! how many rows of which time a batch holds, even one that it cannot read. A new field or another meaning is a new
//! version; a release reads its own version and all before it. Reasons are written by their label, so that one added
//! later needs no new version: a release that does not know a label (or a version) leaves the batch where it is for
//! one that does ([`DecodeError::is_of_a_later_release`]), and never guesses. A label once released is never renamed.
//!
//! **Bytes are not trusted.** Nothing is allocated by a length before the bytes for it are seen to be there, every
//! batch is checked against its checksums before it is taken apart, and any input gives a batch or an error, no panic.

mod head;
mod row;
mod wire;

pub use head::Head;

use std::sync::Arc;

use crate::domain::{AgentIdentity, Batch};

use wire::Reader;

/// The version that this release writes.
const VERSION: u8 = 1;
/// Bytes that a row takes about: 49 in benches/spool.rs, and some more for longer words.
const ROW_BYTES: usize = 64;

/// Why bytes are not a batch.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// There are fewer or more bytes than the head announces.
    #[error("the length is not the announced one")]
    Length,
    /// These are not the bytes of a batch, or its head is damaged.
    #[error("the head is damaged")]
    Head,
    /// The body is damaged.
    #[error("the body is damaged")]
    Body,
    /// The checksums hold, but the content makes no sense: not written by a release of ours.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Written by a later release.
    #[error("version {0} of the format is not known to this release")]
    Version(u8),
    /// Written by a later release.
    #[error("the reason {0:?} is not known to this release")]
    Label(Box<str>),
}

impl DecodeError {
    /// Whether the batch is whole, and a later release can read it.
    pub fn is_of_a_later_release(&self) -> bool {
        matches!(self, Self::Version(_) | Self::Label(_))
    }
}

/// The bytes of a batch.
pub fn encode(batch: &Batch) -> Vec<u8> {
    let head = Head::of(batch);
    let mut body = Vec::with_capacity(64 + batch.rows() * ROW_BYTES);
    row::put_rows(&mut body, &batch.samples, head.from);
    head.seal(VERSION, &body)
}

/// The batch of these bytes.
pub fn decode(bytes: &[u8]) -> Result<Batch, DecodeError> {
    let head = Head::read(bytes)?;
    let body = head.body(bytes)?;
    if head.version != VERSION {
        return Err(DecodeError::Version(head.version));
    }
    let mut reader = Reader::new(body);
    let samples = row::take_rows(&mut reader, &head)?;
    if !reader.is_empty() {
        return Err(DecodeError::Malformed("end"));
    }
    Ok(Batch {
        agent: Arc::new(AgentIdentity {
            name: head.agent.name,
            location: head.agent.location,
        }),
        samples,
    })
}

/// Whether these are the bytes of a batch, whole and undamaged, of whichever release.
pub(super) fn verify(bytes: &[u8]) -> Result<Head, DecodeError> {
    let head = Head::read(bytes)?;
    head.body(bytes)?;
    Ok(head)
}

#[cfg(test)]
pub(super) mod tests;
