//! `watcher endpoints list`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;

use super::{connect, counted, explained};
use crate::cli::output::{plain, print};
use crate::store::timescale::endpoints::{Reported, Stored, for_each, problem_counts, problems};

/// A refused row may hold a URL of a megabyte.
const CELL_CHARS_MAX: usize = 300;

/// Arguments of `watcher endpoints list`.
#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Only what keeps endpoints from being probed, as the agents reported it.
    #[arg(long, env = "WATCHER_LIST_PROBLEMS")]
    problems: bool,
    /// Print a JSON array, one object a line, with the column names of the table.
    #[arg(long, env = "WATCHER_LIST_JSON")]
    json: bool,
    /// Most lines of the table that is printed; 0 for all.
    #[arg(long, env = "WATCHER_LIST_LIMIT", default_value_t = 1_000)]
    limit: usize,
}

/// Prints endpoints or problems.
pub(super) async fn run(args: ListArgs) -> anyhow::Result<ExitCode> {
    let mut connection = connect().await?;
    if args.problems {
        let problems = explained(problems(&connection.client).await)?;
        match args.json {
            true => print(|out| json_array(out, problems.iter().map(problem_json)))?,
            false => print(|out| problem_table(out, &problems, args.limit))?,
        }
    } else {
        let counts: HashMap<i64, i64> = explained(problem_counts(&connection.client).await)?
            .into_iter()
            .collect();
        let limit = if args.json || args.limit == 0 {
            usize::MAX
        } else {
            args.limit
        };
        let (mut rows, mut count) = (Vec::new(), 0_u64);
        let keep = |row: Stored| {
            count += 1;
            if rows.len() < limit {
                rows.push(row);
            }
            Ok::<(), Infallible>(())
        };
        let Ok(()) = explained(for_each(&mut connection.client, keep).await)?;
        let problems = |id: i64| counts.get(&id).copied().unwrap_or(0);
        match args.json {
            true => print(|out| {
                json_array(out, rows.iter().map(|row| row_json(row, problems(row.id))))
            })?,
            false => print(|out| table(out, &rows, count, problems))?,
        }
    }
    connection.close().await;
    Ok(ExitCode::SUCCESS)
}

fn json_array(
    out: &mut dyn Write,
    items: impl Iterator<Item = serde_json::Value>,
) -> std::io::Result<()> {
    let mut separator = "[";
    for item in items {
        write!(out, "{separator}\n  {item}")?;
        separator = ",";
    }
    writeln!(out, "{}", if separator == "[" { "[]" } else { "\n]" })
}

fn row_json(row: &Stored, problems: i64) -> serde_json::Value {
    let d = &row.definition;
    json!({
        "id": row.id,
        "name": d.name,
        "group_name": d.group,
        "tags": d.tags,
        "kind": d.kind,
        "url": d.url,
        "interval_s": d.interval_s,
        "timeout_ms": d.timeout_ms,
        "degraded_after_ms": d.degraded_after_ms,
        "cert_warn_days": d.cert_warn_days,
        "regex": d.regex,
        "regex_not": d.regex_not,
        "locations": d.locations,
        "enabled": d.enabled,
        "settings": d.settings,
        "problems": problems,
    })
}

fn problem_json(problem: &Reported) -> serde_json::Value {
    json!({
        "endpoint_id": problem.endpoint.id,
        "name": problem.endpoint.definition.name,
        "group_name": problem.endpoint.definition.group,
        "location": problem.location,
        "field": problem.field,
        "message": problem.message,
        "since": problem.since.to_string(),
    })
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// A cell that a person reads; `--json` has all of a text that is longer.
fn cell(text: &str) -> String {
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}… ({} bytes)", plain(&text[..end]), text.len()),
        None => plain(text),
    }
}

fn table(
    out: &mut dyn Write,
    rows: &[Stored],
    count: u64,
    problems: impl Fn(i64) -> i64,
) -> std::io::Result<()> {
    let mut table = new_table(&[
        "id", "group", "name", "url", "interval", "enabled", "problems",
    ]);
    for row in rows {
        let d = &row.definition;
        let problems = problems(row.id);
        table.add_row([
            row.id.to_string(),
            cell(d.group.as_deref().unwrap_or_default()),
            cell(d.name.as_deref().unwrap_or_default()),
            cell(&d.url),
            format!("{}s", d.interval_s),
            if d.enabled { "yes" } else { "no" }.to_owned(),
            if problems == 0 {
                String::new()
            } else {
                problems.to_string()
            },
        ]);
    }
    if !rows.is_empty() {
        writeln!(out, "{}", table.trim_fmt())?;
    }
    let more = count - rows.len() as u64;
    match more {
        0 => writeln!(out, "{}", counted(count, "endpoint")),
        more => writeln!(
            out,
            "{}, {more} of them not shown (--limit 0 shows all)",
            counted(count, "endpoint")
        ),
    }
}

fn problem_table(out: &mut dyn Write, problems: &[Reported], limit: usize) -> std::io::Result<()> {
    let mut table = new_table(&["id", "endpoint", "location", "field", "problem", "since"]);
    let limit = if limit == 0 { usize::MAX } else { limit };
    for problem in problems.iter().take(limit) {
        table.add_row([
            problem.endpoint.id.to_string(),
            cell(&problem.endpoint.definition.label()),
            cell(&problem.location),
            cell(&problem.field),
            cell(&problem.message),
            problem.since.strftime("%F %T").to_string(),
        ]);
    }
    if !problems.is_empty() {
        writeln!(out, "{}", table.trim_fmt())?;
    }
    writeln!(out, "{}", counted(problems.len() as u64, "problem"))
}
