//! Why a probe ended without passing, in the sample's terms.

use std::error::Error;
use std::fmt::Write;
use std::io;

use super::body::DecodeError;
use super::http::Http1Error;
use crate::domain::{Failure, Reason, SkipReason};
use crate::net::connect::{ConnectCause, ConnectError};
use crate::net::resolve::ResolveError;
use crate::net::tls::HandshakeError;

/// Longest `detail`, in bytes.
const DETAIL_BYTES_MAX: usize = 200;

/// The end of a probe that did not pass.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) reason: Reason,
    pub(super) detail: Option<Box<str>>,
}

impl Stop {
    pub(super) fn failed(failure: Failure, detail: &str) -> Self {
        Self {
            reason: Reason::Failed(failure),
            detail: Some(plain(detail)),
        }
    }

    pub(super) fn skipped(skip: SkipReason, detail: &str) -> Self {
        Self {
            reason: Reason::Skipped(skip),
            detail: Some(plain(detail)),
        }
    }

    fn because(failure: Failure, error: &dyn Error) -> Self {
        Self::failed(failure, &chain(error))
    }

    pub(super) fn status(status: u16) -> Self {
        Self::failed(Failure::StatusMismatch, &format!("status {status}"))
    }

    pub(super) fn resolve(error: &ResolveError) -> Self {
        match error.cause() {
            Ok(failure) => Self::because(failure, error),
            Err(skip) => Self::skipped(skip, &chain(error)),
        }
    }

    pub(super) fn connect(error: &ConnectError) -> Self {
        match error.cause {
            ConnectCause::Target(failure) => Self::because(failure, error),
            ConnectCause::Agent(skip) => Self::skipped(skip, &chain(error)),
        }
    }

    pub(super) fn handshake(error: &HandshakeError) -> Self {
        match error {
            HandshakeError::Settings(settings) => {
                Self::skipped(SkipReason::AgentError, &chain(settings))
            }
            HandshakeError::Failed { failure, source } => Self::because(*failure, source),
        }
    }

    /// There is no answer, or no whole head of one. `tls` is what went wrong with TLS meanwhile, which then is the cause.
    pub(super) fn unanswered(error: &(dyn Error + 'static), tls: Option<Failure>) -> Self {
        Self::because(tls.unwrap_or_else(|| processing_failure(error)), error)
    }

    /// An error inside the body.
    pub(super) fn transfer(error: &(dyn Error + 'static)) -> Self {
        Self::because(Failure::TransferError, error)
    }

    pub(super) fn decode(error: &DecodeError) -> Self {
        Self::because(Failure::DecodeError, error)
    }
}

fn processing_failure(error: &(dyn Error + 'static)) -> Failure {
    match error.downcast_ref::<Http1Error>() {
        Some(Http1Error::Closed | Http1Error::Truncated) => return Failure::ProcessingClosed,
        Some(Http1Error::Head(_) | Http1Error::HeadTooLong | Http1Error::Chunk(_)) => {
            return Failure::ProcessingProtocol;
        }
        Some(Http1Error::Io(_)) | None => {}
    }
    for cause in causes(error) {
        let io = match cause.downcast_ref::<h2::Error>() {
            Some(h2) if h2.is_remote() => return Failure::ProcessingClosed,
            Some(h2) => h2.get_io(),
            None => cause.downcast_ref::<io::Error>(),
        };
        match io.map(io::Error::kind) {
            // The meter's: more than any head and what comes with it.
            Some(io::ErrorKind::QuotaExceeded) => return Failure::ProcessingProtocol,
            Some(_) => return Failure::ProcessingClosed,
            None => {}
        }
    }
    Failure::ProcessingProtocol
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}

/// An error and its causes, outermost first.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Wrappers that repeat what they wrap.
        if !text.ends_with(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// At most 200 bytes of `text`, without control characters: it ends up in tables, logs and terminals.
fn plain(text: &str) -> Box<str> {
    let mut out = String::with_capacity(text.len().min(DETAIL_BYTES_MAX));
    for c in text.chars() {
        let before = out.len();
        if c.is_control() {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
        if out.len() > DETAIL_BYTES_MAX {
            out.truncate(before);
            break;
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_short_and_plain() {
        assert_eq!(&*plain("a\u{1b}[31mb\nc\0"), "a\\u{1b}[31mb\\nc\\u{0}");
        assert_eq!(&*plain("grüße"), "grüße");
        for text in ["x".repeat(1_000), "ü".repeat(1_000), "\0".repeat(1_000)] {
            let detail = plain(&text);
            assert!(detail.len() <= DETAIL_BYTES_MAX && detail.len() > 190);
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_without_repetition() {
        let inner = io::Error::new(io::ErrorKind::ConnectionReset, "reset");
        let outer = io::Error::other(inner);
        assert_eq!(chain(&outer), "reset");
    }
}
