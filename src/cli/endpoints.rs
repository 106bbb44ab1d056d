//! `watcher endpoints`: the table `endpoints` from files and back.

mod apply;
mod changes;
mod check;
mod export;
mod generate;
mod import;
mod list;
mod remove;
mod write;

use std::process::ExitCode;

use clap::Subcommand;

use super::output::print_problems;
use crate::config::{Loaded, Problem, env};
use crate::store::timescale::{Connection, Database};

/// Keep the table `endpoints` by files: YAML, CSV.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "The database is that of WATCHER_ADMIN_DATABASE_URL, or DATABASE_URL where it is not set; \
                  either may be given as a file by …_FILE."
)]
pub struct Args {
    #[command(subcommand)]
    command: EndpointsCommand,
}

#[derive(Subcommand, Debug)]
enum EndpointsCommand {
    /// Make the table as a YAML file says: prints what is added (+), changed (~) and removed (-).
    Apply(apply::ApplyArgs),
    /// Add and update endpoints from a CSV file.
    Import(import::ImportArgs),
    /// Print every endpoint as YAML or CSV, for apply or import.
    Export(export::ExportArgs),
    /// List endpoints, or what keeps them from being probed.
    List(list::ListArgs),
    /// Check a YAML or CSV file without a database; exit 64 when anything is wrong.
    Check(check::CheckArgs),
    /// Make many endpoints by number, for load tests and demonstrations.
    Generate(generate::GenerateArgs),
    /// Remove endpoints by name or id.
    Rm(remove::RemoveArgs),
}

/// Runs one of the commands.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        EndpointsCommand::Apply(args) => apply::run(args).await,
        EndpointsCommand::Import(args) => import::run(args).await,
        EndpointsCommand::Export(args) => export::run(args).await,
        EndpointsCommand::List(args) => list::run(args).await,
        EndpointsCommand::Check(args) => check::run(&args),
        EndpointsCommand::Generate(args) => generate::run(args).await,
        EndpointsCommand::Rm(args) => remove::run(args).await,
    }
}

async fn connect() -> anyhow::Result<Connection> {
    let database = Database::from_url(&env::admin_database_url()?)?;
    Ok(database.connect().await?)
}

/// A failure of the store, with the fix where there is one.
fn explained<T>(
    result: Result<T, crate::store::timescale::endpoints::EndpointsError>,
) -> anyhow::Result<T> {
    result.map_err(|error| match error.is_missing_schema() {
        true => anyhow::Error::new(error)
            .context("the database has no watcher schema, or an older one; run: watcher migrate"),
        false => error.into(),
    })
}

/// The environment, for variables in files.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Endpoints of a file by its name: CSV where it ends so, else YAML.
fn load(file: &str) -> anyhow::Result<Loaded> {
    let is_csv = std::path::Path::new(file)
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    match is_csv {
        true => load_csv(file),
        false => Ok(crate::config::file::load(file, &variable)),
    }
}

fn load_csv(file: &str) -> anyhow::Result<Loaded> {
    if file == "-" {
        return Ok(crate::config::csv::from_csv(
            "<stdin>",
            std::io::stdin().lock(),
        ));
    }
    let opened = std::fs::File::open(file)
        .map_err(|error| Problem::of(file, format!("cannot be read: {error}")))?;
    let reader = std::io::BufReader::new(opened);
    Ok(crate::config::csv::from_csv(file, reader))
}

/// Prints problems and warnings of files; gives how many problems there are.
fn print_found(loaded: &Loaded) -> usize {
    print_problems("warning: ", &loaded.warnings);
    print_problems("", &loaded.problems);
    loaded.problems.len()
}

/// `1 endpoint`, `2 endpoints`.
fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}
