//! Content codings: honest ones through the crates that the agent decodes with, and small bodies that decode to much,
//! written by hand since no encoder makes them cheaply.

use std::io::{self, Write};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Crc, FlushCompress, write};

use super::payload::Part;
use super::script::Encoding;

/// What a bomb decodes to, in MiB.
pub const BOMB_MIB: u32 = 256;

const MIB: usize = 1 << 20;
/// Of an uncompressed brotli meta-block with a length of four nibbles.
const BROTLI_STORED_MAX: usize = 1 << 16;
/// Of a zstd block.
const ZSTD_BLOCK: u32 = 1 << 17;

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
        Encoding::Brotli => brotli_stored(plain),
        Encoding::Zstd => zstd::encode_all(plain, zstd::DEFAULT_COMPRESSION_LEVEL)?,
    };
    Ok(bytes.into())
}

/// A body that decodes to [`BOMB_MIB`] of zeros: 250 bytes of brotli, 8 KiB of zstd, 260 KiB of gzip or deflate (whose
/// format cannot do better than 1 : 1032). The repeated piece is stored once.
pub(super) fn bomb(encoding: Encoding) -> io::Result<Vec<Part>> {
    match encoding {
        Encoding::Gzip => gzip_bomb(),
        Encoding::Deflate => deflate_bomb(),
        Encoding::Brotli => Ok(vec![Part::once(brotli_bomb())]),
        Encoding::Zstd => Ok(zstd_bomb()),
    }
}

/// RFC 4648, with padding. No crate among the dependencies has it, and `authorization` needs nothing else.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_usize, |group, byte| group << 8 | usize::from(*byte));
        for sextet in 0..4 {
            if sextet <= chunk.len() {
                text.push(ALPHABET[group >> (18 - 6 * sextet) & 63] as char);
            } else {
                text.push('=');
            }
        }
    }
    text
}

fn gzip_bomb() -> io::Result<Vec<Part>> {
    let mut of_piece = Crc::new();
    of_piece.update(&vec![0; MIB]);
    let mut crc = Crc::new();
    for _ in 0..BOMB_MIB {
        crc.combine(&of_piece);
    }
    let mut end = BytesMut::from(&[0x03, 0x00][..]);
    end.put_u32_le(crc.sum());
    end.put_u32_le(crc.amount());
    Ok(vec![
        Part::once(Bytes::from_static(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])),
        Part::repeated(deflated_mebibyte()?, u64::from(BOMB_MIB)),
        Part::once(end.freeze()),
    ])
}

fn deflate_bomb() -> io::Result<Vec<Part>> {
    // Adler-32 of n zeros: the low half stays 1, the high half sums it n times.
    let adler = (BOMB_MIB as usize * MIB % 65_521) as u32;
    let mut end = BytesMut::from(&[0x03, 0x00][..]);
    end.put_u32(adler << 16 | 1);
    Ok(vec![
        Part::once(Bytes::from_static(&[0x78, 0x9c])),
        Part::repeated(deflated_mebibyte()?, u64::from(BOMB_MIB)),
        Part::once(end.freeze()),
    ])
}

/// A mebibyte of zeros as raw deflate, fully flushed, so that it ends on a byte and may stand any number of times.
fn deflated_mebibyte() -> io::Result<Bytes> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut piece = Vec::with_capacity(4_096);
    compress
        .compress_vec(&vec![0; MIB], &mut piece, FlushCompress::Full)
        .map_err(io::Error::other)?;
    Ok(piece.into())
}

fn zstd_bomb() -> Vec<Part> {
    const RLE: u32 = 1 << 1;
    const LAST: u32 = 1;
    let block = |last: u32| {
        let header = (ZSTD_BLOCK << 3 | RLE | last).to_le_bytes();
        Bytes::copy_from_slice(&[header[0], header[1], header[2], 0])
    };
    // Magic number, no content size, no checksum, a window of 128 KiB.
    let head = Bytes::from_static(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38]);
    let blocks = u64::from(BOMB_MIB) * MIB as u64 / u64::from(ZSTD_BLOCK);
    vec![
        Part::once(head),
        Part::repeated(block(0), blocks - 1),
        Part::once(block(LAST)),
    ]
}

/// Uncompressed meta-blocks (RFC 7932, section 9.2).
fn brotli_stored(plain: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(0, 1); // A window of 64 KiB.
    for block in plain.chunks(BROTLI_STORED_MAX) {
        bits.put(0, 1); // Not the last.
        bits.put(0, 2); // The length has four nibbles.
        bits.put(block.len() as u32 - 1, 16);
        bits.put(1, 1); // Uncompressed.
        bits.align();
        bits.bytes.extend_from_slice(block);
    }
    bits.put(0b11, 2); // The last, and empty.
    bits.bytes
}

/// Meta-blocks of 16 MiB: one literal zero, then one copy of it at distance 1. Each of the three prefix codes has one
/// symbol, so that symbols take no bits.
fn brotli_bomb() -> Bytes {
    const BLOCK: u32 = 1 << 24;
    // Insert length 1 (code 1), copy length from 2118 with 24 extra bits (code 23): cell 384 of section 5's table.
    const INSERT_1_COPY_23: u32 = 384 + (1 << 3) + 7;
    const COPY_23_BASE: u32 = 2_118;
    const DISTANCE_1: u32 = 16;
    let mut bits = Bits::default();
    bits.put(0, 1);
    for _ in 0..BOMB_MIB * MIB as u32 / BLOCK {
        bits.put(0, 1); // Not the last.
        bits.put(2, 2); // The length has six nibbles.
        bits.put(BLOCK - 1, 24);
        bits.put(0, 1); // Compressed.
        bits.put(0, 3); // One block type each for literals, commands, distances.
        bits.put(0, 6); // No postfix bits, no direct distances.
        bits.put(0, 2); // Context mode.
        bits.put(0, 2); // One tree each for literals and distances.
        for (symbol, alphabet_bits) in [(0, 8), (INSERT_1_COPY_23, 10), (DISTANCE_1, 6)] {
            bits.put(1, 2); // A simple code …
            bits.put(0, 2); // … of one symbol.
            bits.put(symbol, alphabet_bits);
        }
        bits.put(BLOCK - 1 - COPY_23_BASE, 24);
        bits.put(0, 1); // Distance 1 + 0.
    }
    bits.put(0b11, 2);
    bits.bytes.into()
}

/// Bits from the lowest on, as brotli packs them.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits taken of the last byte; 0 when it is full.
    used: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
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

    fn align(&mut self) {
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::payload::Payload;
    use super::*;

    const ALL: [Encoding; 4] = [
        Encoding::Gzip,
        Encoding::Deflate,
        Encoding::Brotli,
        Encoding::Zstd,
    ];

    fn decoder(encoded: &[u8], encoding: Encoding) -> Box<dyn Read + '_> {
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

    #[test]
    fn bombs_are_small_valid_and_decode_to_256_mib() {
        for encoding in ALL {
            let mut payload = Payload::of(bomb(encoding).unwrap());
            let mut encoded = Vec::new();
            while let Some(piece) = payload.next(1 << 16) {
                encoded.extend_from_slice(&piece);
            }
            let small = match encoding {
                Encoding::Gzip | Encoding::Deflate => 300 << 10,
                Encoding::Brotli => 256,
                Encoding::Zstd => 9 << 10,
            };
            assert!(encoded.len() < small, "{encoding:?}: {}", encoded.len());
            let decoded = io::copy(&mut decoder(&encoded, encoding), &mut io::sink()).unwrap();
            assert_eq!(decoded, u64::from(BOMB_MIB) << 20, "{encoding:?}");
        }
    }

    #[test]
    fn base64_pads() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("user:pass", "dXNlcjpwYXNz"),
        ] {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }
}
