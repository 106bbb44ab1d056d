//! What a batch holds, readable without its body and by every release.

use crc32fast::Hasher;

use super::DecodeError;
use super::wire::{Reader, put_text};
use crate::domain::{AgentIdentity, Batch, Timestamp};

/// Bytes before the head.
pub(super) const PREFIX_BYTES: usize = 16;
const MAGIC: &[u8; 3] = b"wsb";

/// What a batch holds: whose rows, how many, of which time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Version of the body.
    pub version: u8,
    /// Whose samples.
    pub agent: AgentIdentity,
    /// Number of rows.
    pub rows: u32,
    /// The earliest scheduled time; the epoch when there are no rows.
    pub from: Timestamp,
    /// The latest scheduled time, itself included; the epoch when there are no rows.
    pub to: Timestamp,
    body_crc: u32,
    body_at: usize,
    body_bytes: u64,
}

impl Head {
    /// The head that [`super::encode`] writes for `batch`.
    pub fn of(batch: &Batch) -> Self {
        let times = || batch.samples.iter().map(|sample| sample.scheduled_at);
        Self {
            version: super::VERSION,
            agent: AgentIdentity::clone(&batch.agent),
            rows: u32::try_from(batch.rows()).unwrap_or(u32::MAX),
            from: times().min().unwrap_or_default(),
            to: times().max().unwrap_or_default(),
            body_crc: 0,
            body_at: 0,
            body_bytes: 0,
        }
    }

    /// Reads the head from the front of a batch's bytes; the body need not be there.
    /// [`DecodeError::Length`] when there are too few bytes for the head.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let prefix: [u8; PREFIX_BYTES] = reader.array("prefix").map_err(|_| DecodeError::Length)?;
        let [
            m0,
            m1,
            m2,
            version,
            l0,
            l1,
            l2,
            l3,
            h0,
            h1,
            h2,
            h3,
            b0,
            b1,
            b2,
            b3,
        ] = prefix;
        if [m0, m1, m2] != *MAGIC {
            return Err(DecodeError::Head);
        }
        let head_bytes =
            usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).map_err(|_| DecodeError::Head)?;
        let head = reader
            .bytes(head_bytes, "head")
            .map_err(|_| DecodeError::Length)?;
        if head_checksum(&prefix, head) != u32::from_le_bytes([h0, h1, h2, h3]) {
            return Err(DecodeError::Head);
        }
        let mut head = Reader::new(head);
        let rows = u32::from_le_bytes(head.array("rows")?);
        let from = Timestamp::from_micros(i64::from_le_bytes(head.array("from")?));
        let to = Timestamp::from_micros(i64::from_le_bytes(head.array("to")?));
        let body_bytes = u64::from_le_bytes(head.array("body length")?);
        let agent = AgentIdentity {
            name: head.text("agent")?.into(),
            location: head.text("location")?.into(),
        };
        Ok(Self {
            version,
            agent,
            rows,
            from,
            to,
            body_crc: u32::from_le_bytes([b0, b1, b2, b3]),
            body_at: PREFIX_BYTES + head_bytes,
            body_bytes,
        })
    }

    /// The body in the whole batch's bytes, once its length and checksum hold.
    pub(super) fn body<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        let body = bytes.get(self.body_at..).ok_or(DecodeError::Length)?;
        if body.len() as u64 != self.body_bytes {
            return Err(DecodeError::Length);
        }
        if crc32fast::hash(body) != self.body_crc {
            return Err(DecodeError::Body);
        }
        Ok(body)
    }

    /// Prefix, head and body as one.
    pub(super) fn seal(&self, version: u8, body: &[u8]) -> Vec<u8> {
        let mut head = Vec::with_capacity(64);
        head.extend_from_slice(&self.rows.to_le_bytes());
        head.extend_from_slice(&self.from.as_micros().to_le_bytes());
        head.extend_from_slice(&self.to.as_micros().to_le_bytes());
        head.extend_from_slice(&(body.len() as u64).to_le_bytes());
        put_text(&mut head, &self.agent.name);
        put_text(&mut head, &self.agent.location);

        let mut prefix = [0; PREFIX_BYTES];
        prefix[..3].copy_from_slice(MAGIC);
        prefix[3] = version;
        prefix[4..8].copy_from_slice(&(head.len() as u32).to_le_bytes());
        prefix[12..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        let checksum = head_checksum(&prefix, &head);
        prefix[8..12].copy_from_slice(&checksum.to_le_bytes());
        [&prefix, head.as_slice(), body].concat()
    }
}

fn head_checksum(prefix: &[u8; PREFIX_BYTES], head: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&prefix[..8]);
    hasher.update(&prefix[12..]);
    hasher.update(head);
    hasher.finalize()
}
