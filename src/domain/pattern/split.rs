//! Leading look-aheads of a pattern tied to the text's start, split off as linear patterns.
//!
//! Look-aheads and anchors consume nothing, so a leading run of them is a conjunction of conditions on one position;
//! with an anchor among them (`^…`, `\A…`, `(?=^…)`) that position is the text's start, and each look-ahead can be
//! asked on its own, in any order, by the linear engine: `(?=X)` is "`\A(?:X)` is found", `(?!X)` "is not found". What
//! is left is linear more often than not; where it is not, it runs on the look-around engine once, from the start only,
//! after the conditions held. Without an anchor this would be wrong: for `(?=.*welcome)(?!.*forbidden)` some later
//! position of `forbidden, but you are welcome` holds.
//!
//! Only texts that both engines read alike are split (`scan`); `tests` compares with the look-around engine.

use std::time::Duration;

use super::BudgetSpent;
use super::linear::Linear;
use super::look_around::LookAround;
use super::scan::{Group, Kind, Token, tokens};

/// Parts compiled one by one; a pattern with more stays whole, where all of it has one bound.
const PARTS_MAX: usize = 8;

/// A pattern tied to the text's start, in parts. All hold for a match.
pub(super) struct Split {
    found: Vec<Linear>,
    not_found: Vec<Linear>,
    rest: Rest,
}

enum Rest {
    Linear(Linear),
    LookAround(LookAround),
}

impl Split {
    /// As `Pattern::worst_case`.
    pub(super) fn worst_case(&self, bytes: usize) -> Option<Duration> {
        let Rest::Linear(rest) = &self.rest else {
            return None;
        };
        let parts = self.found.iter().chain(&self.not_found).chain([rest]);
        Some(parts.map(|part| part.worst_case(bytes)).sum())
    }

    /// Whether it is found in `text`.
    pub(super) fn is_match(
        &self,
        text: &str,
        expired: &dyn Fn() -> bool,
    ) -> Result<bool, BudgetSpent> {
        let bytes = text.as_bytes();
        for part in &self.found {
            if !part.is_match(bytes, expired)? {
                return Ok(false);
            }
        }
        for part in &self.not_found {
            if part.is_match(bytes, expired)? {
                return Ok(false);
            }
        }
        match &self.rest {
            Rest::Linear(rest) => rest.is_match(bytes, expired),
            Rest::LookAround(rest) => rest.is_match(text, expired),
        }
    }
}

/// Splits `text`, which the look-around engine accepts; none where the parts might not mean the same.
pub(super) fn split(text: &str) -> Option<Split> {
    let tokens = tokens(text);
    if tokens.iter().any(|token| token.odd) {
        return None;
    }
    // Flags at the very start hold for every part. Elsewhere they hold to the end of a group on one engine and beyond
    // it on the other.
    let (flags, tokens) = match tokens.split_first() {
        Some((first, rest)) if first.kind == Kind::Flags => (&text[first.at.clone()], rest),
        _ => ("", &tokens[..]),
    };
    if tokens.iter().any(|token| token.kind == Kind::Flags) || flags.contains('-') {
        return None;
    }
    let caret_is_start = !flags.contains('m');
    let is_anchor = |kind| kind == Kind::StartText || kind == Kind::Caret && caret_is_start;

    let mut anchored = false;
    let (mut found, mut not_found) = (Vec::new(), Vec::new());
    let mut captures_split_off = false;
    let mut rest = tokens;
    while let Some(first) = rest.first() {
        let (after, content) = match first.kind {
            kind if is_anchor(kind) => {
                anchored = true;
                (1, None)
            }
            Kind::Open(group @ (Group::Ahead | Group::NotAhead)) => {
                let close = closing(rest)?;
                (close + 1, Some((group, &rest[1..close])))
            }
            _ => break,
        };
        if let Some((group, content)) = content {
            let captures = |token: &Token| token.kind == Kind::Open(Group::Capture);
            captures_split_off |= content.iter().any(captures);
            anchored |= group == Group::Ahead
                && content.first().is_some_and(|token| is_anchor(token.kind))
                && !is_quantified(content, 1)
                && !has_bar(content);
            if found.len() + not_found.len() == PARTS_MAX {
                return None;
            }
            let part = Linear::compile(&anchored_at_start(flags, slice(text, content))).ok()?;
            match group {
                Group::Ahead => found.push(part),
                _ => not_found.push(part),
            }
        }
        if is_quantified(rest, after) {
            return None;
        }
        rest = &rest[after..];
    }
    let nothing_gained = found.is_empty() && not_found.is_empty();
    if !anchored || nothing_gained || has_bar(rest) {
        return None;
    }
    let rest = anchored_at_start(flags, slice(text, rest));
    let rest = match Linear::compile(&rest) {
        Ok(linear) => Rest::Linear(linear),
        // A reference counts groups, and some of them are gone.
        Err(_) if captures_split_off => return None,
        Err(refusal) => Rest::LookAround(LookAround::compile(&rest, refusal).ok()?),
    };
    Some(Split {
        found,
        not_found,
        rest,
    })
}

fn anchored_at_start(flags: &str, part: &str) -> String {
    format!("{flags}\\A(?:{part})")
}

/// The text that neighbouring tokens cover.
fn slice<'a>(text: &'a str, tokens: &[Token]) -> &'a str {
    match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => &text[first.at.start..last.at.end],
        _ => "",
    }
}

/// The index of the token that closes the group opened by the first.
fn closing(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0_u32;
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Open(_) => depth += 1,
            Kind::Close => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether an alternation splits the tokens outside of any group: then only its first branch begins at their begin.
fn has_bar(tokens: &[Token]) -> bool {
    let mut depth = 0_i32;
    tokens.iter().any(|token| {
        match token.kind {
            Kind::Open(_) => depth += 1,
            Kind::Close => depth -= 1,
            _ => {}
        }
        depth == 0 && token.kind == Kind::Bar
    })
}

/// Whether what ends before `tokens[index]` is repeated, and so perhaps not there at all.
fn is_quantified(tokens: &[Token], index: usize) -> bool {
    tokens
        .get(index)
        .is_some_and(|token| matches!(token.kind, Kind::Quantifier(_)))
}

#[cfg(test)]
mod tests;
