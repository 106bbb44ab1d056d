//! The linear engine, and what it may cost.

use std::sync::OnceLock;
use std::time::Duration;

use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::{BudgetSpent, PatternError};

mod required;
mod stepped;
mod tame;
mod windows;

use required::Required;
use stepped::{Stepped, Undecided};
use windows::Windows;

/// Bound on the compiled size, 10 MiB by the crate's default. `\w{1,50}` needs 4 MiB, because Unicode's word
/// characters are many, and takes 9 ms to compile.
pub(super) const COMPILED_BYTES_MAX: usize = 4 << 20;

/// The lazy DFA's cache, per pattern and thread. Half the crate's default: what fills it would fill twice as much.
const DFA_BYTES_MAX: usize = 1 << 20;

/// That of a pattern so wide that the least cache of its lazy DFA is more than that: the crate's default. Without a lazy
/// DFA `\w{1,50} is down` takes 170 ns a byte instead of 0.02.
const WIDE_DFA_BYTES_MAX: usize = 2 << 20;

/// Bytes and ranges of characters, each repetition counted, from which on a pattern is wide. The least cache passes
/// [`DFA_BYTES_MAX`] between 19 000 (`\w{1,25}`) and 23 000.
const WIDE: u64 = 10_000;

/// Time per byte and position when the lazy DFA gives up and every position is alive: 9–12 measured by
/// benches/body_match.rs (`(?:x{0,1000}){3}y` over `x`s: 3 001 positions, 27 µs a byte).
const NANOS_PER_POSITION: u64 = 12;

/// Time per byte where all states of the lazy DFA fit its cache: 0.3–2 measured, and some for making them.
const NANOS_PER_TAME_BYTE: u64 = 8;

/// A literal, or several: found by vector instructions, at 0.03–0.5 ns a byte.
const NANOS_PER_LITERAL_BYTE: u64 = 1;

/// What may take longer is worth finding out whether it can: the pattern may turn out to be tame.
const STUDIED_ABOVE: Duration = Duration::from_millis(1);

/// Searches that may take longer than this are cut into windows or stepped by hand, so that they can be given up. Below
/// it the engine's own search over the whole body is better.
const UNSTEPPED_MAX: Duration = Duration::from_millis(20);

/// What an unstepped search may take where stepping is not possible.
const UNSTEPPABLE_MAX: Duration = Duration::from_secs(2);

/// A pattern on the linear engine.
pub(super) struct Linear {
    text: Box<str>,
    /// What the `regex` crate is made of: unlike that crate it searches parts of a body.
    regex: Regex,
    dfa_bytes_max: usize,
    /// Made when a long body needs them.
    required: OnceLock<Required>,
    stepped: OnceLock<Option<Stepped>>,
    /// How it is searched for in windows, where its matches are short enough.
    windows: Option<Windows>,
    /// No body makes it expensive, but for one that is not ASCII where `ascii_only`.
    tame: OnceLock<bool>,
    /// Its lazy DFA gives bodies up that are not ASCII: Unicode's `\b`.
    ascii_only: bool,
    /// Places in the pattern at which a byte or character may be consumed, each repetition counted.
    positions: u64,
    nanos_per_byte: u64,
}

/// Why the linear engine refused a pattern.
pub(super) enum Refusal {
    /// Its syntax; the look-around engine may understand it.
    Syntax(Box<regex_syntax::Error>),
    /// Its compiled size.
    TooBig,
}

impl Linear {
    /// Compiles `text`.
    pub(super) fn compile(text: &str) -> Result<Self, Refusal> {
        let hir = parse(text).map_err(Refusal::Syntax)?;
        let is_wide = places(&hir, &ranges) > WIDE;
        let dfa_bytes_max = if is_wide {
            WIDE_DFA_BYTES_MAX
        } else {
            DFA_BYTES_MAX
        };
        // Its syntax is right, so the size is all that can be wrong.
        let regex = Regex::builder()
            .syntax(syntax::Config::new().utf8(false))
            .configure(
                Regex::config()
                    .utf8_empty(false)
                    .nfa_size_limit(Some(COMPILED_BYTES_MAX))
                    .hybrid_cache_capacity(dfa_bytes_max),
            )
            .build(text)
            .map_err(|_| Refusal::TooBig)?;
        let literal = hir.properties().is_literal() || hir.properties().is_alternation_literal();
        let positions = places(&hir, &|_| 1).max(1);
        let nanos_per_byte = if literal {
            NANOS_PER_LITERAL_BYTE
        } else {
            NANOS_PER_POSITION.saturating_mul(positions)
        };
        Ok(Self {
            text: text.into(),
            regex,
            dfa_bytes_max,
            required: OnceLock::new(),
            stepped: OnceLock::new(),
            windows: Windows::new(hir.properties(), nanos_per_byte),
            tame: OnceLock::new(),
            ascii_only: hir.properties().look_set().contains_word_unicode(),
            positions,
            nanos_per_byte,
        })
    }

    /// An upper bound on the time that one search takes over `bytes`; a lower one once a search has found out that the
    /// pattern is tame.
    pub(super) fn worst_case(&self, bytes: usize) -> Duration {
        let nanos_per_byte = match self.tame.get() {
            Some(true) if !self.ascii_only => self.nanos_per_byte.min(NANOS_PER_TAME_BYTE),
            _ => self.nanos_per_byte,
        };
        Duration::from_nanos(nanos_per_byte.saturating_mul(bytes as u64))
    }

    /// Whether it is found in `body`.
    pub(super) fn is_match(
        &self,
        body: &[u8],
        expired: &dyn Fn() -> bool,
    ) -> Result<bool, BudgetSpent> {
        let worst_case = self.worst_case(body.len());
        if worst_case <= STUDIED_ABOVE {
            return Ok(self.regex.is_match(body));
        }
        // Looked into when first needed: it takes milliseconds, and this is the match thread.
        let is_tame = || tame::is_tame(&self.text, self.positions, self.dfa_bytes_max);
        let is_tame = *self.tame.get_or_init(is_tame);
        // Of what is tame but for bodies that are not ASCII, most searches end in a hundredth of the worst case.
        let is_usual =
            || !self.ascii_only || (self.windows.is_none() && worst_case <= UNSTEPPABLE_MAX);
        if worst_case <= UNSTEPPED_MAX || (is_tame && is_usual()) {
            return Ok(self.regex.is_match(body));
        }
        let required = self.required.get_or_init(|| Required::of(&self.text));
        if let Some(windows) = &self.windows {
            return windows.is_match(&self.regex, required, body, expired);
        }
        if !required.are_in(body) {
            return Ok(false);
        }
        let stepped = self
            .stepped
            .get_or_init(|| Stepped::compile(&self.text, self.positions));
        match stepped
            .as_ref()
            .map(|stepped| stepped.is_match(body, expired))
        {
            Some(Ok(matched)) => Ok(matched),
            Some(Err(Undecided::Spent)) => Err(BudgetSpent),
            Some(Err(Undecided::Unsteppable)) | None if worst_case <= UNSTEPPABLE_MAX => {
                Ok(self.regex.is_match(body))
            }
            _ => Err(BudgetSpent),
        }
    }
}

fn parse(text: &str) -> Result<Hir, Box<regex_syntax::Error>> {
    let mut parser = regex_syntax::ParserBuilder::new().utf8(false).build();
    parser.parse(text).map_err(Box::new)
}

impl Refusal {
    /// Whether the look-around engine need not be asked: it would delegate what is too big back, and takes `a{2,1}`
    /// for something that matches nothing.
    pub(super) fn is_final(&self) -> bool {
        use regex_syntax::ast::ErrorKind::RepetitionCountInvalid;
        match self {
            Self::TooBig => true,
            Self::Syntax(_) => self.kind() == Some(&RepetitionCountInvalid),
        }
    }

    /// The error that the owner of the pattern sees.
    pub(super) fn into_error(self, text: &str) -> PatternError {
        match self {
            Self::TooBig => PatternError::CompiledTooBig {
                bytes_max: COMPILED_BYTES_MAX,
            },
            Self::Syntax(error) => PatternError::linear_syntax(text, &error),
        }
    }

    /// Whether the pattern asks for what only the look-around engine has.
    pub(super) fn wants_look_around(&self) -> bool {
        use regex_syntax::ast::ErrorKind::{UnsupportedBackreference, UnsupportedLookAround};
        matches!(
            self.kind(),
            Some(UnsupportedLookAround | UnsupportedBackreference)
        )
    }

    fn kind(&self) -> Option<&regex_syntax::ast::ErrorKind> {
        match self {
            Self::Syntax(error) => match &**error {
                regex_syntax::Error::Parse(error) => Some(error.kind()),
                _ => None,
            },
            Self::TooBig => None,
        }
    }
}

/// Counts consuming positions, each literal's byte and each class by `of_class`: with 1 for a class, what Glushkov's
/// automaton would have as states.
fn places(hir: &Hir, of_class: &impl Fn(&Class) -> u64) -> u64 {
    let of = |hir: &Hir| places(hir, of_class);
    let sum = |hirs: &[Hir]| hirs.iter().map(of).fold(0, u64::saturating_add);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(class) => of_class(class),
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1));
            of(&repetition.sub).saturating_mul(times.into())
        }
        HirKind::Capture(capture) => of(&capture.sub),
        HirKind::Concat(hirs) | HirKind::Alternation(hirs) => sum(hirs),
    }
}

/// How many ranges of characters or bytes a class has.
fn ranges(class: &Class) -> u64 {
    match class {
        Class::Unicode(class) => class.ranges().len() as u64,
        Class::Bytes(class) => class.ranges().len() as u64,
    }
}
