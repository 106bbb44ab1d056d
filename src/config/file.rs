//! Endpoints from YAML files: read item by item, so that each bad one is reported and the others are read.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::definition::{Definition, check_defaults, position_of, with_defaults};
use super::error::Problem;
use super::node::{Node, Position, Value};
use super::read::{Finding, Reader};
use super::resolve::{CheckCache, endpoint};
use super::secret::{ProcessSecrets, SecretRef, SecretSource, Unread};
use super::substitute::Variables;
use super::{values, yaml};

/// What files hold.
#[derive(Default, Debug)]
pub struct Loaded {
    /// The good ones, in the order of the files.
    pub endpoints: Vec<Located>,
    /// Everything wrong, in the order of the files.
    pub problems: Vec<Problem>,
    /// Secrets and files that are not on this machine: the agents' machines may have them.
    pub warnings: Vec<Problem>,
}

/// A definition and where it stands.
#[derive(Debug)]
pub struct Located {
    /// Its first line.
    pub place: Place,
    /// What stands there.
    pub definition: Definition,
}

/// A place in a file: `file:line:column`, `file:line` in a CSV file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    file: Rc<str>,
    at: Position,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        match (self.at.line, self.at.column) {
            (0, _) => Ok(()),
            (line, 0) => write!(f, ":{line}"),
            (line, column) => write!(f, ":{line}:{column}"),
        }
    }
}

/// Endpoints of a YAML file, of every `*.yaml` and `*.yml` in a directory (sorted by name), or of standard input (`-`).
pub fn load(path: &str, variables: Variables) -> Loaded {
    let mut loading = Loading::default();
    match texts(path) {
        Ok(texts) => {
            for (name, text) in texts {
                match text {
                    Ok(text) => loading.yaml(&name, &text, variables),
                    Err(message) => loading.problem(Problem::of("", message).at(name)),
                }
            }
        }
        Err(problem) => loading.problem(problem),
    }
    loading.finish()
}

/// Endpoints of one YAML text; `name` is what messages call it.
pub fn from_yaml(name: &str, text: &str, variables: Variables) -> Loaded {
    let mut loading = Loading::default();
    loading.yaml(name, text, variables);
    loading.finish()
}

/// A name, and its text or why it cannot be read.
type NamedText = (String, Result<String, String>);

fn texts(path: &str) -> Result<Vec<NamedText>, Problem> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
    };
    if path == "-" {
        let text = std::io::read_to_string(std::io::stdin())
            .map_err(|error| format!("cannot be read: {error}"));
        return Ok(vec![("<stdin>".to_owned(), text)]);
    }
    if !Path::new(path).is_dir() {
        return Ok(vec![(path.to_owned(), read(Path::new(path)))]);
    }
    let refused = |error: std::io::Error| Problem::of(path, format!("cannot be read: {error}"));
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(refused)? {
        let file = entry.map_err(refused)?.path();
        let is_yaml = file.extension().is_some_and(|e| e == "yaml" || e == "yml");
        if is_yaml && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Problem::of(
            path,
            "holds no *.yaml file; name a file, or put one there",
        ));
    }
    files.sort();
    Ok(files
        .into_iter()
        .map(|file| (file.display().to_string(), read(&file)))
        .collect())
}

/// What is known while files are read.
#[derive(Default)]
pub(super) struct Loading {
    loaded: Loaded,
    cache: CheckCache,
    /// What came of each reference looked at on this machine.
    references: HashMap<SecretRef, Option<String>>,
}

impl Loading {
    pub(super) fn problem(&mut self, problem: Problem) {
        self.loaded.problems.push(problem);
    }

    fn yaml(&mut self, name: &str, text: &str, variables: Variables) {
        let file: Rc<str> = name.into();
        let (documents, mut findings) = yaml::documents(text, variables);
        if documents.is_empty() && findings.is_empty() {
            let message = "is empty; write endpoints: and a list of them";
            self.problem(Problem::of("", message).at(name));
        }
        for document in &documents {
            findings.append(&mut self.document(&file, document));
        }
        findings.sort_by_key(|finding| finding.at);
        // An alias may be read in many places.
        findings.dedup();
        self.report(&file, findings);
    }

    fn document(&mut self, file: &Rc<str>, document: &Node) -> Vec<Finding> {
        let mut reader = Reader::default();
        for entry in reader.any_map("", document) {
            let key = entry.key.as_str();
            if !["defaults", "endpoints"].contains(&key) && !key.starts_with("x-") {
                let message = values::unknown_key(key, &["defaults", "endpoints"]);
                reader.found(&values::shortened(key), entry.at, message);
            }
        }
        let defaults = document.get("defaults");
        let defaults = defaults.map(|defaults| check_defaults(&mut reader, defaults));
        match document.entry("endpoints").map(|entry| &*entry.value) {
            Some(node) => match &node.value {
                Value::List(items) => {
                    for item in items {
                        let mut found = self.yaml_item(file, item, defaults.as_ref());
                        reader.findings.append(&mut found);
                    }
                }
                _ => {
                    reader.other_kind("endpoints", node, "a list");
                }
            },
            None if matches!(document.value, Value::Map(_)) => {
                reader.found(
                    "endpoints",
                    document.at,
                    "is missing; write a list of endpoints",
                );
            }
            None => {}
        }
        reader.findings
    }

    fn yaml_item(&mut self, file: &Rc<str>, item: &Node, defaults: Option<&Node>) -> Vec<Finding> {
        let item = with_defaults(item, defaults);
        let (definition, mut findings) = self.item(file, &item);
        let is_map = matches!(item.value, Value::Map(_));
        let named = item.entry("name").is_some() || item.entry("id").is_some();
        if is_map && !named {
            findings.push(Finding {
                path: "name".to_owned(),
                at: item.at,
                message: "is missing; name it, so that it is found again when the file changes"
                    .to_owned(),
            });
        }
        if findings.is_empty() {
            self.keep(file, item.at, definition);
        }
        findings
    }

    /// Reads one item and judges it as an agent would, but for its secrets.
    pub(super) fn item(&mut self, file: &Rc<str>, item: &Node) -> (Definition, Vec<Finding>) {
        let mut reader = Reader::default();
        let definition = Definition::read(&mut reader, item);
        for (path, at, reference) in reader.references.drain(..) {
            let missing = self
                .references
                .entry(reference)
                .or_insert_with_key(|reference| ProcessSecrets.read(reference).err());
            if let Some(message) = missing {
                let place = Place {
                    file: Rc::clone(file),
                    at,
                };
                let warning = Problem::of(path, message.clone()).at(place.to_string());
                self.loaded.warnings.push(warning);
            }
        }
        let mut findings = reader.findings;
        if !matches!(item.value, Value::Map(_)) {
            return (definition, findings);
        }
        if let Err(problems) = endpoint(&definition.row(), &mut self.cache, &Unread) {
            let unreadable: Vec<String> = findings.iter().map(|f| f.path.clone()).collect();
            for problem in problems {
                let path = in_words_of_files(&problem.field);
                let follows = unreadable
                    .iter()
                    .any(|known| known == path || (known == "interval" && path == "timeout"));
                if !follows {
                    findings.push(Finding {
                        path: path.to_owned(),
                        at: position_of(item, path),
                        message: problem.message,
                    });
                }
            }
        }
        (definition, findings)
    }

    pub(super) fn keep(&mut self, file: &Rc<str>, at: Position, definition: Definition) {
        let place = Place {
            file: Rc::clone(file),
            at,
        };
        self.loaded.endpoints.push(Located { place, definition });
    }

    pub(super) fn report(&mut self, file: &Rc<str>, findings: Vec<Finding>) {
        for finding in findings {
            let place = Place {
                file: Rc::clone(file),
                at: finding.at,
            };
            self.problem(Problem::of(finding.path, finding.message).at(place.to_string()));
        }
    }

    /// The result, with every name that is given twice as a problem. The first one stays.
    pub(super) fn finish(mut self) -> Loaded {
        let mut seen: HashMap<(Option<&str>, &str), &Place> = HashMap::new();
        let mut ids: HashMap<i64, &Place> = HashMap::new();
        let mut twice = HashSet::new();
        for (
            index,
            Located {
                place,
                definition: d,
            },
        ) in self.loaded.endpoints.iter().enumerate()
        {
            let mut first_and_field = None;
            if let Some(name) = &d.name {
                let first = *seen.entry((d.group.as_deref(), name)).or_insert(place);
                first_and_field = (first != place).then_some((first, "name"));
            }
            if let Some(id) = d.id {
                let first = *ids.entry(id).or_insert(place);
                first_and_field = first_and_field.or((first != place).then_some((first, "id")));
            }
            if let Some((first, field)) = first_and_field {
                let message = format!(
                    "`{}` is already given at {first}; rename or remove one",
                    if field == "id" {
                        d.id.unwrap_or(0).to_string()
                    } else {
                        d.label()
                    }
                );
                let problem = Problem::of(field, message).at(place.to_string());
                self.loaded.problems.push(problem);
                twice.insert(index);
            }
        }
        let mut index = 0;
        self.loaded.endpoints.retain(|_| {
            index += 1;
            !twice.contains(&(index - 1))
        });
        self.loaded
    }
}

/// The name in files of a column.
fn in_words_of_files(column: &str) -> &str {
    match column {
        "interval_s" => "interval",
        "timeout_ms" => "timeout",
        "degraded_after_ms" => "degraded_after",
        "cert_warn_days" => "cert_warn",
        other => other.strip_prefix("settings.").unwrap_or(other),
    }
}

#[cfg(test)]
mod tests;
