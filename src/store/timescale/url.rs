//! `DATABASE_URL`: what tokio-postgres understands, and what it does not (`verify-ca`, `verify-full`, `sslrootcert`).

use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::TargetSessionAttrs;

/// A URL that cannot be used. The text never holds the URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// Not a URL of PostgreSQL's.
    #[error(
        "the database URL does not start with postgres:// or postgresql://; write postgres://user:password@host/database"
    )]
    Scheme,
    /// Malformed, or with an unknown parameter.
    #[error(
        "the database URL cannot be read; percent-encode special characters of user and password"
    )]
    Malformed(#[source] tokio_postgres::Error),
    /// Several `@`: the password holds one as it is, and what stands behind that would be taken for a host, a database
    /// or a parameter, and shown.
    #[error(
        "the database URL holds more than one @; percent-encode those that do not end user and password, as %40"
    )]
    Unescaped,
    /// No host.
    #[error(
        "the database URL names no host; write postgres://user:password@host/database, or ?host=/directory for a unix socket"
    )]
    Host,
    /// No user, and none to be found.
    #[error(
        "the database URL names no user, and this process's user has no name here; write postgres://user@host/database or set PGUSER"
    )]
    User,
    /// An unknown `sslmode`.
    #[error("sslmode={0} is not one of disable, prefer, require, verify-ca, verify-full")]
    SslMode(String),
    /// A root certificate that cannot be read.
    #[error("cannot read the certificate authority of the database, sslrootcert={}", path.display())]
    RootCert {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system has no certificate authorities.
    #[error("set up TLS for the database")]
    Tls(#[source] rustls::Error),
}

/// How the server is to be verified: libpq's `sslmode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SslMode {
    /// No TLS.
    Disable,
    /// TLS where the server offers it; nothing is verified.
    Prefer,
    /// TLS; the chain is verified only when `sslrootcert` is given.
    Require,
    /// TLS; the chain is verified, the name is not.
    VerifyCa,
    /// TLS; chain and name are verified.
    VerifyFull,
}

/// A URL taken apart.
pub(super) struct Parsed {
    pub(super) config: Config,
    pub(super) ssl_mode: SslMode,
    /// `None`: the system's authorities.
    pub(super) root_cert: Option<PathBuf>,
}

pub(super) fn parse(url: &str) -> Result<Parsed, UrlError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(UrlError::Scheme);
    }
    if url.matches('@').count() > 1 {
        return Err(UrlError::Unescaped);
    }
    let mut ssl_mode = None;
    let mut root_cert = None;
    // As tokio-postgres does: whatever stands before the `@` is user and password, a `?` in it included.
    let hosts_at = url.find('@').unwrap_or(0);
    let query_at = url[hosts_at..].find('?').map(|at| hosts_at + at);
    let (base, query) = query_at.map_or((url, ""), |at| (&url[..at], &url[at + 1..]));
    let mut kept = Vec::new();
    for parameter in query.split('&').filter(|p| !p.is_empty()) {
        match parameter.split_once('=') {
            Some(("sslmode", value)) => ssl_mode = Some(value.to_owned()),
            Some(("sslrootcert", value)) => root_cert = Some(percent_decoded(value)),
            _ => kept.push(parameter),
        }
    }
    let rest = if kept.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", kept.join("&"))
    };
    let mut config: Config = rest.parse().map_err(UrlError::Malformed)?;
    if config.get_hosts().is_empty() {
        return Err(UrlError::Host);
    }
    if config.get_hosts().len() > 1 && !rest.contains("target_session_attrs") {
        // Several hosts are a primary and its standbys, of which only one can be written to.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if config.get_user().is_none() {
        config.user(user_name().ok_or(UrlError::User)?);
    }
    let ssl_mode = ssl_mode.or_else(|| variable("PGSSLMODE"));
    Ok(Parsed {
        config,
        ssl_mode: match ssl_mode.as_deref() {
            None | Some("prefer" | "allow") => SslMode::Prefer,
            Some("disable") => SslMode::Disable,
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            Some(other) => return Err(UrlError::SslMode(other.to_owned())),
        },
        root_cert: root_cert
            .or_else(|| variable("PGSSLROOTCERT"))
            .filter(|path| path != "system")
            .map(PathBuf::from),
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Who connects when the URL does not say. tokio-postgres would fail with "No such file or directory" where there is
/// no `/etc/passwd`, as in an image from scratch.
fn user_name() -> Option<String> {
    variable("PGUSER").or_else(|| {
        let uid = rustix::process::getuid().as_raw().to_string();
        let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| name.to_owned())
        })
    })
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::config::Host;

    #[test]
    fn sslmode_and_sslrootcert_are_taken_out_and_the_rest_is_kept() {
        let parsed = parse("postgres://u:p%40x@h:1/d?sslmode=verify-full&sslrootcert=%2Fca%20a.pem&connect_timeout=3").unwrap();
        assert_eq!(parsed.ssl_mode, SslMode::VerifyFull);
        assert_eq!(parsed.root_cert, Some(PathBuf::from("/ca a.pem")));
        assert_eq!(parsed.config.get_password(), Some(&b"p@x"[..]));
        assert_eq!(parsed.config.get_connect_timeout().unwrap().as_secs(), 3);
    }

    #[test]
    fn a_unix_socket_needs_no_user() {
        let parsed = parse("postgres:///watcher?host=/run/postgresql").unwrap();
        assert_eq!(
            parsed.config.get_hosts(),
            [Host::Unix("/run/postgresql".into())]
        );
        assert_eq!(parsed.config.get_dbname(), Some("watcher"));
        assert!(parsed.config.get_user().is_some());
    }

    #[test]
    fn a_password_may_hold_what_would_else_begin_a_path_or_a_query() {
        for password in ["p?x", "p?sslmode=x", "p/x", "p#x", "1/x"] {
            let parsed = parse(&format!("postgres://u:{password}@h/d?sslmode=disable")).unwrap();
            assert_eq!(parsed.config.get_password(), Some(password.as_bytes()));
            assert_eq!(parsed.ssl_mode, SslMode::Disable, "{password}");
            assert_eq!(parsed.config.get_dbname(), Some("d"), "{password}");
        }
    }

    #[test]
    fn of_several_hosts_the_writable_one_is_wanted_unless_said_otherwise() {
        let several = parse("postgres://u@a:1,b:2/d").unwrap().config;
        assert_eq!(several.get_ports(), [1, 2]);
        assert_eq!(
            several.get_target_session_attrs(),
            TargetSessionAttrs::ReadWrite
        );
        let any = parse("postgres://u@a,b/d?target_session_attrs=any")
            .unwrap()
            .config;
        assert_eq!(any.get_target_session_attrs(), TargetSessionAttrs::Any);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (url, words) in [
            ("mysql://u:hunter2@h/d", "does not start with"),
            ("postgres://u:hunter2@h/d?sslmode=strict", "sslmode=strict"),
            ("postgres://u:hunter2@h:port/d", "cannot be read"),
            ("postgres://u:hunter2@h/d?nonsense=1", "cannot be read"),
            ("postgres:///d", "names no host"),
            ("postgres://u:p@hunter2@h/d", "percent-encode"),
            ("postgres://u:p@s?hunter2=1@h/d", "percent-encode"),
            ("postgres://u:p@s/hunter2@h/d", "percent-encode"),
        ] {
            let error = parse(url).err().expect(url);
            let chain = format!(
                "{error} {:?}",
                std::error::Error::source(&error).map(ToString::to_string)
            );
            assert!(chain.contains(words), "{url}: {chain}");
            assert!(!chain.contains("hunter2"), "{chain}");
        }
    }
}
