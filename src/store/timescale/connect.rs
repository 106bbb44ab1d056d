//! One connection: where to, who as, and what its failure means. How it is dialled is in `dial`.
//!
//! The URL may change while we run: its file is read again when the server refuses the credentials.

mod dial;
mod error;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error as PgError};

use self::dial::Target;
pub use self::error::ConnectError;
use self::error::{Trouble, trouble};
use super::url::UrlError;
use crate::domain::Secret;

/// A database: where it is and how it is reached. Connects to nothing by itself.
pub struct Database {
    target: RwLock<Arc<Target>>,
    /// Where the URL came from, to be asked again.
    origin: Option<Origin>,
    /// A pooler stands before the server. Learned with the first connection.
    pooled: AtomicBool,
}

type Origin = Box<dyn Fn() -> Result<Secret, String> + Send + Sync>;

impl Database {
    /// The database that a URL names: `postgres://user:password@host,host/database`, `postgres:///database?host=/dir`
    /// for a unix socket; `sslmode=disable|prefer|require|verify-ca|verify-full`, `sslrootcert`, `target_session_attrs`.
    pub fn from_url(url: &Secret) -> Result<Self, UrlError> {
        Ok(Self {
            target: RwLock::new(Arc::new(Target::from_url(url)?)),
            origin: None,
            pooled: AtomicBool::new(false),
        })
    }

    /// Asks `origin` for the URL again whenever the server refuses the credentials, or TLS fails: a file may have
    /// changed since it was read.
    pub fn rereading(
        mut self,
        origin: impl Fn() -> Result<Secret, String> + Send + Sync + 'static,
    ) -> Self {
        self.origin = Some(Box::new(origin));
        self
    }

    /// The host or hosts with their ports, for messages.
    pub fn host(&self) -> String {
        self.target().host.clone()
    }

    /// Who connects.
    pub fn user(&self) -> String {
        self.target().user().to_owned()
    }

    /// The database's name.
    pub fn name(&self) -> String {
        self.target().name().to_owned()
    }

    /// Whether a pooler stands before the server, as far as is known: before the first connection it is not. A session
    /// then is nobody's own: no LISTEN, no lock and no setting lasts beyond a transaction.
    pub fn is_pooled(&self) -> bool {
        self.pooled.load(Ordering::Relaxed)
    }

    /// A connection of one's own. Ends within the time for one address, for each host and once more.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        self.connect_waking(None).await
    }

    /// A connection that wakes `notify` for each notification, and once when it ends.
    pub(super) async fn connect_waking(
        &self,
        notify: Option<Arc<Notify>>,
    ) -> Result<Connection, ConnectError> {
        match tokio::time::timeout(self.connect_deadline(), self.dial(notify)).await {
            Ok(Ok((client, driver))) => Ok(Connection {
                client,
                driver: Driver(Some(driver)),
            }),
            Ok(Err(source)) => Err(self.connect_error(source)),
            Err(_) => Err(self.connect_timeout()),
        }
    }

    /// How long connecting may take in all.
    pub(super) fn connect_deadline(&self) -> Duration {
        self.target().deadline()
    }

    pub(super) fn connect_timeout(&self) -> ConnectError {
        ConnectError::Timeout {
            host: self.host(),
            after: self.connect_deadline(),
        }
    }

    /// What a failure to connect means.
    pub(super) fn connect_error(&self, source: PgError) -> ConnectError {
        let host = self.host();
        match trouble(&source) {
            Trouble::Unreachable => ConnectError::Unreachable { host, source },
            Trouble::Busy => ConnectError::Busy { host, source },
            Trouble::Credentials => ConnectError::Credentials {
                host,
                user: self.user(),
                source,
            },
            Trouble::UnknownDatabase => ConnectError::UnknownDatabase {
                host,
                database: self.name(),
                source,
            },
            Trouble::Tls => ConnectError::Tls { host, source },
            Trouble::Other => ConnectError::Other { host, source },
        }
    }

    /// Connects, once more where the URL turns out to have changed.
    async fn dial(&self, notify: Option<Arc<Notify>>) -> Result<(Client, JoinHandle<()>), PgError> {
        let target = self.target();
        match target.dial(notify.clone(), &self.pooled).await {
            Err(error) => match self.changed(&target, trouble(&error)) {
                Some(changed) => changed.dial(notify, &self.pooled).await,
                None => Err(error),
            },
            connected => connected,
        }
    }

    /// What the URL's origin says now, where that is something new and the trouble may come of it.
    fn changed(&self, tried: &Arc<Target>, trouble: Trouble) -> Option<Arc<Target>> {
        let origin = self.origin.as_ref()?;
        if !matches!(trouble, Trouble::Credentials | Trouble::Tls) {
            return None;
        }
        let current = self.target();
        if !Arc::ptr_eq(&current, tried) {
            // Another connection has seen to it.
            return Some(current);
        }
        let url = origin()
            .inspect_err(|cause| tracing::warn!(cause, "the database URL cannot be read again"))
            .ok()?;
        // The authority that a URL names is a file too.
        if tried.is_of(&url) && trouble != Trouble::Tls {
            return None;
        }
        match Target::from_url(&url) {
            Ok(target) => {
                let target = Arc::new(target);
                *self.target.write().unwrap_or_else(PoisonError::into_inner) = target.clone();
                tracing::info!("the database refused us; its URL was read again");
                Some(target)
            }
            Err(error) => {
                tracing::warn!(%error, "the database URL was read again and cannot be used; keeping the old one");
                None
            }
        }
    }

    fn target(&self) -> Arc<Target> {
        self.target
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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
        Box::pin(self.0.dial(None))
    }
}
