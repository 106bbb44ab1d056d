//! What a YAML document, a JSON object and a CSV line have in common: a tree of text with the place of each node.
//!
//! Scalars stay text: the field that reads one decides what it means, so `name: 0123` and `name: yes` are names.

use std::rc::Rc;

/// Line and column, counted from 1; column 0 where only the line is known, line 0 where nothing is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Position {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value and where it stands. Shared, because a YAML alias repeats its anchor's node.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Position,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Null,
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
    /// A scalar that could not be read, and why: told by whoever reads the field, who knows its name.
    Bad(String),
}

/// One key of a map.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) value: Rc<Node>,
}

impl Node {
    pub(crate) fn new(value: Value, at: Position) -> Self {
        Self { value, at }
    }

    /// The value of `key`; `None` when it is absent or null, and when this is not a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key)
            .map(|entry| &*entry.value)
            .filter(|node| node.value != Value::Null)
    }

    /// The entry of `key`, null or not.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// What it is, in a message to its author.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "empty",
            Value::Text(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Bad(_) => "unreadable",
        }
    }

    /// A JSON value, all of it at one place.
    pub(crate) fn from_json(json: &serde_json::Value, at: Position) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Text(value.to_string()),
            Json::Number(value) => Value::Text(value.to_string()),
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => {
                let items = items.iter().map(|item| Rc::new(Self::from_json(item, at)));
                Value::List(items.collect())
            }
            Json::Object(map) => {
                let entries = map.iter().map(|(key, value)| Entry {
                    key: key.clone(),
                    at,
                    value: Rc::new(Self::from_json(value, at)),
                });
                Value::Map(entries.collect())
            }
        };
        Self::new(value, at)
    }
}
