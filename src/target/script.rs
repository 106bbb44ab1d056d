//! What a request asks of the server: the keys of its query ([`super::keys`]), read once into a [`Script`].
//!
//! Knows neither sockets nor time; `http1` and `http2` carry a script out.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use super::choice::{Encoding, Fault, H2Fault, Lie, Point, Turn};
use super::keys::{KEYS, key_list, slot};
use super::value::{self, Pace};

/// `headers` and `header_bytes` are held in memory; far beyond what any client takes.
const HEADERS_MAX: u32 = 100_000;
const HEADER_BYTES_MAX: u64 = 16 << 20;

/// One answer, as asked for. The default is a plain 200.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Script {
    /// `status`.
    pub(super) status: Option<u16>,
    /// `latency`.
    pub(super) latency: Duration,
    /// `head_latency`.
    pub(super) head_latency: Duration,
    /// `body_latency`.
    pub(super) body_latency: Duration,
    /// `body`.
    pub(super) body: Option<Bytes>,
    /// `size`.
    pub(super) size: Option<u64>,
    /// `type`.
    pub(super) content_type: Option<String>,
    /// `header`, in order.
    pub(super) extra_headers: Vec<(String, String)>,
    /// `chunked`.
    pub(super) chunked: bool,
    /// `slow` or `drip`.
    pub(super) body_pace: Option<Pace>,
    /// `slow_head`.
    pub(super) head_pace: Option<Pace>,
    /// `redirect`.
    pub(super) redirect: Option<String>,
    /// `code`.
    pub(super) redirect_code: Option<u16>,
    /// `hops`.
    pub(super) hops: u32,
    /// `loop`.
    pub(super) redirect_loop: bool,
    /// `reset`, `close` or `hang`.
    pub(super) fault: Option<(Fault, Point)>,
    /// `connection=close`.
    pub(super) connection_close: bool,
    /// `lie`.
    pub(super) lie: Option<Lie>,
    /// `garbage`.
    pub(super) garbage: bool,
    /// `http09`.
    pub(super) http09: bool,
    /// `headers`.
    pub(super) headers: u32,
    /// `header_bytes`.
    pub(super) header_bytes: u32,
    /// `continue`.
    pub(super) continues: u32,
    /// `encoding`.
    pub(super) encoding: Option<Encoding>,
    /// `truncate`.
    pub(super) truncate: bool,
    /// `bomb`.
    pub(super) bomb: Option<Encoding>,
    /// `endless`.
    pub(super) endless: bool,
    /// `auth`, as the value that the `authorization` header must have.
    pub(super) authorization: Option<String>,
    /// `echo`.
    pub(super) echo: bool,
    /// `flap` or `schedule`; empty when there are no turns.
    pub(super) turns: Vec<Turn>,
    /// `h2`.
    pub(super) h2: Option<H2Fault>,
}

/// A query that is no script.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum ScriptError {
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
    pub(super) fn parse(query: &str) -> Result<Self, ScriptError> {
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
            "reset" => self.fault = Some((Fault::Reset, Point::named(text)?)),
            "close" => self.fault = Some((Fault::Close, Point::named(text)?)),
            "hang" => self.fault = Some((Fault::Hang, Point::named(text)?)),
            "connection" => self.connection_close = (text == "close").then_some(true)?,
            "lie" => self.lie = Some(Lie::named(text)?),
            "garbage" => self.garbage = switch(text)?,
            "http09" => self.http09 = switch(text)?,
            "headers" => self.headers = text.parse().ok().filter(|n| *n <= HEADERS_MAX)?,
            "header_bytes" => {
                let bytes = value::size(text).filter(|n| *n <= HEADER_BYTES_MAX)?;
                self.header_bytes = bytes as u32;
            }
            "continue" => self.continues = text.parse().ok()?,
            "encoding" => self.encoding = Some(Encoding::named(text)?),
            "truncate" => self.truncate = switch(text)?,
            "bomb" => self.bomb = Some(Encoding::named(text)?),
            "endless" => self.endless = switch(text)?,
            "auth" => self.authorization = Some(authorization(text)?),
            "echo" => self.echo = switch(text)?,
            "flap" => {
                let requests = text.parse().ok().filter(|count| *count > 0)?;
                self.turns = [true, false].map(|up| Turn { up, requests }).into();
            }
            "schedule" => self.turns = text.split(',').map(Turn::parse).collect::<Option<_>>()?,
            "h2" => self.h2 = Some(H2Fault::named(text)?),
            _ => return None,
        }
        Some(())
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

fn authorization(text: &str) -> Option<String> {
    match text.split_once(':')? {
        ("basic", pair) => Some(format!("Basic {}", value::base64(pair.as_bytes()))),
        ("bearer", token) => Some(format!("Bearer {token}")),
        _ => None,
    }
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
