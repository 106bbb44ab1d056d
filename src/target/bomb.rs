//! Small bodies that decode to much, written by hand, since no encoder makes them cheaply.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Crc, FlushCompress};

use super::choice::Encoding;
use super::encode::Bits;
use super::payload::Part;

/// What a bomb decodes to, in MiB.
pub const BOMB_MIB: u32 = 256;

const MIB: u32 = 1 << 20;
/// The largest zstd block.
const ZSTD_BLOCK: u32 = 1 << 17;
/// The largest brotli meta-block, in MiB.
const BROTLI_BLOCK_MIB: u32 = 16;

/// A body that decodes to `mebibytes` (a multiple of 16) of zeros. 256 MiB take 210 bytes of brotli, 8 KiB of zstd, and
/// 260 KiB of gzip or deflate, whose format cannot do better than 1 : 1032. A repeated piece is held once.
pub(super) fn bomb(encoding: Encoding, mebibytes: u32) -> io::Result<Vec<Part>> {
    match encoding {
        Encoding::Gzip => gzip(mebibytes),
        Encoding::Deflate => deflate(mebibytes),
        Encoding::Brotli => Ok(vec![Part::once(brotli(mebibytes))]),
        Encoding::Zstd => Ok(zstd(mebibytes)),
    }
}

fn gzip(mebibytes: u32) -> io::Result<Vec<Part>> {
    const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let mut of_piece = Crc::new();
    of_piece.update(&vec![0; MIB as usize]);
    let mut crc = Crc::new();
    for _ in 0..mebibytes {
        crc.combine(&of_piece);
    }
    let mut end = BytesMut::from(LAST_DEFLATE_BLOCK);
    end.put_u32_le(crc.sum());
    end.put_u32_le(crc.amount());
    Ok(vec![
        Part::once(Bytes::from_static(HEADER)),
        Part::repeated(deflated_mebibyte()?, u64::from(mebibytes)),
        Part::once(end.freeze()),
    ])
}

fn deflate(mebibytes: u32) -> io::Result<Vec<Part>> {
    // Adler-32 of n zeros: the low half stays 1, the high half sums it n times.
    let adler = u64::from(mebibytes) * u64::from(MIB) % 65_521;
    let mut end = BytesMut::from(LAST_DEFLATE_BLOCK);
    end.put_u32((adler as u32) << 16 | 1);
    Ok(vec![
        Part::once(Bytes::from_static(&[0x78, 0x9c])),
        Part::repeated(deflated_mebibyte()?, u64::from(mebibytes)),
        Part::once(end.freeze()),
    ])
}

/// Empty, of fixed codes.
const LAST_DEFLATE_BLOCK: &[u8] = &[0x03, 0x00];

/// A mebibyte of zeros as raw deflate, fully flushed, so that it ends on a byte and may stand any number of times.
fn deflated_mebibyte() -> io::Result<Bytes> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut piece = Vec::with_capacity(4_096);
    compress
        .compress_vec(&vec![0; MIB as usize], &mut piece, FlushCompress::Full)
        .map_err(io::Error::other)?;
    Ok(piece.into())
}

/// Blocks of one byte to be repeated (RFC 8878, section 3.1.1.2).
fn zstd(mebibytes: u32) -> Vec<Part> {
    const RLE: u32 = 1 << 1;
    const LAST: u32 = 1;
    // Magic number, no content size, no checksum, a window of 128 KiB.
    const HEADER: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    let block = |last: u32| {
        let header = (ZSTD_BLOCK << 3 | RLE | last).to_le_bytes();
        Bytes::copy_from_slice(&[header[0], header[1], header[2], 0])
    };
    let blocks = u64::from(mebibytes) * u64::from(MIB / ZSTD_BLOCK);
    vec![
        Part::once(Bytes::from_static(HEADER)),
        Part::repeated(block(0), blocks.saturating_sub(1)),
        Part::once(block(LAST)),
    ]
}

/// Meta-blocks of 16 MiB (RFC 7932, section 9.2): one literal zero, then one copy of it at distance 1. Each of the three
/// prefix codes has one symbol, so that symbols take no bits.
fn brotli(mebibytes: u32) -> Bytes {
    const BLOCK: u32 = BROTLI_BLOCK_MIB * MIB;
    // Insert length 1 (code 1), copy length from 2118 with 24 extra bits (code 23): cell 384 of section 5's table.
    const INSERT_1_COPY_23: u32 = 384 + (1 << 3) + 7;
    const COPY_23_BASE: u32 = 2_118;
    const DISTANCE_1: u32 = 16;
    let mut bits = Bits::default();
    bits.put(0, 1); // A window of 64 KiB.
    for _ in 0..mebibytes / BROTLI_BLOCK_MIB {
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
    bits.put(0b11, 2); // The last, and empty.
    bits.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::encode::tests::{ALL, decoder};
    use super::super::payload::Payload;
    use super::*;

    #[test]
    fn bombs_are_valid_and_decode_to_their_size() {
        for encoding in ALL {
            // Two of the largest pieces: how many there are makes no difference but time.
            let mebibytes = match encoding {
                Encoding::Brotli => 2 * BROTLI_BLOCK_MIB,
                _ => 2,
            };
            let encoded = Payload::of(bomb(encoding, mebibytes).unwrap()).collected();
            let decoded = io::copy(&mut decoder(&encoded, encoding), &mut io::sink()).unwrap();
            assert_eq!(decoded, u64::from(mebibytes) << 20, "{encoding:?}");
        }
    }

    #[test]
    fn bombs_are_small() {
        let size = |encoding| {
            Payload::of(bomb(encoding, BOMB_MIB).unwrap())
                .left()
                .unwrap()
        };
        assert!(size(Encoding::Brotli) < 256);
        assert!(size(Encoding::Zstd) < 9 << 10);
        assert!(size(Encoding::Gzip) < 300 << 10);
        assert!(size(Encoding::Deflate) < 300 << 10);
    }
}
