//! `watcher migrate` and `watcher wait-db`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::exit;
use crate::config::env;
use crate::store::timescale::{
    ConnectError, Database, MigrateError, MigrateStep, Migrated, SchemaState, migrate,
    schema_state, wait_until_ready,
};

/// Bring the schema of the database up to date; does nothing when it is, and is safe to run several times at once.
///
/// The database is WATCHER_ADMIN_DATABASE_URL (the owner's), else DATABASE_URL.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Only say whether the schema is current: exit 0 when it is, 1 when not
    #[arg(long, env = "WATCHER_MIGRATE_CHECK")]
    pub check: bool,
}

/// Wait until the database takes connections: exit 0 when it does, 75 when it does not in time.
///
/// The database is DATABASE_URL.
#[derive(ClapArgs, Clone, Debug)]
pub struct WaitArgs {
    /// For how long
    #[arg(long, env = "WATCHER_WAIT_DB_TIMEOUT", default_value = "60s", value_name = "DURATION", value_parser = duration)]
    pub timeout: Duration,
}

/// Runs `watcher migrate`.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let database =
        Database::from_url(&env::admin_database_url()?)?.rereading(env::admin_database_url_again);
    let done = if args.check {
        schema_state(&database).await.map(say_state)
    } else {
        let progress = &mut |step| match step {
            MigrateStep::Waiting => eprintln!("another process is migrating; waiting for it"),
            MigrateStep::Applying { name } => eprintln!("applying {name}"),
        };
        migrate(&database, progress).await.map(say_migrated)
    };
    done.map_err(|error| match error {
        // Not ready, rather than a fault: told by its type.
        MigrateError::Connect(error) => error.into(),
        error => error.into(),
    })
}

fn say_migrated(migrated: Migrated) -> ExitCode {
    for notice in &migrated.notices {
        eprintln!("note: {notice}");
    }
    let (applied, version) = (migrated.applied.len(), migrated.version);
    println!(
        "schema version {version} ({applied} migrations applied), TimescaleDB edition {}",
        migrated.edition
    );
    ExitCode::SUCCESS
}

fn say_state(state: SchemaState) -> ExitCode {
    let SchemaState { found, known } = state;
    match found {
        Some(found) => println!("schema version {found}, this release has {known}"),
        None => println!("no schema, this release has {known}"),
    }
    if state.is_current() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs `watcher wait-db`.
pub async fn wait(args: WaitArgs) -> anyhow::Result<ExitCode> {
    let database = Database::from_url(&env::database_url()?)?.rereading(env::database_url_again);
    let mut said = None;
    let mut progress = |error: &ConnectError, waited: Duration| {
        // Something new at once, the same again every five seconds.
        let text = error.to_string();
        let news = said.as_ref().is_none_or(|(what, when)| {
            *what != text || waited.saturating_sub(*when) >= Duration::from_secs(5)
        });
        if news {
            eprintln!("waiting for {} s: {text}", waited.as_secs());
            said = Some((text, waited));
        }
    };
    Ok(
        match wait_until_ready(&database, Some(args.timeout), &mut progress).await {
            Ok(()) => ExitCode::SUCCESS,
            // Whatever it was waiting for, a wrong password included, the answer is "not in time".
            Err(error) => {
                exit::report(&error.into());
                ExitCode::from(exit::NOT_READY)
            }
        },
    )
}

/// `60s`, `5m`, `1h 30m`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| duration.try_into().ok())
        .ok_or_else(|| "write a duration such as 60s or 5m".to_owned())
}
