//! Reading a [`Node`] field by field: each field that is wrong leaves a [`Finding`], and reading goes on.

use super::node::{Entry, Node, Position, Value};
use super::secret::SecretRef;
use super::values;

/// Something wrong with the field at `path`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    /// Dotted, in the file's words: `tls.server_name`.
    pub(crate) path: String,
    /// Where its text stands.
    pub(crate) at: Position,
    pub(crate) message: String,
}

/// Collects what is found while a tree is read.
#[derive(Default, Debug)]
pub(crate) struct Reader {
    pub(crate) findings: Vec<Finding>,
    /// Every `secret_ref` and `file:` met, so that a check can say which of them are not there.
    pub(crate) references: Vec<(String, Position, SecretRef)>,
}

impl Reader {
    pub(crate) fn found(&mut self, path: &str, at: Position, message: impl Into<String>) {
        self.findings.push(Finding {
            path: path.to_owned(),
            at,
            message: message.into(),
        });
    }

    /// The text of a single value.
    pub(crate) fn text<'n>(&mut self, path: &str, node: &'n Node) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) if text.contains('\0') => {
                self.found(path, node.at, "contains a NUL character; remove it");
                None
            }
            Value::Text(text) => Some(text),
            _ => {
                self.other_kind(path, node, "a single value");
                None
            }
        }
    }

    /// The node is not what its field takes.
    pub(crate) fn other_kind(&mut self, path: &str, node: &Node, expected: &str) {
        let message = match &node.value {
            Value::Bad(message) => message.clone(),
            _ => format!("is {}, {expected} is expected", node.kind()),
        };
        self.found(path, node.at, message);
    }

    /// The text of a single value, as what `parse` makes of it.
    pub(crate) fn parsed<T>(
        &mut self,
        path: &str,
        node: &Node,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.text(path, node)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.found(path, node.at, message);
                None
            }
        }
    }

    /// A list of texts, or one text alone.
    pub(crate) fn texts(&mut self, path: &str, node: &Node) -> Option<Vec<String>> {
        let items = match &node.value {
            Value::List(items) => items,
            _ => return Some(vec![self.text(path, node)?.to_owned()]),
        };
        let before = self.findings.len();
        let texts: Vec<String> = items
            .iter()
            .filter_map(|item| self.text(path, item).map(str::to_owned))
            .collect();
        (self.findings.len() == before).then_some(texts)
    }

    /// The entries of a map whose keys are all in `known`; each of the others is a finding.
    pub(crate) fn map<'n>(&mut self, path: &str, node: &'n Node, known: &[&str]) -> &'n [Entry] {
        let entries = self.any_map(path, node);
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                let key = below(path, &entry.key);
                self.found(&key, entry.at, values::unknown_key(&entry.key, known));
            }
        }
        entries
    }

    /// The entries of a map with any keys.
    pub(crate) fn any_map<'n>(&mut self, path: &str, node: &'n Node) -> &'n [Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            _ => {
                self.other_kind(path, node, "a map");
                &[]
            }
        }
    }
}

/// The path of `key` in the map at `path`.
pub(crate) fn below(path: &str, key: &str) -> String {
    let key = values::shortened(key);
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}
