//! Where an endpoint's secrets are: a reference in the table, its value only in the agent that needs it.

use std::fmt;

use super::values::shortened;
use crate::domain::Secret;

/// A `secret_ref`: `env:NAME` or `file:/path`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SecretRef {
    /// An environment variable of the agent.
    Env(String),
    /// A file on the agent's machine, by its absolute path.
    File(String),
}

/// What references point at. Tests bring their own.
pub trait SecretSource {
    /// The value of `reference`; `Ok(None)` where values are not looked at. The message says what is missing and how to
    /// put it right.
    fn read(&self, reference: &SecretRef) -> Result<Option<Secret>, String>;
}

/// The environment and the files of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessSecrets;

/// Looks at nothing: for a check that must pass on a machine that has none of the secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unread;

/// A key, a token or a chain of certificates is smaller.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl SecretRef {
    /// Reads `env:NAME` or `file:/path`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let fix = "write env:NAME or file:/path";
        match text.split_once(':') {
            Some(("env", name)) if is_variable_name(name) => match own_variable(name) {
                true => Err(format!(
                    "env:{name} is the agent's own and is not given to endpoints; use a variable made for this"
                )),
                false => Ok(Self::Env(name.to_owned())),
            },
            Some(("env", _)) => Err(format!("names no environment variable; {fix}")),
            Some(("file", path)) if path.starts_with('/') && !path.ends_with('/') => {
                Ok(Self::File(path.to_owned()))
            }
            Some(("file", _)) => Err("names no absolute path; write file:/path".to_owned()),
            // Not shown: it may be the secret itself.
            _ => Err(format!("is not a reference to a secret; {fix}")),
        }
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// An endpoint's owner could otherwise have the agent send its database password to a URL of theirs.
fn own_variable(name: &str) -> bool {
    ["DATABASE_URL", "WATCHER_", "PGPASS"]
        .iter()
        .any(|own| name.starts_with(own))
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{path}"),
        }
    }
}

impl SecretSource for ProcessSecrets {
    fn read(&self, reference: &SecretRef) -> Result<Option<Secret>, String> {
        let text = match reference {
            SecretRef::Env(name) => std::env::var(name)
                .ok()
                .filter(|value| !value.is_empty())
                .ok_or_else(|| {
                    format!("{reference} is not set; set the variable where the agent runs")
                })?,
            SecretRef::File(path) => read_file(path).map_err(|why| {
                let shown = shortened(path);
                format!("file:{shown} cannot be read: {why}; put it where the agent runs")
            })?,
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(format!("{reference} is empty; put the secret there"));
        }
        Ok(Some(Secret::new(text)))
    }
}

fn read_file(path: &str) -> Result<String, String> {
    if is_own_file(path)? {
        return Err("the agent's own, which is not given to endpoints".to_owned());
    }
    let about = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("not a file".to_owned());
    }
    if about.len() > FILE_BYTES_MAX {
        return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Whether `path`, links followed, is where this process has a secret of its own: a file that one of its variables
/// names, or the system's account of processes, whose environments hold the rest.
fn is_own_file(path: &str) -> Result<bool, String> {
    let real = std::fs::canonicalize(path).map_err(|error| error.to_string())?;
    if real.starts_with("/proc") {
        return Ok(true);
    }
    let names_secret =
        |name: &str| name == "PGPASSFILE" || (own_variable(name) && name.ends_with("_FILE"));
    let mut own = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(names_secret));
    Ok(own.any(|(_, value)| std::fs::canonicalize(value).is_ok_and(|own| own == real)))
}

impl SecretSource for Unread {
    fn read(&self, _: &SecretRef) -> Result<Option<Secret>, String> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_secrets_are_not_given_to_endpoints() {
        for text in [
            "env:DATABASE_URL",
            "env:DATABASE_URL_FILE",
            "env:WATCHER_ANY",
            "env:PGPASSWORD",
        ] {
            assert!(SecretRef::parse(text).is_err(), "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/proc/self/environ", &link).unwrap();
        for path in [
            "/proc/self/environ",
            "/proc/../proc/self/cmdline",
            "/dev/../proc/self/environ",
            link.to_str().unwrap(),
        ] {
            let refused = ProcessSecrets.read(&SecretRef::File(path.to_owned()));
            let message = refused.expect_err(path);
            assert!(message.contains("the agent's own"), "{path}: {message}");
        }
        let file = folder.path().join("token");
        std::fs::write(&file, "t\n").unwrap();
        let read = ProcessSecrets.read(&SecretRef::File(file.to_str().unwrap().to_owned()));
        assert_eq!(read.unwrap().unwrap().expose(), "t");
    }
}
