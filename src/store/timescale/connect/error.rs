//! Why there is no connection, and how that is told from what went wrong.

use std::time::Duration;

use tokio_postgres::Error as PgError;

/// Why there is no connection. One line, naming the host and the fix, never the password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers.
    #[error(
        "cannot reach the database at {host}; is it running, and are host and port in the URL right?"
    )]
    Unreachable {
        /// The host or hosts, with ports.
        host: String,
        /// The cause.
        #[source]
        source: PgError,
    },
    /// Nobody answers in time.
    #[error("no answer from the database at {host} within {} s; is there a firewall, or is it overloaded?", after.as_secs())]
    Timeout {
        /// The host or hosts, with ports.
        host: String,
        /// The deadline.
        after: Duration,
    },
    /// Starting up, shutting down, or out of connections.
    #[error("the database at {host} takes no connections now")]
    Busy {
        /// The host or hosts, with ports.
        host: String,
        /// The cause.
        #[source]
        source: PgError,
    },
    /// User or password are wrong.
    #[error(
        "the database at {host} refuses user {user}; check user and password in the URL, and pg_hba.conf"
    )]
    Credentials {
        /// The host or hosts, with ports.
        host: String,
        /// Who.
        user: String,
        /// The cause.
        #[source]
        source: PgError,
    },
    /// There is no such database.
    #[error(
        "the server at {host} has no database {database}; create it, for example with: createdb {database}"
    )]
    UnknownDatabase {
        /// The host or hosts, with ports.
        host: String,
        /// Which.
        database: String,
        /// The cause.
        #[source]
        source: PgError,
    },
    /// TLS failed.
    #[error(
        "no TLS with the database at {host}; check sslmode and sslrootcert in the URL, and the server's certificate"
    )]
    Tls {
        /// The host or hosts, with ports.
        host: String,
        /// The cause.
        #[source]
        source: PgError,
    },
    /// Anything else.
    #[error("cannot use the database at {host}")]
    Other {
        /// The host or hosts, with ports.
        host: String,
        /// The cause.
        #[source]
        source: PgError,
    },
}

/// What a failure to connect is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store::timescale) enum Trouble {
    Unreachable,
    Busy,
    Credentials,
    UnknownDatabase,
    Tls,
    Other,
}

/// What `error` is about. tokio-postgres keeps the kind of its own errors to itself, so their words have to do.
pub(in crate::store::timescale) fn trouble(error: &PgError) -> Trouble {
    match error.code().map(tokio_postgres::error::SqlState::code) {
        Some("28P01" | "28000") => Trouble::Credentials,
        Some("3D000") => Trouble::UnknownDatabase,
        Some("57P01" | "57P02" | "57P03" | "53300") => Trouble::Busy,
        Some("08P01") if wrong_password_behind_a_pooler(error) => Trouble::Credentials,
        Some(_) => Trouble::Other,
        None => match own_words(error) {
            text if text.contains("TLS") => Trouble::Tls,
            text if text.contains("password missing") || text.contains("authentication") => {
                Trouble::Credentials
            }
            _ => Trouble::Unreachable,
        },
    }
}

/// PgBouncer answers with its own code when it is the one that refuses, or when the server refuses it.
fn wrong_password_behind_a_pooler(error: &PgError) -> bool {
    error.as_db_error().is_some_and(|said| {
        let text = said.message();
        text.contains("authentication failed") || text.contains("no such user")
    })
}

fn own_words(error: &PgError) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    format!("{error} {}", cause.unwrap_or_default())
}
