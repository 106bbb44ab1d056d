//! `watcher compare`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args as ClapArgs, ValueEnum};
use jiff::Timestamp as Instant;
use serde_json::{Value, json};

use super::audit::{Edge, advised};
use super::output::{plain, print};
use crate::config::{Problem, env};
use crate::domain::Timestamp;
use crate::domain::compare::{
    CLUSTERS_MIN, Difference, Probes, TooLittle, quantiles, ratio, share,
};
use crate::store::timescale::{ArmRows, AuditWindow, CompareQuery, Compared, Timescale};

/// What two arms measured at the same endpoints in the same time, and how sure the difference is.
///
/// The arms are agents that divide the ticks of every endpoint between them: --arm A --arms A,B and --arm B --arms A,B.
/// Told are the differences B − A of median, 95th and 99th percentile (of what was up or degraded and not suspect), of the
/// share that was down and of CPU time, each with a 95 % interval: groups of endpoints and blocks of time are resampled.
/// The two columns before a difference are those of an endpoint of middling speed. An interval that holds zero is no
/// proof that there is no difference: it says how large one may be.
///
/// Exit 0 with an answer; 1 when there is too little data for one. The database is WATCHER_ADMIN_DATABASE_URL, else
/// DATABASE_URL; an agent's role may not read samples.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// The one arm
    #[arg(value_name = "A", env = "WATCHER_COMPARE_A")]
    pub a: String,
    /// The other arm, whose difference from the first is told
    #[arg(value_name = "B", env = "WATCHER_COMPARE_B")]
    pub b: String,
    /// Start of the window: RFC 3339, or how long before its end
    #[arg(
        long,
        env = "WATCHER_COMPARE_SINCE",
        default_value = "1h",
        value_name = "DURATION|TIME"
    )]
    pub since: Edge,
    /// End of the window: RFC 3339, or how long ago [default: the last tick whose timeout and flush have passed]
    #[arg(long, env = "WATCHER_COMPARE_UNTIL", value_name = "DURATION|TIME")]
    pub until: Option<Edge>,
    /// What is compared
    #[arg(
        long,
        env = "WATCHER_COMPARE_METRIC",
        default_value = "duration",
        value_name = "METRIC"
    )]
    pub metric: Metric,
    /// At this location alone
    #[arg(long, env = "WATCHER_COMPARE_LOCATION", value_name = "NAME")]
    pub location: Option<String>,
    /// Print one JSON object
    #[arg(long, env = "WATCHER_COMPARE_JSON")]
    pub json: bool,
}

/// A column of `metrics`, in µs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Metric {
    /// The whole probe
    Duration,
    /// Name to address
    Resolve,
    /// TCP
    Connect,
    /// The handshake
    Tls,
    /// Request to first byte
    Processing,
    /// First byte to last
    Transfer,
    /// Start after the due time
    Lag,
    /// CPU time of the agent
    Cpu,
}

impl Metric {
    fn label(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Processing => "processing",
            Self::Transfer => "transfer",
            Self::Lag => "lag",
            Self::Cpu => "cpu",
        }
    }
}

type Found = Result<Difference, TooLittle>;

/// All that is told.
struct Answer<'a> {
    args: &'a Args,
    since: Instant,
    until: Instant,
    compared: Compared,
    /// Median, p95, p99: µs, of an endpoint of middling speed.
    quantiles: [Found; 3],
    /// Share of the probes.
    down: Found,
    /// µs a probe.
    cpu: Found,
}

const QUANTILE_NAMES: [&str; 3] = ["median", "p95", "p99"];
/// Of an arm's samples: above it, what is left of them may not be like the others.
const SUSPECT_MAX: f64 = 0.05;

/// Runs `watcher compare`.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.a == args.b {
        let message = format!("both arms are {:?}; name two", args.a);
        return Err(Problem::of("B", message).into());
    }
    let store = Timescale::open(&env::admin_database_url()?)?;
    let advised = advised("the comparison failed");
    let now = Instant::now();
    let (until, since_from) = match args.until {
        Some(edge) => (edge.from(now), edge.from(now)),
        None => (instant(store.audit_horizon().await.map_err(&advised)?), now),
    };
    let since = args.since.from(since_from);
    if since >= until {
        let message = format!("{since} is not before the window's end, {until}");
        return Err(Problem::of("--since", message).into());
    }
    let window = AuditWindow {
        since: Timestamp::from_micros(since.as_microsecond()),
        until: Timestamp::from_micros(until.as_microsecond()),
    };
    let location = args.location.as_deref();
    let ran = store
        .arms_that_ran(window, location)
        .await
        .map_err(&advised)?;
    check_arms(&args, &ran)?;
    let query = CompareQuery {
        arms: [&args.a, &args.b],
        window,
        location,
        metric: args.metric.label(),
    };
    let compared = store.compare(query).await.map_err(&advised)?;
    let parts = |of: fn(&_) -> _| -> Vec<_> { compared.paired.probes.iter().map(of).collect() };
    let middle = compared.paired.middle;
    let answer = Answer {
        args: &args,
        since,
        until,
        quantiles: quantiles(&compared.paired.masses).map(|found| {
            found.map(|found| Difference {
                a: found.a + middle,
                b: found.b + middle,
                ..found
            })
        }),
        down: share(&parts(Probes::failures)),
        cpu: ratio(&parts(Probes::cost)),
        compared,
    };
    print(|out| {
        if args.json {
            writeln!(out, "{}", answer.object())
        } else {
            answer.table(out)
        }
    })?;
    Ok(match answer.quantiles[0] {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Whether both arms ran, and divided the ticks between them.
fn check_arms(args: &Args, ran: &[(String, Vec<String>)]) -> Result<(), Problem> {
    for (field, arm) in [("A", &args.a), ("B", &args.b)] {
        if !ran.iter().any(|(name, _)| name == arm) {
            let mut names: Vec<_> = ran.iter().map(|(name, _)| name.as_str()).collect();
            names.dedup();
            let others = match names[..] {
                [] => "no agent did".to_owned(),
                _ => format!("these did: {}", names.join(", ")),
            };
            let message = format!(
                "no agent of arm {arm:?} ran in this window; {others} (see --since, --location)"
            );
            return Err(Problem::of(field, message));
        }
    }
    let together = |(name, arms): &&(String, Vec<String>)| {
        *name == args.a && arms.contains(&args.a) && arms.contains(&args.b)
    };
    if !ran.iter().any(|ran| together(&ran)) {
        let message = format!(
            "the agents of {:?} and {:?} did not divide the ticks between them; start both with --arms {},{}",
            args.a, args.b, args.a, args.b
        );
        return Err(Problem::of("arms", message));
    }
    Ok(())
}

fn instant(at: Timestamp) -> Instant {
    Instant::from_microsecond(at.as_micros()).unwrap_or(Instant::MAX)
}

impl Answer<'_> {
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let compared = &self.compared;
        if compared.ran.is_none() {
            notes.push("the arms never ran at the same time in this window".to_owned());
        } else if compared.paired.endpoints == 0 {
            notes.push("no endpoint was probed by both arms".to_owned());
        }
        let arms = [&self.args.a, &self.args.b].into_iter().zip(&compared.rows);
        for (name, rows) in arms.clone().filter(|(_, rows)| rows.usable == 0) {
            if rows.probed() > 0 {
                notes.push(format!(
                    "no sample of {} that was up or degraded and not suspect has the metric {}",
                    plain(name),
                    self.args.metric.label()
                ));
            }
        }
        let figures = QUANTILE_NAMES.iter().zip(&self.quantiles);
        for (name, found) in figures.chain([(&"down", &self.down), (&"CPU", &self.cpu)]) {
            if let Err(shortage) = found {
                notes.push(format!(
                    "too little data for {name}: {shortage}; a longer --since has more"
                ));
            }
        }
        if (1..CLUSTERS_MIN as u32).contains(&compared.paired.endpoints) {
            notes.push(format!(
                "fewer than {CLUSTERS_MIN} endpoints: the intervals speak of these alone, and of chance over time"
            ));
        }
        for (name, rows) in arms {
            let share = rows.suspect as f64 / rows.probed().max(1) as f64;
            if share > SUSPECT_MAX {
                notes.push(format!(
                    "{:.0} % of {}'s samples are suspect and left out of the percentiles: the rest may be of quiet moments",
                    share * 100.0,
                    plain(name)
                ));
            }
        }
        notes
    }

    fn object(&self) -> Value {
        let number = |found: &Found, digits: i32| match found {
            Ok(found) => {
                let round = |x: f64| (x * 10f64.powi(digits)).round() / 10f64.powi(digits);
                json!({
                    "a": round(found.a),
                    "b": round(found.b),
                    "difference": round(found.difference()),
                    "low": round(found.low),
                    "high": round(found.high),
                })
            }
            Err(_) => Value::Null,
        };
        let arm = |name: &str, rows: &ArmRows, lower_at: i64| {
            let count = |outcome| rows.outcomes.get(outcome).copied().unwrap_or(0);
            json!({
                "arm": name,
                "up": count("up"),
                "degraded": count("degraded"),
                "down": count("down"),
                "skipped": count("skipped"),
                "suspect": rows.suspect,
                "usable": rows.usable,
                "lower_median_at": lower_at,
            })
        };
        let [a, b] = &self.compared.rows;
        let [a_lower_at, b_lower_at] = self.compared.paired.lower_at;
        let [median, p95, p99] = &self.quantiles;
        json!({
            "since": self.since.to_string(),
            "until": self.until.to_string(),
            "ran_since": self.compared.ran.map(|(since, _)| instant(since).to_string()),
            "ran_until": self.compared.ran.map(|(_, until)| instant(until).to_string()),
            "location": self.args.location,
            "metric": self.args.metric.label(),
            "endpoints": self.compared.paired.endpoints,
            "block_s": self.compared.block.as_secs_f64(),
            "a": arm(&self.args.a, a, a_lower_at),
            "b": arm(&self.args.b, b, b_lower_at),
            "median_us": number(median, 1),
            "p95_us": number(p95, 1),
            "p99_us": number(p99, 1),
            "down": number(&self.down, 6),
            "cpu_us": number(&self.cpu, 2),
            "notes": self.notes(),
        })
    }

    fn table(&self, out: &mut dyn Write) -> io::Result<()> {
        let (a, b) = (plain(&self.args.a), plain(&self.args.b));
        let compared = &self.compared;
        let place = match &self.args.location {
            Some(location) => format!(" at {}", plain(location)),
            None => String::new(),
        };
        let ran = compared.ran;
        let (since, until) = ran.map_or((self.since, self.until), |(since, until)| {
            (instant(since), instant(until))
        });
        writeln!(
            out,
            "{a} and {b}{place}, {since:.0} to {until:.0}: {} endpoints, blocks of {:.0} s",
            compared.paired.endpoints,
            compared.block.as_secs_f64()
        )?;
        let mut sheet = Sheet {
            width: a.chars().count().max(b.chars().count()).max(12),
            b: &b,
            out,
        };
        sheet.row("", &a, &b, &format!("{b} - {a}, 95 % interval"))?;
        let [rows_a, rows_b] = &compared.rows;
        for outcome in ["up", "degraded", "down", "skipped"] {
            let count = |rows: &ArmRows| rows.outcomes.get(outcome).copied().unwrap_or(0);
            sheet.counts(outcome, count(rows_a), count(rows_b), "")?;
        }
        sheet.counts("suspect", rows_a.suspect, rows_b.suspect, "")?;
        let metric = self.args.metric.label();
        for (name, found) in QUANTILE_NAMES.iter().zip(&self.quantiles) {
            sheet.figure(&format!("{metric} {name}"), found, micros)?;
        }
        let [lower_a, lower_b] = compared.paired.lower_at;
        sheet.counts("lower median at", lower_a, lower_b, "endpoints")?;
        let percent = |share: f64| format!("{:.3} %", share * 100.0);
        sheet.figure("down", &self.down, percent)?;
        sheet.figure("CPU a probe", &self.cpu, micros)?;
        for note in self.notes() {
            writeln!(out, "note: {note}")?;
        }
        Ok(())
    }
}

/// Lines of a name, a column for each arm, and what there is to say.
struct Sheet<'a> {
    out: &'a mut dyn Write,
    width: usize,
    /// The second arm.
    b: &'a str,
}

impl Sheet<'_> {
    fn row(&mut self, name: &str, a: &str, b: &str, rest: &str) -> io::Result<()> {
        let width = self.width;
        let line = format!("{name:<20}{a:>width$}  {b:>width$}  {rest}");
        writeln!(self.out, "{}", line.trim_end())
    }

    fn counts(&mut self, name: &str, a: i64, b: i64, rest: &str) -> io::Result<()> {
        self.row(name, &a.to_string(), &b.to_string(), rest)
    }

    /// A line with a difference; none where there is none, since the notes say why.
    fn figure(&mut self, name: &str, found: &Found, show: fn(f64) -> String) -> io::Result<()> {
        let Ok(found) = found else { return Ok(()) };
        let signed = |x: f64| {
            let sign = if x > 0.0 { "+" } else { "" };
            format!("{sign}{}", show(x))
        };
        let verdict = match (found.is_clear(), found.difference() < 0.0) {
            (false, _) => "no clear difference".to_owned(),
            (true, true) => format!("{} is lower", self.b),
            (true, false) => format!("{} is higher", self.b),
        };
        let rest = format!(
            "{}, {} to {}: {verdict}",
            signed(found.difference()),
            signed(found.low),
            signed(found.high)
        );
        self.row(name, &show(found.a), &show(found.b), &rest)
    }
}

fn micros(us: f64) -> String {
    if us.abs() < 999.5 {
        format!("{us:.0} µs")
    } else {
        format!("{:.2} ms", us / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Args {
        Args {
            a: "old".into(),
            b: "new".into(),
            since: "1h".parse().unwrap(),
            until: None,
            metric: Metric::Duration,
            location: None,
            json: false,
        }
    }

    #[test]
    fn what_is_wrong_with_the_arms_is_said_with_the_way_out() {
        let ran = |text: &[(&str, &str)]| -> Vec<(String, Vec<String>)> {
            let list = |arms: &str| arms.split_terminator(',').map(str::to_owned).collect();
            text.iter()
                .map(|(name, arms)| ((*name).to_owned(), list(arms)))
                .collect()
        };
        let wrong = |text| check_arms(&args(), &ran(text)).unwrap_err().to_string();
        assert_eq!(
            wrong(&[]),
            "A: no agent of arm \"old\" ran in this window; no agent did (see --since, --location)"
        );
        assert_eq!(
            wrong(&[("default", ""), ("old", ""), ("old", "old,x")]),
            "B: no agent of arm \"new\" ran in this window; these did: default, old (see --since, --location)"
        );
        assert_eq!(
            wrong(&[("new", ""), ("old", "")]),
            "arms: the agents of \"old\" and \"new\" did not divide the ticks between them; start both with --arms old,new"
        );
        let both = [("new", "new,old"), ("old", "new,old")];
        assert_eq!(check_arms(&args(), &ran(&both)), Ok(()));
    }

    #[test]
    fn a_figure_says_which_way_and_how_sure() {
        let line = |found: Difference| {
            let mut text = Vec::new();
            let mut sheet = Sheet {
                out: &mut text,
                width: 12,
                b: "new",
            };
            sheet.figure("median", &Ok(found), micros).unwrap();
            String::from_utf8(text).unwrap()
        };
        let found = |b, low, high| Difference {
            a: 41_000.0,
            b,
            low,
            high,
        };
        assert_eq!(
            line(found(38_000.0, -3_400.0, -2_600.0)),
            "median                  41.00 ms      38.00 ms  -3.00 ms, -3.40 ms to -2.60 ms: new is lower\n"
        );
        assert_eq!(
            line(found(41_500.0, -100.0, 1_100.0)),
            "median                  41.00 ms      41.50 ms  +500 µs, -100 µs to +1.10 ms: no clear difference\n"
        );
    }
}
