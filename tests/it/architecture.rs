//! The ranks of DESIGN: a module uses only modules of a lower rank, and some crates only where they belong.

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom to the top. Modules of one rank do not know each other.
const RANKS: &[&[&str]] = &[
    &["domain"],
    &["config"],
    &["telemetry"],
    &["net", "spool"],
    &["probe", "store", "hook"],
    &["pipeline", "status"],
    &["api", "target"],
    &["app"],
    &["cli", "main"],
];

/// A crate, and the modules that may name it.
const CRATES: &[(&str, &[&str])] = &[
    ("anyhow", &["cli", "main"]),
    ("axum", &["api"]),
    ("clap", &["config", "cli", "main"]),
    ("crossbeam_queue", &["pipeline"]),
    ("deadpool_postgres", &["store"]),
    ("hickory_resolver", &["net"]),
    ("fancy_regex", &["domain"]),
    ("hashbrown", &["domain"]),
    ("hyper", &["api", "probe", "target"]),
    ("metrics", &["telemetry"]),
    ("refinery", &["store"]),
    ("rusqlite", &["spool"]),
    ("serde", &["config", "store", "app", "target", "cli"]),
    (
        "tokio",
        &[
            "net", "spool", "probe", "store", "pipeline", "api", "app", "target", "cli", "main",
        ],
    ),
    ("tokio_postgres", &["store"]),
];

fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let first = path.strip_prefix(&root).unwrap().iter().next().unwrap();
                let module = Path::new(first)
                    .file_stem()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                let text = fs::read_to_string(&path).unwrap();
                found.push((module, path, text));
            }
        }
    }
    found
}

/// Code without line comments.
fn code(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n")
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|modules| modules.contains(&module))
}

/// Modules of this crate that `text` names, as `crate::x` or in `use crate::{x, y::z}`.
fn used(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for after in text.split("crate::").skip(1) {
        let list = after
            .strip_prefix('{')
            .map_or(after.split_terminator(';').next().unwrap_or(""), |group| {
                group.split('}').next().unwrap_or("")
            });
        let grouped = after.starts_with('{');
        let items: Vec<&str> = if grouped {
            list.split(',').collect()
        } else {
            vec![list]
        };
        for item in items {
            let name: String = item
                .trim()
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if !name.is_empty() {
                names.push(name);
            }
        }
    }
    names
}

#[test]
fn modules_use_only_lower_ranks() {
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        if module == "lib" {
            continue;
        }
        let own = rank(&module).unwrap_or_else(|| panic!("{module} has no rank"));
        for name in used(&code(&text)) {
            let Some(other) = rank(&name) else { continue };
            if name != module && other >= own {
                wrong.push(format!("{}: {module} uses {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn crates_are_named_only_where_they_belong() {
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        let text = code(&text);
        for (name, modules) in CRATES {
            let mentions = [format!("{name}::"), format!("use {name};")];
            let names_it = mentions.iter().any(|mention| {
                text.match_indices(mention.as_str()).any(|(at, _)| {
                    let before = text[..at].chars().next_back().unwrap_or(' ');
                    // `telemetry::metrics::` or `tokio_postgres::` is another thing.
                    !(before.is_ascii_alphanumeric() || before == '_' || before == ':')
                })
            });
            if names_it && !modules.contains(&module.as_str()) {
                wrong.push(format!("{}: {module} names {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn main_is_short_and_no_file_is_a_mod_rs() {
    for (module, path, text) in sources() {
        assert!(path.file_name().unwrap() != "mod.rs", "{}", path.display());
        if module == "main" {
            assert!(
                text.lines().count() <= 40,
                "main.rs has {} lines",
                text.lines().count()
            );
        }
    }
}

#[test]
fn the_checks_see_what_they_look_for() {
    assert_eq!(
        used("use crate::{net, store::Batch}; crate::app::run(); use crate::domain::X;"),
        ["net", "store", "app", "domain"]
    );
    assert!(sources().len() > 30);
}
