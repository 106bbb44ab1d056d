//! `watcher agent`: one process. The probe thread is the main thread; the keeper thread owns everything that talks to
//! the database; the match thread belongs to the prober. Shutdown is an order: schedule, probes, buffer, keepers,
//! gaps, session.

mod diary;
mod keeper_thread;
mod session;
pub(in crate::app) mod snapshot;
mod spools;

use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use self::keeper_thread::KeeperThread;
use self::spools::Spools;
use super::machine;
use super::signal::StopSignals;
use crate::config::args::AgentArgs;
use crate::config::{Problem, env};
use crate::net::attention;
use crate::net::policy::PolicyOptions;
use crate::pipeline::buffer::SampleBuffer;
use crate::pipeline::clock::SystemClock;
use crate::pipeline::totals::Totals;
use crate::pipeline::worker::{Worker, WorkerOptions};
use crate::probe::matcher::{Matcher, MatcherOptions};
use crate::probe::{Canary, Prober, ProberOptions};
use crate::store::timescale::{Timescale, UrlError};
use crate::telemetry::{self, prometheus::Exporter};

/// Messages of endpoints under way to the worker; each holds some hundred endpoints.
const COMMANDS: usize = 16;
/// Of the time between the stop and Docker's kill (10 s), what keepers and ledger may take after the probes' grace.
const DRAIN_GRACE: Duration = Duration::from_secs(3);

/// What kept an agent from running.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A setting is not usable.
    #[error("configuration")]
    Config(#[source] Problem),
    /// The database's URL is not usable.
    #[error("configuration of the database")]
    Database(#[source] UrlError),
    /// The spool cannot be used.
    #[error("open the spool")]
    Spool(#[source] crate::spool::SpoolError),
    /// The address for health and metrics.
    #[error(transparent)]
    Listen(#[from] crate::api::ListenError),
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

fn system(what: &'static str) -> impl Fn(std::io::Error) -> AgentError {
    move |source| AgentError::System { what, source }
}

/// Runs until told to stop. `Ok(true)` when all samples were saved.
pub fn run(args: &AgentArgs) -> Result<bool, AgentError> {
    machine::use_small_pages();
    let settings = &args.agent;
    let arm = settings.arm().map_err(AgentError::Config)?;
    let database_url = env::database_url().map_err(AgentError::Config)?;
    let database = Timescale::open_rereading(&database_url, env::database_url_again)
        .map_err(AgentError::Database)?;
    let exporter = Exporter::install()
        .map_err(|error| system("start the metrics exporter")(std::io::Error::other(error)))?;
    telemetry::register();
    let descriptors = machine::raise_descriptor_limit();
    if settings.pin {
        machine::pin(args.partition.index());
    }
    let agent = Arc::new(super::up::identity(settings, &arm, args.partition));

    let spools = Spools::open(settings, args.partition).map_err(AgentError::Spool)?;
    let buffer = SampleBuffer::new(settings.buffer_rows, settings.batch_rows);
    let totals = Totals::default();
    let (commands_sender, commands) = mpsc::channel(COMMANDS);
    let (gaps_sender, gaps) = mpsc::unbounded_channel();
    let (stopped_sender, stopped) = oneshot::channel();
    let stop = CancellationToken::new();

    // Before anything else runs: a signal that comes now is heard.
    let runtime = attention::watch(&mut tokio::runtime::Builder::new_current_thread())
        .enable_all()
        .build()
        .map_err(system("start the probe runtime"))?;
    let signals = runtime
        .block_on(async { StopSignals::new() })
        .map_err(system("take over the stop signals"))?;

    let (matcher, match_thread) = Matcher::start(MatcherOptions {
        budget: settings.regex_budget,
        ..MatcherOptions::default()
    })
    .map_err(system("start the match thread"))?;
    let keeper_thread = KeeperThread {
        args: args.clone(),
        arm: arm.clone(),
        agent,
        database,
        buffer: buffer.clone(),
        totals: totals.clone(),
        commands: commands_sender,
        gaps_sender: gaps_sender.clone(),
        gaps,
        stopped,
        stop: stop.clone(),
        exporter,
        spools,
    };
    let keepers = thread::Builder::new()
        .name("keeper".into())
        .spawn(move || keeper_thread.run())
        .map_err(system("start the keeper thread"))?;

    let options = WorkerOptions {
        partition: args.partition,
        arm: arm.share(),
        in_flight_max: machine::in_flight_max(settings.in_flight_max, descriptors),
        in_flight_per_host: settings.in_flight_per_host,
        error_max: settings.max_error,
        stop_grace: settings.stop_grace,
    };
    let policy = PolicyOptions {
        allow: settings.allow_addresses.clone(),
        deny: settings.deny_addresses.clone(),
        deny_private: settings.deny_private,
    };
    let result = runtime.block_on(LocalSet::new().run_until(async {
        let prober = Rc::new(Prober::new(ProberOptions {
            policy,
            name_servers: None,
            matcher,
            suspect_above: settings.suspect_above,
        }));
        let watch = tokio::task::spawn_local(obey(signals, stop.clone(), buffer.clone()));
        let canary = tokio::task::spawn_local(watch_canary(Rc::clone(&prober)));
        let worker = Worker::new(
            options,
            prober,
            SystemClock::default(),
            buffer.clone(),
            gaps_sender,
            totals,
        );
        let stopped_at = worker.run(commands, stop.clone()).await;
        watch.abort();
        canary.abort();
        Ok(stopped_at)
    }));
    match result {
        // The keeper thread is waiting for this.
        Ok(stopped_at) => drop(stopped_sender.send(stopped_at)),
        Err(error) => {
            stop.cancel();
            buffer.close();
            drop(stopped_sender);
            let _ = keepers.join();
            return Err(error);
        }
    }
    let saved = keepers.join().unwrap_or_else(|_| {
        tracing::error!("the keeper thread panicked; samples may be lost");
        Ok(false)
    })?;
    match_thread.stop();
    Ok(saved)
}

async fn watch_canary(prober: Rc<Prober>) {
    match Canary::start() {
        Ok(canary) => canary.probe(&prober).await,
        Err(error) => tracing::warn!(
            %error,
            "no canary: the agent's error is known by its own account alone"
        ),
    }
}

/// The first signal stops in order, the second at once.
async fn obey(mut signals: StopSignals, stop: CancellationToken, buffer: SampleBuffer) {
    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    stop.cancel();
    let signal = signals.next().await;
    tracing::error!(
        signal,
        buffered = buffer.rows(),
        "stopping at once; these samples are not saved"
    );
    std::process::exit(1);
}
