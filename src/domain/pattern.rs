//! Patterns over bodies: the linear engine wherever it can, the look-around engine under a budget where it must.
//!
//! Three shapes, chosen once, when the pattern is compiled:
//! - **linear**: what the `regex` crate accepts means what that crate says and runs on it, over bytes as they came;
//! - **split**: a look-around pattern tied to the text's start, whose leading look-aheads are linear patterns of their
//!   own (`split`);
//! - **look-around**: everything else that `fancy-regex` accepts (`look_around`).
//!
//! A split or look-around pattern judges text: a body that is not UTF-8 is decoded first, each invalid sequence to one
//! U+FFFD, as browsers do. This module has no clock: whoever matches passes one in.

use std::fmt;
use std::time::Duration;

mod error;
mod linear;
mod look_around;
mod relaxed;
mod rounds;
mod scan;
mod split;

pub use error::PatternError;
use linear::Linear;
use look_around::LookAround;
use split::Split;

/// Longest pattern text accepted, in bytes. Patterns written by people stay below 1 KiB, and compiling holds up the
/// thread that reads the catalog.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;

/// The budget was spent before the pattern was decided. Neither a match nor a miss.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the pattern was not decided within its budget")]
pub struct BudgetSpent;

/// A compiled pattern, shared by all endpoints that use the same text.
pub struct Pattern {
    text: Box<str>,
    engine: Engine,
}

enum Engine {
    Linear(Linear),
    Split(Split),
    LookAround(LookAround),
}

impl Pattern {
    /// Compiles `text`, on the linear engine if it can, else on the look-around engine.
    ///
    /// # Errors
    /// What is wrong with it, where, and what to write instead.
    pub fn compile(text: &str) -> Result<Self, PatternError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(PatternError::TextTooLong {
                bytes: text.len(),
                bytes_max: TEXT_BYTES_MAX,
            });
        }
        let engine = match Linear::compile(text) {
            Ok(linear) => Engine::Linear(linear),
            Err(refusal) if refusal.is_final() => return Err(refusal.into_error(text)),
            Err(refusal) => {
                let whole = LookAround::compile(text, refusal)?;
                split::split(text).map_or(Engine::LookAround(whole), Engine::Split)
            }
        };
        Ok(Self {
            text: text.into(),
            engine,
        })
    }

    /// The pattern as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// An upper bound on the time that judging a body of `bytes` takes on a core of today. None where the time is not
    /// bounded by the body's length and only the budget ends it: the look-around engine.
    pub fn worst_case(&self, bytes: usize) -> Option<Duration> {
        match &self.engine {
            Engine::Linear(linear) => Some(linear.worst_case(bytes)),
            Engine::Split(split) => split.worst_case(bytes),
            Engine::LookAround(_) => None,
        }
    }

    /// Whether it may have to run on the look-around engine, whose time only a budget bounds.
    pub fn needs_budget(&self) -> bool {
        self.worst_case(0).is_none()
    }

    /// Whether the pattern is found in `body`. `expired` is asked often and says whether the budget is spent; a
    /// search that is short at its very worst does not ask.
    ///
    /// # Errors
    /// The budget was spent, or the look-around engine ran out of its own (one million open branches).
    pub fn is_match(&self, body: &[u8], expired: &dyn Fn() -> bool) -> Result<bool, BudgetSpent> {
        match &self.engine {
            Engine::Linear(linear) => linear.is_match(body, expired),
            Engine::Split(split) => split.is_match(&String::from_utf8_lossy(body), expired),
            Engine::LookAround(engine) => engine.is_match(&String::from_utf8_lossy(body), expired),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = match &self.engine {
            Engine::Linear(_) => "linear",
            Engine::Split(_) => "split",
            Engine::LookAround(_) => "look-around",
        };
        write!(f, "Pattern({engine}, {:?})", self.text)
    }
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
