//! One connection: where to, how it is secured, and what its failure means.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode as PgSslMode};
use tokio_postgres::{AsyncMessage, Client, Config, Error as PgError, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls;
use super::url::{self, SslMode, UrlError};
use crate::domain::Secret;
use crate::net::host;

/// Run on every connection.
const SESSION_SQL: &str = include_str!("session.sql");
/// For one address, unless the URL says `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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

/// A database: where it is and how it is reached. Connects to nothing by itself.
pub struct Database {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    host: String,
    timeout: Duration,
}

impl Database {
    /// The database that a URL names: `postgres://user:password@host,host/database`, `postgres:///database?host=/dir`
    /// for a unix socket; `sslmode=disable|prefer|require|verify-ca|verify-full`, `sslrootcert`, `target_session_attrs`.
    pub fn from_url(url: &Secret) -> Result<Self, UrlError> {
        let parsed = url::parse(url.expose())?;
        let tls = tls::connector(parsed.ssl_mode, parsed.root_cert.as_deref())?;
        let mut config = parsed.config;
        config.ssl_mode(match parsed.ssl_mode {
            SslMode::Disable => PgSslMode::Disable,
            SslMode::Prefer => PgSslMode::Prefer,
            _ => PgSslMode::Require,
        });
        if config.get_application_name().is_none() {
            config.application_name(concat!("watcher/", env!("CARGO_PKG_VERSION")));
        }
        let timeout = config
            .get_connect_timeout()
            .copied()
            .unwrap_or(CONNECT_TIMEOUT);
        let hosts = config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(i, host)| match host {
                Host::Tcp(name) => format!("{name}:{}", port(&config, i)),
                Host::Unix(path) => path.display().to_string(),
            });
        Ok(Self {
            host: hosts.collect::<Vec<_>>().join(","),
            config,
            tls,
            timeout,
        })
    }

    /// The host or hosts with their ports, for messages.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Who connects.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        self.config.get_dbname().unwrap_or_else(|| self.user())
    }

    /// A connection of one's own. Ends within [`Self::connect_deadline`].
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        self.connect_waking(None).await
    }

    /// A connection that wakes `notify` for each notification, and once when it ends.
    pub(super) async fn connect_waking(
        &self,
        notify: Option<Arc<Notify>>,
    ) -> Result<Connection, ConnectError> {
        match tokio::time::timeout(self.connect_deadline(), self.first_of_all(notify)).await {
            Ok(Ok((client, driver))) => Ok(Connection {
                client,
                driver: Driver(Some(driver)),
            }),
            Ok(Err(source)) => Err(self.connect_error(source)),
            Err(_) => Err(self.connect_timeout()),
        }
    }

    /// How long connecting may take in all: the time for one address, for each host and once more for a second address.
    pub(super) fn connect_deadline(&self) -> Duration {
        self.timeout * (self.config.get_hosts().len() as u32 + 1)
    }

    pub(super) fn connect_timeout(&self) -> ConnectError {
        ConnectError::Timeout {
            host: self.host.clone(),
            after: self.connect_deadline(),
        }
    }

    /// What a failure to connect means.
    pub(super) fn connect_error(&self, source: PgError) -> ConnectError {
        let host = self.host.clone();
        match source.code().map(tokio_postgres::error::SqlState::code) {
            Some("28P01" | "28000") => ConnectError::Credentials {
                host,
                user: self.user().to_owned(),
                source,
            },
            Some("3D000") => ConnectError::UnknownDatabase {
                host,
                database: self.name().to_owned(),
                source,
            },
            Some("57P01" | "57P02" | "57P03" | "53300") => ConnectError::Busy { host, source },
            Some(_) => ConnectError::Other { host, source },
            // tokio-postgres keeps the kind of its own errors to itself, so their words have to do.
            None => match own_words(&source) {
                text if text.contains("TLS") => ConnectError::Tls { host, source },
                text if text.contains("password missing") || text.contains("authentication") => {
                    ConnectError::Credentials {
                        host,
                        user: self.user().to_owned(),
                        source,
                    }
                }
                _ => ConnectError::Unreachable { host, source },
            },
        }
    }

    /// Tries each host and address in turn; the error is that of the last.
    async fn first_of_all(
        &self,
        notify: Option<Arc<Notify>>,
    ) -> Result<(Client, JoinHandle<()>), PgError> {
        let mut failure = None;
        for candidate in self.candidates().await {
            let attempt = self.connect_to(&candidate, notify.clone());
            match tokio::time::timeout(self.timeout, attempt).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => failure = Some(error),
                Err(_) => {}
            }
        }
        match failure {
            Some(error) => Err(error),
            // Every address was silent: the caller's deadline says so.
            None => std::future::pending().await,
        }
    }

    /// One configuration per host and address. A name that does not resolve stays as it is, so that connecting fails
    /// with the system's own error.
    async fn candidates(&self) -> Vec<Config> {
        let mut candidates = Vec::new();
        for (i, host) in self.config.get_hosts().iter().enumerate() {
            let mut config = self.hostless();
            config.port(port(&self.config, i));
            match host {
                Host::Unix(path) => {
                    config.host_path(path);
                    candidates.push(config);
                }
                Host::Tcp(name) => {
                    config.host(name);
                    match (
                        self.config.get_hostaddrs().get(i),
                        host::addresses(name).await,
                    ) {
                        (Some(&address), _) => {
                            config.hostaddr(address);
                            candidates.push(config);
                        }
                        (None, Ok(addresses)) => {
                            candidates.extend(addresses.into_iter().map(|address| {
                                let mut config = config.clone();
                                config.hostaddr(address);
                                config
                            }))
                        }
                        (None, Err(_)) => candidates.push(config),
                    }
                }
            }
        }
        candidates
    }

    /// The configuration without its hosts, which cannot be taken out of one.
    fn hostless(&self) -> Config {
        let mut config = Config::new();
        config.user(self.user()).dbname(self.name());
        if let Some(password) = self.config.get_password() {
            config.password(password);
        }
        if let Some(options) = self.config.get_options() {
            config.options(options);
        }
        if let Some(name) = self.config.get_application_name() {
            config.application_name(name);
        }
        config
            .ssl_mode(self.config.get_ssl_mode())
            .ssl_negotiation(self.config.get_ssl_negotiation())
            .channel_binding(self.config.get_channel_binding())
            .target_session_attrs(self.config.get_target_session_attrs())
            .connect_timeout(self.timeout)
            .tcp_user_timeout(Duration::from_secs(15))
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(3))
            .keepalives_retries(3);
        config
    }

    async fn connect_to(
        &self,
        config: &Config,
        notify: Option<Arc<Notify>>,
    ) -> Result<(Client, JoinHandle<()>), PgError> {
        let (client, driver) = match &self.tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                (client, tokio::spawn(drive(connection, notify)))
            }
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                (client, tokio::spawn(drive(connection, notify)))
            }
        };
        let driver = Driver(Some(driver));
        client.batch_execute(SESSION_SQL).await?;
        Ok((client, driver.hand_over()))
    }
}

fn own_words(error: &PgError) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    format!("{error} {}", cause.unwrap_or_default())
}

fn port(config: &Config, i: usize) -> u16 {
    let ports = config.get_ports();
    *ports.get(i).or(ports.first()).unwrap_or(&5432)
}

/// Does the connection's reading and writing until it ends.
async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, notify: Option<Arc<Notify>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        match (message, &notify) {
            (AsyncMessage::Notification(_), Some(notify)) => notify.notify_one(),
            (AsyncMessage::Notice(notice), _) => {
                tracing::debug!(message = notice.message(), "notice from the database");
            }
            _ => {}
        }
    }
    if let Some(notify) = notify {
        notify.notify_one();
    }
}

/// A connection with the task that drives it. Dropped, it is cut off: for the server that is a client that went away.
pub struct Connection {
    /// Statements go here.
    pub client: Client,
    driver: Driver,
}

impl Connection {
    /// Says goodbye, and waits until that is sent.
    pub async fn close(self) {
        drop(self.client);
        let _ = tokio::time::timeout(Duration::from_secs(1), self.driver.hand_over()).await;
    }
}

/// Owns the task of a connection: ends with its owner.
struct Driver(Option<JoinHandle<()>>);

impl Driver {
    /// Hands the task to another owner.
    fn hand_over(mut self) -> JoinHandle<()> {
        self.0.take().expect("taken only here, where self ends")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Lets the pool make its connections as all others are made.
pub(super) struct PoolConnector(pub(super) Arc<Database>);

type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), PgError>> + Send + 'a>>;

impl deadpool_postgres::Connect for PoolConnector {
    fn connect(&self, _: &Config) -> Connecting<'_> {
        Box::pin(self.0.first_of_all(None))
    }
}
