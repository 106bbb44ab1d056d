//! Arguments and exit codes.

pub mod audit;
pub mod check_config;
pub mod endpoints;
pub mod exit;
pub mod migrate;
pub mod output;
pub mod probe;
pub mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Probes HTTP endpoints, each on its own interval, and accounts for every due probe in TimescaleDB.
#[derive(Parser, Debug)]
#[command(
    name = "watcher",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Keep the table `endpoints` by files: YAML, CSV.
    Endpoints(endpoints::Args),
    /// Probe one URL now, and draw what it took; exit 0 when up, 1 when down.
    Probe(Box<probe::Args>),
    /// Check the environment and, if named, a file of endpoints; exit 64 when anything is wrong.
    CheckConfig(check_config::Args),
}

/// Runs the command that the arguments name. Never fails: the exit code says how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nowhere to report that the output is gone. Help and version are answers, not errors.
            let _ = error.print();
            let code = if error.use_stderr() {
                exit::USAGE
            } else {
                exit::OK
            };
            return ExitCode::from(code);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::new(error).context("start the runtime")),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Endpoints(args) => endpoints::run(args).await,
            Command::Probe(args) => probe::run(*args).await,
            Command::CheckConfig(args) => check_config::run(&args).await,
        }
    });
    outcome.unwrap_or_else(|error| exit::report(&error))
}
