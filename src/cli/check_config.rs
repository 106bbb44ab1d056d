//! `watcher check-config`: the settings of this environment, as they would be used.

use std::io::Write;
use std::process::ExitCode;

use super::exit;
use super::output::{print, print_problems};
use crate::config::{Problem, env, file};
use crate::domain::Secret;
use crate::store::timescale::Database;

/// Check the environment and, if named, a file of endpoints; exit 64 when anything is wrong.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// YAML file of endpoints, or directory of *.yaml files, to check as well.
    #[arg(value_name = "FILE", env = "WATCHER_ENDPOINTS_FILE")]
    file: Option<String>,
    /// Connect to the database, too; exit 75 when it is not ready.
    #[arg(long, env = "WATCHER_CHECK_CONNECT")]
    connect: bool,
}

/// A setting as an operator should see it.
struct Shown {
    name: &'static str,
    value: String,
}

/// Prints what is set, and everything that is wrong with it.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut shown = Vec::new();
    let mut problems = Vec::new();
    let mut databases = Vec::new();
    let urls = [
        ("DATABASE_URL", env::database_url()),
        ("WATCHER_ADMIN_DATABASE_URL", env::admin_database_url()),
    ];
    for (name, url) in urls {
        match url.and_then(|url| database(name, &url)) {
            Ok(database) => {
                shown.push(Shown {
                    name,
                    value: described(&database),
                });
                databases.push(database);
            }
            // The second falls back on the first: what is wrong with that is said once.
            Err(problem) if problems.contains(&problem) => {}
            Err(problem) => problems.push(problem),
        }
    }
    let mut warnings = Vec::new();
    if let Some(path) = &args.file {
        let mut loaded = file::load(path, &|name| std::env::var(name).ok());
        let value = format!("{path}: {} endpoints", loaded.endpoints.len());
        shown.push(Shown {
            name: "endpoints",
            value,
        });
        problems.append(&mut loaded.problems);
        warnings.append(&mut loaded.warnings);
    }
    print(|out| write_settings(out, &shown))?;
    print_problems("warning: ", &warnings);
    print_problems("error: ", &problems);
    if !problems.is_empty() {
        return Ok(ExitCode::from(exit::USAGE));
    }
    if args.connect {
        for database in databases {
            database.connect().await?.close().await;
        }
    }
    print(|out| writeln!(out, "no problem"))?;
    Ok(ExitCode::SUCCESS)
}

fn database(name: &str, url: &Secret) -> Result<Database, Problem> {
    Database::from_url(url).map_err(|error| Problem::of(name, error.to_string()))
}

/// Where and who, never the password.
fn described(database: &Database) -> String {
    format!(
        "{} as {} at {}",
        database.name(),
        database.user(),
        database.host()
    )
}

fn write_settings(out: &mut dyn Write, shown: &[Shown]) -> std::io::Result<()> {
    let width = shown.iter().map(|setting| setting.name.len()).max();
    let width = width.unwrap_or(0);
    for Shown { name, value } in shown {
        writeln!(out, "{name:width$}  {value}")?;
    }
    Ok(())
}
