//! What is wrong with a pattern, in words for the person who wrote it.

/// Why a pattern was refused. Each message names the place and the fix; positions count characters from 1.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PatternError {
    /// The text itself is too long.
    #[error(
        "the pattern is {bytes} bytes long, more than {bytes_max}: shorten it, or match part of what it lists"
    )]
    TextTooLong {
        /// Its length.
        bytes: usize,
        /// The most accepted.
        bytes_max: usize,
    },
    /// It compiles to more than one search may cost.
    #[error(
        "the pattern compiles to more than {} KiB: lower the counts of its repetitions such as {{1000}}, or write [0-9A-Za-z_] for \\w and [0-9] for \\d",
        bytes_max / 1024
    )]
    CompiledTooBig {
        /// The most accepted.
        bytes_max: usize,
    },
    /// Counted repetitions around each other multiply to too many.
    #[error(
        "the repetitions in the pattern multiply to {times}, more than {times_max}: lower their counts"
    )]
    RepeatedTooOften {
        /// What they multiply to.
        times: u64,
        /// The most accepted.
        times_max: u64,
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
    #[error("{message}")]
    Unsupported {
        /// What is not supported and what to do.
        message: Box<str>,
    },
}

impl PatternError {
    /// The error of a pattern that the linear engine refused and the look-around engine refused with `refusal`.
    pub(super) fn syntax(text: &str, refusal: fancy_regex::Error) -> Self {
        let _ = text;
        Self::Unsupported {
            message: refusal.to_string().into(),
        }
    }
}
