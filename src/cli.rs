//! Arguments and exit codes: 0 ok, 1 a fault or a negative answer, 64 usage or configuration, 75 database not ready.

pub mod audit;
pub mod endpoints;
pub mod health;
pub mod migrate;
pub mod probe;
pub mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app;
use crate::config::args::{AgentArgs, LogSettings, UpArgs};
use crate::telemetry::logging;

/// Probes HTTP endpoints on a grid and accounts for every due probe in TimescaleDB.
///
/// The database is DATABASE_URL (or DATABASE_URL_FILE): postgres://user:password@host/database.
#[derive(Parser, Debug)]
#[command(name = "watcher", version, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    log: LogSettings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The container's main process: wait for the database, migrate, run one agent per core, serve health and metrics
    Up(UpArgs),
    /// One agent process, without a supervisor
    Agent(AgentArgs),
    /// Serve scripted HTTP and HTTPS, for tests and demos
    Target(target::Args),
    /// Ask a running watcher whether it is ready; exit 0 when it is
    Health(health::Args),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, all else is wrong usage.
            let code = if error.use_stderr() { 64 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    if let Err(error) = logging::start(&cli.log.log_filter, cli.log.log_format) {
        eprintln!("error: {error}");
        return ExitCode::from(64);
    }
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        // These two make their own runtimes, one a thread.
        Command::Up(args) => Ok(verdict(app::up::run(&args)?)),
        Command::Agent(args) => Ok(verdict(app::agent::run(&args)?)),
        Command::Target(args) => block_on(target::run(args)),
        Command::Health(args) => health::run(&args),
    }
}

fn verdict(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
