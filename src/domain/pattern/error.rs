//! What is wrong with a pattern, in words for the person who wrote it.

use regex_syntax::ast::ErrorKind;

/// Why a pattern was refused. Each message names the place and the fix; positions count characters from 1.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PatternError {
    /// The text itself is too long.
    #[error(
        "the pattern is {bytes} bytes long, more than {bytes_max}: match a part of what it lists"
    )]
    TextTooLong {
        /// Its length.
        bytes: usize,
        /// The most accepted.
        bytes_max: usize,
    },
    /// It compiles to more than one search may cost.
    #[error(
        "the pattern, or a part of it, compiles to more than {} KiB: lower the counts of its repetitions, or write [0-9A-Za-z_] for \\w and [0-9] for \\d",
        bytes_max / 1024
    )]
    CompiledTooBig {
        /// The most accepted.
        bytes_max: usize,
    },
    /// Counted repetitions, those within each other multiplied, come to too many rounds.
    #[error(
        "the repetitions of a pattern with look-around come to {rounds} rounds, more than {rounds_max}: lower their counts"
    )]
    RepeatedTooOften {
        /// What they come to.
        rounds: u64,
        /// The most accepted.
        rounds_max: u64,
    },
    /// Neither engine understands it.
    #[error("at character {position}: {message}")]
    Syntax {
        /// The character at which it went wrong, counted from 1; one past the end when something is missing there.
        position: usize,
        /// What is wrong and what to do.
        message: Box<str>,
    },
    /// The look-around engine understands it but cannot run it.
    #[error("the look-around engine cannot run the pattern: {message}")]
    Unsupported {
        /// Why.
        message: Box<str>,
    },
}

impl PatternError {
    fn at(text: &str, byte: usize, message: impl Into<Box<str>>) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        Self::Syntax {
            position: before.chars().count() + 1,
            message: message.into(),
        }
    }

    /// A subroutine call, at `byte` of `text`.
    pub(super) fn call(text: &str, byte: usize) -> Self {
        let message =
            "subroutine calls (\\g, (?P>name)) are not supported: write the group's content again";
        Self::at(text, byte, message)
    }

    /// What the linear engine's parser says.
    pub(super) fn linear_syntax(text: &str, error: &regex_syntax::Error) -> Self {
        match error {
            regex_syntax::Error::Parse(error) => {
                let message = format!("{}{}", error.kind(), fix(error.kind()));
                Self::at(text, error.span().start.offset, message)
            }
            regex_syntax::Error::Translate(error) => {
                Self::at(text, error.span().start.offset, error.kind().to_string())
            }
            other => Self::Unsupported {
                message: other.to_string().into(),
            },
        }
    }

    /// What the look-around engine says.
    pub(super) fn look_around(text: &str, error: &fancy_regex::Error) -> Self {
        match error {
            fancy_regex::Error::ParseError(byte, error) => Self::at(text, *byte, error.to_string()),
            fancy_regex::Error::CompileError(error) => Self::uncompiled(error),
            other => Self::Unsupported {
                message: other.to_string().into(),
            },
        }
    }

    fn uncompiled(error: &fancy_regex::CompileError) -> Self {
        if let fancy_regex::CompileError::InnerError(part) = error
            && let Some(bytes_max) = part.size_limit()
        {
            return Self::CompiledTooBig { bytes_max };
        }
        let message = match error {
            // The place is that within the part, and of no use.
            fancy_regex::CompileError::InnerError(part) => match part.syntax_error() {
                Some(regex_syntax::Error::Parse(error)) => {
                    format!("{}{}", error.kind(), fix(error.kind()))
                }
                Some(regex_syntax::Error::Translate(error)) => error.kind().to_string(),
                _ => part.to_string(),
            },
            other => other.to_string(),
        };
        Self::Unsupported {
            message: message.into(),
        }
    }
}

/// What to write instead, where it is one thing.
fn fix(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ClassUnclosed => "; close it with ], or write \\[ for the character",
        ErrorKind::GroupUnclosed => "; close it with ), or write \\( for the character",
        ErrorKind::GroupUnopened => "; open it with (, or write \\) for the character",
        ErrorKind::RepetitionMissing => "; write a backslash before *, +, ? or { for the character",
        ErrorKind::RepetitionCountUnclosed | ErrorKind::RepetitionCountDecimalEmpty => {
            "; write {n}, {n,} or {n,m}, or \\{ for the character"
        }
        ErrorKind::RepetitionCountInvalid => "; write the smaller count first",
        ErrorKind::EscapeUnexpectedEof => "; write \\\\ for a backslash",
        ErrorKind::EscapeUnrecognized => "; leave the backslash out, or write \\\\ for a backslash",
        ErrorKind::ClassRangeInvalid => "; write the smaller end first",
        _ => "",
    }
}
