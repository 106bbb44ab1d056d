//! The linear engine's lazy DFA, stepped byte by byte under a budget.
//!
//! `regex` has no way to give a search up, and `(?:x{0,1000}){3}y` takes 1.8 s over 64 KiB.

use std::sync::{Mutex, PoisonError};

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

use super::{COMPILED_BYTES_MAX, DFA_BYTES_MAX};

/// A new state costs some 10 ns per position; this many positions between two looks at the budget are 40 µs.
const POSITIONS_PER_CHECK: u64 = 4_096;
/// A byte from one known state to another costs 1 ns.
const BYTES_PER_CHECK: usize = 16 * 1024;

/// A pattern as a lazy DFA.
pub(super) struct Stepped {
    dfa: DFA,
    /// Kept between searches. The match thread alone steps, so nobody waits.
    cache: Mutex<Cache>,
    positions: u64,
}

/// Why a search has no answer.
pub(super) enum Undecided {
    /// The budget was spent.
    Spent,
    /// A lazy DFA cannot tell.
    Unsteppable,
}

impl Stepped {
    /// Compiles `text`, which the linear engine accepts; none if the DFA does not.
    pub(super) fn compile(text: &str, positions: u64) -> Option<Self> {
        let dfa = DFA::builder()
            .configure(
                DFA::config()
                    // All matches alike: the first ends the search.
                    .match_kind(MatchKind::All)
                    .unicode_word_boundary(true)
                    .cache_capacity(DFA_BYTES_MAX)
                    .skip_cache_capacity_check(true),
            )
            .syntax(syntax::Config::new().utf8(false))
            .thompson(
                thompson::Config::new()
                    .utf8(false)
                    .nfa_size_limit(Some(COMPILED_BYTES_MAX)),
            )
            .build(text)
            .ok()?;
        let cache = Mutex::new(dfa.create_cache());
        Some(Self {
            dfa,
            cache,
            positions,
        })
    }

    /// Whether it is found in `body`.
    pub(super) fn is_match(
        &self,
        body: &[u8],
        expired: &dyn Fn() -> bool,
    ) -> Result<bool, Undecided> {
        let cache = &mut *self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let input = Input::new(body).anchored(Anchored::No);
        let mut state = self
            .dfa
            .start_state_forward(cache, &input)
            .map_err(|_| Undecided::Unsteppable)?;
        // Since the last look at the budget.
        let mut made = 0;
        for bytes in body.chunks(BYTES_PER_CHECK) {
            if expired() {
                return Err(Undecided::Spent);
            }
            for &byte in bytes {
                let known = if state.is_tagged() {
                    None
                } else {
                    let next = self.dfa.next_state_untagged(cache, state, byte);
                    (!next.is_tagged()).then_some(next)
                };
                if let Some(known) = known {
                    state = known;
                    continue;
                }
                // Mostly one that is not known yet.
                state = self
                    .dfa
                    .next_state(cache, state, byte)
                    .map_err(|_| Undecided::Unsteppable)?;
                // A match shows one byte late.
                if state.is_match() {
                    return Ok(true);
                }
                if state.is_dead() {
                    return Ok(false);
                }
                if state.is_quit() {
                    return Err(Undecided::Unsteppable);
                }
                made += self.positions;
                if made >= POSITIONS_PER_CHECK {
                    made = 0;
                    if expired() {
                        return Err(Undecided::Spent);
                    }
                }
            }
        }
        let end = self.dfa.next_eoi_state(cache, state);
        Ok(end.map_err(|_| Undecided::Unsteppable)?.is_match())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::random;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn stepping_says_what_searching_says(text in random::linear(), bodies in random::bodies()) {
            if let Ok(regex) = regex::bytes::Regex::new(&text)
                && let Some(stepped) = Stepped::compile(&text, 1_000)
            {
                for body in bodies {
                    if let Ok(matched) = stepped.is_match(body.as_bytes(), &|| false) {
                        prop_assert_eq!(matched, regex.is_match(body.as_bytes()), "{:?} on {:?}", text, body);
                    }
                }
            }
        }
    }
}
