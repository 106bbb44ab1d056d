//! `watcher plan`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args as ClapArgs;
use serde_json::json;

use super::output::print;
use crate::app::machine;
use crate::config::args::{Processes, duration};
use crate::config::env;
use crate::domain::capacity::{Load, Plan, ProbeCost, Room, Warning, plan};
use crate::store::timescale::{LocationLoad, Timescale};

/// Where nothing was measured yet. CPU: README, 1 KiB over a new connection at 2 000/s; the row: cost_hourly, mean of the
/// quickstart; the rest: an ordinary page far away.
const ASSUMED: ProbeCost = ProbeCost {
    cpu_us: 95.0,
    duration_s: 0.25,
    stored_bytes: 180.0,
    sent_bytes: 300.0,
    received_bytes: 8_000.0,
};

/// What the endpoints need of cores, open files, spool and disk, by location.
///
/// Measured costs are those of the last hour; what was not measured is assumed, and marked so. Exit 0, or 1 when a limit
/// is met or would be. The database is WATCHER_ADMIN_DATABASE_URL, else DATABASE_URL; an agent's role may not read
/// samples.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Costs are measured over this time, up to now
    #[arg(long, env = "WATCHER_PLAN_WINDOW", default_value = "1h", value_name = "TIME", value_parser = duration)]
    pub window: Duration,
    /// As if so many more endpoints were there, at each location
    #[arg(
        long,
        env = "WATCHER_PLAN_MORE",
        default_value_t = 0,
        value_name = "COUNT"
    )]
    pub more: u64,
    /// Interval of those that are more
    #[arg(long, env = "WATCHER_PLAN_INTERVAL", default_value = "60s", value_name = "TIME", value_parser = duration)]
    pub interval: Duration,
    /// Agent processes of a location, all nodes together
    #[arg(
        long,
        env = "WATCHER_PROCESSES",
        default_value = "auto",
        value_name = "auto|N"
    )]
    pub processes: Processes,
    /// Probes under way at most in one process
    #[arg(
        long,
        env = "WATCHER_IN_FLIGHT_MAX",
        default_value_t = 4_000,
        value_name = "N"
    )]
    pub in_flight_max: u64,
    /// Size of one process's spool at most, in MiB
    #[arg(
        long,
        env = "WATCHER_SPOOL_MIB_MAX",
        default_value_t = 1_024,
        value_name = "MIB"
    )]
    pub spool_mib_max: u64,
    /// Print one JSON object a location
    #[arg(long, env = "WATCHER_PLAN_JSON")]
    pub json: bool,
}

/// What was found out about one location.
struct Location {
    name: String,
    load: Load,
    cost: ProbeCost,
    assumed: Vec<&'static str>,
    overloaded: i64,
    plan: Plan,
}

/// Runs `watcher plan`.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let store = Timescale::open(&env::admin_database_url()?)?;
    let found = store
        .load_by_location(args.window)
        .await
        .context("the endpoints and what they cost could not be read")?;
    let room = Room {
        processes: args.processes.count(),
        in_flight_max: args.in_flight_max,
        descriptors: machine::descriptors_allowed(),
        spool_bytes: args.spool_mib_max << 20,
    };
    let locations: Vec<_> = found
        .into_iter()
        .map(|found| location(found, &args, room))
        .collect();
    print(|out| {
        if locations.is_empty() && !args.json {
            return writeln!(
                out,
                "no endpoint names a location, and no agent has run yet"
            );
        }
        locations.iter().try_for_each(|location| {
            if args.json {
                writeln!(out, "{}", object(location))
            } else {
                table(location, room, out)
            }
        })
    })?;
    let is_tight = |location: &Location| !location.plan.warnings.is_empty();
    Ok(if locations.iter().any(is_tight) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn location(found: LocationLoad, args: &Args, room: Room) -> Location {
    let mut assumed = Vec::new();
    let mut known = |measured: Option<f64>, otherwise: f64, name| {
        measured.unwrap_or_else(|| {
            assumed.push(name);
            otherwise
        })
    };
    let cost = ProbeCost {
        cpu_us: known(found.cpu_us, ASSUMED.cpu_us, "cpu_us"),
        duration_s: known(found.duration_s, ASSUMED.duration_s, "duration_s"),
        stored_bytes: known(found.stored_bytes, ASSUMED.stored_bytes, "stored_bytes"),
        sent_bytes: known(found.sent_bytes, ASSUMED.sent_bytes, "sent_bytes"),
        received_bytes: known(
            found.received_bytes,
            ASSUMED.received_bytes,
            "received_bytes",
        ),
    };
    let timeout = args.interval.min(Duration::from_secs(10));
    let load = found.load.with(args.more, args.interval, timeout);
    Location {
        name: found.location,
        load,
        cost,
        assumed,
        overloaded: found.overloaded,
        plan: plan(load, cost, room),
    }
}

fn object(location: &Location) -> serde_json::Value {
    let Location {
        name,
        load,
        cost,
        assumed,
        overloaded,
        plan,
    } = location;
    json!({
        "location": name,
        "endpoints": load.endpoints,
        "probes_per_s": load.probes_per_s,
        "cpu_us_per_probe": cost.cpu_us,
        "duration_s": cost.duration_s,
        "assumed": assumed,
        "cores": plan.cores,
        "processes_wanted": plan.processes_wanted,
        "in_flight": plan.in_flight,
        "in_flight_worst": plan.in_flight_worst,
        "descriptors_worst": plan.descriptors_worst,
        "rows_per_day": plan.rows_per_day,
        "stored_bytes_per_month": plan.stored_bytes_per_month,
        "traffic_bytes_per_month": plan.traffic_bytes_per_month,
        "spool_holds_s": plan.spool_holds.as_secs(),
        "skipped_for_overload": overloaded,
        "warnings": plan.warnings.iter().map(sentence).collect::<Vec<_>>(),
    })
}

fn table(location: &Location, room: Room, out: &mut dyn Write) -> io::Result<()> {
    let Location {
        name,
        load,
        cost,
        assumed,
        overloaded,
        plan,
    } = location;
    let mark = |name: &str| {
        if assumed.contains(&name) {
            " (assumed)"
        } else {
            ""
        }
    };
    let gb = |bytes: f64| bytes / 1e9;
    writeln!(out, "location {name}, {} processes", room.processes)?;
    let mut row = |what: &str, value: String| writeln!(out, "  {what:<26}{value}");
    row("endpoints", load.endpoints.to_string())?;
    row("probes/s", format!("{:.1}", load.probes_per_s))?;
    row(
        "cores",
        format!(
            "{:.2}, at {:.0} µs a probe{}; {} processes keep each below {:.0} %",
            plan.cores,
            cost.cpu_us,
            mark("cpu_us"),
            plan.processes_wanted,
            crate::domain::capacity::CORE_SHARE_MAX * 100.0
        ),
    )?;
    row(
        "under way",
        format!(
            "{:.0}, at {:.0} ms a probe{}; {:.0} if all targets hang",
            plan.in_flight,
            cost.duration_s * 1_000.0,
            mark("duration_s"),
            plan.in_flight_worst
        ),
    )?;
    row(
        "open files of a process",
        format!(
            "{} then; {} allowed",
            plan.descriptors_worst, room.descriptors
        ),
    )?;
    row("rows a day", format!("{:.0}", plan.rows_per_day))?;
    row(
        "table, GB a month",
        format!(
            "{:.1} before compression, at {:.0} bytes a row{}",
            gb(plan.stored_bytes_per_month),
            cost.stored_bytes,
            mark("stored_bytes")
        ),
    )?;
    row(
        "traffic, GB a month",
        format!(
            "{:.1}, at {:.0} bytes sent{} and {:.0} received{} a probe",
            gb(plan.traffic_bytes_per_month),
            cost.sent_bytes,
            mark("sent_bytes"),
            cost.received_bytes,
            mark("received_bytes")
        ),
    )?;
    row(
        "spools hold an outage of",
        format!("{:.1} h", plan.spool_holds.as_secs_f64() / 3_600.0),
    )?;
    if *overloaded > 0 {
        row("skipped for overload", overloaded.to_string())?;
    }
    for warning in &plan.warnings {
        writeln!(out, "  warning: {}", sentence(warning))?;
    }
    Ok(())
}

/// What is met, and the way out.
fn sentence(warning: &Warning) -> String {
    match *warning {
        Warning::Cores { share } => format!(
            "each process would use {:.0} % of its core; run more processes, on more cores or nodes",
            share * 100.0
        ),
        Warning::InFlight { usual, max } => format!(
            "{usual:.0} probes would be under way, {max} may be; raise in-flight-max or shorten timeouts"
        ),
        Warning::InFlightWorst { worst, max } => format!(
            "if all targets hang, {worst:.0} probes want to be under way and {max} may be: the rest would be skipped \
             (overload); raise in-flight-max, or shorten timeouts"
        ),
        Warning::Descriptors { limit, needed } => format!(
            "a process may open {limit} files here and may need {needed}; raise the limit of open files (ulimit -n, nofile)"
        ),
        Warning::Spool { holds } => format!(
            "the spools are full after {:.0} min without the database; raise spool-mib-max",
            holds.as_secs_f64() / 60.0
        ),
    }
}
