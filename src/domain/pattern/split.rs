//! Leading look-aheads of an anchored pattern, split off as linear patterns.

use super::{BudgetSpent, Cost};

/// A pattern tied to the text's start, in parts.
pub(super) struct Split {}

impl Split {
    pub(super) fn cost(&self) -> Cost {
        Cost::Unbounded
    }

    pub(super) fn is_match(
        &self,
        _text: &str,
        _expired: &dyn Fn() -> bool,
    ) -> Result<bool, BudgetSpent> {
        Err(BudgetSpent)
    }
}

/// Splits `text`.
pub(super) fn split(_text: &str) -> Option<Split> {
    None
}
