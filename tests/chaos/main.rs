//! The chaos harness: the real binary, a real TimescaleDB, real faults, and a judgement by arithmetic.
//!
//! Started by `scripts/chaos`. Each scenario has a database of its own and four phases: load with faults, heal, drain,
//! judge. The schedule of faults derives from the seed and the scenario's name alone.

mod commits;
mod database;
mod failover;
mod instance;
mod judge;
mod process;
mod report;
mod rng;
mod scenario;
mod stage;
mod support;
mod trouble;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use self::instance::Instance;
use self::report::Report;
use self::rng::Rng;
use self::scenario::{Run, SCENARIOS, Scenario};

/// What is run, how often, and under which load.
#[derive(Parser, Clone, Debug)]
struct Options {
    /// A few rounds of some faults, in 60 to 90 s, without bars on time
    #[arg(long)]
    smoke: bool,
    /// Only these scenarios
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// So many rounds of each, instead of each one's own number
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Start again from the first scenario, with the next seed, until so many hours have passed
    #[arg(long, value_name = "H")]
    hours: Option<f64>,
    /// Decides every fault's time and place; drawn when not given, and printed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Probes a second, instead of each scenario's own rate
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Also write the results to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the scenarios and end
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for scenario in SCENARIOS.iter().flat_map(|group| group.iter()) {
            println!(
                "{:<18}{:>5} rounds  {}",
                scenario.name, scenario.rounds, scenario.what
            );
        }
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    match runtime.block_on(LocalSet::new().run_until(run(options))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every bar was held.
async fn run(options: Options) -> anyhow::Result<bool> {
    let mut scenarios = chosen(&options)?;
    if options.smoke && options.only.is_empty() {
        scenarios.retain(|scenario| scenario.smoke.is_some());
    }
    let first = options.seed.unwrap_or_else(rng::drawn);
    println!("seed {first}");
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut report = Report::new(first);
    let work = programme(&options, &scenarios, first, &mut report);
    let stopped = tokio::select! {
        done = work => { done?; false }
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
    };
    println!("\n{}", report.table());
    if let Some(path) = &options.json {
        std::fs::write(path, report.json()).with_context(|| format!("write {}", path.display()))?;
    }
    if stopped {
        println!("stopped before its end");
    }
    Ok(!stopped && report.all_held())
}

fn chosen(options: &Options) -> anyhow::Result<Vec<&'static Scenario>> {
    let all: Vec<_> = SCENARIOS.iter().flat_map(|group| group.iter()).collect();
    if options.only.is_empty() {
        return Ok(all);
    }
    let named = |name: &String| {
        let found = all.iter().copied().find(|scenario| scenario.name == name);
        found.with_context(|| format!("no scenario {name}; --list has them"))
    };
    options.only.iter().map(named).collect()
}

async fn programme(
    options: &Options,
    scenarios: &[&'static Scenario],
    first: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let limit = options
        .hours
        .map(|hours| Duration::from_secs_f64(hours * 3_600.0));
    let mut instance = Rc::new(Instance::start("").await?);
    for seed in first.. {
        for scenario in scenarios {
            let rounds = match (options.rounds, options.smoke) {
                (Some(rounds), _) => rounds,
                (None, true) => scenario.smoke.unwrap_or(1),
                (None, false) => scenario.rounds,
            };
            println!(
                "\n━━ {}: {} ({rounds} rounds)",
                scenario.name, scenario.what
            );
            let mut run = Run {
                name: scenario.name,
                rounds,
                rate: options
                    .rate
                    .unwrap_or(if options.smoke { 100 } else { scenario.rate }),
                smoke: options.smoke,
                rng: Rng::new(seed, scenario.name),
                instance: instance.clone(),
                began: Instant::now(),
            };
            let outcome = (scenario.run)(&mut run).await;
            let outcome = outcome.with_context(|| format!("scenario {}", scenario.name));
            let failed = outcome.is_err();
            report.add(scenario.name, rounds, seed, run.began.elapsed(), outcome);
            if failed {
                // Who knows what it left: stopped, read-only, full.
                drop(run);
                drop(instance);
                instance = Rc::new(Instance::start("").await?);
            }
        }
        if limit.is_none_or(|limit| began.elapsed() >= limit) {
            break;
        }
    }
    Ok(())
}
