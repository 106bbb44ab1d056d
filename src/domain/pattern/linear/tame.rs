//! Whether the lazy DFA of a pattern can become expensive at all.
//!
//! The linear engine is slow where its lazy DFA keeps making states, fills its cache and is given up for a simulation
//! that looks at every position for every byte. Most patterns that people write have some dozens of states in all: over
//! those no body can do that, and the engine's own search, which knows where to begin, needs no watching.

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, Config, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::start;
use regex_automata::util::syntax;
use regex_automata::{Anchored, MatchKind};

use super::{COMPILED_BYTES_MAX, DFA_BYTES_MAX};

/// All states of a tame pattern fit into the engine's cache this many times.
const CACHE_SHARE: usize = 2;
/// Work spent on finding out, in positions looked at: some 20 ms, once for a pattern.
const WORK_MAX: u64 = 4_000_000;

/// Whether all states of `text`'s automata, forwards and backwards, fit into the engine's cache with room to spare.
/// `positions` is how many of its places may be alive at once.
pub(super) fn is_tame(text: &str, positions: u64) -> bool {
    let forwards = (false, MatchKind::LeftmostFirst, Anchored::No);
    let backwards = (true, MatchKind::All, Anchored::Yes);
    [forwards, backwards]
        .into_iter()
        .all(|(reverse, kind, anchored)| {
            compile(text, reverse, kind)
                .and_then(|dfa| all_states(&dfa, anchored, positions))
                .is_some()
        })
}

fn compile(text: &str, reverse: bool, kind: MatchKind) -> Option<DFA> {
    DFA::builder()
        .configure(
            Config::new()
                .match_kind(kind)
                .unicode_word_boundary(true)
                .cache_capacity(DFA_BYTES_MAX)
                .skip_cache_capacity_check(true),
        )
        .syntax(syntax::Config::new().utf8(false))
        .thompson(
            thompson::Config::new()
                .utf8(false)
                .reverse(reverse)
                .nfa_size_limit(Some(COMPILED_BYTES_MAX)),
        )
        .build(text)
        .ok()
}

/// Walks every transition from every state; how many states there are. None when they are too many, or too much work.
fn all_states(dfa: &DFA, anchored: Anchored, positions: u64) -> Option<usize> {
    let mut cache = dfa.create_cache();
    let mut seen: Vec<LazyStateID> = Vec::new();
    let mut work = 0;
    // What stands before a search's begin: nothing, or a byte of each kind.
    for before in std::iter::once(None).chain((0..=u8::MAX).map(Some)) {
        let config = start::Config::new().anchored(anchored).look_behind(before);
        // A byte before it that the DFA cannot tell from others: a search that begins there is given up at once.
        if let Ok(state) = dfa.start_state(&mut cache, &config)
            && !seen.contains(&state)
        {
            seen.push(state);
        }
        // A cache that was emptied knows none of them any more.
        if is_full(&cache) {
            return None;
        }
    }
    let mut at = 0;
    while let Some(&state) = seen.get(at) {
        at += 1;
        if state.is_dead() || state.is_quit() {
            continue;
        }
        for unit in dfa.byte_classes().representatives(..) {
            let next = match unit.as_u8() {
                Some(byte) => dfa.next_state(&mut cache, state, byte).ok()?,
                None => dfa.next_eoi_state(&mut cache, state).ok()?,
            };
            if !seen.contains(&next) {
                seen.push(next);
            }
            work += positions + seen.len() as u64 / 16;
            if work > WORK_MAX || is_full(&cache) {
                return None;
            }
        }
    }
    Some(seen.len())
}

fn is_full(cache: &Cache) -> bool {
    cache.clear_count() > 0 || cache.memory_usage() > DFA_BYTES_MAX / CACHE_SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_people_are_tame_and_those_that_multiply_are_not() {
        for tame in [
            "you.*welcome to stay",
            r#""status":\s*"ok""#,
            "(?i)error|exception|stack trace|not available|out of service",
            r"\b[a-z]{3,8}\s\d{1,3}\s(?:at|in)\s\d\d:\d\d$",
            r"[Hh]ello,? [Ww]orld! [A-Z][a-z]+ \d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}",
            r#"<p\s+id="health">[^<]*\ball\s+\d+\s+services\s+are\s+up</p>"#,
        ] {
            assert!(is_tame(tame, 50), "{tame}");
        }
        for wild in [
            "(?:x{0,1000}){3}y",
            r"\w{1,50} is down",
            // One of the two directions has 2^20 states.
            "[01]*1[01]{20}",
            "[01]{20}1[01]*$",
        ] {
            assert!(!is_tame(wild, 3_000), "{wild}");
            assert!(!is_tame(wild, 20), "{wild}");
        }
    }
}
