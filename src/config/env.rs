//! Secrets of our own from the environment: `X`, or `X_FILE` naming a file that holds it.

use std::env::VarError;

use super::error::Problem;
use crate::domain::Secret;

/// The value of `name`, or the trimmed content of the file that `name_FILE` names. Both set, an unreadable file or
/// text that is not UTF-8 is a [`Problem`]; neither set is `None`. An empty variable counts as not set.
pub fn secret(name: &str) -> Result<Option<Secret>, Problem> {
    let file_name = format!("{name}_FILE");
    match (variable(name)?, variable(&file_name)?) {
        (Some(_), Some(_)) => Err(Problem::of(
            name,
            format!("{name} and {file_name} are both set; unset one of them"),
        )),
        (Some(value), None) => Ok(Some(Secret::new(value))),
        (None, Some(path)) => std::fs::read_to_string(&path)
            .map(|text| Some(Secret::new(text.trim_end_matches(['\r', '\n']))))
            .map_err(|error| Problem::of(file_name, format!("cannot read {path}: {error}"))),
        (None, None) => Ok(None),
    }
}

/// `DATABASE_URL`, which every command that reads or writes the store needs.
pub fn database_url() -> Result<Secret, Problem> {
    secret("DATABASE_URL")?.ok_or_else(|| {
        Problem::of(
            "DATABASE_URL",
            "is not set; set it (or DATABASE_URL_FILE) to postgres://user:password@host/database",
        )
    })
}

/// `WATCHER_ADMIN_DATABASE_URL` for migrations and retention, `DATABASE_URL` where it is not set.
pub fn admin_database_url() -> Result<Secret, Problem> {
    match secret("WATCHER_ADMIN_DATABASE_URL")? {
        Some(url) => Ok(url),
        None => database_url(),
    }
}

/// [`database_url`] as it is now, for whoever was refused with what it was: its file may have been rewritten.
pub fn database_url_again() -> Result<Secret, String> {
    database_url().map_err(|problem| problem.to_string())
}

/// [`admin_database_url`] as it is now.
pub fn admin_database_url_again() -> Result<Secret, String> {
    admin_database_url().map_err(|problem| problem.to_string())
}

fn variable(name: &str) -> Result<Option<String>, Problem> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Problem::of(name, "is not UTF-8")),
    }
}
