//! A long body searched in windows, so that the engine's own search can be given up between two of them.
//!
//! Only for patterns whose matches have a greatest length: a window that overlaps the one before by so much finds them
//! all. What stands before and after a window is seen by `^`, `$` and `\b` as in the whole body.

use std::time::Duration;

use regex_automata::Input;
use regex_automata::meta::Regex;
use regex_syntax::hir::{Look, Properties};

use super::super::BudgetSpent;
use super::required::Required;

/// What a window takes at its very worst, and so how late the end of a budget may be noticed. A search costs 50 ns
/// beside what it looks at, and finds literals in 0.03 ns a byte: of 58 positions, windows are 14 KiB.
const WINDOW_MAX: Duration = Duration::from_millis(10);
/// Windows are so many times as long as the longest match: at most a quarter is looked at twice.
const MATCHES_MIN: usize = 4;

/// How a pattern is searched for.
pub(super) struct Windows {
    longest: usize,
    bytes: usize,
    /// Matches begin at the body's begin only.
    at_begin: bool,
    /// They end at its end only.
    at_end: bool,
}

impl Windows {
    /// For a pattern's matches; none where they have no greatest length, or windows could not be long enough.
    pub(super) fn new(properties: &Properties, nanos_per_byte: u64) -> Option<Self> {
        let longest = properties.maximum_len()?;
        let bytes = WINDOW_MAX.as_nanos() as u64 / nanos_per_byte.max(1);
        let bytes = usize::try_from(bytes).ok()?;
        let is_enough = bytes > 0 && bytes / MATCHES_MIN >= longest;
        is_enough.then(|| Self::of(properties, longest, bytes))
    }

    fn of(properties: &Properties, longest: usize, bytes: usize) -> Self {
        Self {
            longest,
            bytes,
            at_begin: properties.look_set_prefix().contains(Look::Start),
            at_end: properties.look_set_suffix().contains(Look::End),
        }
    }

    /// Whether `regex` is found in `body`.
    pub(super) fn is_match(
        &self,
        regex: &Regex,
        required: &Required,
        body: &[u8],
        expired: &dyn Fn() -> bool,
    ) -> Result<bool, BudgetSpent> {
        // No match begins before it.
        let mut from = if self.at_end {
            body.len().saturating_sub(self.longest)
        } else {
            0
        };
        while let Some(end) = required.first_end(body, from) {
            if expired() {
                return Err(BudgetSpent);
            }
            let start = from.max(end.saturating_sub(self.longest));
            let end = body.len().min(start + self.bytes);
            let window = Input::new(body).span(start..end).earliest(true);
            if regex.search_half(&window).is_some() {
                return Ok(true);
            }
            if end == body.len() || self.at_begin {
                break;
            }
            from = end - self.longest + 1;
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::random;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn windows_find_what_the_whole_body_has(
            text in random::linear(),
            bodies in random::bodies(),
            more in 1..4_usize,
        ) {
            if let Ok(whole) = regex::bytes::Regex::new(&text)
                && let Ok(hir) = super::super::parse(&text)
                && let Some(longest) = hir.properties().maximum_len()
            {
                let windows = Windows::of(hir.properties(), longest, longest + more);
                let regex = Regex::builder()
                    .syntax(regex_automata::util::syntax::Config::new().utf8(false))
                    .configure(Regex::config().utf8_empty(false))
                    .build(&text)
                    .expect("what regex takes");
                let required = Required::of(&text);
                for body in bodies.chunks(3).map(<[_]>::concat) {
                    let body = body.as_bytes();
                    let matched = whole.is_match(body);
                    let windowed = windows.is_match(&regex, &required, body, &|| false);
                    prop_assert_eq!(windowed, Ok(matched), "{:?} on {:?}", text, body);
                    prop_assert!(required.are_in(body) || !matched, "{:?} on {:?}", text, body);
                }
            }
        }
    }
}
