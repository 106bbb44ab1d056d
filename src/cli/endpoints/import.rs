//! `watcher endpoints import`.

use std::process::ExitCode;

use clap::Args;

use super::write::{Mode, Refused, write};
use super::{connect, counted, load_csv, print_found};
use crate::cli::exit;
use crate::cli::output::{print, print_problems};

/// Arguments of `watcher endpoints import`.
#[derive(Args, Debug)]
#[command(
    after_help = "The first line names the columns, with the keys of the YAML file: url is needed; name, group, tags, \
                  interval, timeout, regex, …; nested keys are dotted (auth.basic.user), or JSON in a column settings. \
                  A line whose group and name are in the table updates that row; a line without a name adds one."
)]
pub(super) struct ImportArgs {
    /// CSV file, or - for standard input.
    #[arg(value_name = "FILE.csv")]
    file: String,
    /// Import the good lines although others are bad; the bad ones are still printed.
    #[arg(long, env = "WATCHER_IMPORT_SKIP_BAD")]
    skip_bad: bool,
    /// Print what would change, and write nothing.
    #[arg(long, env = "WATCHER_IMPORT_DRY_RUN")]
    dry_run: bool,
}

/// Reads the file and writes its lines, all or (with `--skip-bad`) the good ones.
pub(super) async fn run(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let loaded = load_csv(&args.file)?;
    let problems = print_found(&loaded);
    if problems > 0 && !args.skip_bad {
        eprintln!(
            "error: {}; nothing was written (--skip-bad imports the {} good)",
            counted(problems as u64, "problem"),
            loaded.endpoints.len()
        );
        return Ok(ExitCode::from(exit::USAGE));
    }
    let mut connection = connect().await?;
    let mode = Mode {
        prune: false,
        dry_run: args.dry_run,
    };
    let outcome = match write(&mut connection, &loaded.endpoints, mode).await {
        Ok(outcome) => outcome,
        Err(Refused::Problems(problems)) => {
            print_problems("", &problems);
            let count = counted(problems.len() as u64, "problem");
            eprintln!("error: {count}; nothing was written");
            return Ok(ExitCode::from(exit::USAGE));
        }
        Err(Refused::Failed(error)) => return Err(error),
    };
    connection.close().await;
    let (added, changed) = (
        outcome.difference.added.len(),
        outcome.difference.changed.len(),
    );
    let unchanged = loaded.endpoints.len() - added - changed;
    let done = if args.dry_run {
        " (dry run: nothing was written)"
    } else {
        ""
    };
    let bad = match problems {
        0 => String::new(),
        n => format!(", {} in lines left out", counted(n as u64, "problem")),
    };
    print(|out| {
        writeln!(
            out,
            "{added} added, {changed} changed, {unchanged} unchanged{bad}{done}"
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
