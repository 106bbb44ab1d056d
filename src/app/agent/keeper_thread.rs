//! The keeper thread: catalog, session, keepers, gaps, heartbeat, health. It yields to the probe thread.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::farewell::{self, Farewell};
use super::spools::Spools;
use super::{AgentError, DRAIN_GRACE, system};
use crate::api;
use crate::app::control::{self, AgentState, SUPERVISED};
use crate::app::machine;
use crate::app::source::{Ledger, TableSource};
use crate::app::up::DEATH_HORIZON;
use crate::config::args::AgentArgs;
use crate::config::resolve::{self, CheckCache};
use crate::config::secret::ProcessSecrets;
use crate::domain::{AgentIdentity, Backoff, Timestamp};
use crate::pipeline::buffer::SampleBuffer;
use crate::pipeline::catalog::Catalog;
use crate::pipeline::clock::wall_now;
use crate::pipeline::keeper::{Keeper, KeeperOptions, chain, random};
use crate::pipeline::ledger::{self, Unwritten};
use crate::pipeline::totals::Totals;
use crate::pipeline::{Command, Gap};
use crate::store::Session;
use crate::store::timescale::{
    self, RefusedFile, SampleWriter, ServerId, SessionId, Timescale, Usage,
};
use crate::telemetry::{self, prometheus::Exporter};

/// `agents.last_seen` is this fresh; a successor that finds a session without an end counts from there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Telling the database that the session ends may take so long, of the ten seconds that Docker gives.
const END_WITHIN: Duration = Duration::from_millis(1_500);
/// Likewise for gaps that are not written yet.
const GAPS_WITHIN: Duration = Duration::from_secs(1);
/// Clocks further apart than this are said to be.
const CLOCKS_APART_S: f64 = 0.5;
/// The session answers from so long after its row is sent: by then it is written, and the schedule runs.
const BEGIN_AFTER: Duration = Duration::from_millis(200);

/// All that the thread needs.
pub(super) struct KeeperThread {
    pub(super) args: AgentArgs,
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
        company.spawn_local(upkeep(exporter.clone()));
        if std::env::var_os(SUPERVISED).is_some() {
            let (render, stop) = (move || exporter.render(), stop.clone());
            company.spawn_local(async move {
                if let Err(error) = control::answer(render, state, stop).await {
                    tracing::warn!(%error, "the line to the supervisor failed");
                }
            });
        } else {
            let listener = api::listen(args.listen).await?;
            let health = Arc::new(AgentHealth { exporter, state });
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
        let mut catalog = Catalog::default();
        let session = tokio::select! {
            session = async {
                let loaded = catalog.load(&mut source, &mut resolve, &commands).await.ok()?;
                let session = begin(&database, &agent, &args).await;
                tracing::info!(partition = %args.partition, endpoints = loaded, "probing");
                commands.send(Command::Begin(session.1.started)).await.ok()?;
                Some(session)
            } => session,
            () = stop.cancelled() => None,
        };
        let Some((session_id, session)) = session else {
            buffer.close();
            return Ok(true);
        };
        state_sender.send_replace(AgentState { ready: true });

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
        let session_id = Rc::new(Cell::new(session_id));
        let presence = Presence {
            store: database.clone(),
            session: session.clone(),
            id: session_id.clone(),
            told,
            server: None,
            again: false,
        };
        company.spawn_local(heartbeat(presence));
        company.spawn_local(report_usage(database.clone(), session.clone(), totals));

        tokio::select! {
            _ = catalog.follow(&mut source, &mut resolve, &commands) => {}
            () = stop.cancelled() => {}
        }
        drop(commands);
        let unsaved = sum(&mut keepers).await;
        let spool_folder = args.agent.spool_dir.filter(|_| spools.is_some());
        if let Some(spools) = spools {
            spools.close();
        }
        // Gaps come in until the worker and the last keeper are gone.
        let stopped_at = stopped.await.ok();
        let _ = timeout(GAPS_WITHIN, ledger.join_next()).await;
        ledger.shutdown().await;
        let gaps = unwritten.take();
        // A session that lost samples is not ended in order: its successor has to look at it.
        let stopped_at = stopped_at.filter(|_| unsaved == 0);
        let session_id = session_id.get();
        let mut told = gaps.is_empty();
        if let Some(at) = stopped_at {
            told &= end(&database, session_id, at).await;
        }
        if !told {
            let farewell = Farewell::new(session_id, &session, stopped_at, &gaps);
            told = farewell::keep(spool_folder.as_deref(), &session, &farewell);
        }
        if !told {
            tracing::error!(
                gaps = gaps.len(),
                "the end of the session is not recorded; the audit will count ticks after it as missing"
            );
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

/// Writes the session's row, however long the database is away. The instant from which it answers is drawn anew for
/// each try.
async fn begin(
    store: &Timescale,
    agent: &Arc<AgentIdentity>,
    args: &AgentArgs,
) -> (SessionId, Session) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let farewell = args
        .agent
        .spool_dir
        .as_deref()
        .map(|folder| Farewell::path(folder, args.partition));
    loop {
        let started = wall_now().plus(BEGIN_AFTER);
        let session = Session {
            agent: agent.clone(),
            arm: args.agent.arm.as_str().into(),
            partition: args.partition,
            started,
        };
        let told = async {
            if let Some(path) = &farewell {
                farewell::tell_left(path, store).await?;
            }
            store.start_session(&session, DEATH_HORIZON).await
        };
        match told.await {
            Ok(id) => return (id, session),
            Err(error) => {
                tracing::warn!(cause = chain(&error), "the session cannot be recorded yet")
            }
        }
        sleep(backoff.next(random())).await;
    }
}

/// Ends the session; whether that is recorded.
async fn end(store: &Timescale, id: SessionId, at: Timestamp) -> bool {
    let tries = async {
        while let Err(error) = store.end_session(id, at).await {
            tracing::debug!(
                cause = chain(&error),
                "the end of the session cannot be recorded yet"
            );
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(END_WITHIN, tries).await.is_ok()
}

/// What the database is told of this process every few seconds, and again when a failover may have lost it.
struct Presence {
    store: Timescale,
    session: Session,
    id: Rc<Cell<SessionId>>,
    told: Ledger,
    server: Option<ServerId>,
    /// What was told is to be told again.
    again: bool,
}

impl Presence {
    async fn tell(&mut self) -> Result<(), timescale::Error> {
        self.again |= self.store.has_failed_over(&mut self.server).await?;
        if !self.again && self.store.heartbeat(self.id.get(), wall_now()).await? {
            return Ok(());
        }
        self.again = true;
        let id = self
            .store
            .start_session(&self.session, DEATH_HORIZON)
            .await?;
        self.id.set(id);
        self.told.tell_again().await?;
        self.store.heartbeat(id, wall_now()).await?;
        self.again = false;
        tracing::warn!(
            "the database is another one, or was restarted; it was told again of this agent and its gaps"
        );
        Ok(())
    }
}

async fn heartbeat(mut presence: Presence) {
    let mut warned = false;
    loop {
        sleep(HEARTBEAT).await;
        let beat = async {
            presence.tell().await?;
            presence.store.clock_offset().await
        };
        match beat.await {
            Ok(offset) => {
                telemetry::clock_offset(-offset.seconds);
                let off = offset.seconds.abs() > CLOCKS_APART_S + offset.error.as_secs_f64();
                if off && !warned {
                    tracing::warn!(
                        database_ahead_s = offset.seconds,
                        "this machine's clock and the database's differ; rows carry this machine's time"
                    );
                }
                warned = off;
            }
            // The keepers say that the database is away.
            Err(error) => tracing::debug!(cause = chain(&error), "heartbeat"),
        }
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

async fn upkeep(exporter: Exporter) {
    loop {
        exporter.upkeep();
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
