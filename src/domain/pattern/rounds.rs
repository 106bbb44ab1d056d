//! How often a pattern's counted repetitions go round.

use super::PatternError;
use super::scan::{Kind, Token, counted, tokens};

/// Most rounds that counted repetitions may multiply and add up to. The look-around engine does not look at the text
/// between rounds of something empty, at some 5 ns each, so this bounds by how much a match overruns its budget.
const ROUNDS_MAX: u64 = 100_000;

/// Refuses what could keep the look-around engine busy without a look at the text.
pub(super) fn check(text: &str) -> Result<(), PatternError> {
    let tokens = tokens(text);
    if let Some(call) = tokens.iter().find(|token| token.kind == Kind::Call) {
        return Err(PatternError::call(text, call.at.start));
    }
    // Blanks and comments may hide what a count belongs to: then any count may multiply any other.
    let hidden = tokens.iter().any(|token| {
        let text = &text[token.at.clone()];
        text.starts_with("(?") && (text.contains('x') || text.contains('#'))
    });
    let rounds = if hidden {
        text.match_indices('{')
            .fold(1, |rounds: u64, (at, _)| match counted(&text[at..]) {
                (Kind::Quantifier(times), ..) => rounds.saturating_mul(times),
                _ => rounds,
            })
    } else {
        rounds(&tokens)
    };
    if rounds > ROUNDS_MAX {
        return Err(PatternError::RepeatedTooOften {
            rounds,
            rounds_max: ROUNDS_MAX,
        });
    }
    Ok(())
}

/// Rounds that all repetitions come to, where those of each group count once per round of those around it.
fn rounds(tokens: &[Token]) -> u64 {
    // Per open group: the sum of what is closed in it, and its latest piece, which a quantifier may still multiply.
    let mut groups: Vec<(u64, u64)> = vec![(0, 0)];
    for token in tokens {
        let Some(group) = groups.last_mut() else {
            return u64::MAX;
        };
        match token.kind {
            Kind::Open(_) => groups.push((0, 0)),
            Kind::Close => {
                let rounds = group.0.saturating_add(group.1);
                if groups.len() > 1 {
                    groups.pop();
                }
                if let Some(outer) = groups.last_mut() {
                    *outer = (outer.0.saturating_add(outer.1), rounds);
                }
            }
            Kind::Quantifier(times) => group.1 = group.1.max(1).saturating_mul(times),
            _ => *group = (group.0.saturating_add(group.1), 0),
        }
    }
    groups.iter().fold(0, |sum, group| {
        sum.saturating_add(group.0).saturating_add(group.1)
    })
}
