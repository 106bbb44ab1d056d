//! `watcher endpoints export`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{connect, explained};
use crate::cli::output::print;
use crate::config::export::{CsvWriter, YamlWriter};
use crate::store::timescale::endpoints::for_each;

/// Arguments of `watcher endpoints export`.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Yaml, env = "WATCHER_EXPORT_FORMAT")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For `watcher endpoints apply`.
    Yaml,
    /// For `watcher endpoints import`.
    Csv,
}

/// Prints every endpoint.
pub(super) async fn run(args: ExportArgs) -> anyhow::Result<ExitCode> {
    let mut connection = connect().await?;
    // Rows are printed as they come: the definitions of a million endpoints are not held.
    let out = std::io::BufWriter::new(std::io::stdout());
    let outcome = match args.format {
        Format::Yaml => {
            let mut writer = YamlWriter::new(out);
            explained(for_each(&mut connection.client, |row| writer.write(&row.definition)).await)?
                .and_then(|()| writer.finish())
        }
        Format::Csv => {
            let mut writer = CsvWriter::new(out)?;
            explained(for_each(&mut connection.client, |row| writer.write(&row.definition)).await)?
                .and_then(|()| writer.finish())
        }
    };
    connection.close().await;
    print(|_| outcome)?;
    Ok(ExitCode::SUCCESS)
}
