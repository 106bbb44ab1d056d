//! Definitions → YAML and CSV, in the form that `apply` and `import` read back to the same rows.

use std::io::Write;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value as Json;

use super::definition::{COLUMN_KEYS, Definition, INTERVAL_S_DEFAULT};
use super::substitute::escaped;
use super::values::written_millis;

/// Writes definitions one by one, so that a million of them need no memory.
#[derive(Debug)]
pub struct YamlWriter<W> {
    out: W,
    count: u64,
}

impl<W: Write> YamlWriter<W> {
    /// A writer to `out`.
    pub fn new(out: W) -> Self {
        Self { out, count: 0 }
    }

    /// Writes one endpoint.
    pub fn write(&mut self, definition: &Definition) -> std::io::Result<()> {
        if self.count == 0 {
            self.out.write_all(b"endpoints:\n")?;
        }
        self.count += 1;
        let item = serde_saphyr::to_string(&[Item(definition)]).map_err(std::io::Error::other)?;
        self.out.write_all(item.as_bytes())
    }

    /// Writes what is left. A file without endpoints is still a file that `apply` takes.
    pub fn finish(mut self) -> std::io::Result<()> {
        if self.count == 0 {
            self.out.write_all(b"endpoints: []\n")?;
        }
        self.out.flush()
    }
}

/// An item of the YAML file: only what differs from the defaults.
struct Item<'d>(&'d Definition);

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let d = self.0;
        let mut map = serializer.serialize_map(None)?;
        let mut put = |key: &str, value: Option<Json>| match value {
            Some(value) => map.serialize_entry(key, &value),
            None => Ok(()),
        };
        let text = |text: &Option<String>| text.as_deref().map(|t| Json::from(escaped(t)));
        let list = |items: &[String]| -> Json {
            items.iter().map(|item| Json::from(escaped(item))).collect()
        };
        // Group and name are the identity; a number is one only where there is no name.
        if d.name.is_none() {
            put("id", d.id.map(Json::from))?;
        }
        put("name", text(&d.name))?;
        put("group", text(&d.group))?;
        put("tags", (!d.tags.is_empty()).then(|| list(&d.tags)))?;
        put(
            "kind",
            (d.kind != "http").then(|| Json::from(escaped(&d.kind))),
        )?;
        put("url", Some(Json::from(escaped(&d.url))))?;
        let interval = d.interval_s != INTERVAL_S_DEFAULT;
        put(
            "interval",
            interval.then(|| format!("{}s", d.interval_s).into()),
        )?;
        put("timeout", d.timeout_ms.map(|ms| written_millis(ms).into()))?;
        put(
            "degraded_after",
            d.degraded_after_ms.map(|ms| written_millis(ms).into()),
        )?;
        put(
            "cert_warn",
            d.cert_warn_days.map(|days| format!("{days}d").into()),
        )?;
        put("regex", text(&d.regex))?;
        put("regex_not", text(&d.regex_not))?;
        put("locations", d.locations.as_deref().map(list))?;
        put("enabled", (!d.enabled).then_some(Json::Bool(false)))?;
        for (key, value) in &d.settings {
            put(key, Some(escaped_json(value)))?;
        }
        map.end()
    }
}

fn escaped_json(json: &Json) -> Json {
    match json {
        Json::String(text) => escaped(text).into(),
        Json::Array(items) => items.iter().map(escaped_json).collect(),
        Json::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), escaped_json(value)))
            .collect(),
        other => other.clone(),
    }
}

/// Writes definitions as lines of a CSV file, the settings as JSON in one column.
#[derive(Debug)]
pub struct CsvWriter<W: Write> {
    out: csv::Writer<W>,
}

impl<W: Write> CsvWriter<W> {
    /// A writer to `out`, the header line written.
    pub fn new(out: W) -> std::io::Result<Self> {
        let mut out = csv::Writer::from_writer(out);
        out.write_record(COLUMN_KEYS.iter().chain(&["settings"]))?;
        Ok(Self { out })
    }

    /// Writes one endpoint.
    pub fn write(&mut self, d: &Definition) -> std::io::Result<()> {
        let optional = |value: Option<String>| value.unwrap_or_default();
        let settings = match d.settings.is_empty() {
            true => String::new(),
            false => Json::Object(d.settings.clone()).to_string(),
        };
        let fields = [
            optional(d.id.filter(|_| d.name.is_none()).map(|id| id.to_string())),
            optional(d.name.clone()),
            optional(d.group.clone()),
            joined(&d.tags),
            d.kind.clone(),
            d.url.clone(),
            format!("{}s", d.interval_s),
            optional(d.timeout_ms.map(written_millis)),
            optional(d.degraded_after_ms.map(written_millis)),
            optional(d.cert_warn_days.map(|days| format!("{days}d"))),
            optional(d.regex.clone()),
            optional(d.regex_not.clone()),
            joined(d.locations.as_deref().unwrap_or_default()),
            d.enabled.to_string(),
            settings,
        ];
        self.out.write_record(&fields).map_err(std::io::Error::from)
    }

    /// Writes what is left.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// A list in one cell: with `;`, or as JSON where an item would be read apart.
fn joined(items: &[String]) -> String {
    let plain =
        |item: &String| !item.contains([';', ',']) && !item.starts_with('[') && item.trim() == item;
    match items.iter().all(plain) {
        true => items.join(";"),
        false => items
            .iter()
            .map(|item| Json::from(item.as_str()))
            .collect::<Json>()
            .to_string(),
    }
}
