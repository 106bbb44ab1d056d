//! Arguments and exit codes: 0 ok, 1 a fault or a negative answer, 64 usage or configuration, 75 database not ready.

pub mod audit;
pub mod check_config;
pub mod compare;
pub mod endpoints;
pub mod exit;
pub mod health;
pub mod migrate;
pub mod output;
pub mod plan;
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
    /// Wait until the database answers; exit 0 when it does, 75 when it does not in time
    WaitDb(migrate::WaitArgs),
    /// Bring the database's schema up to date
    Migrate(migrate::Args),
    /// Keep the table `endpoints` by files: YAML, CSV
    Endpoints(endpoints::Args),
    /// Probe one URL now, and draw what it took; exit 0 when up, 1 when down
    Probe(Box<probe::Args>),
    /// Account for every due probe: exit 1 if any is missing or doubled
    Audit(audit::Args),
    /// What two arms measured at the same endpoints, and how sure the difference is
    Compare(compare::Args),
    /// What the endpoints need of cores, memory and disk, by what was measured; exit 1 when a limit is met
    Plan(plan::Args),
    /// Check the environment and, if named, a file of endpoints; exit 64 when anything is wrong
    CheckConfig(check_config::Args),
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
            let code = if error.use_stderr() {
                exit::USAGE
            } else {
                exit::OK
            };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    if let Err(error) = logging::start(&cli.log.log_filter, cli.log.log_format) {
        eprintln!("error: {error}");
        return ExitCode::from(exit::USAGE);
    }
    run(cli.command).unwrap_or_else(|error| exit::report(&error))
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        // These two make their own runtimes, one a thread.
        Command::Up(args) => Ok(verdict(app::up::run(&args)?)),
        Command::Agent(args) => Ok(verdict(app::agent::run(&args)?)),
        Command::WaitDb(args) => block_on(migrate::wait(args)),
        Command::Migrate(args) => block_on(migrate::run(args)),
        Command::Endpoints(args) => block_on(endpoints::run(args)),
        Command::Probe(args) => block_on(probe::run(*args)),
        Command::Audit(args) => block_on(audit::run(args)),
        Command::Compare(args) => block_on(compare::run(args)),
        Command::Plan(args) => block_on(plan::run(args)),
        Command::CheckConfig(args) => block_on(check_config::run(args)),
        Command::Target(args) => block_on(target::run(args)),
        Command::Health(args) => health::run(&args),
    }
}

fn verdict(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}
