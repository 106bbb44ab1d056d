//! `watcher endpoints check`.

use std::process::ExitCode;

use clap::Args;

use super::{counted, load, print_found};
use crate::cli::exit;
use crate::cli::output::print;

/// Arguments of `watcher endpoints check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// YAML file, CSV file (*.csv), directory of *.yaml files, or - for YAML on standard input.
    #[arg(value_name = "FILE")]
    file: String,
}

/// Checks as `apply` and an agent would, but for secrets: those that this machine lacks are warnings.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let loaded = load(&args.file)?;
    let problems = print_found(&loaded);
    if problems > 0 {
        eprintln!(
            "error: {} in {}",
            counted(problems as u64, "problem"),
            args.file
        );
        return Ok(ExitCode::from(exit::USAGE));
    }
    let endpoints = counted(loaded.endpoints.len() as u64, "endpoint");
    print(|out| writeln!(out, "{}: {endpoints}, no problem", args.file))?;
    Ok(ExitCode::SUCCESS)
}
