//! The keys of a script, in one list.

use std::fmt::Write as _;

/// Every key: its name, an example of its value, and what it does. The one list behind the parser's test, the answer
/// to an unknown key, `/_keys` and `--help`.
pub(super) const KEYS: &[(&str, &str, &str)] = &[
    ("status", "503", "status code; 200 if not given"),
    (
        "latency",
        "20ms",
        "wait before the head; a `server-timing` header tells the wait as it was",
    ),
    (
        "head_latency",
        "20ms",
        "wait inside the head, after its first line (HTTP/1)",
    ),
    ("body_latency", "20ms", "wait between head and body"),
    ("body", "hello+world", "the body, percent-decoded"),
    (
        "size",
        "64k",
        "bytes of the body; filler follows what `body` says",
    ),
    ("type", "text/html", "content type"),
    ("header", "x-a:b", "one more header; may be repeated"),
    (
        "chunked",
        "1",
        "chunked transfer coding instead of a content length (HTTP/1)",
    ),
    (
        "slow",
        "100b/s",
        "the body at this rate, up to ten pieces a second",
    ),
    ("drip", "1b/100ms", "the body in exactly such pieces"),
    (
        "slow_head",
        "10ms",
        "the head one byte at a time, or at a pace as in `drip` (HTTP/1)",
    ),
    (
        "redirect",
        "http://127.0.0.1/x",
        "redirect there; percent-encode its `?` and `&`",
    ),
    ("code", "307", "status code of redirects; 302 if not given"),
    (
        "hops",
        "3",
        "as many redirects to itself, one fewer each time, then the rest of the script",
    ),
    ("loop", "1", "redirect to itself for ever"),
    (
        "reset",
        "body",
        "TCP reset at that point: accept (nothing answered), head or body (inside it), end (after it)",
    ),
    (
        "close",
        "head",
        "connection closed without a word at that point",
    ),
    (
        "hang",
        "accept",
        "silence from that point on, until the peer leaves",
    ),
    (
        "connection",
        "close",
        "announce the close and close after the answer (HTTP/1)",
    ),
    (
        "lie",
        "length",
        "content length: `length` 100 bytes too long, `short` half of the body",
    ),
    ("garbage", "1", "1 KiB that is not HTTP"),
    ("http09", "1", "the bare body, no head (HTTP/1)"),
    ("headers", "1000", "as many more headers"),
    (
        "header_bytes",
        "64k",
        "as many bytes in them (in one, without `headers`)",
    ),
    ("continue", "3", "as many `100 Continue` first (HTTP/1)"),
    (
        "encoding",
        "gzip",
        "body encoded as gzip, deflate, br or zstd",
    ),
    (
        "truncate",
        "1",
        "only the first half of the encoded body, with a length that agrees",
    ),
    (
        "bomb",
        "br",
        "a small body that decodes to 256 MiB of zeros: gzip, deflate, br or zstd",
    ),
    ("endless", "1", "a body that never ends"),
    (
        "auth",
        "basic:user:pass",
        "401 unless the request has it; or bearer:TOKEN",
    ),
    (
        "echo",
        "1",
        "the body is the request as JSON: method, target, version, headers, body, sni, port",
    ),
    (
        "flap",
        "2",
        "that many requests up, as many down, and again (see `schedule`)",
    ),
    (
        "schedule",
        "up:3,down:2",
        "turns, by the count of requests for this path and query: the script holds when down \
      (503 unless it says else); when up, 200 and only body, size, type, header, encoding and chunked of it",
    ),
    (
        "h2",
        "goaway",
        "HTTP/2 only: goaway (without serving the request), or reset of the stream",
    ),
];

/// All keys with their examples and meanings, one a line.
pub fn key_list() -> String {
    let mut list = String::new();
    for (key, example, meaning) in KEYS {
        let pair = format!("{key}={example}");
        // Writing to a string cannot fail.
        let _ = writeln!(list, "  {pair:<28} {meaning}");
    }
    list
}

/// Keys that set the same thing share a slot.
pub(super) fn slot(key: &str) -> &str {
    match key {
        "slow" | "drip" => "pace",
        "reset" | "close" | "hang" => "fault",
        "flap" | "schedule" => "turns",
        key => key,
    }
}
