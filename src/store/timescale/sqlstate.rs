//! What a failed write means, by SQLSTATE. Closed: what is not listed holds the batch, so that nothing unknown drops it.

use tokio_postgres::Error;

use crate::store::WriteError;

/// What a keeper does about an error of the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A row is there already.
    Conflict,
    /// The connection is gone, or this server is the wrong one: reconnect, then the tolerant path.
    Lost,
    /// A row is not acceptable.
    Refused,
    /// Nothing can be written now.
    Hold,
}

/// The class of a SQLSTATE (five characters).
pub fn classify(sqlstate: &str) -> Class {
    match sqlstate {
        "23505" => Class::Conflict,
        // Not-null and check violations; data exceptions: a value that the column does not take, text that is not UTF-8.
        "23502" | "23514" => Class::Refused,
        state if state.starts_with("22") => Class::Refused,
        // Shut down, crashed, starting up, database dropped, idle session ended.
        state if state.starts_with("57P0") => Class::Lost,
        // Connection exceptions; transactions that the server rolled back, or whose end it does not know.
        state if state.starts_with("08") || state.starts_with("40") => Class::Lost,
        // A standby: the primary is elsewhere. And an open transaction that the server ended for being idle.
        "25006" | "25P03" => Class::Lost,
        _ => Class::Hold,
    }
}

/// The error of a write of `rows` samples.
pub(super) fn write_error(rows: usize, source: Error) -> WriteError {
    let class = match source.code() {
        Some(state) => classify(state.code()),
        // Not an answer of the server: the connection broke.
        None => Class::Lost,
    };
    let source = Box::new(source);
    match class {
        Class::Conflict => WriteError::Conflict,
        Class::Lost => WriteError::Lost { rows, source },
        Class::Refused => WriteError::Refused { rows, source },
        Class::Hold => WriteError::Hold { source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_class_and_unknown_ones_hold() {
        let table = [
            ("23505", Class::Conflict),
            ("23502", Class::Refused),
            ("23514", Class::Refused),
            ("22003", Class::Refused),
            ("22008", Class::Refused),
            ("22021", Class::Refused),
            ("22P02", Class::Refused),
            ("22P03", Class::Refused),
            ("08000", Class::Lost),
            ("08003", Class::Lost),
            ("08006", Class::Lost),
            ("08P01", Class::Lost),
            ("25006", Class::Lost),
            ("25P03", Class::Lost),
            ("40001", Class::Lost),
            ("40003", Class::Lost),
            ("40P01", Class::Lost),
            ("57P01", Class::Lost),
            ("57P02", Class::Lost),
            ("57P03", Class::Lost),
            ("57P05", Class::Lost),
            ("23503", Class::Hold),
            ("42501", Class::Hold),
            ("42P01", Class::Hold),
            ("42703", Class::Hold),
            ("53100", Class::Hold),
            ("53200", Class::Hold),
            ("53300", Class::Hold),
            ("55P03", Class::Hold),
            ("57014", Class::Hold),
            ("58030", Class::Hold),
            ("XX000", Class::Hold),
            ("XX001", Class::Hold),
            ("99999", Class::Hold),
            ("", Class::Hold),
        ];
        for (state, class) in table {
            assert_eq!(classify(state), class, "{state}");
        }
    }
}
