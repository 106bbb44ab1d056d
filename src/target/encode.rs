//! Content codings of whole bodies, by the crates that the agent decodes with; brotli, for which there is no encoder
//! among them, by hand and without compressing.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compression, write};

use super::choice::Encoding;

/// Of an uncompressed brotli meta-block with a length of four nibbles.
const BROTLI_STORED_MAX: usize = 1 << 16;

/// `plain`, encoded.
pub(super) fn encoded(plain: &[u8], encoding: Encoding) -> io::Result<Bytes> {
    let bytes = match encoding {
        Encoding::Gzip => {
            let mut encoder = write::GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(plain)?;
            encoder.finish()?
        }
        Encoding::Deflate => {
            let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(plain)?;
            encoder.finish()?
        }
        Encoding::Brotli => return Ok(brotli_stored(plain)),
        Encoding::Zstd => zstd::encode_all(plain, zstd::DEFAULT_COMPRESSION_LEVEL)?,
    };
    Ok(bytes.into())
}

/// Uncompressed meta-blocks (RFC 7932, section 9.2).
fn brotli_stored(plain: &[u8]) -> Bytes {
    let mut bits = Bits::default();
    bits.put(0, 1); // A window of 64 KiB.
    for block in plain.chunks(BROTLI_STORED_MAX) {
        bits.put(0, 1); // Not the last.
        bits.put(0, 2); // The length has four nibbles.
        bits.put(block.len() as u32 - 1, 16);
        bits.put(1, 1); // Uncompressed.
        bits.append_aligned(block);
    }
    bits.put(0b11, 2); // The last, and empty.
    bits.into_bytes()
}

/// Bits from the lowest on, as brotli packs them.
#[derive(Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    /// Bits taken of the last byte; 0 when it is full.
    used: u32,
}

impl Bits {
    /// The lowest `count` bits of `value`.
    pub(super) fn put(&mut self, value: u32, count: u32) {
        for bit in 0..count {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << self.used;
            }
            self.used = (self.used + 1) % 8;
        }
    }

    /// Whole bytes, after the rest of the last one.
    fn append_aligned(&mut self, bytes: &[u8]) {
        self.used = 0;
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read;

    use super::*;

    pub(in super::super) const ALL: [Encoding; 4] = [
        Encoding::Gzip,
        Encoding::Deflate,
        Encoding::Brotli,
        Encoding::Zstd,
    ];

    pub(in super::super) fn decoder(encoded: &[u8], encoding: Encoding) -> Box<dyn Read + '_> {
        match encoding {
            Encoding::Gzip => Box::new(flate2::read::GzDecoder::new(encoded)),
            Encoding::Deflate => Box::new(flate2::read::ZlibDecoder::new(encoded)),
            Encoding::Brotli => Box::new(brotli_decompressor::Decompressor::new(encoded, 4_096)),
            Encoding::Zstd => Box::new(zstd::Decoder::new(encoded).unwrap()),
        }
    }

    #[test]
    fn encoded_bodies_decode_to_what_they_were() {
        for length in [0, 1, 1_000, 70_000, 200_000] {
            let plain: Vec<u8> = (0..length).map(|at: u32| (at * 7 / 3) as u8).collect();
            for encoding in ALL {
                let encoded = encoded(&plain, encoding).unwrap();
                let mut decoded = Vec::new();
                decoder(&encoded, encoding)
                    .read_to_end(&mut decoded)
                    .unwrap();
                assert_eq!(decoded, plain, "{encoding:?} of {length}");
            }
        }
    }
}
