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

use super::COMPILED_BYTES_MAX;

/// All states of a tame pattern fit into the engine's cache this many times.
const CACHE_SHARE: usize = 2;
/// Work spent on finding out, in positions looked at, if all were alive: 20 ms once, where a pattern has some hundred
/// states. One that has more alive fills the cache first.
const WORK_MAX: u64 = 10_000_000;

/// Whether all states of `text`'s automata, forwards and backwards, fit into the engine's cache of `cache_bytes` with
/// room to spare. `positions` is how many of its places may be alive at once.
///
/// Forwards the engine searches from anywhere, and, once it knows where a match begins, from there; backwards only from
/// where a match, or its literal, ends. Where the engine looks backwards through the part before a literal alone, that
/// part's states are those of the whole behind that literal.
pub(super) fn is_tame(text: &str, positions: u64, cache_bytes: usize) -> bool {
    let forwards = (false, MatchKind::LeftmostFirst, Anchored::No);
    let from_a_begin = (false, MatchKind::LeftmostFirst, Anchored::Yes);
    let backwards = (true, MatchKind::All, Anchored::Yes);
    let mut work = 0;
    [forwards, from_a_begin, backwards]
        .into_iter()
        .all(|(reverse, kind, anchored)| {
            compile(text, reverse, kind, cache_bytes).is_some_and(|dfa| {
                do_all_states_fit(&dfa, anchored, positions, cache_bytes, &mut work)
            })
        })
}

/// As the engine does it; none where it would go without a lazy DFA, because the least cache is too big.
fn compile(text: &str, reverse: bool, kind: MatchKind, cache_bytes: usize) -> Option<DFA> {
    DFA::builder()
        .configure(
            Config::new()
                .match_kind(kind)
                .unicode_word_boundary(true)
                .cache_capacity(cache_bytes),
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

/// Walks every transition from every state. False when they do not fit, or are too much work.
fn do_all_states_fit(
    dfa: &DFA,
    anchored: Anchored,
    positions: u64,
    cache_bytes: usize,
    work: &mut u64,
) -> bool {
    let is_full = |cache: &Cache| {
        // A cache that was emptied knows none of the states seen any more.
        cache.clear_count() > 0 || cache.memory_usage() > cache_bytes / CACHE_SHARE
    };
    let mut cache = dfa.create_cache();
    let mut seen: Vec<LazyStateID> = Vec::new();
    // What stands before a search's begin: nothing, or a byte of each kind.
    for before in std::iter::once(None).chain((0..=u8::MAX).map(Some)) {
        let config = start::Config::new().anchored(anchored).look_behind(before);
        // A byte before it that the DFA cannot tell from others: a search that begins there is given up at once.
        if let Ok(state) = dfa.start_state(&mut cache, &config)
            && !seen.contains(&state)
        {
            seen.push(state);
        }
        if is_full(&cache) {
            return false;
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
                Some(byte) => dfa.next_state(&mut cache, state, byte),
                None => dfa.next_eoi_state(&mut cache, state),
            };
            // Only a cache that gives up fails, and this one is full before.
            let Ok(next) = next else {
                return false;
            };
            if !seen.contains(&next) {
                seen.push(next);
            }
            *work += positions + seen.len() as u64 / 16;
            if *work > WORK_MAX || is_full(&cache) {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::{DFA_BYTES_MAX as CACHE, WIDE_DFA_BYTES_MAX};
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
            assert!(is_tame(tame, 50, CACHE), "{tame}");
        }
        for wild in [
            "(?:x{0,1000}){3}y",
            r"\w{1,50} is down",
            // One of the two directions has 2^20 states.
            "[01]*1[01]{20}",
            "[01]{20}1[01]*$",
        ] {
            assert!(!is_tame(wild, 3_000, CACHE), "{wild}");
            assert!(!is_tame(wild, 20, CACHE), "{wild}");
        }
    }

    #[test]
    fn a_pattern_whose_least_cache_is_too_big_is_not_tame() {
        // Its states would fit, but the engine does not begin to make them.
        let wide = r"\w{1,30} is down";
        assert!(compile(wide, true, MatchKind::All, CACHE).is_none());
        assert!(!is_tame(wide, 38, CACHE));
        assert!(compile(wide, true, MatchKind::All, WIDE_DFA_BYTES_MAX).is_some());
    }
}
