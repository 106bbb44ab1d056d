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
    /// A problem of `field`, without a place.
    pub fn of(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: String::new(),
            field: field.into(),
            message: message.into(),
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
