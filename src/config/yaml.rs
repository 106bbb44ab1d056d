//! YAML text → [`Node`]s with their places, variables put in, aliases and merge keys resolved.
//!
//! An alias shares its anchor's node, so that an alias bomb costs no memory.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Marker, Parser, ScalarStyle};

use super::node::{Entry, Node, Position, Value};
use super::read::{Finding, Reader, below};
use super::substitute::{Variables, substitute};
use super::values::shortened;

/// Deeper nesting than any endpoint needs; bounds the recursion of whoever walks the tree.
const DEPTH_MAX: usize = 32;

/// The documents of `text`. Findings are duplicate keys and, as the last, a syntax error, after which there are no
/// documents. A variable that is not set is found when its field is read.
pub(crate) fn documents(text: &str, variables: Variables) -> (Vec<Node>, Vec<Finding>) {
    let mut builder = Builder {
        variables,
        open: Vec::new(),
        anchors: HashMap::new(),
        documents: Vec::new(),
        reader: Reader::default(),
    };
    for next in Parser::new_from_str(text) {
        let outcome = match next {
            Ok((event, span)) => builder.event(event, position(&span.start)),
            Err(error) => Err((position(error.marker()), error.info())),
        };
        if let Err((at, message)) = outcome {
            builder
                .reader
                .found("", at, format!("is not YAML: {}", shortened(&message)));
            return (Vec::new(), builder.reader.findings);
        }
    }
    (builder.documents, builder.reader.findings)
}

fn position(mark: &Marker) -> Position {
    Position {
        line: u32::try_from(mark.line()).unwrap_or(u32::MAX),
        column: u32::try_from(mark.col() + 1).unwrap_or(u32::MAX),
    }
}

fn is_null(plain: &str) -> bool {
    matches!(plain, "" | "~" | "null" | "Null" | "NULL")
}

/// A list or map whose end has not come yet.
struct Open {
    at: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Rc<Node>>),
    Map {
        entries: Vec<Entry>,
        /// The key whose value comes next.
        key: Option<(String, Position)>,
        /// Maps named by `<<`.
        merged: Vec<Rc<Node>>,
    },
}

struct Builder<'v> {
    variables: Variables<'v>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    documents: Vec<Node>,
    reader: Reader,
}

type Refusal = (Position, String);

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), Refusal> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                self.scalar(&text, plain, anchor, at)
            }
            Event::SequenceStart(_, anchor, _) => self.start(at, anchor, Content::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                let content = Content::Map {
                    entries: Vec::new(),
                    key: None,
                    merged: Vec::new(),
                };
                self.start(at, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => self.place(Rc::clone(node), at),
                None => Err((at, "an alias inside its own anchor".to_owned())),
            },
            _ => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        plain: bool,
        anchor: usize,
        at: Position,
    ) -> Result<(), Refusal> {
        if self.awaits_key() {
            return self.key(text, at);
        }
        let value = match substitute(text, self.variables) {
            Ok(text) if plain && is_null(&text) => Value::Null,
            Ok(text) => Value::Text(text.into_owned()),
            Err(message) => Value::Bad(message),
        };
        self.finish(Node::new(value, at), anchor)
    }

    fn start(&mut self, at: Position, anchor: usize, content: Content) -> Result<(), Refusal> {
        if self.awaits_key() {
            return Err((at, "a key must be a single value".to_owned()));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err((at, "nested too deeply".to_owned()));
        }
        self.open.push(Open {
            at,
            anchor,
            content,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Refusal> {
        let Some(Open {
            at,
            anchor,
            content,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map {
                mut entries,
                merged,
                ..
            } => {
                for map in merged {
                    merge(&mut entries, &map).map_err(|message| (at, message))?;
                }
                Value::Map(entries)
            }
        };
        self.finish(Node::new(value, at), anchor)
    }

    /// A node is complete: its anchor can be named from here on.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Refusal> {
        let at = node.at;
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.place(node, at)
    }

    /// Puts a node where it belongs: into the innermost open list or map, or among the documents.
    fn place(&mut self, node: Rc<Node>, at: Position) -> Result<(), Refusal> {
        match self.open.last_mut().map(|open| &mut open.content) {
            None => {
                self.anchors.clear();
                self.documents
                    .push(Rc::try_unwrap(node).unwrap_or_else(|shared| (*shared).clone()));
            }
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map {
                entries,
                key,
                merged,
            }) => match key.take() {
                None => return Err((at, "a key must be written out, not an alias".to_owned())),
                Some((key, _)) if key == "<<" => merged.push(node),
                // Reported when the key came; the first one stays.
                Some((key, _)) if entries.iter().any(|entry| entry.key == key) => {}
                Some((key, at)) => entries.push(Entry {
                    key,
                    at,
                    value: node,
                }),
            },
        }
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                content: Content::Map { key: None, .. },
                ..
            })
        )
    }

    fn key(&mut self, text: &str, at: Position) -> Result<(), Refusal> {
        let path = self.path();
        if let Some(Open {
            content: Content::Map { entries, key, .. },
            ..
        }) = self.open.last_mut()
        {
            if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                let message = format!(
                    "is given twice, first in line {}; remove one",
                    first.at.line
                );
                self.reader.found(&below(&path, text), at, message);
            }
            *key = Some((text.to_owned(), at));
        }
        Ok(())
    }

    /// The keys that lead here, without the file's own `endpoints` or `defaults`.
    fn path(&self) -> String {
        let keys = self.open.iter().filter_map(|open| match &open.content {
            Content::Map {
                key: Some((key, _)),
                ..
            } => Some(key.as_str()),
            _ => None,
        });
        keys.skip(1)
            .fold(String::new(), |path, key| below(&path, key))
    }
}

/// `<<`: the keys of `map` (or of each map of a list) that are not there already.
fn merge(entries: &mut Vec<Entry>, map: &Node) -> Result<(), String> {
    match &map.value {
        Value::Map(more) => {
            for entry in more {
                if !entries.iter().any(|present| present.key == entry.key) {
                    entries.push(entry.clone());
                }
            }
            Ok(())
        }
        Value::List(maps) => maps.iter().try_for_each(|map| match &map.value {
            Value::Map(_) => merge(entries, map),
            _ => Err("`<<` takes a map or a list of maps".to_owned()),
        }),
        _ => Err("`<<` takes a map or a list of maps".to_owned()),
    }
}
