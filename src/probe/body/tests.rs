use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;

use super::*;

const MAX: usize = 1 << 20;

fn read(mut reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("memory is readable");
    bytes
}

/// `plain` in an encoding; `deflate-raw` is what some servers send as `deflate`.
fn encode(encoding: &str, plain: &[u8]) -> Vec<u8> {
    match encoding {
        "gzip" => read(GzEncoder::new(plain, Compression::default())),
        "deflate" => read(ZlibEncoder::new(plain, Compression::default())),
        "deflate-raw" => read(DeflateEncoder::new(plain, Compression::default())),
        "br" => {
            let mut writer = brotli::CompressorWriter::new(Vec::new(), 4_096, 5, 20);
            writer.write_all(plain).expect("memory is writable");
            writer.into_inner()
        }
        "zstd" => zstd::encode_all(plain, 3).expect("zstd encodes"),
        _ => plain.to_vec(),
    }
}

fn decode_by(
    encoding: &str,
    chunk_bytes: usize,
    encoded: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, DecodeError> {
    let name = encoding.trim_end_matches("-raw");
    let mut decoder = BodyDecoder::new([name], None, bytes_max)?;
    for chunk in encoded.chunks(chunk_bytes.max(1)) {
        decoder.push(chunk)?;
    }
    decoder.finish()
}

const ENCODINGS: [&str; 6] = ["gzip", "deflate", "deflate-raw", "br", "zstd", "identity"];

fn text(bytes: usize) -> Vec<u8> {
    "a body of words, 42 of them, more or less. "
        .bytes()
        .cycle()
        .enumerate()
        .map(|(at, byte)| byte ^ u8::try_from(at / 997 % 7).unwrap_or(0))
        .take(bytes)
        .collect()
}

#[test]
fn every_encoding_comes_back_whatever_the_chunks() {
    for encoding in ENCODINGS {
        for bytes in [0, 1, 100, 70_000] {
            let plain = text(bytes);
            let encoded = encode(encoding, &plain);
            for chunk_bytes in [1, 7, 16 * 1024, usize::MAX] {
                let decoded = decode_by(encoding, chunk_bytes, &encoded, MAX);
                assert!(
                    decoded.as_ref().is_ok_and(|decoded| *decoded == plain),
                    "{encoding}, {bytes} bytes by {chunk_bytes}: {:?}",
                    decoded.map(|decoded| decoded.len())
                );
            }
        }
    }
}

#[test]
fn an_end_before_the_end_is_truncated_at_every_byte() {
    for encoding in ENCODINGS.iter().filter(|e| **e != "identity") {
        let encoded = encode(encoding, &text(600));
        for end in 1..encoded.len() {
            let decoded = decode_by(encoding, 64, &encoded[..end], MAX);
            assert!(
                matches!(decoded, Err(DecodeError::Truncated { .. })),
                "{encoding} cut at {end} of {}: {decoded:?}",
                encoded.len()
            );
        }
    }
}

#[test]
fn a_body_without_a_byte_is_empty_in_every_encoding() {
    for encoding in ENCODINGS {
        assert!(matches!(decode_by(encoding, 1, &[], MAX), Ok(body) if body.is_empty()));
    }
}

#[test]
fn encodings_in_a_row_are_undone_from_the_last() {
    let plain = text(5_000);
    let twice = encode("br", &encode("gzip", &plain));
    for names in [
        &["gzip, br"][..],
        &["gzip", "BR"],
        &[" x-gzip ,, identity,br "],
    ] {
        let mut decoder = BodyDecoder::new(names, None, MAX).expect("known encodings");
        for chunk in twice.chunks(11) {
            assert_eq!(decoder.push(chunk).expect("sound"), Progress::More);
        }
        assert_eq!(decoder.finish().expect("whole"), plain);
    }
    let four = BodyDecoder::new(["gzip,gzip,gzip,gzip"], None, MAX);
    assert!(matches!(four, Err(DecodeError::TooMany { .. })));
}

#[test]
fn an_unknown_encoding_is_named() {
    let error = BodyDecoder::new(["gzip, compress"], None, MAX).expect_err("unknown");
    assert_eq!(error.to_string(), r#"unknown content encoding "compress""#);
}

#[test]
fn members_follow_each_other_and_garbage_is_ignored() {
    for encoding in ["gzip", "zstd"] {
        let mut encoded = encode(encoding, b"one, ");
        encoded.extend(encode(encoding, b""));
        encoded.extend(encode(encoding, b"two"));
        for garbage in [
            &b""[..],
            b"\0\0\0\0\0",
            b"\x1f",
            b"\x1f\x8c",
            b"\x28\xb5garbage",
        ] {
            let sent = [&encoded[..], garbage].concat();
            for chunk_bytes in [1, 3, 1_000] {
                let decoded = decode_by(encoding, chunk_bytes, &sent, MAX);
                assert!(
                    matches!(&decoded, Ok(body) if body == b"one, two"),
                    "{decoded:?}"
                );
            }
        }
    }
    for encoding in ["deflate", "deflate-raw", "br"] {
        let sent = [&encode(encoding, b"all")[..], b"garbage"].concat();
        assert!(matches!(decode_by(encoding, 1, &sent, MAX), Ok(body) if body == b"all"));
    }
}

#[test]
fn a_damaged_body_is_refused() {
    let mut damaged = encode("gzip", &text(1_000));
    let checksum = damaged.len() - 6;
    damaged[checksum] ^= 1;
    assert!(matches!(
        decode_by("gzip", 64, &damaged, MAX),
        Err(DecodeError::Damaged { .. })
    ));
    for encoding in ["gzip", "br", "zstd"] {
        let decoded = decode_by(encoding, 64, b"<html>not encoded at all</html>", MAX);
        assert!(
            matches!(decoded, Err(DecodeError::Damaged { .. })),
            "{encoding}: {decoded:?}"
        );
    }
}

#[test]
fn a_bomb_costs_the_cap() {
    let zeros = vec![0; 8 << 20];
    for encoding in ENCODINGS {
        let bomb = encode(encoding, &zeros);
        let name = encoding.trim_end_matches("-raw");
        let mut decoder = BodyDecoder::new([name], None, MAX).expect("known");
        assert_eq!(decoder.push(&bomb).expect("sound"), Progress::Full);
        assert_eq!(decoder.push(b"ignored").expect("ignored"), Progress::Full);
        let decoded = decoder.finish().expect("what there is");
        assert_eq!(decoded.len(), MAX);
        assert!(decoded.capacity() <= 2 * MAX);
    }
    // Twice: the layer in between is capped as well.
    let bomb = encode("gzip", &encode("gzip", &zeros));
    let mut decoder = BodyDecoder::new(["gzip, gzip"], None, MAX).expect("known");
    decoder.push(&bomb).expect("sound");
    assert!(decoder.finish().is_ok_and(|decoded| decoded.len() <= MAX));
}

#[test]
fn a_body_of_empty_members_ends_in_an_error() {
    let empty = encode("gzip", b"");
    let many = empty.repeat(10_000);
    assert!(matches!(
        decode_by("gzip", 16_384, &many, MAX),
        Err(DecodeError::Damaged { .. })
    ));
}

#[test]
fn the_cap_cuts_at_the_byte() {
    let plain = text(1_000);
    for encoding in ENCODINGS {
        let encoded = encode(encoding, &plain);
        for bytes_max in [0, 1, 999, 1_000, 1_001] {
            let decoded = decode_by(encoding, 13, &encoded, bytes_max).expect("sound");
            assert_eq!(
                decoded,
                plain[..bytes_max.min(1_000)],
                "{encoding} {bytes_max}"
            );
        }
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        encoding in prop::sample::select(ENCODINGS.to_vec()),
        mut encoded in prop::collection::vec(any::<u8>(), 0..300),
        sound_first in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        chunk_bytes in 1..64_usize,
    ) {
        if sound_first {
            encoded = encode(encoding, &encoded);
        }
        for (at, bits) in flips {
            if !encoded.is_empty() {
                let at = at.index(encoded.len());
                encoded[at] ^= bits;
            }
        }
        if let Ok(decoded) = decode_by(encoding, chunk_bytes, &encoded, 10_000) {
            prop_assert!(decoded.len() <= 10_000);
        }
    }
}
