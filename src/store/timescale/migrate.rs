//! The schema: `migrations/`, embedded, applied by refinery under an advisory lock.
//!
//! refinery takes no lock of its own and runs each migration in a transaction; so what several processes must not do at
//! once happens on one dedicated connection that holds a session-level lock, which the server frees if we die.

use std::time::Duration;

use refinery::Target;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Error as PgError};

use super::connect::{ConnectError, Database};
use super::sqlstate::{Class, classify};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// How long another process's migration is waited for.
const LOCK_DEADLINE: Duration = Duration::from_secs(600);
const LOCK_PAUSE: Duration = Duration::from_millis(200);
/// How long a statement around the migrations may take: creating the extension takes seconds.
const QUERY_DEADLINE: Duration = Duration::from_secs(60);
/// How long one migration may take: none rewrites `metrics`, but an index over it may be built.
const MIGRATION_DEADLINE: Duration = Duration::from_secs(3_600);

/// Why the schema is not as this binary needs it. Each names the fix.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server has no TimescaleDB.
    #[error(
        "the server at {host} has no TimescaleDB: install it (for example the package postgresql-17-timescaledb, or the image timescale/timescaledb) and set shared_preload_libraries = 'timescaledb'"
    )]
    NoTimescale {
        /// The host.
        host: String,
    },
    /// TimescaleDB is installed but not loaded.
    #[error(
        "TimescaleDB is installed at {host} but not loaded: set shared_preload_libraries = 'timescaledb' and restart the server"
    )]
    NotPreloaded {
        /// The host.
        host: String,
        /// The cause.
        #[source]
        source: PgError,
    },
    /// The extension is missing and this role may not create it.
    #[error(
        "user {user} may not create the extension in database {database}: as a superuser, run there: CREATE EXTENSION timescaledb"
    )]
    MayNotCreateExtension {
        /// Who.
        user: String,
        /// Where.
        database: String,
        /// The cause.
        #[source]
        source: PgError,
    },
    /// This role may not change the schema.
    #[error(
        "user {user} may not change the schema of database {database}: set WATCHER_ADMIN_DATABASE_URL to its owner's, or run watcher migrate as the owner"
    )]
    MayNotMigrate {
        /// Who.
        user: String,
        /// Where.
        database: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The schema was made by a newer release.
    #[error(
        "the schema is at version {found}, this release knows {known}: use the newer release (going back is not supported)"
    )]
    Newer {
        /// Of the database.
        found: i32,
        /// Of this binary.
        known: i32,
    },
    /// Another process holds the lock for too long.
    #[error("another process has been migrating for {} s; look for its session in pg_stat_activity", after.as_secs())]
    Locked {
        /// How long was waited.
        after: Duration,
    },
    /// A migration failed; it was rolled back.
    #[error("migration {version} failed and was rolled back")]
    Migration {
        /// Which.
        version: String,
        /// The cause.
        #[source]
        source: refinery::Error,
    },
    /// The URL leads to a pooler, where no lock outlives a transaction.
    #[error(
        "a pooler stands before the database at {host}, and migrations take a lock that it does not keep: set WATCHER_ADMIN_DATABASE_URL to the server itself"
    )]
    Pooled {
        /// The host.
        host: String,
    },
    /// No answer in time.
    #[error("{doing}: no answer from the database within {} s", after.as_secs())]
    Silence {
        /// What was being done.
        doing: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// A statement around the migrations failed.
    #[error("{doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: PgError,
    },
}

impl MigrateError {
    /// Whether trying again may help without anybody's doing: the connection was lost, or others are at it.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Locked { .. } | Self::Silence { .. } => true,
            Self::Query { source, .. } => is_transient(source),
            // refinery's own errors (a migration that was edited) are for a person.
            Self::Migration { source, .. } => database_error(source).is_some_and(is_transient),
            _ => false,
        }
    }
}

/// The connection broke (no answer of the server), or the server is going down, coming up or not writable.
fn is_transient(error: &PgError) -> bool {
    error
        .code()
        .is_none_or(|state| classify(state.code()) == Class::Lost)
}

/// The database's error behind one of refinery's.
fn database_error(error: &refinery::Error) -> Option<&PgError> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

/// What is going on, for the terminal or the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MigrateStep {
    /// Another process is migrating.
    Waiting,
    /// A migration begins.
    Applying {
        /// Its number and name.
        name: String,
    },
}

/// What [`migrate`] did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Migrated {
    /// The migrations applied, in order; empty when the schema was current.
    pub applied: Vec<String>,
    /// The schema's version now.
    pub version: i32,
    /// `timescaledb.license`: `apache`, or `timescale` for Community.
    pub edition: String,
    /// What could not be done and does not stop anything, in sentences.
    pub notices: Vec<String>,
}

/// The database's schema beside the one that this binary knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SchemaState {
    /// Of the database; `None` when it has none.
    pub found: Option<i32>,
    /// Of this binary.
    pub known: i32,
}

impl SchemaState {
    /// Whether this binary and the schema go together.
    pub fn is_current(self) -> bool {
        self.found == Some(self.known)
    }
}

/// Looks at the schema's version, changing nothing. Any role of ours may ask.
pub async fn schema_state(database: &Database) -> Result<SchemaState, MigrateError> {
    let connection = database.connect().await?;
    let found = found_version(&connection.client).await?;
    connection.close().await;
    Ok(SchemaState {
        found,
        known: known_version(),
    })
}

/// Brings the schema to this binary's version, and roles and policies in line. Does nothing twice; several at once wait
/// for one another. A role that may not migrate is fine where there is nothing to migrate.
pub async fn migrate(
    database: &Database,
    progress: &mut dyn FnMut(MigrateStep),
) -> Result<Migrated, MigrateError> {
    let mut connection = database.connect().await?;
    let client = &mut connection.client;
    let known = known_version();
    let found = found_version(client).await?;
    refuse_newer(found, known)?;
    let left_alone = if found != Some(known) {
        None
    } else if database.is_pooled() {
        Some("a pooler stands before the database".to_owned())
    } else if !owns_schema(client).await? {
        Some(format!("user {} does not own the schema", database.user()))
    } else {
        None
    };
    if let Some(why) = left_alone {
        let notice = format!("{why}; roles and policies are left as they are");
        let edition = edition(client).await?;
        connection.close().await;
        return Ok(Migrated {
            version: known,
            edition,
            notices: vec![notice],
            ..Migrated::default()
        });
    }
    if database.is_pooled() {
        return Err(MigrateError::Pooled {
            host: database.host(),
        });
    }
    query(
        "lift the limits for a migration",
        client.batch_execute(include_str!("migrate_session.sql")),
    )
    .await?;
    ensure_extension(database, client).await?;
    lock(client, progress).await?;
    refuse_newer(found_version(client).await?, known)?;
    let applied = apply(database, client, progress).await?;
    query(
        "set up roles and policies",
        client.batch_execute(include_str!("settle.sql")),
    )
    .await?;
    let migrated = Migrated {
        applied,
        version: known,
        edition: edition(client).await?,
        notices: missing_roles(client).await?,
    };
    // Closing the session frees the lock.
    connection.close().await;
    Ok(migrated)
}

async fn query<T>(
    doing: &'static str,
    work: impl Future<Output = Result<T, PgError>>,
) -> Result<T, MigrateError> {
    match tokio::time::timeout(QUERY_DEADLINE, work).await {
        Ok(done) => done.map_err(|source| MigrateError::Query { doing, source }),
        Err(_) => Err(MigrateError::Silence {
            doing,
            after: QUERY_DEADLINE,
        }),
    }
}

/// The highest version among the embedded migrations.
fn known_version() -> i32 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max()
        .unwrap_or(0)
}

fn refuse_newer(found: Option<i32>, known: i32) -> Result<(), MigrateError> {
    match found {
        Some(found) if found > known => Err(MigrateError::Newer { found, known }),
        _ => Ok(()),
    }
}

/// From the view that every role may read; from refinery's table where the view is not there yet.
async fn found_version(client: &Client) -> Result<Option<i32>, MigrateError> {
    let doing = "read the schema's version";
    let row = query(
        doing,
        client.query_one(include_str!("migrate_tables.sql"), &[]),
    )
    .await?;
    let value = |i| query(doing, std::future::ready(row.try_get::<_, bool>(i)));
    let sql = match (value(0).await?, value(1).await?) {
        (true, _) => include_str!("migrate_version_view.sql"),
        (false, true) => include_str!("migrate_version_table.sql"),
        (false, false) => return Ok(None),
    };
    let row = query(doing, client.query_one(sql, &[])).await?;
    query(doing, std::future::ready(row.try_get(0))).await
}

async fn owns_schema(client: &Client) -> Result<bool, MigrateError> {
    let doing = "look whose the schema is";
    let row = query(
        doing,
        client.query_one(include_str!("migrate_owner.sql"), &[]),
    )
    .await?;
    query(doing, std::future::ready(row.try_get(0))).await
}

async fn edition(client: &Client) -> Result<String, MigrateError> {
    let doing = "read TimescaleDB's edition";
    let row = query(
        doing,
        client.query_one(include_str!("migrate_edition.sql"), &[]),
    )
    .await?;
    query(doing, std::future::ready(row.try_get(0))).await
}

async fn ensure_extension(database: &Database, client: &Client) -> Result<(), MigrateError> {
    let doing = "look for TimescaleDB";
    let row = query(
        doing,
        client.query_opt(include_str!("migrate_extension.sql"), &[]),
    )
    .await?;
    let Some(row) = row else {
        return Err(MigrateError::NoTimescale {
            host: database.host(),
        });
    };
    if query(doing, std::future::ready(row.try_get(0))).await? {
        return Ok(());
    }
    let created = query(
        "create the extension timescaledb",
        client.batch_execute(include_str!("migrate_create_extension.sql")),
    )
    .await;
    let source = match created {
        Ok(()) => return Ok(()),
        Err(MigrateError::Query { source, .. }) => source,
        Err(error) => return Err(error),
    };
    let said = source
        .as_db_error()
        .map(tokio_postgres::error::DbError::message);
    Err(
        match source.code().map(tokio_postgres::error::SqlState::code) {
            // Another process has just made it.
            Some("42710" | "23505") => return Ok(()),
            Some("42501") => MigrateError::MayNotCreateExtension {
                user: database.user(),
                database: database.name(),
                source,
            },
            _ if said.is_some_and(|text| text.contains("preload")) => MigrateError::NotPreloaded {
                host: database.host(),
                source,
            },
            _ => MigrateError::Query {
                doing: "create the extension timescaledb",
                source,
            },
        },
    )
}

async fn lock(client: &Client, progress: &mut dyn FnMut(MigrateStep)) -> Result<(), MigrateError> {
    let doing = "lock the schema";
    let start = Instant::now();
    let mut said = false;
    loop {
        let row = query(
            doing,
            client.query_one(include_str!("migrate_lock.sql"), &[]),
        )
        .await?;
        if query(doing, std::future::ready(row.try_get(0))).await? {
            return Ok(());
        }
        if start.elapsed() > LOCK_DEADLINE {
            return Err(MigrateError::Locked {
                after: LOCK_DEADLINE,
            });
        }
        if !said {
            progress(MigrateStep::Waiting);
            said = true;
        }
        sleep(LOCK_PAUSE).await;
    }
}

/// One migration after the other, each in a transaction of its own.
async fn apply(
    database: &Database,
    client: &mut Client,
    progress: &mut dyn FnMut(MigrateStep),
) -> Result<Vec<String>, MigrateError> {
    let runner = embedded::migrations::runner();
    let mut migrations = runner.get_migrations().clone();
    migrations.sort_by_key(refinery::Migration::version);
    let found = found_version(client).await?;
    let mut applied = Vec::new();
    for migration in migrations {
        let name = migration.to_string();
        if found.is_none_or(|found| migration.version() > found) {
            progress(MigrateStep::Applying { name: name.clone() });
        }
        let runner =
            embedded::migrations::runner().set_target(Target::Version(migration.version()));
        let report = match tokio::time::timeout(MIGRATION_DEADLINE, runner.run_async(client)).await
        {
            Ok(report) => report.map_err(|source| failed(database, name, source))?,
            Err(_) => {
                return Err(MigrateError::Silence {
                    doing: "apply a migration",
                    after: MIGRATION_DEADLINE,
                });
            }
        };
        applied.extend(report.applied_migrations().iter().map(ToString::to_string));
    }
    Ok(applied)
}

fn failed(database: &Database, version: String, source: refinery::Error) -> MigrateError {
    let state = database_error(&source).and_then(PgError::code);
    if state.is_some_and(|state| state.code() == "42501") {
        return MigrateError::MayNotMigrate {
            user: database.user(),
            database: database.name(),
            source: Box::new(source),
        };
    }
    MigrateError::Migration { version, source }
}

async fn missing_roles(client: &Client) -> Result<Vec<String>, MigrateError> {
    let doing = "look for the roles";
    let rows = query(
        doing,
        client.query(include_str!("migrate_missing_roles.sql"), &[]),
    )
    .await?;
    rows.iter()
        .map(|row| {
            let role: String = row.try_get(0).map_err(|source| MigrateError::Query { doing, source })?;
            Ok(format!(
                "role {role} is not there and may not be created by this user: run CREATE ROLE {role} NOLOGIN as a superuser, then watcher migrate again"
            ))
        })
        .collect()
}
