//! Exit codes, and which failure gets which.

use std::process::ExitCode;

use super::output::plain;
use crate::app::up::UpError;
use crate::config::Problem;
use crate::store::timescale::endpoints::EndpointsError;
use crate::store::timescale::{ConnectError, UrlError};

/// Done, and the answer is good.
pub const OK: u8 = 0;
/// A fault, or a negative answer.
pub const FAULT: u8 = 1;
/// Wrong usage or configuration: the same again fails again.
pub const USAGE: u8 = 64;
/// The database is not ready: the same again may succeed.
pub const NOT_READY: u8 = 75;

/// The exit code of a command that failed with `error`.
pub fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        let is_spool_folder = matches!(cause.downcast_ref(), Some(UpError::SpoolFolder { .. }));
        if cause.is::<Problem>() || cause.is::<UrlError>() || is_spool_folder {
            return USAGE;
        }
        if let Some(error) = cause.downcast_ref::<ConnectError>() {
            return match error {
                ConnectError::Credentials { .. } | ConnectError::UnknownDatabase { .. } => USAGE,
                _ => NOT_READY,
            };
        }
        if let Some(error) = cause.downcast_ref::<EndpointsError>()
            && error.is_missing_schema()
        {
            return NOT_READY;
        }
    }
    FAULT
}

/// Prints `error` with its causes as one line, `error: …: cause`, and gives its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let chain = format!("{error:#}").replace('\n', " ");
    eprintln!("error: {}", plain(&chain));
    ExitCode::from(code_of(error))
}
