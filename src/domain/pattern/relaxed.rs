//! A look-around pattern without its conditions.

use super::scan::{Group, Kind, tokens};

/// `text` without its look-arounds and word boundaries: found wherever `text` is, and elsewhere. None where the two
/// engines might read what is left differently.
pub(super) fn relaxed(text: &str) -> Option<String> {
    let mut relaxed = String::new();
    let mut groups_inside = 0_u32;
    for (index, token) in tokens(text).iter().enumerate() {
        // Flags after the start hold for longer on one engine than on the other.
        if token.odd || token.kind == Kind::Flags && index > 0 {
            return None;
        }
        match token.kind {
            Kind::Open(Group::Ahead | Group::NotAhead | Group::Behind) if groups_inside == 0 => {
                groups_inside = 1;
                // Something for a quantifier to follow, and never a digit after a digit.
                relaxed.push_str("(?:)");
            }
            Kind::Open(_) if groups_inside > 0 => groups_inside += 1,
            Kind::Close if groups_inside > 0 => groups_inside -= 1,
            _ if groups_inside > 0 => {}
            // Unicode's would keep the lazy DFA off bodies that are not ASCII.
            Kind::WordBoundary => relaxed.push_str("(?:)"),
            _ => relaxed.push_str(&text[token.at.clone()]),
        }
    }
    Some(relaxed)
}
