//! Samples in PostgreSQL's binary COPY format. One buffer, no allocation per field or row
//! (<https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format"; the types by their `recv` functions).

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};

use crate::domain::{AgentIdentity, Batch, Reason, Sample, Timestamp};

/// Signature, flags, length of the header's extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Columns, in the order of copy.sql and stage.sql.
const COLUMNS: i16 = 25;
/// Microseconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const PG_EPOCH_US: i64 = 946_684_800_000_000;
/// A row without detail has about this many bytes.
const ROW_BYTES: usize = 200;
/// Rows of one piece: some 50 KB. The server is at work on the first while the others are encoded and on their way.
const PIECE_ROWS: usize = 256;

/// A batch, encoded.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// What is sent: header, rows, trailer.
    pub bytes: Bytes,
    /// Where each row starts in `bytes`; one more for the end of the last.
    pub offsets: Vec<usize>,
}

/// Encodes batches; keeps its buffer.
#[derive(Debug, Default)]
pub struct RowEncoder {
    buffer: BytesMut,
}

impl RowEncoder {
    /// Encodes a batch. Numbers beyond a column's range become the range's end.
    pub fn encode(&mut self, batch: &Batch) -> Encoded {
        let out = &mut self.buffer;
        out.reserve(HEADER.len() + batch.rows() * ROW_BYTES + 2);
        let mut offsets = Vec::with_capacity(batch.rows() + 1);
        out.put_slice(HEADER);
        for sample in &batch.samples {
            offsets.push(out.len());
            put_row(out, &batch.agent, sample);
        }
        offsets.push(out.len());
        out.put_i16(-1);
        Encoded {
            bytes: out.split().freeze(),
            offsets,
        }
    }

    /// Encodes a batch piece by piece, each when it is asked for. One after another they are what `encode` gives.
    pub fn pieces<'a>(&'a mut self, batch: &'a Batch) -> impl Iterator<Item = Bytes> + 'a {
        let mut rows = batch.samples.chunks(PIECE_ROWS).peekable();
        let mut begun = false;
        std::iter::from_fn(move || {
            let piece = match rows.next() {
                Some(piece) => piece,
                None if begun => return None,
                None => &[],
            };
            let out = &mut self.buffer;
            out.reserve(HEADER.len() + piece.len() * ROW_BYTES + 2);
            if !std::mem::replace(&mut begun, true) {
                out.put_slice(HEADER);
            }
            for sample in piece {
                put_row(out, &batch.agent, sample);
            }
            if rows.peek().is_none() {
                out.put_i16(-1);
            }
            Some(out.split().freeze())
        })
    }
}

fn put_row(out: &mut BytesMut, agent: &AgentIdentity, sample: &Sample) {
    out.put_i16(COLUMNS);
    put_time(out, Some(sample.scheduled_at));
    out.put_i32(8);
    out.put_i64(sample.endpoint.0);
    put_time(out, sample.tls_not_after);
    put_text(out, Some(sample.outcome().label()));
    put_text(out, sample.reason.map(Reason::label));
    put_i32(out, sample.lag_us);
    put_i32(out, sample.phases.resolve_us);
    put_i32(out, sample.phases.connect_us);
    put_i32(out, sample.phases.tls_us);
    put_i32(out, sample.phases.processing_us);
    put_i32(out, sample.phases.transfer_us);
    put_i32(out, sample.duration_us);
    put_i32(out, sample.error_us);
    put_i32(out, Some(sample.bytes_sent));
    put_i32(out, Some(sample.bytes_received));
    put_i32(out, Some(sample.cpu_us));
    put_i16(out, sample.status_code);
    put_i16(out, sample.http_version.map(u16::from));
    put_i16(out, Some(u16::from(sample.hops)));
    put_bool(out, sample.matched);
    put_bool(out, Some(sample.suspect));
    put_text(out, Some(&agent.location));
    put_text(out, Some(&agent.name));
    put_inet(out, sample.remote_ip);
    put_text(out, sample.detail.as_deref());
}

fn put_null(out: &mut BytesMut) {
    out.put_i32(-1);
}

fn put_i32(out: &mut BytesMut, value: Option<u32>) {
    match value {
        Some(value) => {
            out.put_i32(4);
            out.put_i32(i32::try_from(value).unwrap_or(i32::MAX));
        }
        None => put_null(out),
    }
}

fn put_i16(out: &mut BytesMut, value: Option<u16>) {
    match value {
        Some(value) => {
            out.put_i32(2);
            out.put_i16(i16::try_from(value).unwrap_or(i16::MAX));
        }
        None => put_null(out),
    }
}

fn put_bool(out: &mut BytesMut, value: Option<bool>) {
    match value {
        Some(value) => {
            out.put_i32(1);
            out.put_u8(u8::from(value));
        }
        None => put_null(out),
    }
}

/// Text, and an enum by its label.
fn put_text(out: &mut BytesMut, value: Option<&str>) {
    match value {
        Some(value) => {
            out.put_i32(i32::try_from(value.len()).expect("a text below 2 GiB"));
            out.put_slice(value.as_bytes());
        }
        None => put_null(out),
    }
}

fn put_time(out: &mut BytesMut, value: Option<Timestamp>) {
    match value {
        Some(value) => {
            out.put_i32(8);
            out.put_i64(value.as_micros().saturating_sub(PG_EPOCH_US));
        }
        None => put_null(out),
    }
}

/// Family (2 or 3), prefix length, 0 for inet, bytes of the address, the address.
fn put_inet(out: &mut BytesMut, value: Option<IpAddr>) {
    match value {
        Some(IpAddr::V4(address)) => {
            out.put_i32(8);
            out.put_slice(&[2, 32, 0, 4]);
            out.put_slice(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            out.put_i32(20);
            out.put_slice(&[3, 128, 0, 16]);
            out.put_slice(&address.octets());
        }
        None => put_null(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EndpointId;
    use std::sync::Arc;

    #[test]
    fn offsets_are_those_of_the_rows() {
        let agent = Arc::new(AgentIdentity {
            name: "a".into(),
            location: "l".into(),
        });
        let samples = (1..=3)
            .map(|id| Sample::new(EndpointId(id), Timestamp::from_millis(id)))
            .collect();
        let encoded = RowEncoder::default().encode(&Batch { agent, samples });
        assert_eq!(encoded.offsets.len(), 4);
        assert_eq!(encoded.offsets[0], HEADER.len());
        for start in &encoded.offsets[..3] {
            assert_eq!(encoded.bytes[*start..start + 2], COLUMNS.to_be_bytes());
        }
        assert_eq!(encoded.bytes[encoded.offsets[3]..], [0xff, 0xff]);
    }

    #[test]
    fn pieces_are_the_whole() {
        let agent = Arc::new(AgentIdentity {
            name: "a".into(),
            location: "l".into(),
        });
        for rows in [0, 1, 255, 256, 257, 512, 1_000] {
            let sample = |id| Sample::new(EndpointId(id), Timestamp::from_millis(id));
            let batch = Batch {
                agent: agent.clone(),
                samples: (0..rows).map(sample).collect(),
            };
            let mut encoder = RowEncoder::default();
            let pieces: Vec<u8> = encoder.pieces(&batch).flatten().collect();
            assert_eq!(pieces, encoder.encode(&batch).bytes, "{rows}");
        }
    }
}
