//! TimescaleDB: connections, migrations, the catalog, sessions, and the writing of samples.
//!
//! A keeper's connection ([`SampleWriter`]) and the one that listens ([`ChangeListener`]) are their own; everything
//! else goes through the small pool of [`Timescale`]. Every wait on the database has a deadline, and a connection
//! whose state is in doubt is dropped. SQL lies in the `.sql` files beside the Rust that runs it.

mod audit;
mod catalog;
mod clock;
mod compare;
mod connect;
mod copy;
pub mod endpoints;
mod listen;
mod migrate;
mod plan;
mod problems;
mod refused;
mod removals;
mod retention;
mod server;
mod sessions;
mod sqlstate;
mod tls;
mod url;
mod usage;
mod wait;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Client, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime,
};

use crate::domain::Secret;

pub use audit::{Audit, AuditWindow, EndpointAudit};
pub use catalog::{Changes, Cursor};
pub use clock::ClockOffset;
pub use compare::{ArmRows, CompareQuery, Compared};
pub use connect::{ConnectError, Connection, Database};
pub use copy::{Encoded, RowEncoder};
pub use listen::ChangeListener;
pub use migrate::{MigrateError, MigrateStep, Migrated, SchemaState, migrate, schema_state};
pub use plan::LocationLoad;
pub use problems::EndpointProblem;
pub use refused::RefusedFile;
pub use server::ServerId;
pub use sessions::{Gap, SessionId};
pub use sqlstate::{Class, classify};
pub use url::UrlError;
pub use usage::Usage;
pub use wait::{WaitError, wait_until_ready};
pub use writer::{SampleWriter, WRITE_DEADLINE};

/// Connections of a pool. Catalog, heartbeat and health each hold one for milliseconds; the fourth is for the rare
/// full load beside them.
const POOL_CONNECTIONS: usize = 4;
/// How long an ordinary statement may take, waiting for a connection included. Above the server's own
/// `statement_timeout`, whose error says more.
const DEADLINE: Duration = Duration::from_secs(20);

/// What went wrong with a statement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No answer in time.
    #[error("{doing}: no answer from the database within {} s", after.as_secs())]
    Deadline {
        /// What was being done.
        doing: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The connection or the statement failed.
    #[error("{doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A column holds what it should not.
    #[error("{doing}: the database answered with an unexpected value")]
    Value {
        /// What was being done.
        doing: &'static str,
    },
}

impl Error {
    /// Whether a privilege is missing: `GRANT watcher_agent TO …`, or the admin's URL, is the fix.
    pub fn is_missing_privilege(&self) -> bool {
        self.sqlstate() == Some("42501")
    }

    /// Whether a table or column is missing: `watcher migrate` is the fix.
    pub fn is_missing_schema(&self) -> bool {
        matches!(self.sqlstate(), Some("42P01" | "42703" | "42883"))
    }

    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Query { source, .. } => source.code().map(tokio_postgres::error::SqlState::code),
            _ => None,
        }
    }
}

/// A database by its pool. Cheap to clone; connects when first used, and again whenever it must.
#[derive(Clone)]
pub struct Timescale {
    database: Arc<Database>,
    pool: Pool,
}

impl Timescale {
    /// The database that a URL names. Nothing is connected yet; only the URL can be wrong.
    pub fn open(url: &Secret) -> Result<Self, UrlError> {
        Ok(Self::of(Arc::new(Database::from_url(url)?)))
    }

    /// Likewise; `origin` is asked for the URL again when the database refuses its credentials.
    pub fn open_rereading(
        url: &Secret,
        origin: impl Fn() -> Result<Secret, String> + Send + Sync + 'static,
    ) -> Result<Self, UrlError> {
        Ok(Self::of(Arc::new(
            Database::from_url(url)?.rereading(origin),
        )))
    }

    /// A pool of connections to `database`.
    pub fn of(database: Arc<Database>) -> Self {
        let manager = Manager::from_connect(
            tokio_postgres::Config::new(),
            connect::PoolConnector(database.clone()),
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(POOL_CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(DEADLINE))
            .create_timeout(Some(database.connect_deadline()))
            .recycle_timeout(Some(DEADLINE))
            .build()
            .expect("a pool with a runtime has all it needs");
        Self { database, pool }
    }

    /// Where the database is, for connections beside the pool.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// Runs `work` on a connection of the pool within [`DEADLINE`].
    async fn run<T>(
        &self,
        doing: &'static str,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        self.run_within(DEADLINE, doing, work).await
    }

    /// Runs `work` on a connection of the pool. Anything but success drops the connection: whatever state it was left
    /// in is nobody's concern then.
    async fn run_within<T>(
        &self,
        after: Duration,
        doing: &'static str,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        // Held in a guard, so that a caller who gives up in the middle also drops the connection.
        let mut guard = Discard(Some(self.client().await?));
        let client = guard.0.as_mut().expect("just put there");
        let result = match tokio::time::timeout(after, work(client)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(Error::Query { doing, source }),
            Err(_) => Err(Error::Deadline { doing, after }),
        };
        if result.is_ok() {
            drop(guard.0.take());
        }
        result
    }

    async fn client(&self) -> Result<Client, ConnectError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(source) => self.database.connect_error(source),
            _ => self.database.connect_timeout(),
        })
    }
}

/// Drops a pooled connection instead of giving it back, unless it was taken out.
struct Discard(Option<Client>);

impl Drop for Discard {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Client::take(client));
        }
    }
}
