//! What a request asks of the server: the keys of its query, read once into a [`Script`].
//!
//! Knows neither sockets nor time; `http1` and `http2` carry a script out.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;

use super::value::{self, Pace};

/// Every key: its name, an example of its value, and what it does. The one list behind the parser's test, the answer
/// to an unknown key, `/_keys` and `--help`.
pub const KEYS: &[(&str, &str, &str)] = &[
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

/// `headers` and `header_bytes` are held in memory; far beyond what any client takes.
const HEADERS_MAX: u32 = 100_000;
const HEADER_BYTES_MAX: u64 = 16 << 20;

/// A content coding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// The zlib format, which HTTP calls deflate.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// As in `content-encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// Where in an answer a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// The request has arrived; nothing is answered.
    Accept,
    /// Half of the head is sent.
    Head,
    /// The head and half of the body are sent.
    Body,
    /// The whole answer is sent.
    End,
}

/// How a connection ends before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// RST, by SO_LINGER 0.
    Reset,
    /// FIN; within TLS without `close_notify`.
    Close,
    /// Nothing more is sent; ends when the peer leaves.
    Hang,
}

/// A content length that is not the body's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// 100 bytes more than the body has.
    Long,
    /// Half of what the body has.
    Short,
}

/// What only HTTP/2 can do to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum H2Fault {
    /// GOAWAY with last stream 0, then the connection closes.
    Goaway,
    /// RST_STREAM.
    Reset,
}

/// A run of requests with one outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Whether the endpoint is well.
    pub up: bool,
    /// For so many requests, at least one.
    pub requests: u64,
}

/// One answer, as asked for. The default is a plain 200.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Script {
    /// `status`.
    pub status: Option<u16>,
    /// `latency`.
    pub latency: Duration,
    /// `head_latency`.
    pub head_latency: Duration,
    /// `body_latency`.
    pub body_latency: Duration,
    /// `body`.
    pub body: Option<Bytes>,
    /// `size`.
    pub size: Option<u64>,
    /// `type`.
    pub content_type: Option<String>,
    /// `header`, in order.
    pub extra_headers: Vec<(String, String)>,
    /// `chunked`.
    pub chunked: bool,
    /// `slow` or `drip`.
    pub body_pace: Option<Pace>,
    /// `slow_head`.
    pub head_pace: Option<Pace>,
    /// `redirect`.
    pub redirect: Option<String>,
    /// `code`.
    pub redirect_code: Option<u16>,
    /// `hops`.
    pub hops: u32,
    /// `loop`.
    pub redirect_loop: bool,
    /// `reset`, `close` or `hang`.
    pub fault: Option<(Fault, Point)>,
    /// `connection=close`.
    pub connection_close: bool,
    /// `lie`.
    pub lie: Option<Lie>,
    /// `garbage`.
    pub garbage: bool,
    /// `http09`.
    pub http09: bool,
    /// `headers`.
    pub headers: u32,
    /// `header_bytes`.
    pub header_bytes: u32,
    /// `continue`.
    pub continues: u32,
    /// `encoding`.
    pub encoding: Option<Encoding>,
    /// `truncate`.
    pub truncate: bool,
    /// `bomb`.
    pub bomb: Option<Encoding>,
    /// `endless`.
    pub endless: bool,
    /// `auth`, as the value that the `authorization` header must have.
    pub authorization: Option<String>,
    /// `echo`.
    pub echo: bool,
    /// `flap` or `schedule`; empty when there are no turns.
    pub turns: Vec<Turn>,
    /// `h2`.
    pub h2: Option<H2Fault>,
}

/// A query that is no script.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScriptError {
    /// Not one of [`KEYS`].
    #[error("unknown key `{0}`; the keys are:\n{keys}", keys = key_list())]
    UnknownKey(String),
    /// The value does not have the key's form.
    #[error("`{key}={value}` is not understood; write for example `{key}={example}` ({meaning})")]
    Value {
        /// The key.
        key: String,
        /// What it was given.
        value: String,
        /// What would do.
        example: &'static str,
        /// What the key does.
        meaning: &'static str,
    },
    /// A key other than `header` is given twice, or two keys exclude each other.
    #[error("`{0}` is given twice, or together with a key that excludes it")]
    Twice(String),
}

impl Script {
    /// Reads the part of a request's target after `?`.
    pub fn parse(query: &str) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        let mut seen = HashSet::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(&(_, example, meaning)) = KEYS.iter().find(|(name, ..)| *name == key) else {
                return Err(ScriptError::UnknownKey(key.to_owned()));
            };
            if key != "header" && !seen.insert(slot(key)) {
                return Err(ScriptError::Twice(key.to_owned()));
            }
            let decoded = value::percent_decoded(raw);
            script
                .set(key, &decoded)
                .ok_or_else(|| ScriptError::Value {
                    key: key.to_owned(),
                    value: String::from_utf8_lossy(&decoded).into_owned(),
                    example,
                    meaning,
                })?;
        }
        Ok(script)
    }

    /// Whether every request with this script gets the same bytes at once, whatever is in the request.
    pub(super) fn is_constant(&self) -> bool {
        let same_bytes = Self {
            status: self.status,
            body: self.body.clone(),
            size: self.size,
            content_type: self.content_type.clone(),
            extra_headers: self.extra_headers.clone(),
            headers: self.headers,
            header_bytes: self.header_bytes,
            encoding: self.encoding,
            ..Self::default()
        };
        *self == same_bytes
    }

    /// A key that only the other version of HTTP can carry out.
    pub(super) fn misplaced(&self, over_http2: bool) -> Option<&'static str> {
        let misplaced = [
            ("h2", self.h2.is_some() && !over_http2),
            ("slow_head", self.head_pace.is_some() && over_http2),
            ("head_latency", !self.head_latency.is_zero() && over_http2),
            ("http09", self.http09 && over_http2),
            ("continue", self.continues > 0 && over_http2),
        ];
        misplaced.iter().find(|(_, is)| *is).map(|(key, _)| *key)
    }

    /// What holds on an up turn.
    pub(super) fn up(&self) -> Self {
        Self {
            body: self.body.clone(),
            size: self.size,
            content_type: self.content_type.clone(),
            extra_headers: self.extra_headers.clone(),
            chunked: self.chunked,
            encoding: self.encoding,
            ..Self::default()
        }
    }

    /// What holds on a down turn.
    pub(super) fn down(&self) -> Self {
        let status = self.status.or(Some(503));
        Self {
            status,
            turns: Vec::new(),
            ..self.clone()
        }
    }

    /// Whether request number `count` (from 0) falls on an up turn.
    pub(super) fn is_up(&self, count: u64) -> bool {
        let round: u64 = self.turns.iter().map(|turn| turn.requests).sum();
        let mut at = count % round.max(1);
        for turn in &self.turns {
            if at < turn.requests {
                return turn.up;
            }
            at -= turn.requests;
        }
        true
    }

    /// `None` when the value does not have the key's form.
    fn set(&mut self, key: &str, value: &[u8]) -> Option<()> {
        if key == "body" {
            self.body = Some(Bytes::copy_from_slice(value));
            return Some(());
        }
        let text = std::str::from_utf8(value).ok()?;
        match key {
            "status" => self.status = Some(status(text)?),
            "latency" => self.latency = value::duration(text)?,
            "head_latency" => self.head_latency = value::duration(text)?,
            "body_latency" => self.body_latency = value::duration(text)?,
            "size" => self.size = Some(value::size(text)?),
            "type" => self.content_type = Some(field_value(text)?),
            "header" => {
                let (name, value) = text.split_once(':')?;
                let name = http::HeaderName::try_from(name).ok()?;
                self.extra_headers
                    .push((name.as_str().to_owned(), field_value(value.trim())?));
            }
            "chunked" => self.chunked = switch(text)?,
            "slow" => self.body_pace = Some(value::rate(text)?),
            "drip" => self.body_pace = Some(value::drip(text)?),
            "slow_head" => self.head_pace = Some(value::head_pace(text)?),
            "redirect" => self.redirect = Some(field_value(text)?),
            "code" => self.redirect_code = Some(status(text)?),
            "hops" => self.hops = text.parse().ok()?,
            "loop" => self.redirect_loop = switch(text)?,
            "reset" => self.fault = Some((Fault::Reset, point(text)?)),
            "close" => self.fault = Some((Fault::Close, point(text)?)),
            "hang" => self.fault = Some((Fault::Hang, point(text)?)),
            "connection" => self.connection_close = (text == "close").then_some(true)?,
            "lie" => self.lie = Some(lie(text)?),
            "garbage" => self.garbage = switch(text)?,
            "http09" => self.http09 = switch(text)?,
            "headers" => self.headers = text.parse().ok().filter(|n| *n <= HEADERS_MAX)?,
            "header_bytes" => {
                let bytes = value::size(text).filter(|n| *n <= HEADER_BYTES_MAX)?;
                self.header_bytes = bytes as u32;
            }
            "continue" => self.continues = text.parse().ok()?,
            "encoding" => self.encoding = Some(encoding(text)?),
            "truncate" => self.truncate = switch(text)?,
            "bomb" => self.bomb = Some(encoding(text)?),
            "endless" => self.endless = switch(text)?,
            "auth" => self.authorization = Some(authorization(text)?),
            "echo" => self.echo = switch(text)?,
            "flap" => {
                let requests = text.parse().ok().filter(|count| *count > 0)?;
                self.turns = [true, false].map(|up| Turn { up, requests }).into();
            }
            "schedule" => self.turns = text.split(',').map(turn).collect::<Option<_>>()?,
            "h2" => self.h2 = Some(h2_fault(text)?),
            _ => return None,
        }
        Some(())
    }
}

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
fn slot(key: &str) -> &str {
    match key {
        "slow" | "drip" => "pace",
        "reset" | "close" | "hang" => "fault",
        "flap" | "schedule" => "turns",
        key => key,
    }
}

fn status(text: &str) -> Option<u16> {
    let code: u16 = text.parse().ok()?;
    (200..=999).contains(&code).then_some(code)
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

fn point(text: &str) -> Option<Point> {
    match text {
        "accept" => Some(Point::Accept),
        "head" => Some(Point::Head),
        "body" => Some(Point::Body),
        "end" => Some(Point::End),
        _ => None,
    }
}

fn lie(text: &str) -> Option<Lie> {
    match text {
        "length" => Some(Lie::Long),
        "short" => Some(Lie::Short),
        _ => None,
    }
}

fn encoding(text: &str) -> Option<Encoding> {
    match text {
        "gzip" => Some(Encoding::Gzip),
        "deflate" => Some(Encoding::Deflate),
        "br" => Some(Encoding::Brotli),
        "zstd" => Some(Encoding::Zstd),
        _ => None,
    }
}

fn h2_fault(text: &str) -> Option<H2Fault> {
    match text {
        "goaway" => Some(H2Fault::Goaway),
        "reset" => Some(H2Fault::Reset),
        _ => None,
    }
}

fn authorization(text: &str) -> Option<String> {
    match text.split_once(':')? {
        ("basic", pair) => Some(format!("Basic {}", super::encode::base64(pair.as_bytes()))),
        ("bearer", token) => Some(format!("Bearer {token}")),
        _ => None,
    }
}

fn turn(text: &str) -> Option<Turn> {
    let (name, requests) = text.split_once(':')?;
    let up = match name {
        "up" => true,
        "down" => false,
        _ => return None,
    };
    let requests = requests.parse().ok().filter(|count| *count > 0)?;
    Some(Turn { up, requests })
}

/// Text that cannot end its header line.
fn field_value(text: &str) -> Option<String> {
    http::HeaderValue::try_from(text).ok()?;
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_key_takes_its_example() {
        for (key, example, _) in KEYS {
            let parsed = Script::parse(&format!("{key}={example}"));
            assert!(parsed.is_ok(), "{key}: {parsed:?}");
            assert_ne!(parsed.unwrap(), Script::default(), "{key} changes nothing");
        }
    }

    #[test]
    fn keys_combine() {
        let script = Script::parse("latency=5ms&status=503&body=a%26b&size=10").unwrap();
        assert_eq!(script.latency, Duration::from_millis(5));
        assert_eq!(script.status, Some(503));
        assert_eq!(script.body.as_deref(), Some(&b"a&b"[..]));
        assert_eq!(script.size, Some(10));
    }

    #[test]
    fn a_wrong_query_says_what_would_be_right() {
        let message = |query| Script::parse(query).unwrap_err().to_string();
        let unknown = message("latncy=5ms");
        assert!(unknown.contains("unknown key `latncy`"), "{unknown}");
        assert!(unknown.contains("latency=20ms"), "{unknown}");
        let value = message("latency=5");
        assert!(
            value.contains("write for example `latency=20ms`"),
            "{value}"
        );
        for query in [
            "status=1",
            "size=-1",
            "reset=here",
            "schedule=up:0",
            "header=a%0ab:c",
        ] {
            assert!(message(query).contains("is not understood"), "{query}");
        }
        for query in [
            "size=1&size=2",
            "slow=1b/s&drip=1b/s",
            "reset=head&hang=body",
        ] {
            assert!(message(query).contains("given twice"), "{query}");
        }
    }

    #[test]
    fn turns_follow_the_count_of_requests() {
        let turns = |query: &str| -> String {
            let script = Script::parse(query).unwrap();
            (0..8)
                .map(|count| if script.is_up(count) { 'U' } else { 'D' })
                .collect()
        };
        assert_eq!(turns("flap=1"), "UDUDUDUD");
        assert_eq!(turns("flap=2"), "UUDDUUDD");
        assert_eq!(turns("schedule=up:3,down:2"), "UUUDDUUU");
        assert_eq!(turns("schedule=down:1,up:2"), "DUUDUUDU");
    }

    #[test]
    fn an_up_turn_drops_the_faults() {
        let script = Script::parse("flap=1&body=x&hang=head&latency=1s").unwrap();
        assert_eq!(script.up(), Script::parse("body=x").unwrap());
        assert_eq!(
            script.down(),
            Script::parse("body=x&hang=head&latency=1s&status=503").unwrap()
        );
    }
}
