//! What is wrong with one item of configuration, for the person who wrote it.

use std::fmt;

/// One problem with one field of one item. `Display` gives one line: place, field, message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where the item stands, e.g. `endpoints.yaml:12:5` or `endpoints.csv:3`; empty for a row of a table.
    pub place: String,
    /// The field, e.g. `interval_s`; empty when the item as a whole is meant.
    pub field: String,
    /// What is wrong and how it is put right, naming the value (shortened, never a secret).
    pub message: String,
}

impl Problem {
    /// A problem of `field`, without a place. Control characters are escaped: messages quote what was written, also by
    /// way of libraries, and go to terminals and into tables (PostgreSQL takes no NUL).
    pub fn of(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: String::new(),
            field: escaped(field.into()),
            message: escaped(message.into()),
        }
    }

    /// The same problem at `place`.
    #[must_use]
    pub fn at(self, place: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            ..self
        }
    }
}

fn escaped(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.place, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Pattern;

    #[test]
    fn what_a_library_quotes_holds_no_control_characters() {
        let error = Pattern::compile("(?=a)(?\0\u{1b}[31m)")
            .unwrap_err()
            .to_string();
        let problem = Problem::of("regex", error);
        assert!(
            !problem.to_string().contains(char::is_control),
            "{problem:?}"
        );
        assert_eq!(Problem::of("a\u{7}", "b\r").to_string(), "a\\u{7}: b\\u{d}");
    }
}
