//! An endpoint as its owner writes it: an item of a YAML file, a line of a CSV file, what an export writes.

use std::rc::Rc;

use serde_json::{Map, Value as Json};

use super::error::Problem;
use super::node::{Entry, Node, Position, Value};
use super::raw::EndpointRow;
use super::read::{Finding, Reader};
use super::settings::{self, HttpSettings};
use super::{target, values};
use crate::domain::{EndpointId, Timestamp};

/// Seconds between probes when nothing else is set: the column's default.
pub const INTERVAL_S_DEFAULT: i32 = 60;
/// Longer names, groups, tags and locations serve nobody and break tables.
const NAME_CHARS_MAX: usize = 255;

/// The columns of `endpoints` that a person decides on.
#[derive(Clone, PartialEq, Debug)]
pub struct Definition {
    /// `id`: names an existing row instead of group and name do.
    pub id: Option<i64>,
    /// `name`, unique in its group.
    pub name: Option<String>,
    /// `group_name`.
    pub group: Option<String>,
    /// `tags`.
    pub tags: Vec<String>,
    /// `kind`.
    pub kind: String,
    /// `url`.
    pub url: String,
    /// `interval_s`.
    pub interval_s: i32,
    /// `timeout_ms`; `None` is 10 s or the interval, whichever is shorter.
    pub timeout_ms: Option<i32>,
    /// `degraded_after_ms`.
    pub degraded_after_ms: Option<i32>,
    /// `cert_warn_days`.
    pub cert_warn_days: Option<i32>,
    /// `regex`.
    pub regex: Option<String>,
    /// `regex_not`.
    pub regex_not: Option<String>,
    /// `locations`; `None` is everywhere.
    pub locations: Option<Vec<String>>,
    /// `enabled`.
    pub enabled: bool,
    /// `settings`, in its canonical form.
    pub settings: Map<String, Json>,
}

impl Default for Definition {
    fn default() -> Self {
        Self {
            id: None,
            name: None,
            group: None,
            tags: Vec::new(),
            kind: "http".to_owned(),
            url: String::new(),
            interval_s: INTERVAL_S_DEFAULT,
            timeout_ms: None,
            degraded_after_ms: None,
            cert_warn_days: None,
            regex: None,
            regex_not: None,
            locations: None,
            enabled: true,
            settings: Map::new(),
        }
    }
}

/// Keys of an item that are columns of their own, in the order of an export.
pub(crate) const COLUMN_KEYS: &[&str] = &[
    "id",
    "name",
    "group",
    "tags",
    "kind",
    "url",
    "interval",
    "timeout",
    "degraded_after",
    "cert_warn",
    "regex",
    "regex_not",
    "locations",
    "enabled",
];

/// Keys that one endpoint has for itself: of no use among defaults.
const OWN_KEYS: &[&str] = &["id", "name", "url"];

impl Definition {
    /// Reads an item given as JSON, with the keys of a YAML file. Its URL and the like are judged by
    /// [`endpoint`](super::endpoint) on [`Definition::row`].
    pub fn from_json(item: &Json) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::default();
        let definition = Self::read(&mut reader, &Node::from_json(item, Position::default()));
        let problem = |finding: Finding| Problem::of(finding.path, finding.message);
        match reader.findings.is_empty() {
            true => Ok(definition),
            false => Err(reader.findings.into_iter().map(problem).collect()),
        }
    }

    /// The row an agent would read.
    pub fn row(&self) -> EndpointRow {
        EndpointRow {
            id: EndpointId(self.id.unwrap_or(0)),
            kind: self.kind.clone(),
            url: self.url.clone(),
            interval_s: self.interval_s,
            timeout_ms: self.timeout_ms,
            degraded_after_ms: self.degraded_after_ms,
            cert_warn_days: self.cert_warn_days,
            regex: self.regex.clone(),
            regex_not: self.regex_not.clone(),
            settings: (!self.settings.is_empty())
                .then(|| Json::Object(self.settings.clone()).to_string()),
            changed_at: Timestamp::default(),
        }
    }

    /// How a person knows it: `group/name`, `name`, or its URL.
    pub fn label(&self) -> String {
        match (&self.group, &self.name) {
            (Some(group), Some(name)) => format!("{group}/{name}"),
            (None, Some(name)) => name.clone(),
            _ => target::shown(&self.url),
        }
    }

    /// Reads an item, which has its defaults already.
    pub(crate) fn read(r: &mut Reader, item: &Node) -> Self {
        let known: Vec<&str> = [COLUMN_KEYS, settings::KEYS].concat();
        let mut d = Self::default();
        if r.map("", item, &known).is_empty() && !matches!(item.value, Value::Map(_)) {
            return d;
        }
        if let Some(n) = item.get("id") {
            d.id = r.parsed("id", n, |text| values::count(text, 1, i64::MAX));
        }
        d.name = item.get("name").and_then(|n| r.parsed("name", n, name));
        d.group = item.get("group").and_then(|n| r.parsed("group", n, name));
        if let Some(n) = item.get("tags") {
            d.tags = names(r, "tags", n).unwrap_or_default();
        }
        if let Some(n) = item.get("kind") {
            d.kind = r.text("kind", n).unwrap_or("http").to_owned();
        }
        match item.get("url") {
            Some(n) => d.url = r.text("url", n).unwrap_or_default().trim().to_owned(),
            None => r.found(
                "url",
                item.at,
                "is missing; write e.g. url: https://example.com/",
            ),
        }
        if let Some(n) = item.get("interval") {
            let interval = r.parsed("interval", n, values::whole_seconds);
            d.interval_s = interval.unwrap_or(INTERVAL_S_DEFAULT);
        }
        let millis = |r: &mut Reader, key: &str| {
            item.get(key).and_then(|n| r.parsed(key, n, values::millis))
        };
        d.timeout_ms = millis(r, "timeout");
        d.degraded_after_ms = millis(r, "degraded_after");
        if let Some(n) = item.get("cert_warn") {
            d.cert_warn_days = r.parsed("cert_warn", n, values::days);
        }
        let text = |r: &mut Reader, key: &str| {
            item.get(key)
                .and_then(|n| r.text(key, n))
                .map(str::to_owned)
        };
        d.regex = text(r, "regex");
        d.regex_not = text(r, "regex_not");
        d.locations = item.get("locations").and_then(|n| locations(r, n));
        if let Some(n) = item.get("enabled") {
            d.enabled = r.parsed("enabled", n, values::boolean).unwrap_or(true);
        }
        d.settings = HttpSettings::read(r, item).to_json();
        d
    }
}

/// `defaults` without the keys that are wrong, each of which is a finding: once, and not in every item again.
pub(crate) fn check_defaults(r: &mut Reader, defaults: &Node) -> Node {
    for entry in r.any_map("defaults", defaults) {
        if OWN_KEYS.contains(&entry.key.as_str()) {
            let message = "belongs to each endpoint of its own, not to defaults; move it there";
            r.found(&entry.key, entry.at, message);
        }
    }
    let mut read = Reader::default();
    Definition::read(&mut read, defaults);
    read.findings
        .retain(|finding| !OWN_KEYS.contains(&finding.path.as_str()));
    let wrong = |entry: &Entry| {
        let of_key = |path: &str| path.split('.').next() == Some(entry.key.as_str());
        read.findings.iter().any(|finding| of_key(&finding.path))
    };
    let value = match &defaults.value {
        Value::Map(entries) => Value::Map(entries.iter().filter(|e| !wrong(e)).cloned().collect()),
        _ => Value::Null,
    };
    r.findings.append(&mut read.findings);
    Node::new(value, defaults.at)
}

/// `item` over `defaults`: what the item names, be it null, wins; `headers` and `tls` are joined key by key.
pub(crate) fn with_defaults(item: &Node, defaults: Option<&Node>) -> Node {
    let (Value::Map(own), Some(Value::Map(shared))) = (&item.value, defaults.map(|d| &d.value))
    else {
        return item.clone();
    };
    let mut entries: Vec<Entry> = own
        .iter()
        .map(|entry| {
            let joined = ["headers", "tls"].contains(&entry.key.as_str());
            let below = shared.iter().find(|s| joined && s.key == entry.key);
            Entry {
                value: match below {
                    Some(below) => Rc::new(with_defaults(&entry.value, Some(&below.value))),
                    None => Rc::clone(&entry.value),
                },
                ..entry.clone()
            }
        })
        .collect();
    let missing = |entry: &&Entry| {
        !OWN_KEYS.contains(&entry.key.as_str()) && !own.iter().any(|o| o.key == entry.key)
    };
    entries.extend(shared.iter().filter(missing).cloned());
    Node::new(Value::Map(entries), item.at)
}

/// Where the field of a row stands in the item it was read from.
pub(crate) fn position_of(item: &Node, path: &str) -> Position {
    let mut node = item;
    let mut at = item.at;
    let mut rest = path;
    while !rest.is_empty() {
        // A header's name may itself contain dots: take the rest whole where it is a key.
        let (key, below) = match node.entry(rest) {
            Some(_) => (rest, ""),
            None => rest.split_once('.').unwrap_or((rest, "")),
        };
        match node.entry(key) {
            Some(entry) => {
                at = entry.value.at;
                node = &entry.value;
                rest = below;
            }
            None => break,
        }
    }
    at
}

fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty; write a name, or leave the key out".to_owned());
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(format!(
            "contains the control character {}; remove it",
            c.escape_unicode()
        ));
    }
    if text.chars().nth(NAME_CHARS_MAX).is_some() {
        return Err(format!(
            "`{}` is longer than {NAME_CHARS_MAX} characters; shorten it",
            values::shortened(text)
        ));
    }
    Ok(text.to_owned())
}

fn names(r: &mut Reader, path: &str, node: &Node) -> Option<Vec<String>> {
    let texts = r.texts(path, node)?;
    let mut names = Vec::with_capacity(texts.len());
    for text in &texts {
        match name(text) {
            Ok(name) if names.contains(&name) => {}
            Ok(name) => names.push(name),
            Err(message) => {
                r.found(path, node.at, message);
                return None;
            }
        }
    }
    Some(names)
}

fn locations(r: &mut Reader, node: &Node) -> Option<Vec<String>> {
    let names = names(r, "locations", node)?;
    if names.is_empty() {
        let message = "is empty; leave it out to probe from everywhere, or use enabled: false";
        r.found("locations", node.at, message);
        return None;
    }
    Some(names)
}
