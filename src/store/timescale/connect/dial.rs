//! Dialling: each host and address of a URL, the settings that every session begins with, and whether they arrived.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::config::{Host, SslMode as PgSslMode};
use tokio_postgres::{AsyncMessage, Client, Config, Error as PgError, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Driver;
use crate::domain::Secret;
use crate::net::host;
use crate::store::timescale::tls;
use crate::store::timescale::url::{self, SslMode, UrlError};

/// What every session begins with, as options of its start, so that no reset undoes it. The server frees what a dead or
/// stuck agent holds within 15 s: its statements, open transactions and sockets. Of a silent peer the kernel gives up at
/// the first keepalive probe that is due later than tcp_user_timeout: they are due after 5, 8, 11, 14 and 17 s. The last
/// one says that they arrived.
const SESSION_OPTIONS: &str = "-c statement_timeout=15s -c idle_in_transaction_session_timeout=15s \
    -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3 -c tcp_user_timeout=12s \
    -c client_connection_check_interval=5s -c timezone=UTC -c client_min_messages=warning -c watcher.direct=1";
const DIRECT_SQL: &str = include_str!("direct.sql");
/// For one address, unless the URL says `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The next address is tried beside one that has been silent for so long: a dead primary must not hold up its standby.
const STAGGER: Duration = Duration::from_secs(1);

/// A URL, ready to be dialled.
pub(super) struct Target {
    url: Secret,
    config: Config,
    tls: Option<MakeRustlsConnect>,
    pub(super) host: String,
    timeout: Duration,
}

impl Target {
    pub(super) fn from_url(url: &Secret) -> Result<Self, UrlError> {
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
            url: url.clone(),
            host: hosts.collect::<Vec<_>>().join(","),
            config,
            tls,
            timeout,
        })
    }

    pub(super) fn is_of(&self, url: &Secret) -> bool {
        self.url == *url
    }

    pub(super) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    pub(super) fn name(&self) -> &str {
        self.config.get_dbname().unwrap_or_else(|| self.user())
    }

    /// The time for one address, for each host and once more for a second address.
    pub(super) fn deadline(&self) -> Duration {
        self.timeout * (self.config.get_hosts().len() as u32 + 1)
    }

    /// Tries each host and address in turn, and beside one that is silent. The error is that of the last, unless one
    /// refused the credentials: that is more than not being the primary. `pooled` is set once that is known.
    pub(super) async fn dial(
        &self,
        notify: Option<Arc<Notify>>,
        pooled: &AtomicBool,
    ) -> Result<(Client, JoinHandle<()>), PgError> {
        let mut waiting = self.candidates().await.into_iter();
        let mut under_way = FuturesUnordered::new();
        let mut failure: Option<PgError> = None;
        loop {
            if let Some(candidate) = waiting.next() {
                let notify = notify.clone();
                under_way.push(async move {
                    timeout(self.timeout, self.connect_to(candidate, notify, pooled)).await
                });
            }
            tokio::select! {
                Some(attempt) = under_way.next(), if !under_way.is_empty() => match attempt {
                    Ok(Ok(connected)) => return Ok(connected),
                    Ok(Err(error)) => {
                        let refused = |error: &PgError| super::trouble(error) == super::Trouble::Credentials;
                        if !failure.as_ref().is_some_and(refused) {
                            failure = Some(error);
                        }
                    }
                    Err(_) => {}
                },
                () = sleep(STAGGER), if waiting.len() > 0 => {}
                else => break,
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
            .tcp_user_timeout(Duration::from_secs(12))
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(3))
            .keepalives_retries(3);
        config
    }

    /// A connection whose session begins as ours do; behind a pooler, which takes no such options or hands them to
    /// nobody, one without.
    async fn connect_to(
        &self,
        config: Config,
        notify: Option<Arc<Notify>>,
        pooled: &AtomicBool,
    ) -> Result<(Client, JoinHandle<()>), PgError> {
        if pooled.load(Ordering::Relaxed) {
            return self.shake_hands(&config, notify).await;
        }
        let mut with_options = config.clone();
        // Ours first: what the URL says goes before.
        let theirs = config.get_options().unwrap_or_default();
        with_options.options(format!("{SESSION_OPTIONS} {theirs}"));
        match self.shake_hands(&with_options, notify.clone()).await {
            Ok((client, driver)) => {
                let driver = Driver(Some(driver));
                let row = client.query_one(DIRECT_SQL, &[]).await?;
                if !row.try_get::<_, bool>(0)? {
                    learn(pooled);
                }
                Ok((client, driver.hand_over()))
            }
            Err(error) if refuses_options(&error) => {
                let connected = self.shake_hands(&config, notify).await?;
                learn(pooled);
                Ok(connected)
            }
            Err(error) => Err(error),
        }
    }

    async fn shake_hands(
        &self,
        config: &Config,
        notify: Option<Arc<Notify>>,
    ) -> Result<(Client, JoinHandle<()>), PgError> {
        match &self.tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                Ok((client, tokio::spawn(drive(connection, notify))))
            }
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                Ok((client, tokio::spawn(drive(connection, notify))))
            }
        }
    }
}

fn learn(pooled: &AtomicBool) {
    if !pooled.swap(true, Ordering::Relaxed) {
        tracing::info!(
            "a pooler stands before the database: limits are set per transaction, and changes of endpoints are found by polling"
        );
    }
}

/// PgBouncer: "unsupported startup parameter in options: …".
fn refuses_options(error: &PgError) -> bool {
    error
        .as_db_error()
        .is_some_and(|said| said.message().contains("unsupported startup parameter"))
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
