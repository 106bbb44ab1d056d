//! Endpoints from a CSV file: a header line with the names of the YAML keys, nested ones dotted (`auth.basic.user`),
//! or a column `settings` with JSON. An empty cell is a key left out.

use std::io::Read;
use std::rc::Rc;

use csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::definition::COLUMN_KEYS;
use super::error::Problem;
use super::file::{Loaded, Loading};
use super::node::{Entry, Node, Position, Value};
use super::read::Reader;
use super::settings;
use super::values::{shortened, unknown_key};

/// Columns whose cell may be JSON, or a list with `;` or `,` between its items.
const LISTS: &[&str] = &["tags", "locations", "expected_status"];
const MAPS: &[&str] = &["headers", "auth", "tls"];

/// Endpoints of `text`; `name` is what messages call it.
pub fn from_csv(name: &str, text: impl Read) -> Loaded {
    let mut loading = Loading::default();
    let file: Rc<str> = name.into();
    let mut reader = ReaderBuilder::new().flexible(true).from_reader(text);
    let columns = match reader.byte_headers().map(columns) {
        Ok(Ok(columns)) => columns,
        Ok(Err(problems)) => {
            for problem in problems {
                loading.problem(problem.at(format!("{name}:1")));
            }
            return loading.finish();
        }
        Err(error) => {
            loading.problem(unreadable(&error).at(name));
            return loading.finish();
        }
    };
    let mut record = ByteRecord::new();
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                loading.problem(unreadable(&error).at(name));
                break;
            }
        }
        let line = record.position().map_or(0, csv::Position::line);
        let at = Position {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: 0,
        };
        let mut reader = Reader::default();
        let item = item(&mut reader, &columns, &record, at);
        let mut findings = reader.findings;
        if findings.is_empty() {
            let (definition, found) = loading.item(&file, &item);
            if found.is_empty() {
                loading.keep(&file, at, definition);
            }
            findings = found;
        }
        loading.report(&file, findings);
    }
    loading.finish()
}

fn unreadable(error: &csv::Error) -> Problem {
    match error.kind() {
        ErrorKind::Io(error) => Problem::of("", format!("cannot be read: {error}")),
        _ => Problem::of("", format!("is not CSV: {error}")),
    }
}

/// The path of each column, e.g. `["auth", "basic", "user"]`.
type Columns = Vec<Vec<String>>;

fn columns(header: &ByteRecord) -> Result<Columns, Vec<Problem>> {
    let known: Vec<&str> = [COLUMN_KEYS, settings::KEYS, &["settings"]].concat();
    let mut problems = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut columns = Columns::new();
    for cell in header {
        let name = String::from_utf8_lossy(cell).trim().to_owned();
        let (first, rest) = name.split_once('.').unwrap_or((&name, ""));
        if !known.contains(&first) || (!rest.is_empty() && !MAPS.contains(&first)) {
            problems.push(Problem::of(shortened(&name), unknown_key(&name, &known)));
        }
        if names.contains(&name) {
            problems.push(Problem::of(
                shortened(&name),
                "is given twice; remove one column",
            ));
        }
        columns.push(match first {
            // A header's name may contain dots.
            "headers" if !rest.is_empty() => vec![first.to_owned(), rest.to_owned()],
            _ => name.split('.').map(str::to_owned).collect(),
        });
        names.push(name);
    }
    if !names.iter().any(|name| name == "url") {
        let message =
            "is missing in the header line; name the columns there, e.g. name,url,interval";
        problems.push(Problem::of("url", message));
    }
    if problems.is_empty() {
        Ok(columns)
    } else {
        Err(problems)
    }
}

/// A line as the tree that an item of a YAML file would be.
fn item(reader: &mut Reader, columns: &Columns, record: &ByteRecord, at: Position) -> Node {
    let mut root = Vec::new();
    if record.len() != columns.len() {
        let message = format!(
            "has {} fields, the header line has {}; quote fields that contain commas",
            record.len(),
            columns.len()
        );
        reader.found("", at, message);
        return Node::new(Value::Map(root), at);
    }
    for (path, cell) in columns.iter().zip(record) {
        let name = || path.join(".");
        let text = match std::str::from_utf8(cell) {
            Ok("") => continue,
            Ok(text) => text,
            Err(_) => {
                reader.found(&name(), at, "is not UTF-8; save the file as UTF-8");
                continue;
            }
        };
        let outcome = match path.as_slice() {
            [column] if column == "settings" => {
                json(text, at).and_then(|node| match node.value {
                    Value::Map(entries) => entries.into_iter().try_for_each(|entry| {
                        match settings::KEYS.contains(&entry.key.as_str()) {
                            true => put(&mut root, &[&entry.key], &entry.value, at),
                            false => Err(unknown_key(&entry.key, settings::KEYS)),
                        }
                    }),
                    _ => Err("is not a JSON object; write {…}".to_owned()),
                })
            }
            path => cell_value(path, text, at).and_then(|node| {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                put(&mut root, &path, &Rc::new(node), at)
            }),
        };
        if let Err(message) = outcome {
            reader.found(&name(), at, message);
        }
    }
    Node::new(Value::Map(root), at)
}

fn cell_value(path: &[String], text: &str, at: Position) -> Result<Node, String> {
    let [column] = path else {
        return Ok(Node::new(Value::Text(text.to_owned()), at));
    };
    let is_list = LISTS.contains(&column.as_str());
    match text.trim_start().as_bytes().first() {
        Some(b'[') if is_list => json(text, at),
        Some(b'{') if MAPS.contains(&column.as_str()) => json(text, at),
        _ if is_list => {
            let items = text
                .split([';', ','])
                .map(str::trim)
                .filter(|item| !item.is_empty());
            let nodes = items.map(|item| Rc::new(Node::new(Value::Text(item.to_owned()), at)));
            Ok(Node::new(Value::List(nodes.collect()), at))
        }
        _ => Ok(Node::new(Value::Text(text.to_owned()), at)),
    }
}

fn json(text: &str, at: Position) -> Result<Node, String> {
    serde_json::from_str(text)
        .map(|json| Node::from_json(&json, at))
        .map_err(|error| format!("is not JSON: {error}"))
}

/// Puts `value` at `path`, making the maps on the way.
fn put(map: &mut Vec<Entry>, path: &[&str], value: &Rc<Node>, at: Position) -> Result<(), String> {
    let Some((key, below)) = path.split_first() else {
        return Ok(());
    };
    let present = map.iter_mut().find(|entry| entry.key == *key);
    match (present, below.is_empty()) {
        (None, true) => {
            map.push(Entry {
                key: (*key).to_owned(),
                at,
                value: Rc::clone(value),
            });
            Ok(())
        }
        (None, false) => {
            let mut inner = Vec::new();
            put(&mut inner, below, value, at)?;
            let node = Rc::new(Node::new(Value::Map(inner), at));
            map.push(Entry {
                key: (*key).to_owned(),
                at,
                value: node,
            });
            Ok(())
        }
        (Some(entry), false) => match &mut Rc::make_mut(&mut entry.value).value {
            Value::Map(inner) => put(inner, below, value, at),
            _ => Err("is given in two columns; keep one".to_owned()),
        },
        (Some(_), true) => Err("is given in two columns; keep one".to_owned()),
    }
}
