//! Bodies: their framing, pace, lies and codings.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::{body, connect, exchange, get, header, request};
use crate::support::target::target;

fn raw_body(answer: &[u8]) -> &[u8] {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    &answer[end.unwrap() + 4..]
}

#[test]
fn bodies_have_the_size_asked_for() {
    let target = target();
    for size in [0, 1, 1_024, 65_536, 3_000_000] {
        let answer = get(&target, &format!("/?size={size}"));
        assert_eq!(header(&answer, "content-length"), Some(&*size.to_string()));
        assert_eq!(body(&answer).len(), size);
    }
    let (answer, _) = exchange(&target, "GET /?body=%ff%00 HTTP/1.1\r\n\r\n");
    assert!(answer.ends_with(b"\r\n\r\n\xff\x00"));
}

#[test]
fn a_chunked_body_ends_with_its_last_chunk() {
    let target = target();
    let answer = get(&target, "/?chunked=1&body=hello");
    assert_eq!(header(&answer, "transfer-encoding"), Some("chunked"));
    assert_eq!(body(&answer), "5\r\nhello\r\n0\r\n\r\n");
    // HTTP/1.0 has no chunks: the body ends with the connection.
    let (answer, _) = exchange(&target, "GET /?chunked=1&body=hello HTTP/1.0\r\n\r\n");
    assert_eq!(raw_body(&answer), b"hello");
    let cut = get(&target, "/?chunked=1&body=hello&close=body");
    assert_eq!(body(&cut), "2\r\nhe\r\n");
}

#[test]
fn a_head_request_and_a_204_have_no_body() {
    let target = target();
    let (answer, _) = exchange(&target, "HEAD /?size=1000 HTTP/1.1\r\n\r\n");
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!(
        (header(&answer, "content-length"), body(&answer)),
        (Some("1000"), "")
    );
    let answer = get(&target, "/?status=204");
    assert_eq!(
        (header(&answer, "content-length"), body(&answer)),
        (None, "")
    );
}

#[test]
fn slow_bodies_come_piece_by_piece() {
    let target = target();
    for path in ["/?body=0123456789&drip=1b/20ms", "/?size=11&slow=50b/s"] {
        let started = Instant::now();
        get(&target, path);
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(160), "{path}: {took:?}");
    }
    // The first byte does not wait.
    let mut stream = connect(&target);
    let started = Instant::now();
    stream
        .write_all(b"GET /?body=ab&drip=1b/5s HTTP/1.1\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\na") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[test]
fn lengths_lie() {
    let target = target();
    let (answer, _) = request(&target, "/?lie=length&body=hello");
    assert_eq!(
        (header(&answer, "content-length"), body(&answer)),
        (Some("105"), "hello")
    );
    let (answer, _) = request(&target, "/?lie=short&body=hello");
    assert_eq!(
        (header(&answer, "content-length"), body(&answer)),
        (Some("2"), "hello")
    );
}

#[test]
fn an_endless_body_goes_on() {
    let target = target();
    let mut stream = connect(&target);
    stream
        .write_all(b"GET /?endless=1 HTTP/1.1\r\n\r\n")
        .unwrap();
    let mut read = vec![0; 8 << 20];
    stream.read_exact(&mut read).unwrap();
}

#[test]
fn encoded_bodies_decode() -> io::Result<()> {
    let target = target();
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let path = format!("/?body=hello+&size=100k&encoding={encoding}");
        let (answer, _) = exchange(&target, &format!("GET {path} HTTP/1.1\r\n\r\n"));
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(header(&text, "content-encoding"), Some(encoding));
        let mut decoded = String::new();
        decoder(raw_body(&answer), encoding)?.read_to_string(&mut decoded)?;
        assert_eq!(decoded.len(), 100 << 10, "{encoding}");
        assert!(decoded.starts_with("hello abc"), "{encoding}");

        let (answer, _) = exchange(&target, &format!("GET {path}&truncate=1 HTTP/1.1\r\n\r\n"));
        let cut = decoder(raw_body(&answer), encoding)?.read_to_string(&mut String::new());
        assert!(cut.is_err(), "{encoding}");
    }
    Ok(())
}

#[test]
fn a_bomb_is_announced_by_nothing_but_its_coding() -> io::Result<()> {
    let target = target();
    for (encoding, largest) in [("gzip", 300 << 10), ("br", 256), ("zstd", 9 << 10)] {
        let (answer, _) = exchange(&target, &format!("GET /?bomb={encoding} HTTP/1.1\r\n\r\n"));
        let encoded = raw_body(&answer);
        assert!(encoded.len() < largest, "{encoding}: {}", encoded.len());
        // All of it is checked where it is made; here, that it is much.
        let mut much = decoder(encoded, encoding)?.take(1 << 20);
        assert_eq!(io::copy(&mut much, &mut io::sink())?, 1 << 20, "{encoding}");
    }
    Ok(())
}

fn decoder<'a>(encoded: &'a [u8], encoding: &str) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match encoding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(encoded)),
        "deflate" => Box::new(flate2::read::ZlibDecoder::new(encoded)),
        "br" => Box::new(brotli_decompressor::Decompressor::new(encoded, 4_096)),
        _ => Box::new(zstd::Decoder::new(encoded)?),
    })
}
