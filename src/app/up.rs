//! `watcher up`: the container's main process. Waits for the database, migrates, starts one agent per core, starts
//! again what dies, serves health and metrics for all, and ends them in order.

mod child;
mod health;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use self::child::{Child, Died};
use self::health::ContainerHealth;
use super::agent::snapshot::{self, Place};
use super::machine;
use super::signal::StopSignals;
use crate::api;
use crate::config::Problem;
use crate::config::args::{AgentSettings, UpArgs};
use crate::config::env;
use crate::domain::AgentIdentity;
use crate::domain::{Arm, Partition};
use crate::pipeline::clock::wall_now;
use crate::pipeline::keeper::chain;
use crate::store::timescale::{
    ConnectError, MigrateError, MigrateStep, Timescale, UrlError, migrate, wait_until_ready,
};
use crate::telemetry::{self, prometheus::Exporter};

/// Retention is looked after this often.
const RETENTION_EVERY: Duration = Duration::from_secs(3_600);
/// Where agents have a snapshot of their endpoints, the database is given so long before they start without it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks at a schema that this release cannot use.
const PREPARE_AGAIN: Duration = Duration::from_secs(30);
/// What an agent that dies may take with it reaches back so far, where it has said nothing: probes under way and batches
/// not yet sent.
pub const DEATH_HORIZON: Duration = Duration::from_secs(30);

/// What ended `up`.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// A setting is not usable.
    #[error("configuration")]
    Config(#[source] Problem),
    /// The database's URL is not usable.
    #[error("configuration of the database")]
    Database(#[source] UrlError),
    /// The migrations failed for a reason that waiting does not mend.
    #[error("migrate the database")]
    Migrate(#[source] MigrateError),
    /// The spool's folder cannot be written to.
    #[error("use {} for the spool; make it writable for this user, or set WATCHER_SPOOL=off", folder.display())]
    SpoolFolder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The address for health and metrics.
    #[error(transparent)]
    Listen(#[from] api::ListenError),
    /// The operating system refused something.
    #[error("{what}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> UpError {
    move |source| UpError::System { what, source }
}

/// Runs until told to stop. `Ok(true)` when every agent ended in order and saved all its samples.
pub fn run(args: &UpArgs) -> Result<bool, UpError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the supervisor's runtime"))?;
    runtime.block_on(LocalSet::new().run_until(supervise(args)))
}

async fn supervise(args: &UpArgs) -> Result<bool, UpError> {
    let arm = args.agent.arm().map_err(UpError::Config)?;
    let agent_url = env::database_url().map_err(UpError::Config)?;
    let admin_url = env::admin_database_url().map_err(UpError::Config)?;
    // Both are looked at before anything waits.
    let database = Timescale::open_rereading(&agent_url, env::database_url_again)
        .map_err(UpError::Database)?;
    let admin = Timescale::open_rereading(&admin_url, env::admin_database_url_again)
        .map_err(UpError::Database)?;
    check_spool_folder(&args.agent)?;
    let exporter = Exporter::install().map_err(|error| UpError::System {
        what: "start the metrics exporter",
        source: std::io::Error::other(error),
    })?;
    let mut signals = StopSignals::new().map_err(system("take over the stop signals"))?;
    let listener = api::listen(args.listen).await?;
    let stop = CancellationToken::new();
    let health = Arc::new(ContainerHealth::new(exporter.clone()));
    let mut tasks = JoinSet::new();
    tasks.spawn_local(serve(listener, health.clone(), stop.clone()));
    tasks.spawn_local(upkeep(exporter, stop.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %args.listen, "watcher is starting");

    let partitions = partitions(args);
    health.waiting_for("the database");
    let patience = has_snapshot(args, &partitions, &database).then_some(PATIENCE);
    let waiting_for = |what| health.waiting_for(what);
    let prepared = tokio::select! {
        prepared = prepare(&admin, &database, &waiting_for, patience) => prepared?,
        signal = signals.next() => {
            tracing::info!(signal, "stopping before the database was ready");
            return Ok(true);
        }
    };
    if !prepared {
        tracing::warn!(
            "the database is away; starting agents that have a snapshot of their endpoints"
        );
    }
    tasks.spawn_local(look_after_database(
        admin,
        database.clone(),
        prepared,
        stop.clone(),
    ));

    let processes = partitions.len();
    tracing::info!(processes, node = %args.node, location = args.agent.location, arm = arm.name(), "starting agents");
    health.waiting_for("the agents");
    let (died_sender, died) = mpsc::unbounded_channel();
    let mut children = JoinSet::new();
    for partition in partitions {
        let agent = identity(&args.agent, &arm, partition);
        let child = Child::new(
            partition,
            agent,
            args.agent.to_env(),
            args.stop_timeout,
            died_sender.clone(),
        );
        health.add(child.line());
        children.spawn_local(child.run(stop.clone()));
    }
    drop(died_sender);
    let mut deaths = JoinSet::new();
    deaths.spawn_local(record_deaths(database, died));
    health.started();

    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    stop.cancel();
    let ended = tokio::select! {
        ended = end_of(&mut children, args.stop_timeout) => ended,
        signal = signals.next() => {
            tracing::error!(signal, "stopping at once; samples that agents still hold are not saved");
            false
        }
    };
    // All children have gone, so this ends, unless the database is away.
    let _ = tokio::time::timeout(Duration::from_secs(1), deaths.join_next()).await;
    tasks.shutdown().await;
    tracing::info!(in_order = ended, "stopped");
    Ok(ended)
}

fn partitions(args: &UpArgs) -> Vec<Partition> {
    let processes = args.processes.count();
    let (index, count) = (args.node.index(), args.node.count());
    (0..processes)
        .filter_map(|i| Partition::new(index * processes + i, count * processes).ok())
        .collect()
}

/// Whether an agent of ours has something to probe while the database is away.
fn has_snapshot(args: &UpArgs, partitions: &[Partition], database: &Timescale) -> bool {
    let Some(folder) = args.agent.snapshot_folder() else {
        return false;
    };
    let age_max = args.agent.catalog_snapshot_max_age;
    partitions.iter().any(|&partition| {
        let place = Place::new(partition, &args.agent.location, database);
        match snapshot::is_there(folder, &place, age_max, wall_now()) {
            Ok(is_there) => is_there,
            Err(refusal) => {
                tracing::warn!(
                    path = %place.path(folder).display(),
                    cause = chain(&refusal),
                    "a snapshot of the endpoints is not used"
                );
                false
            }
        }
    })
}

/// Agents would find out too, but they would be started again and again.
fn check_spool_folder(settings: &AgentSettings) -> Result<(), UpError> {
    let Some(folder) = settings.folder() else {
        tracing::warn!(
            "no spool: while the database is away, samples are held in memory only (WATCHER_SPOOL_DIR)"
        );
        return Ok(());
    };
    let probe = folder.join(format!(".writable-{}", std::process::id()));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&probe, ""))
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|source| UpError::SpoolFolder {
            folder: folder.to_owned(),
            source,
        })
}

/// Waits for the database, for as long as there is `patience`, and brings its schema up to date; whether it did.
async fn prepare(
    admin: &Timescale,
    database: &Timescale,
    waiting_for: &dyn Fn(&'static str),
    patience: Option<Duration>,
) -> Result<bool, UpError> {
    loop {
        let waiting = wait(admin);
        match patience {
            None => waiting.await,
            Some(patience) => {
                if timeout(patience, waiting).await.is_err() {
                    return Ok(false);
                }
            }
        }
        waiting_for("the migrations");
        let progress = &mut |step| match step {
            MigrateStep::Waiting => tracing::info!("another process is migrating; waiting for it"),
            MigrateStep::Applying { name } => tracing::info!(migration = name, "applying"),
        };
        match migrate(admin.database(), progress).await {
            Ok(migrated) => {
                for notice in &migrated.notices {
                    tracing::warn!("{notice}");
                }
                let applied = migrated.applied.len();
                tracing::info!(
                    applied,
                    version = migrated.version,
                    edition = migrated.edition,
                    "the schema is current"
                );
                break;
            }
            Err(error @ (MigrateError::Connect(_) | MigrateError::Locked { .. })) => {
                tracing::warn!(
                    cause = chain(&error),
                    "the migrations were cut off; trying again"
                );
                sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(UpError::Migrate(error)),
        }
    }
    if patience.is_none() {
        wait(database).await;
    }
    Ok(true)
}

/// Waits without end, and says so now and then.
async fn wait(store: &Timescale) {
    let mut said = None;
    let mut progress = |error: &ConnectError, waited: Duration| {
        if said.is_none_or(|said: Instant| said.elapsed() >= Duration::from_secs(5)) {
            said = Some(Instant::now());
            tracing::info!(
                waited_s = waited.as_secs(),
                cause = chain(error),
                "waiting for the database"
            );
        }
    };
    // Without a timeout it ends only when the database is there.
    let _ = wait_until_ready(store.database(), None, &mut progress).await;
}

async fn end_of(children: &mut JoinSet<bool>, limit: Duration) -> bool {
    let deadline = Instant::now() + limit + Duration::from_secs(1);
    let mut all = true;
    loop {
        match timeout_at(deadline, children.join_next()).await {
            Ok(Some(ended)) => all &= ended.unwrap_or(false),
            Ok(None) => return all,
            Err(_) => return false,
        }
    }
}

async fn serve(
    listener: tokio::net::TcpListener,
    health: Arc<ContainerHealth>,
    stop: CancellationToken,
) {
    if let Err(error) = api::serve(listener, health, stop).await {
        tracing::error!(%error, "health and metrics are not served any more");
    }
}

async fn upkeep(exporter: Exporter, stop: CancellationToken) {
    while !stop.is_cancelled() {
        exporter.upkeep();
        telemetry::process_usage(machine::cpu_time(), machine::resident_bytes());
        tokio::select! {
            () = sleep(Duration::from_secs(5)) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Migrates as soon as the database is there, where agents were started without it; then looks after retention.
async fn look_after_database(
    admin: Timescale,
    database: Timescale,
    mut prepared: bool,
    stop: CancellationToken,
) {
    while !prepared {
        match prepare(&admin, &database, &|_| (), None).await {
            Ok(done) => prepared = done,
            // The agents go on probing and spooling: nothing is lost while somebody mends it.
            Err(error) => {
                tracing::error!(
                    cause = chain(&error),
                    "the schema is not as this release needs it; trying again"
                );
                sleep(PREPARE_AGAIN).await;
            }
        }
    }
    look_after_retention(admin, stop).await;
}

async fn look_after_retention(admin: Timescale, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match admin.apply_retention().await {
            Ok(None | Some(0)) => {}
            Ok(Some(chunks)) => tracing::info!(chunks, "dropped raw rows past their retention"),
            Err(error) => {
                tracing::warn!(cause = chain(&error), "retention could not be looked after")
            }
        }
        tokio::select! {
            () = sleep(RETENTION_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Ends the sessions of agents that died, at the instant of their death, so that the audit can name what is missing.
async fn record_deaths(store: Timescale, mut died: mpsc::UnboundedReceiver<Died>) {
    while let Some(Died {
        agent,
        partition,
        at,
        unsaved_since,
    }) = died.recv().await
    {
        // The successor closes what stays open here; so one try a death is enough when the database is away.
        if let Err(error) = store
            .mark_died(&agent, partition, at, unsaved_since, DEATH_HORIZON)
            .await
        {
            tracing::warn!(
                cause = chain(&error),
                "the death of an agent could not be recorded; its successor will"
            );
        }
    }
}

/// Name and location under which the agent of a partition writes.
///
/// Arms of one machine differ in their names, so that a row says which arm it is of.
pub fn identity(settings: &AgentSettings, arm: &Arm, partition: Partition) -> AgentIdentity {
    let host = settings
        .agent_name
        .clone()
        .unwrap_or_else(machine::host_name);
    let mut name = format!("{host}/{}", partition.index());
    if !arm.arms().is_empty() {
        name = format!("{name}/{}", arm.name());
    }
    AgentIdentity {
        name: name.into(),
        location: settings.location.as_str().into(),
    }
}
