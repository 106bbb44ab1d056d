//! `watcher endpoints rm`.

use std::process::ExitCode;

use clap::Args;

use super::{connect, explained};
use crate::cli::exit;
use crate::cli::output::{plain, print};
use crate::store::timescale::endpoints::{Editor, Removal};

/// Arguments of `watcher endpoints rm`.
#[derive(Args, Debug)]
pub(super) struct RemoveArgs {
    /// Names; * stands for any text (quote it).
    #[arg(value_name = "NAME", required_unless_present = "id")]
    names: Vec<String>,
    /// Only in this group.
    #[arg(long, env = "WATCHER_RM_GROUP")]
    group: Option<String>,
    /// By id, for endpoints without a name.
    #[arg(long, value_name = "ID", env = "WATCHER_RM_ID", value_delimiter = ',')]
    id: Vec<i64>,
    /// Print what would be removed, and remove nothing.
    #[arg(long, env = "WATCHER_RM_DRY_RUN")]
    dry_run: bool,
}

/// Removes all or, when one of them is not there, nothing; exit 1 then.
pub(super) async fn run(args: RemoveArgs) -> anyhow::Result<ExitCode> {
    let by_id = args.id.iter().map(|&id| (id.to_string(), Removal::Id(id)));
    let by_name = args.names.iter().map(|name| {
        let removal = Removal::Name {
            name: name.clone(),
            group: args.group.clone(),
        };
        (name.clone(), removal)
    });
    let mut connection = connect().await?;
    let editor = explained(Editor::begin(&mut connection.client, true).await)?;
    let mut removed = Vec::new();
    for (name, removal) in by_id.chain(by_name) {
        let mut rows = explained(editor.remove(&removal).await)?;
        if rows.is_empty() {
            eprintln!("error: there is no endpoint {name}; nothing was removed");
            return Ok(ExitCode::from(exit::FAULT));
        }
        removed.append(&mut rows);
    }
    match args.dry_run {
        true => drop(editor),
        false => explained(editor.commit().await)?,
    }
    connection.close().await;
    let done = if args.dry_run {
        " (dry run: nothing was removed)"
    } else {
        ""
    };
    print(|out| {
        for row in &removed {
            writeln!(out, "- {}", plain(&row.definition.label()))?;
        }
        writeln!(out, "{} removed{done}", removed.len())
    })?;
    Ok(ExitCode::SUCCESS)
}
