//! `watcher endpoints generate`.

use std::process::ExitCode;

use clap::Args;

use super::{connect, counted, explained};
use crate::cli::exit;
use crate::cli::output::{Progress, print, print_problems};
use crate::config::{CheckCache, Definition, Unread, endpoint};
use crate::store::timescale::endpoints::{Editor, Generated};

/// Arguments of `watcher endpoints generate`.
#[derive(Args, Debug)]
#[command(
    after_help = "The same arguments give the same endpoints: a second run changes nothing, and one with another \
                  interval or pattern changes the rows that are there. A lower count removes none; see `endpoints rm`."
)]
pub(super) struct GenerateArgs {
    /// How many.
    #[arg(long, env = "WATCHER_GENERATE_COUNT", value_parser = clap::value_parser!(i64).range(1..=10_000_000))]
    count: i64,
    /// URLs are BASE_URL/e/1, BASE_URL/e/2, ….
    #[arg(long, env = "WATCHER_GENERATE_BASE_URL")]
    base_url: String,
    /// Seconds between probes: one number, or a range over which they are spread evenly.
    #[arg(long, env = "WATCHER_GENERATE_INTERVAL", default_value = "5..300", value_parser = interval)]
    interval: (i32, i32),
    /// Pattern that must match.
    #[arg(long, env = "WATCHER_GENERATE_REGEX")]
    regex: Option<String>,
    /// Decides which endpoint gets which interval of the range.
    #[arg(long, env = "WATCHER_GENERATE_SEED", default_value_t = 0)]
    seed: u32,
    /// Names are PREFIX-000001, PREFIX-000002, ….
    #[arg(long, env = "WATCHER_GENERATE_PREFIX", default_value = "generated")]
    prefix: String,
    /// Group of them all.
    #[arg(long, env = "WATCHER_GENERATE_GROUP")]
    group: Option<String>,
}

/// `30`, `30s` or `5..300`.
fn interval(text: &str) -> Result<(i32, i32), String> {
    let seconds = |part: &str| {
        let number = part.trim().trim_end_matches('s');
        number
            .parse::<i32>()
            .ok()
            .filter(|seconds| (5..=300).contains(seconds))
    };
    let range = match text.split_once("..") {
        Some((low, high)) => seconds(low).zip(seconds(high.trim_start_matches('='))),
        None => seconds(text).map(|seconds| (seconds, seconds)),
    };
    range.filter(|(low, high)| low <= high).ok_or_else(|| {
        "write seconds between 5 and 300, or a range of them such as 5..300".to_owned()
    })
}

/// Makes the endpoints in one transaction.
pub(super) async fn run(args: GenerateArgs) -> anyhow::Result<ExitCode> {
    let wanted = Generated {
        count: args.count,
        prefix: args.prefix,
        group: args.group.filter(|group| !group.is_empty()),
        base_url: args.base_url.trim_end_matches('/').to_owned(),
        interval_s: args.interval,
        regex: args.regex.filter(|regex| !regex.is_empty()),
        seed: args.seed,
    };
    // They are all alike: what holds for one holds for each.
    let example = Definition {
        url: format!("{}/e/{}", wanted.base_url, wanted.count),
        interval_s: wanted.interval_s.0,
        regex: wanted.regex.clone(),
        ..Definition::default()
    };
    if let Err(problems) = endpoint(&example.row(), &mut CheckCache::new(), &Unread) {
        print_problems("error: ", &problems);
        return Ok(ExitCode::from(exit::USAGE));
    }
    let count = wanted.count.unsigned_abs();
    let mut connection = connect().await?;
    let mut editor = explained(Editor::begin(&mut connection.client, true).await)?;
    let mut progress = Progress::new("making endpoints", count);
    explained(
        editor
            .stage_generated(&wanted, &mut |done| progress.at(done))
            .await,
    )?;
    progress.finish();
    explained(editor.match_rows().await)?;
    let mut progress = Progress::new("writing endpoints", count);
    let written = explained(editor.write(false, &mut |done| progress.at(done)).await)?;
    progress.finish();
    explained(editor.commit().await)?;
    connection.close().await;
    let unchanged = count - written.inserted - written.updated;
    print(|out| {
        writeln!(
            out,
            "{}: {} added, {} changed, {unchanged} unchanged",
            counted(count, "endpoint"),
            written.inserted,
            written.updated
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
