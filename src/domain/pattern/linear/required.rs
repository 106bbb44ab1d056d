//! Literals without which a pattern does not match.
//!
//! The engine looks for literals itself, where it finds that worth while, but only before a search that it will end
//! itself. Before one that has to be watched we look.

use memchr::memmem::Finder;
use regex_syntax::hir::{Hir, HirKind};

/// More would be looked for in vain: the rarest of people's words are the long ones.
const LITERALS_MAX: usize = 4;

/// The longest of a pattern's literals that each of its matches contains, the longest first.
pub(super) struct Required(Vec<Finder<'static>>);

impl Required {
    /// Those of `text`, which compiles.
    pub(super) fn of(text: &str) -> Self {
        let mut literals = Vec::new();
        if let Ok(hir) = super::parse(text) {
            collect(&hir, &mut literals);
        }
        literals.sort_by_key(|literal| std::cmp::Reverse(literal.len()));
        literals.truncate(LITERALS_MAX);
        let finders = literals
            .iter()
            .map(|literal| Finder::new(literal).into_owned());
        Self(finders.collect())
    }

    /// Whether all of them are in `body`: if not, it has no match.
    pub(super) fn are_in(&self, body: &[u8]) -> bool {
        self.0.iter().all(|finder| finder.find(body).is_some())
    }

    /// No match that begins at `from` or later ends before this place. None if there is no such match.
    pub(super) fn first_end(&self, body: &[u8], from: usize) -> Option<usize> {
        match self.0.first() {
            Some(finder) => finder
                .find(body.get(from..)?)
                .map(|at| from + at + finder.needle().len()),
            None => (from <= body.len()).then_some(from),
        }
    }
}

/// Walks what every match goes through.
fn collect(hir: &Hir, literals: &mut Vec<Box<[u8]>>) {
    match hir.kind() {
        HirKind::Literal(literal) => literals.push(literal.0.clone()),
        HirKind::Capture(capture) => collect(&capture.sub, literals),
        HirKind::Repetition(repetition) if repetition.min > 0 => collect(&repetition.sub, literals),
        HirKind::Concat(parts) => parts.iter().for_each(|part| collect(part, literals)),
        HirKind::Empty
        | HirKind::Look(_)
        | HirKind::Class(_)
        | HirKind::Repetition(_)
        | HirKind::Alternation(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(text: &str) -> Vec<String> {
        let finders = Required::of(text).0;
        let needles = finders.iter().map(Finder::needle);
        needles
            .map(|needle| String::from_utf8_lossy(needle).into_owned())
            .collect()
    }

    #[test]
    fn what_every_match_goes_through_is_required() {
        assert_eq!(required(r"\w{1,50} is down"), [" is down"]);
        assert_eq!(required("a(bc(?:def){2,})+x?"), ["def", "bc", "a"]);
        for none in ["a|b", "a*", "(?:a{0,3})b?", "[ab]", "(?i)abc", r"\b", ""] {
            assert!(required(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn the_first_end_is_that_of_the_longest_literal() {
        let some = Required::of("x.*abc");
        assert!(some.are_in(b"..abc.x") && !some.are_in(b"..abc."));
        assert_eq!(some.first_end(b"..abc.abc", 0), Some(5));
        assert_eq!(some.first_end(b"..abc.abc", 3), Some(9));
        assert_eq!(some.first_end(b"..abc.abc", 7), None);
        assert_eq!(some.first_end(b"abc", 4), None);
        let none = Required::of("[ab]");
        assert_eq!(none.first_end(b"ab", 2), Some(2));
        assert_eq!(none.first_end(b"ab", 3), None);
    }
}
