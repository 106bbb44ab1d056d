//! Content encodings: any bytes, in any order of layers, in chunks of any size, stay within the cap; what was encoded
//! comes out again.
#![no_main]

use std::io::Write;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use watcher::probe::body::{BodyDecoder, ENCODINGS_MAX, Progress};

#[derive(Arbitrary, Debug)]
struct Input {
    encodings: Vec<u8>,
    bytes_max: u16,
    chunk: u8,
    is_plain: bool,
    body: Vec<u8>,
}

const NAMES: [&str; 7] = ["gzip", "deflate", "br", "zstd", "x-gzip", "identity", "?"];

fuzz_target!(|input: Input| {
    let bytes_max = usize::from(input.bytes_max);
    let chunk = usize::from(input.chunk) + 1;
    if input.is_plain {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&input.body).unwrap();
        let body = decoded("gzip", &gzip.finish().unwrap(), chunk, bytes_max);
        let expected = &input.body[..input.body.len().min(bytes_max)];
        assert_eq!(body.as_deref(), Some(expected));
        return;
    }
    let names: Vec<&str> = input
        .encodings
        .iter()
        .take(ENCODINGS_MAX + 1)
        .map(|&n| NAMES[usize::from(n) % NAMES.len()])
        .collect();
    decoded(&names.join(", "), &input.body, chunk, bytes_max);
});

fn decoded(encodings: &str, body: &[u8], chunk: usize, bytes_max: usize) -> Option<Vec<u8>> {
    let mut decoder = match BodyDecoder::new([encodings], None, bytes_max) {
        Ok(decoder) => decoder,
        Err(error) => return told(&error),
    };
    let mut full = false;
    for chunk in body.chunks(chunk) {
        match decoder.push(chunk) {
            Ok(progress) => {
                // Once full, always full.
                assert!(!full || progress == Progress::Full);
                full = progress == Progress::Full;
            }
            Err(error) => return told(&error),
        }
    }
    match decoder.finish() {
        Ok(decoded) => {
            assert!(decoded.len() <= bytes_max);
            Some(decoded)
        }
        Err(error) => told(&error),
    }
}

fn told<T>(error: &watcher::probe::body::DecodeError) -> Option<T> {
    assert!(!error.to_string().is_empty());
    None
}
