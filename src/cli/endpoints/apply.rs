//! `watcher endpoints apply`.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::changes::changes;
use super::write::{Mode, Outcome, Refused, write};
use super::{connect, counted, print_found};
use crate::cli::exit;
use crate::cli::output::{plain, print, print_problems};
use crate::config::Located;

/// Arguments of `watcher endpoints apply`.
#[derive(Args, Debug)]
pub(super) struct ApplyArgs {
    /// YAML file, directory of *.yaml files, or - for standard input.
    #[arg(value_name = "FILE")]
    file: String,
    /// Delete endpoints that the file lacks, also those made by other means.
    #[arg(long, env = "WATCHER_APPLY_PRUNE")]
    prune: bool,
    /// Print what would change, and write nothing.
    #[arg(long, env = "WATCHER_APPLY_DRY_RUN")]
    dry_run: bool,
}

/// Reads the file, and unless anything is wrong with it makes the table so.
pub(super) async fn run(args: ApplyArgs) -> anyhow::Result<ExitCode> {
    let loaded = crate::config::file::load(&args.file, &super::variable);
    let problems = print_found(&loaded);
    if problems > 0 {
        eprintln!(
            "error: {}; nothing was written",
            counted(problems as u64, "problem")
        );
        return Ok(ExitCode::from(exit::USAGE));
    }
    let mut connection = connect().await?;
    let mode = Mode {
        prune: args.prune,
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
    print(|out| print_outcome(out, &loaded.endpoints, &outcome, mode))?;
    Ok(ExitCode::SUCCESS)
}

fn print_outcome(
    out: &mut dyn Write,
    wanted: &[Located],
    Outcome {
        difference,
        removed,
    }: &Outcome,
    mode: Mode,
) -> std::io::Result<()> {
    let definition = |ordinal: i64| {
        usize::try_from(ordinal)
            .ok()
            .and_then(|n| wanted.get(n))
            .map(|located| &located.definition)
    };
    for definition in difference.added.iter().copied().filter_map(definition) {
        writeln!(out, "+ {}", plain(&definition.label()))?;
    }
    for (ordinal, before) in &difference.changed {
        if let Some(after) = definition(*ordinal) {
            let changes = changes(&before.definition, after);
            writeln!(out, "~ {} ({})", plain(&after.label()), plain(&changes))?;
        }
    }
    for gone in removed {
        writeln!(out, "- {}", plain(&gone.definition.label()))?;
    }
    let (added, changed) = (difference.added.len(), difference.changed.len());
    let unchanged = wanted.len() - added - changed;
    let done = if mode.dry_run {
        " (dry run: nothing was written)"
    } else {
        ""
    };
    let removed = removed.len();
    writeln!(
        out,
        "{added} added, {changed} changed, {removed} removed, {unchanged} unchanged{done}"
    )?;
    if difference.absent > 0 && !mode.prune {
        let others = counted(difference.absent.unsigned_abs(), "endpoint");
        writeln!(
            out,
            "{others} in the database that the file lacks; --prune deletes what it lacks"
        )?;
    }
    Ok(())
}
