//! What differs between two definitions, in a line.

use serde_json::Value as Json;

use crate::config::Definition;

/// `interval 30s → 60s, regex – → "ok"`: the fields in the order of a file.
pub(super) fn changes(old: &Definition, new: &Definition) -> String {
    let (old, new) = (fields(old), fields(new));
    let mut parts = Vec::new();
    for ((name, before), (_, after)) in old.columns.iter().zip(&new.columns) {
        if before != after {
            parts.push(format!("{name} {before} → {after}"));
        }
    }
    let keys: std::collections::BTreeSet<_> =
        old.settings.keys().chain(new.settings.keys()).collect();
    for key in keys {
        let (before, after) = (old.settings.get(key), new.settings.get(key));
        if before != after {
            parts.push(format!("{key} {} → {}", shown(before), shown(after)));
        }
    }
    parts.join(", ")
}

struct Fields<'d> {
    columns: Vec<(&'static str, String)>,
    settings: &'d serde_json::Map<String, Json>,
}

const NONE: &str = "–";

fn fields(d: &Definition) -> Fields<'_> {
    let text = |text: &Option<String>| text.as_deref().map_or(NONE.to_owned(), quoted);
    let millis = |millis: Option<i32>| match millis {
        None => NONE.to_owned(),
        Some(millis) if millis % 1_000 == 0 => format!("{}s", millis / 1_000),
        Some(millis) => format!("{millis}ms"),
    };
    Fields {
        columns: vec![
            ("name", text(&d.name)),
            ("group", text(&d.group)),
            ("tags", list(&d.tags)),
            ("kind", d.kind.clone()),
            ("url", quoted(&d.url)),
            ("interval", format!("{}s", d.interval_s)),
            ("timeout", millis(d.timeout_ms)),
            ("degraded_after", millis(d.degraded_after_ms)),
            (
                "cert_warn",
                d.cert_warn_days
                    .map_or(NONE.to_owned(), |days| format!("{days}d")),
            ),
            ("regex", text(&d.regex)),
            ("regex_not", text(&d.regex_not)),
            (
                "locations",
                d.locations.as_deref().map_or(NONE.to_owned(), list),
            ),
            ("enabled", d.enabled.to_string()),
        ],
        settings: &d.settings,
    }
}

fn list(items: &[String]) -> String {
    format!("[{}]", items.join(", "))
}

fn shown(value: Option<&Json>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(Json::String(text)) => quoted(text),
        Some(other) => short(other.to_string()),
    }
}

/// As JSON would: line breaks and control characters must not tear the line apart.
fn quoted(text: &str) -> String {
    short(Json::from(text).to_string())
}

fn short(text: String) -> String {
    const CHARS: usize = 80;
    match text.char_indices().nth(CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_named() {
        let old = Definition {
            name: Some("a".to_owned()),
            url: "http://h/".to_owned(),
            interval_s: 30,
            ..Definition::default()
        };
        let mut new = Definition {
            interval_s: 60,
            regex: Some("a\n\u{1b}b".to_owned()),
            timeout_ms: Some(2_500),
            ..old.clone()
        };
        new.settings.insert("redirects".to_owned(), 3.into());
        expect_test::expect![[
            r#"interval 30s → 60s, timeout – → 2500ms, regex – → "a\n\u001bb", redirects – → 3"#
        ]]
        .assert_eq(&changes(&old, &new));
        assert_eq!(changes(&old, &old), "");
    }
}
