//! The lines of a snapshot. Text, so that a person can look into it:
//!
//! ```text
//! H {"version":1,"partition":"0/2","location":"fra","database":"db:5432/watcher"}
//! + 17 {"kind":"http","url":"https://…",…}      a row, new or changed
//! - 18                                          a row that is gone
//! = 1790000000000000 0 5e1d3a90                 a mark: in line with the table then, held since, CRC-32 of all before the sum
//! ```

use std::io::{self, BufRead};

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use super::Place;
use crate::config::EndpointRow;
use crate::domain::{EndpointId, Timestamp};
use crate::pipeline::catalog::Recalled;

pub(super) const VERSION: u32 = 1;
/// Two numbers of 20 digits, a checksum, and what separates them.
pub(super) const LONGEST_MARK: u64 = 56;
/// The longest row that the table takes is far below: 8 KiB of URL, two patterns of 64 KiB, and settings. JSON escapes
/// may lengthen it.
const LINE_BYTES_MAX: usize = 4 << 20;

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct Head {
    pub(super) version: u32,
    partition: String,
    location: String,
    database: String,
}

impl Head {
    pub(super) fn of(place: &Place) -> Self {
        Self {
            version: VERSION,
            partition: place.partition.to_string(),
            location: place.location.clone(),
            database: place.database.clone(),
        }
    }

    pub(super) fn describe(&self) -> String {
        let Self {
            partition,
            location,
            database,
            ..
        } = self;
        format!("share {partition} at {location:?} of {database}")
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    kind: String,
    url: String,
    interval_s: i32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    timeout_ms: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    degraded_after_ms: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    cert_warn_days: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    regex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    regex_not: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    settings: Option<String>,
    changed_us: i64,
}

/// A line, read.
#[derive(PartialEq, Debug)]
pub(super) enum Line {
    Head(Head),
    Row {
        id: EndpointId,
        at: u64,
    },
    Gone {
        id: EndpointId,
    },
    Mark(Recalled),
    /// Not a line of ours, or a mark whose checksum is another.
    Torn,
}

pub(super) fn write_head(into: &mut Vec<u8>, place: &Place) {
    into.extend_from_slice(b"H ");
    json(into, &Head::of(place));
}

pub(super) fn write_row(into: &mut Vec<u8>, row: &EndpointRow) {
    into.extend_from_slice(format!("+ {} ", row.id).as_bytes());
    json(
        into,
        &Saved {
            kind: row.kind.clone(),
            url: row.url.clone(),
            interval_s: row.interval_s,
            timeout_ms: row.timeout_ms,
            degraded_after_ms: row.degraded_after_ms,
            cert_warn_days: row.cert_warn_days,
            regex: row.regex.clone(),
            regex_not: row.regex_not.clone(),
            settings: row.settings.clone(),
            changed_us: row.changed_at.as_micros(),
        },
    );
}

pub(super) fn write_gone(into: &mut Vec<u8>, id: EndpointId) {
    into.extend_from_slice(format!("- {id}\n").as_bytes());
}

/// The mark's text, after `hasher` has seen everything before it.
pub(super) fn mark(recalled: Recalled, hasher: &Hasher) -> String {
    let Recalled { as_of, held_since } = recalled;
    let held = held_since.map_or(0, Timestamp::as_micros);
    let what = format!("= {} {held} ", as_of.as_micros());
    let sum = checksum(hasher, &what);
    format!("{what}{sum:08x}\n")
}

/// Of everything before a mark, and of what it says itself.
fn checksum(before: &Hasher, what: &str) -> u32 {
    let mut hasher = before.clone();
    hasher.update(what.as_bytes());
    hasher.finalize()
}

fn json(into: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *into, value).expect("plain structs become JSON in memory");
    into.push(b'\n');
}

/// The last whole mark of a file's end, its checksum not looked at.
pub(super) fn last_mark(tail: &[u8]) -> Option<Recalled> {
    let text = String::from_utf8_lossy(tail);
    let whole = &text[..=text.rfind('\n')?];
    let mark = whole.lines().rev().find(|line| line.starts_with("= "))?;
    parse_mark(mark).map(|(recalled, _)| recalled)
}

fn parse_mark(line: &str) -> Option<(Recalled, u32)> {
    let mut parts = line.strip_prefix("= ")?.split(' ');
    let as_of = Timestamp::from_micros(parts.next()?.parse().ok()?);
    let held: i64 = parts.next()?.parse().ok()?;
    let sum = u32::from_str_radix(parts.next()?, 16).ok()?;
    let held_since = (held != 0).then(|| Timestamp::from_micros(held));
    parts
        .next()
        .is_none()
        .then_some((Recalled { as_of, held_since }, sum))
}

/// Reads a file line by line.
pub(super) struct Lines<R> {
    file: R,
    hasher: Hasher,
    at: u64,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(file: R) -> Self {
        Self {
            file,
            hasher: Hasher::new(),
            at: 0,
            line: Vec::new(),
        }
    }

    /// The next line, its place in the file with it.
    pub(super) fn next_line(&mut self) -> io::Result<Option<Line>> {
        let Some(at) = self.read()? else {
            return Ok(None);
        };
        let line = parse(&self.line, at, &self.hasher).unwrap_or(Line::Torn);
        self.hasher.update(&self.line);
        Ok(Some(line))
    }

    /// The next row that `counts`, by id and place.
    pub(super) fn next_row(
        &mut self,
        counts: impl Fn(EndpointId, u64) -> bool,
    ) -> io::Result<Option<EndpointRow>> {
        while let Some(at) = self.read()? {
            let Some((id, json)) = row(&self.line) else {
                continue;
            };
            if counts(id, at) {
                let saved: Saved = serde_json::from_slice(json)?;
                return Ok(Some(saved.row(id)));
            }
        }
        Ok(None)
    }

    fn read(&mut self) -> io::Result<Option<u64>> {
        use io::Read;
        let at = self.at;
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64;
        let read = self
            .file
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut self.line)?;
        self.at += read as u64;
        Ok((read > 0).then_some(at))
    }
}

fn parse(line: &[u8], at: u64, before: &Hasher) -> Option<Line> {
    let text = line.strip_suffix(b"\n")?;
    Some(match text.first()? {
        b'+' => {
            let (id, _) = row(line)?;
            Line::Row { id, at }
        }
        b'-' => {
            let id = std::str::from_utf8(text).ok()?.strip_prefix("- ")?;
            let id = EndpointId(id.parse().ok()?);
            Line::Gone { id }
        }
        b'=' => {
            let text = std::str::from_utf8(text).ok()?;
            let (recalled, sum) = parse_mark(text)?;
            let (what, _) = text.split_at(text.rfind(' ')? + 1);
            if checksum(before, what) != sum {
                return None;
            }
            Line::Mark(recalled)
        }
        b'H' => Line::Head(serde_json::from_slice(text.strip_prefix(b"H ")?).ok()?),
        _ => return None,
    })
}

/// Id and JSON of a row's line.
fn row(line: &[u8]) -> Option<(EndpointId, &[u8])> {
    let rest = line.strip_prefix(b"+ ")?;
    let space = rest.iter().position(|&byte| byte == b' ')?;
    let id = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
    Some((EndpointId(id), &rest[space + 1..]))
}

impl Saved {
    fn row(self, id: EndpointId) -> EndpointRow {
        EndpointRow {
            id,
            kind: self.kind,
            url: self.url,
            interval_s: self.interval_s,
            timeout_ms: self.timeout_ms,
            degraded_after_ms: self.degraded_after_ms,
            cert_warn_days: self.cert_warn_days,
            regex: self.regex,
            regex_not: self.regex_not,
            settings: self.settings,
            changed_at: Timestamp::from_micros(self.changed_us),
        }
    }
}
