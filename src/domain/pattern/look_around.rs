//! The look-around engine and what ends it in time.
//!
//! `fancy-regex` has no time limit, and its backtrack limit is no substitute: 4 KiB of hostile text cost seconds below
//! the default. What ends a match is its `Input` trait: ours counts the engine's looks at the text and, once the
//! budget is spent, unwinds out of the engine with a payload of its own, caught around the match.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use fancy_regex::{Input, Regex, RegexBuilder};

use super::linear::{COMPILED_BYTES_MAX, Linear, Refusal};
use super::{BudgetSpent, PatternError, relaxed, rounds};

#[cfg(panic = "abort")]
compile_error!("a pattern's budget is enforced by unwinding: build with panic = \"unwind\"");

/// The budget is looked at every so many looks at the text. One look lasts 5–10 ns, but up to 5 ms where it runs a
/// delegated linear part over 64 KiB, and the clock costs 22 ns.
const LOOKS_PER_CHECK: u32 = 8;

/// A run that looked at the text more often than this may have grown the engine's stack to megabytes, which stay with
/// the compiled pattern: it is compiled anew instead, for less than the run took.
const LOOKS_KEPT: u32 = 200_000;

/// What an honest match does not reach within a budget of 50 ms, at 5–10 ns each. It stops what backtracks without ever
/// looking at the text, such as `((?!(?!))|){90000}`.
const BACKTRACKS_MAX: usize = 10_000_000;

/// Bound on the compiled size of all delegated linear parts together: one look-ahead may be `\w{1,50}`, not each of 800.
const PARTS_BYTES_MAX: usize = 16 << 20;

/// Every part may have this much: enough for a few of Unicode's word characters.
const PART_BYTES_MIN: usize = 64 << 10;

/// Instructions of the backtracking program; subroutine calls are inlined and could grow without bound.
const PROGRAM_MAX: usize = 20_000;

/// A pattern on the look-around engine.
pub(super) struct LookAround {
    text: Box<str>,
    /// The pattern without its conditions, on the linear engine: where it is not found, the pattern is not either. Most
    /// misses end here, in a hundredth of the time.
    relaxed: Option<Linear>,
    /// Absent after a run that left too much memory behind: the next run compiles it again.
    engine: Mutex<Option<Arc<Regex>>>,
}

impl LookAround {
    /// Compiles `text`, which the linear engine refused.
    pub(super) fn compile(text: &str, refusal: Refusal) -> Result<Self, PatternError> {
        rounds::check(text)?;
        let regex = build(text).map_err(|error| {
            if refusal.wants_look_around() {
                PatternError::look_around(text, &error)
            } else {
                // Plain syntax gone wrong: the linear engine says it better.
                refusal.into_error(text)
            }
        })?;
        let relaxed = relaxed::relaxed(text).and_then(|text| Linear::compile(&text).ok());
        Ok(Self {
            text: text.into(),
            relaxed,
            engine: Mutex::new(Some(Arc::new(regex))),
        })
    }

    /// Whether it is found in `body`.
    pub(super) fn is_match(
        &self,
        body: &str,
        expired: &dyn Fn() -> bool,
    ) -> Result<bool, BudgetSpent> {
        if expired() {
            return Err(BudgetSpent);
        }
        if let Some(relaxed) = &self.relaxed
            && !relaxed.is_match(body.as_bytes(), expired)?
        {
            return Ok(false);
        }
        let engine = self.engine()?;
        let watched = Watched {
            text: body,
            expired,
            looks: Cell::new(0),
        };
        // Unwind safety: the engine's pooled working memory is reset before each run.
        let result = catch_unwind(AssertUnwindSafe(|| engine.is_match(&watched)));
        if watched.looks.get() > LOOKS_KEPT {
            *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        match result {
            Ok(Ok(matched)) => Ok(matched),
            // Out of branches or of backtracks: undecided, and to say "no match" would be a lie.
            Ok(Err(_)) => Err(BudgetSpent),
            Err(payload) if payload.is::<BudgetSpent>() => Err(BudgetSpent),
            Err(payload) => resume_unwind(payload),
        }
    }

    fn engine(&self) -> Result<Arc<Regex>, BudgetSpent> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regex) = &*engine {
            return Ok(Arc::clone(regex));
        }
        // It compiled before, so this does not fail; if it does, the pattern is undecided.
        let regex = Arc::new(build(&self.text).map_err(|_| BudgetSpent)?);
        *engine = Some(Arc::clone(&regex));
        Ok(regex)
    }
}

fn build(text: &str) -> Result<Regex, fancy_regex::Error> {
    // Groups and references are where the text is cut into parts.
    let parts = 1 + text.matches(['(', '\\']).count();
    let part_bytes_max = (PARTS_BYTES_MAX / parts).clamp(PART_BYTES_MIN, COMPILED_BYTES_MAX);
    RegexBuilder::new(text)
        .backtrack_limit(BACKTRACKS_MAX)
        .delegate_size_limit(part_bytes_max)
        .delegate_dfa_size_limit(part_bytes_max)
        .max_prog_size(PROGRAM_MAX)
        .build()
}

/// A text that unwinds out of the engine when the budget is spent.
struct Watched<'a> {
    text: &'a str,
    expired: &'a dyn Fn() -> bool,
    looks: Cell<u32>,
}

impl Watched<'_> {
    #[inline]
    fn look(&self) -> &str {
        let looks = self.looks.get().wrapping_add(1);
        self.looks.set(looks);
        if looks.is_multiple_of(LOOKS_PER_CHECK) && (self.expired)() {
            // Not a panic: no hook runs and nothing is printed.
            resume_unwind(Box::new(BudgetSpent));
        }
        self.text
    }
}

impl Input for Watched<'_> {
    type Match<'t>
        = ()
    where
        Self: 't;

    #[inline]
    fn len(&self) -> usize {
        self.look().len()
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        self.look().as_bytes()
    }

    fn is_char_boundary(&self, ix: usize) -> bool {
        self.look().is_char_boundary(ix)
    }

    fn is_ascii(&self) -> bool {
        self.look().is_ascii()
    }

    fn prev_codepoint_ix(&self, i: usize) -> usize {
        Input::prev_codepoint_ix(self.look(), i)
    }

    fn make_match<'t>(&'t self, _start: usize, _end: usize) -> Self::Match<'t> {}

    fn advance_position(&self, i: usize) -> usize {
        Input::advance_position(self.look(), i)
    }
}
