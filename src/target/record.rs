//! The oracle: which requests arrived, when, and how many a second. Counts requests, never answers: what a peer made of
//! an answer is for the peer to say.
//!
//! Arrivals per second are always counted. Each request is kept only where recording is on: it costs a lock.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::domain::Timestamp;

/// Records kept by default: 8 minutes at 2 000 requests/s, 70 MB when full and every path is known already.
pub const RECORD_MAX: usize = 1_000_000;
/// Paths counted one by one; requests for further ones are counted together. 200 000 = twice the largest table of
/// endpoints that a run uses, 30 MB.
const PATHS_MAX: usize = 200_000;
/// The window of `/_rate`, 15 minutes.
const RATE_SECONDS: usize = 900;

/// One request as it arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// From 0, without gaps, since the start or the last reset.
    pub index: u64,
    /// When its head had been read.
    pub time: Timestamp,
    /// As sent.
    pub method: http::Method,
    /// Path and query as sent.
    pub target: Arc<str>,
    /// The name asked for in the TLS handshake; none in the clear or by address.
    pub sni: Option<Arc<str>>,
    /// The peer's port: two requests on one connection share it.
    pub port: u16,
    /// 1.0, 1.1 or 2.
    pub version: http::Version,
}

impl Record {
    /// One line of `/_log` and of the log file: time in µs UTC.
    pub fn to_json(&self) -> String {
        json!({
            "index": self.index,
            "time": self.time.as_micros(),
            "method": self.method.as_str(),
            "target": &*self.target,
            "sni": self.sni.as_deref(),
            "port": self.port,
            "version": format!("{:?}", self.version),
        })
        .to_string()
    }
}

/// One request, as the connection that read it tells.
pub(super) struct Arrival<'a> {
    pub(super) method: &'a http::Method,
    pub(super) target: &'a str,
    pub(super) sni: Option<&'a Arc<str>>,
    pub(super) port: u16,
    pub(super) version: http::Version,
}

/// Where log lines go.
enum Lines {
    Stdout,
    File(BufWriter<File>),
}

/// What one server saw.
pub(super) struct Recorder {
    /// Per slot: second since the epoch in the upper half, arrivals in the lower.
    seconds: Box<[AtomicU64]>,
    total: AtomicU64,
    kept: Option<Mutex<Kept>>,
    lines: Option<Mutex<Lines>>,
}

#[derive(Default)]
struct Kept {
    max: usize,
    records: VecDeque<Record>,
    next_index: u64,
    /// The oldest records, forgotten because `max` was reached.
    dropped: u64,
    by_target: HashMap<Arc<str>, u64>,
    /// Requests for paths beyond [`PATHS_MAX`].
    uncounted: u64,
}

impl Recorder {
    /// `kept_max`: how many records to keep; `None` for no recording. `log`: a file to append to, or `-` for stdout.
    pub(super) fn new(kept_max: Option<usize>, log: Option<&Path>) -> io::Result<Self> {
        let lines = match log {
            None => None,
            Some(path) if path.as_os_str() == "-" => Some(Lines::Stdout),
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path)?;
                Some(Lines::File(BufWriter::new(file)))
            }
        };
        let kept = |max| Kept {
            max,
            ..Kept::default()
        };
        Ok(Self {
            seconds: (0..RATE_SECONDS).map(|_| AtomicU64::new(0)).collect(),
            total: AtomicU64::new(0),
            kept: kept_max.map(kept).map(Mutex::new),
            lines: lines.map(Mutex::new),
        })
    }

    pub(super) fn arrived(&self, arrival: &Arrival<'_>) {
        let time = now();
        self.total.fetch_add(1, Relaxed);
        self.count_second(time.as_millis() as u64 / 1_000);
        if self.kept.is_some() || self.lines.is_some() {
            self.keep(arrival, time);
        }
    }

    /// Requests since the start or the last reset.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Whether single requests are kept.
    pub(super) fn is_recording(&self) -> bool {
        self.kept.is_some()
    }

    /// Records from `index` on, oldest first.
    pub(super) fn since(&self, index: u64) -> Vec<Record> {
        let Some(kept) = self.kept() else {
            return Vec::new();
        };
        let first = kept.next_index - kept.records.len() as u64;
        let skipped = index.saturating_sub(first).min(kept.records.len() as u64);
        kept.records.range(skipped as usize..).cloned().collect()
    }

    /// Requests whose path and query begin with `prefix`.
    pub(super) fn count(&self, prefix: &str) -> u64 {
        let Some(kept) = self.kept() else { return 0 };
        let matching = kept.by_target.iter();
        matching
            .filter(|(target, _)| target.starts_with(prefix))
            .map(|(_, count)| count)
            .sum()
    }

    /// The answer of `/_count`.
    pub(super) fn counts(&self, prefix: &str) -> Value {
        let mut paths = Map::new();
        let (mut dropped, mut uncounted) = (0, 0);
        if let Some(kept) = self.kept() {
            let all = kept.by_target.iter();
            paths = all
                .filter(|(target, _)| target.starts_with(prefix))
                .map(|(target, count)| (target.to_string(), json!(count)))
                .collect();
            (dropped, uncounted) = (kept.dropped, kept.uncounted);
        }
        json!({
            "total": self.total(),
            "matching": paths.values().filter_map(Value::as_u64).sum::<u64>(),
            "recording": self.is_recording(),
            "records_dropped": dropped,
            "paths_uncounted": uncounted,
            "paths": paths,
        })
    }

    /// Seconds since the epoch with their arrivals, oldest first, of the last 15 minutes. Seconds without arrivals are
    /// left out.
    pub(super) fn rate(&self) -> Vec<(u64, u64)> {
        let now = now().as_millis() as u64 / 1_000;
        let mut seconds: Vec<_> = self
            .seconds
            .iter()
            .map(|slot| slot.load(Relaxed))
            .map(|packed| (packed >> 32, packed & u64::from(u32::MAX)))
            .filter(|(second, count)| *count > 0 && second + RATE_SECONDS as u64 > now)
            .collect();
        seconds.sort_unstable();
        seconds
    }

    /// Forgets everything.
    pub(super) fn reset(&self) {
        self.total.store(0, Relaxed);
        self.seconds.iter().for_each(|slot| slot.store(0, Relaxed));
        if let Some(mut kept) = self.kept() {
            *kept = Kept {
                max: kept.max,
                ..Kept::default()
            };
        }
    }

    /// Hands buffered log lines to the file.
    pub(super) fn flush(&self) -> io::Result<()> {
        match self.lines.as_ref().map(lock).as_deref_mut() {
            Some(Lines::File(file)) => file.flush(),
            Some(Lines::Stdout) => io::stdout().flush(),
            None => Ok(()),
        }
    }

    fn count_second(&self, second: u64) {
        let slot = &self.seconds[second as usize % RATE_SECONDS];
        let mut packed = slot.load(Relaxed);
        loop {
            let next = if packed >> 32 == second {
                packed + 1
            } else {
                second << 32 | 1
            };
            match slot.compare_exchange_weak(packed, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(current) => packed = current,
            }
        }
    }

    fn keep(&self, arrival: &Arrival<'_>, time: Timestamp) {
        let mut record = Record {
            index: 0,
            time,
            method: arrival.method.clone(),
            target: Arc::from(arrival.target),
            sni: arrival.sni.cloned(),
            port: arrival.port,
            version: arrival.version,
        };
        if let Some(mut kept) = self.kept() {
            kept.push(&mut record);
        }
        if let Some(lines) = &self.lines {
            // A full disk must not stop the server; the log is then short, and `flush` reports it.
            let _ = match &mut *lock(lines) {
                Lines::Stdout => writeln!(io::stdout().lock(), "{}", record.to_json()),
                Lines::File(file) => writeln!(file, "{}", record.to_json()),
            };
        }
    }

    fn kept(&self) -> Option<MutexGuard<'_, Kept>> {
        self.kept.as_ref().map(lock)
    }
}

impl Kept {
    fn push(&mut self, record: &mut Record) {
        record.index = self.next_index;
        self.next_index += 1;
        if let Some((known, _)) = self.by_target.get_key_value(&record.target) {
            record.target = Arc::clone(known);
        }
        if let Some(count) = self.by_target.get_mut(&record.target) {
            *count += 1;
        } else if self.by_target.len() < PATHS_MAX {
            self.by_target.insert(Arc::clone(&record.target), 1);
        } else {
            self.uncounted += 1;
        }
        if self.records.len() >= self.max && self.records.pop_front().is_some() {
            self.dropped += 1;
        }
        if self.max > 0 {
            self.records.push_back(record.clone());
        }
    }
}

/// The counters stay usable after a panic elsewhere: each update is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp::from_micros(since_epoch.map_or(0, |elapsed| elapsed.as_micros() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(recorder: &Recorder, target: &str) {
        recorder.arrived(&Arrival {
            method: &http::Method::GET,
            target,
            sni: None,
            port: 1,
            version: http::Version::HTTP_11,
        });
    }

    #[test]
    fn the_oldest_records_go_first_and_are_counted() {
        let recorder = Recorder::new(Some(3), None).unwrap();
        for path in ["/a", "/b?x=1", "/a", "/c", "/b?x=1"] {
            arrive(&recorder, path);
        }
        let kept: Vec<_> = recorder.since(0);
        assert_eq!(
            kept.iter().map(|record| record.index).collect::<Vec<_>>(),
            [2, 3, 4]
        );
        assert_eq!(recorder.since(4).len(), 1);
        assert_eq!(recorder.since(99).len(), 0);
        assert_eq!(recorder.count("/b"), 2);
        assert_eq!(recorder.count("/"), 5);
        assert_eq!(recorder.counts("/a")["matching"], 2);
        assert_eq!(recorder.counts("/a")["records_dropped"], 2);
        recorder.reset();
        assert_eq!(recorder.counts("/")["total"], 0);
        arrive(&recorder, "/a");
        assert_eq!(recorder.since(0)[0].index, 0);
    }

    #[test]
    fn arrivals_are_counted_by_second_without_recording() {
        let recorder = Recorder::new(None, None).unwrap();
        (0..5).for_each(|_| arrive(&recorder, "/"));
        let rate = recorder.rate();
        assert_eq!(rate.iter().map(|(_, count)| count).sum::<u64>(), 5);
        assert!(rate.len() <= 2, "{rate:?}");
        assert_eq!(recorder.total(), 5);
        assert!(recorder.since(0).is_empty() && !recorder.is_recording());
    }

    #[test]
    fn log_lines_are_json() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let recorder = Recorder::new(None, Some(&path)).unwrap();
        arrive(&recorder, "/\"quoted\"");
        recorder.flush().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let line: Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["target"], "/\"quoted\"");
        assert_eq!(line["version"], "HTTP/1.1");
    }
}
