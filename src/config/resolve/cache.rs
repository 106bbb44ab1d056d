//! Checks and patterns that endpoints share: equal settings one [`Check`], equal pattern texts one [`Pattern`].
//!
//! The cache holds them weakly and sweeps as it grows, so that an agent that runs for years keeps what its endpoints
//! use and nothing else.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Weak};

use super::in_settings;
use crate::config::error::Problem;
use crate::config::node::{Node, Position};
use crate::config::raw::EndpointRow;
use crate::config::read::Reader;
use crate::config::secret::SecretSource;
use crate::config::settings::{HttpSettings, KEYS};
use crate::config::values::shortened;
use crate::domain::{Check, Pattern, PatternError};

/// Below this many entries a sweep is not worth its time.
const SWEEP_MIN: usize = 1_024;

/// What endpoints share. One per catalog.
#[derive(Default, Debug)]
pub struct CheckCache {
    checks: HashMap<Box<str>, Entry>,
    patterns: HashMap<Box<str>, Compiled>,
    /// Counts loads: what depends on a secret or a file is read anew once in each.
    load: u64,
    sweep_at: usize,
    /// Reused for each look-up.
    key: String,
}

#[derive(Debug)]
struct Entry {
    check: Weak<Check>,
    /// The load that read its secrets and files; `None` where there are none.
    outside_since: Option<u64>,
}

/// A failure is kept as well, until the next sweep: a thousand rows with one bad pattern compile it once.
#[derive(Debug)]
enum Compiled {
    Pattern(Weak<Pattern>),
    Refused(String),
}

impl CheckCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Call before rows are read again: secrets and certificates that endpoints refer to are then read anew, and what
    /// no endpoint uses any more is forgotten.
    pub fn begin_load(&mut self) {
        self.load += 1;
        self.sweep();
    }

    /// How many checks and patterns are known, for tests and for an operator's metrics.
    pub fn sizes(&self) -> (usize, usize) {
        (self.checks.len(), self.patterns.len())
    }

    /// The HTTP check of `row`.
    pub(super) fn http(
        &mut self,
        row: &EndpointRow,
        secrets: &dyn SecretSource,
    ) -> Result<Arc<Check>, Vec<Problem>> {
        let mut key = std::mem::take(&mut self.key);
        write_key(&mut key, row);
        let known = self.checks.get(key.as_str()).and_then(|entry| {
            let fresh = entry.outside_since.is_none_or(|load| load == self.load);
            entry.check.upgrade().filter(|_| fresh)
        });
        let outcome = match known {
            Some(check) => Ok(check),
            None => self.build(row, secrets).map(|(check, outside)| {
                self.sweep_when_grown();
                let entry = Entry {
                    check: Arc::downgrade(&check),
                    outside_since: outside.then_some(self.load),
                };
                self.checks.insert(key.as_str().into(), entry);
                check
            }),
        };
        self.key = key;
        outcome
    }

    /// The check, and whether it depends on secrets or files.
    fn build(
        &mut self,
        row: &EndpointRow,
        secrets: &dyn SecretSource,
    ) -> Result<(Arc<Check>, bool), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut compiled = |column: &str, text: &Option<String>| {
            // An empty pattern matches everything, and is what an empty field of a form becomes.
            let text = text.as_deref().filter(|text| !text.is_empty())?;
            self.pattern(text)
                .map_err(|message| problems.push(Problem::of(column, message)))
                .ok()
        };
        let must_match = compiled("regex", &row.regex);
        let must_not_match = compiled("regex_not", &row.regex_not);
        let settings = match row.settings.as_deref().map(read_settings) {
            None => HttpSettings::default(),
            Some(Ok(settings)) => settings,
            Some(Err(mut found)) => {
                problems.append(&mut found);
                HttpSettings::default()
            }
        };
        let outside = settings.depends_on_outside();
        match settings.build(must_match, must_not_match, secrets) {
            Ok(check) if problems.is_empty() => Ok((Arc::new(Check::Http(check)), outside)),
            Ok(_) => Err(problems),
            Err(found) => {
                problems.extend(found.into_iter().map(in_settings));
                Err(problems)
            }
        }
    }

    fn pattern(&mut self, text: &str) -> Result<Arc<Pattern>, String> {
        match self.patterns.get(text) {
            Some(Compiled::Refused(message)) => return Err(message.clone()),
            Some(Compiled::Pattern(pattern)) => {
                if let Some(pattern) = pattern.upgrade() {
                    return Ok(pattern);
                }
            }
            None => {}
        }
        let outcome = Pattern::compile(text)
            .map(Arc::new)
            .map_err(|error| refusal(text, &error));
        self.sweep_when_grown();
        let entry = match &outcome {
            Ok(pattern) => Compiled::Pattern(Arc::downgrade(pattern)),
            Err(message) => Compiled::Refused(message.clone()),
        };
        self.patterns.insert(text.into(), entry);
        outcome
    }

    /// Sweeping when the number of entries has doubled since the last time costs a constant per insertion.
    fn sweep_when_grown(&mut self) {
        if self.checks.len() + self.patterns.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        self.checks
            .retain(|_, entry| entry.check.strong_count() > 0);
        self.patterns.retain(
            |_, entry| matches!(entry, Compiled::Pattern(pattern) if pattern.strong_count() > 0),
        );
        if self.checks.capacity() > 4 * self.checks.len().max(SWEEP_MIN) {
            self.checks.shrink_to_fit();
        }
        if self.patterns.capacity() > 4 * self.patterns.len().max(SWEEP_MIN) {
            self.patterns.shrink_to_fit();
        }
        self.sweep_at = 2 * (self.checks.len() + self.patterns.len());
    }
}

/// Everything a check is made of. Lengths keep `a` + `bc` apart from `ab` + `c`.
fn write_key(key: &mut String, row: &EndpointRow) {
    key.clear();
    for part in [&row.regex, &row.regex_not, &row.settings] {
        let part = part.as_deref().unwrap_or_default();
        if !part.is_empty() {
            let _ = write!(key, "{}:", part.len());
        }
        key.push_str(part);
        key.push(';');
    }
}

fn read_settings(text: &str) -> Result<HttpSettings, Vec<Problem>> {
    let json: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| vec![Problem::of("settings", format!("is not JSON: {error}"))])?;
    let node = Node::from_json(&json, Position::default());
    let mut reader = Reader::default();
    reader.map("", &node, KEYS);
    let settings = HttpSettings::read(&mut reader, &node);
    match reader.findings.is_empty() {
        true => Ok(settings),
        false => Err(reader.findings.into_iter().map(in_settings).collect()),
    }
}

/// One line, naming the pattern.
fn refusal(text: &str, error: &PatternError) -> String {
    let why = error.to_string().replace('\n', " ");
    format!("`{}` is refused: {why}", shortened(text))
}

#[cfg(test)]
mod tests;
