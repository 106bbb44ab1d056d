//! The keeper thread: catalog, session, keepers, gaps, heartbeat, health. It yields to the probe thread.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::session::{Diaries, Running};
use super::snapshot::{Place, Recorder, Snapshot, SnapshotAge};
use super::spools::Spools;
use super::{AgentError, DRAIN_GRACE, system};
use crate::api;
use crate::app::control::{self, AgentState, SUPERVISED};
use crate::app::machine;
use crate::app::source::{Ledger, TableSource};
use crate::config::args::{AgentArgs, AgentSettings};
use crate::config::resolve::{self, CheckCache};
use crate::config::secret::ProcessSecrets;
use crate::domain::{AgentIdentity, Arm, Timestamp};
use crate::pipeline::buffer::SampleBuffer;
use crate::pipeline::catalog::{
    Catalog, CatalogMemory, Forgetful, RemovalOptions, Resolve, WorkerGone,
};
use crate::pipeline::clock::wall_now;
use crate::pipeline::keeper::{Keeper, KeeperOptions, chain};
use crate::pipeline::ledger::{self, Unwritten};
use crate::pipeline::totals::Totals;
use crate::pipeline::{Command, Gap};
use crate::store::Session;
use crate::store::timescale::{RefusedFile, SampleWriter, Timescale, Usage};
use crate::telemetry::{self, prometheus::Exporter};

/// Gaps that are not written yet have so long, of the ten seconds that Docker gives.
const GAPS_WITHIN: Duration = Duration::from_secs(1);
/// Where there is a snapshot, the database is given so long to say what has changed since.
const PATIENCE: Duration = Duration::from_secs(3);
/// Fewer endpoints than this are no large part.
const MASS_REMOVAL_MIN: usize = 10;
/// The supervisor hears so often what a death would take.
const SAY_UNSAVED: Duration = Duration::from_secs(1);

/// All that the thread needs.
pub(super) struct KeeperThread {
    pub(super) args: AgentArgs,
    pub(super) arm: Arm,
    pub(super) agent: Arc<AgentIdentity>,
    pub(super) database: Timescale,
    pub(super) buffer: SampleBuffer,
    pub(super) totals: Totals,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) gaps_sender: mpsc::UnboundedSender<Gap>,
    pub(super) gaps: mpsc::UnboundedReceiver<Gap>,
    /// The instant at which the schedule stopped.
    pub(super) stopped: oneshot::Receiver<Timestamp>,
    pub(super) stop: CancellationToken,
    pub(super) exporter: Exporter,
    pub(super) spools: Option<Spools>,
}

impl KeeperThread {
    /// Runs to the end of the shutdown; whether all samples were saved.
    pub(super) fn run(self) -> Result<bool, AgentError> {
        machine::lower_priority();
        let stop = self.stop.clone();
        let result = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("start the keeper runtime"))
            .and_then(|runtime| runtime.block_on(LocalSet::new().run_until(self.serve())));
        // Whatever happened here, probing without keepers is of no use.
        stop.cancel();
        result
    }

    async fn serve(self) -> Result<bool, AgentError> {
        let Self {
            args,
            arm,
            agent,
            database,
            buffer,
            totals,
            commands,
            gaps_sender,
            gaps,
            stopped,
            stop,
            exporter,
            spools,
        } = self;
        let (state_sender, state) = watch::channel(AgentState::default());
        let mut company = JoinSet::new();
        if std::env::var_os(SUPERVISED).is_some() {
            let (exporter, stop) = (exporter.clone(), stop.clone());
            let render = move || exporter.render();
            company.spawn_local(async move {
                if let Err(error) = control::answer(render, state, stop).await {
                    tracing::warn!(%error, "the line to the supervisor failed");
                }
            });
        } else {
            let listener = api::listen(args.listen).await?;
            let health = Arc::new(AgentHealth {
                exporter: exporter.clone(),
                state,
            });
            let stop = stop.clone();
            company.spawn_local(async move {
                if let Err(error) = api::serve(listener, health, stop).await {
                    tracing::error!(%error, "health and metrics are not served any more");
                }
            });
        }

        let mut cache = CheckCache::new();
        let mut resolve = |row: &_| resolve::endpoint(row, &mut cache, &ProcessSecrets);
        let mut source = TableSource::new(
            &database,
            args.partition,
            agent.clone(),
            args.agent.catalog_poll,
        );
        let place = Place::of(&args, &database);
        let found = find_snapshot(&args.agent, &place);
        let (memory, age) = remember(&args.agent, place, found.as_ref());
        company.spawn_local(upkeep(exporter, age));
        let removals = RemovalOptions {
            grace: args.agent.mass_removal_grace,
            part: f64::from(args.agent.mass_removal_percent) / 100.0,
            at_least: MASS_REMOVAL_MIN,
        };
        let mut catalog = Catalog::new(removals, memory);
        let begun = tokio::select! {
            begun = async {
                let loaded = load(&mut catalog, &mut source, &mut resolve, &commands, found).await?;
                let of = |started| Session {
                    agent: agent.clone(),
                    arm: arm.clone(),
                    partition: args.partition,
                    started,
                };
                let diaries = args.agent.folder().map(|folder| Diaries::open(folder, args.partition));
                let running = Running::begin(&database, of, diaries, buffer.clone(), catalog.heard(), !loaded).await;
                let started = running.session().started;
                tracing::info!(partition = %args.partition, arm = arm.name(), endpoints = catalog.probed(), "probing");
                commands.send(Command::Begin(started)).await.map_err(|_| WorkerGone)?;
                catalog.begun(started);
                Ok::<_, WorkerGone>(running)
            } => begun.ok(),
            () = stop.cancelled() => None,
        };
        let Some(running) = begun else {
            buffer.close();
            return Ok(true);
        };
        let session = running.session().clone();
        state_sender.send_modify(|state| state.ready = true);

        let options = Rc::new(KeeperOptions {
            agent,
            batch_rows: args.agent.batch_rows,
            batch_age: args.agent.batch_age,
            drain_grace: DRAIN_GRACE,
        });
        let mut keepers = JoinSet::new();
        for _ in 0..args.agent.keepers {
            let mut writer =
                SampleWriter::new(database.database().clone()).within(args.agent.write_timeout);
            if let Some(folder) = args.agent.spool_dir.as_deref().filter(|_| spools.is_some()) {
                let name = format!("refused-{}.jsonl", args.partition.index());
                writer = writer.keeping_refused_in(RefusedFile::at(folder.join(name)));
            }
            let keeper = Keeper::new(
                options.clone(),
                buffer.clone(),
                writer,
                spools
                    .as_ref()
                    .map(|spools| spools.overflow(gaps_sender.clone())),
                gaps_sender.clone(),
                totals.clone(),
            );
            keepers.spawn_local(keeper.run());
        }
        drop(gaps_sender);
        let unwritten = Unwritten::default();
        let mut ledger = JoinSet::new();
        let told = Ledger::new(&database, session.clone());
        ledger.spawn_local(ledger::run(told.clone(), gaps, unwritten.clone()));
        let mut keeping = JoinSet::new();
        keeping.spawn_local(running.clone().keep(told));
        company.spawn_local(say_unsaved(state_sender, buffer.clone()));
        company.spawn_local(report_usage(database.clone(), session.clone(), totals));

        tokio::select! {
            _ = catalog.follow(&mut source, &mut resolve, &commands) => {}
            () = stop.cancelled() => {}
        }
        drop(commands);
        let unsaved = sum(&mut keepers).await;
        // Gaps come in until the worker and the last keeper are gone.
        let stopped_at = stopped.await.ok();
        let _ = timeout(GAPS_WITHIN, ledger.join_next()).await;
        ledger.shutdown().await;
        let gaps = unwritten.take();
        // A session that lost samples is not ended in order: its successor has to look at it.
        let stopped_at = stopped_at.filter(|_| unsaved == 0);
        keeping.shutdown().await;
        running.end(stopped_at, &gaps).await;
        // Last: its lock guards the diary, too.
        if let Some(spools) = spools {
            spools.close();
        }
        company.shutdown().await;
        Ok(unsaved == 0)
    }
}

/// Joins all tasks of a set and adds up what they could not save.
async fn sum(tasks: &mut JoinSet<u64>) -> u64 {
    let mut unsaved = 0;
    while let Some(result) = tasks.join_next().await {
        unsaved += result.unwrap_or_else(|_| {
            tracing::error!("a task of the keeper thread panicked; samples may be lost");
            1
        });
    }
    unsaved
}

/// The snapshot of an earlier run, where there is one that can be used.
fn find_snapshot(settings: &AgentSettings, place: &Place) -> Option<Snapshot> {
    let folder = settings.snapshot_folder()?;
    let age_max = settings.catalog_snapshot_max_age;
    match Snapshot::open(folder, place, age_max, wall_now()) {
        Ok(found) => found,
        Err(refusal) => {
            tracing::warn!(
                path = %place.path(folder).display(),
                cause = chain(&refusal),
                "the snapshot of the endpoints is not used"
            );
            None
        }
    }
}

/// What the catalog remembers by, and how old that is.
fn remember(
    settings: &AgentSettings,
    place: Place,
    found: Option<&Snapshot>,
) -> (Box<dyn CatalogMemory>, Option<SnapshotAge>) {
    let started = settings
        .snapshot_folder()
        .map(|folder| Recorder::start(folder, place, found.map(|found| found.recalled)));
    match started {
        Some(Ok((recorder, age))) => (Box::new(recorder), Some(age)),
        Some(Err(error)) => {
            tracing::warn!(
                cause = chain(&error),
                "no snapshot of the endpoints is written"
            );
            (Box::new(Forgetful), None)
        }
        None => (Box::new(Forgetful), None),
    }
}

/// Tells the worker of the endpoints: those of the snapshot, and what the table says where it can be read at once; of the
/// table alone where there is no snapshot, however long that takes. Whether the table was read.
async fn load(
    catalog: &mut Catalog,
    source: &mut TableSource,
    resolve: Resolve<'_>,
    commands: &mpsc::Sender<Command>,
    found: Option<Snapshot>,
) -> Result<bool, WorkerGone> {
    let rows = found.as_ref().map(|found| (found, found.rows()));
    let Some((found, Ok(rows))) = rows else {
        return catalog.load(source, resolve, commands, None).await;
    };
    catalog
        .recall(rows, found.recalled, resolve, commands)
        .await?;
    let loaded = catalog
        .load(source, resolve, commands, Some(PATIENCE))
        .await?;
    if !loaded {
        let age = wall_now().since(found.recalled.as_of);
        tracing::warn!(
            endpoints = found.len(),
            age_s = age.as_secs(),
            "the database is away; probing from the snapshot of the endpoints"
        );
    }
    Ok(loaded)
}

/// Tells the supervisor what a death would take.
async fn say_unsaved(state: watch::Sender<AgentState>, buffer: SampleBuffer) {
    loop {
        sleep(SAY_UNSAVED).await;
        let unsaved_since_us = buffer.unsaved_since().map(Timestamp::as_micros);
        state.send_modify(|state| state.unsaved_since_us = unsaved_since_us);
    }
}

/// One row of `agent_usage` a minute.
async fn report_usage(store: Timescale, session: Session, totals: Totals) {
    let minute = Duration::from_secs(60);
    let mut before = (totals.read(), machine::cpu_time());
    let mut at = Instant::now();
    loop {
        let begun = wall_now();
        at += minute;
        tokio::time::sleep_until(at).await;
        let now = (totals.read(), machine::cpu_time());
        let done = now.0.since(before.0);
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let usage = Usage {
            cpu_us: (now.1 - before.1).as_micros() as u64,
            rss_bytes: machine::resident_bytes(),
            bytes_sent: done.bytes_sent,
            bytes_received: done.bytes_received,
            probes: narrow(done.probes),
            rows_written: narrow(done.rows_stored),
        };
        match store.record_usage(&session.agent, begun, &usage).await {
            // What could not be written is part of the next row.
            Err(error) => tracing::debug!(cause = chain(&error), "usage"),
            Ok(()) => before = now,
        }
    }
}

async fn upkeep(exporter: Exporter, age: Option<SnapshotAge>) {
    loop {
        exporter.upkeep();
        if let Some(age) = &age {
            age.report();
        }
        telemetry::process_usage(machine::cpu_time(), machine::resident_bytes());
        sleep(Duration::from_secs(5)).await;
    }
}

struct AgentHealth {
    exporter: Exporter,
    state: watch::Receiver<AgentState>,
}

impl api::Health for AgentHealth {
    fn ready(&self) -> Result<(), String> {
        if self.state.borrow().ready {
            Ok(())
        } else {
            Err("waiting for the endpoints".to_owned())
        }
    }

    fn metrics(&self) -> std::pin::Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(async { self.exporter.render() })
    }
}
