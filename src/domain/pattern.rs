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

use regex::bytes::{Regex, RegexBuilder};

mod error;
mod look_around;
mod scan;
mod split;

pub use error::PatternError;
use look_around::LookAround;
use split::Split;

/// Longest pattern text accepted, in bytes. Patterns written by people stay below 1 KiB; compiling costs up to some
/// 50 ns a byte of text per repetition, on the thread that reads the catalog.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;

/// Bound on the compiled size of a linear pattern (the crate's own default is 10 MiB). The time of the slowest search is the
/// product of this and the body's length; see benches/body_match.rs.
const LINEAR_BYTES_MAX: usize = 1 << 20;

/// A pattern that compiles to more than this is `Cost::Long` on any body: `\w{3,10}` and longer alternations are below.
const LINEAR_BYTES_SHORT: usize = 256 * 1024;

/// What judging a body by a pattern may cost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cost {
    /// Linear in the body, with a small factor: fit to run beside probes on short bodies.
    Short,
    /// Linear in the body, with a large factor.
    Long,
    /// Not bounded by the body's length: only the budget ends it.
    Unbounded,
}

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
    Linear(Regex, Cost),
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
        let engine = match linear(text, LINEAR_BYTES_MAX) {
            Ok(regex) => {
                let short = linear(text, LINEAR_BYTES_SHORT).is_ok();
                Engine::Linear(regex, if short { Cost::Short } else { Cost::Long })
            }
            Err(regex::Error::CompiledTooBig(bytes_max)) => {
                return Err(PatternError::CompiledTooBig { bytes_max });
            }
            Err(_) => {
                let whole = LookAround::compile(text)?;
                match split::split(text) {
                    Some(split) => Engine::Split(split),
                    None => Engine::LookAround(whole),
                }
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

    /// What judging a body by it may cost.
    pub fn cost(&self) -> Cost {
        match &self.engine {
            Engine::Linear(_, cost) => *cost,
            Engine::Split(split) => split.cost(),
            Engine::LookAround(_) => Cost::Unbounded,
        }
    }

    /// Whether it may have to run on the look-around engine, whose time only a budget bounds.
    pub fn needs_budget(&self) -> bool {
        self.cost() == Cost::Unbounded
    }

    /// Whether the pattern is found in `body`. `expired` is asked often and says whether the budget is spent; the
    /// linear engine does not ask.
    ///
    /// # Errors
    /// The budget was spent, or the look-around engine ran out of its own (one million open branches).
    pub fn is_match(&self, body: &[u8], expired: &dyn Fn() -> bool) -> Result<bool, BudgetSpent> {
        match &self.engine {
            Engine::Linear(regex, _) => Ok(regex.is_match(body)),
            Engine::Split(split) => split.is_match(&String::from_utf8_lossy(body), expired),
            Engine::LookAround(engine) => engine.is_match(&String::from_utf8_lossy(body), expired),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = match &self.engine {
            Engine::Linear(..) => "linear",
            Engine::Split(_) => "split",
            Engine::LookAround(_) => "look-around",
        };
        write!(f, "Pattern({engine}, {:?})", self.text)
    }
}

/// Compiles `text` on the linear engine. The lazy DFA's cache is per pattern and thread: 1 MiB is where a larger one
/// stops helping on bodies of 1 MiB, and half the crate's default.
fn linear(text: &str, bytes_max: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .size_limit(bytes_max)
        .dfa_size_limit(1 << 20)
        .build()
}
