//! Settings of `up` and `agent`: each a flag and an environment variable. Secrets have no flag.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::Problem;
use crate::domain::{Arm, ArmError, Partition};

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// One line for a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// When samples go to the spool on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum SpoolMode {
    /// Never. While the database is away samples are held in memory, as many as the buffer takes; the end of the process
    /// loses them.
    Off,
    /// While the database is away. The end of the process loses what was taken since the last batch (batch-age); a power
    /// cut may lose what the disk had not yet synced, some MiB.
    #[default]
    Outage,
    /// Each batch, before it goes to the database, synced to the disk. A kill or a power cut loses only what was taken
    /// since the last batch.
    Always,
}

/// On or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Switch {
    /// On.
    #[default]
    On,
    /// Off.
    Off,
}

/// Log settings, of every command.
#[derive(Args, Clone, Debug)]
pub struct LogSettings {
    /// What is logged, in the syntax of RUST_LOG
    #[arg(
        long,
        env = "WATCHER_LOG",
        default_value = "info",
        global = true,
        value_name = "FILTER"
    )]
    pub log_filter: String,
    /// How a log line looks
    #[arg(
        long,
        env = "WATCHER_LOG_FORMAT",
        default_value = "text",
        global = true,
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
}

/// Settings that `up` hands on to its agents.
#[derive(Args, Clone, Debug)]
pub struct AgentSettings {
    /// Where this agent measures from; a column of every row
    #[arg(long, env = "WATCHER_LOCATION", default_value = "default", value_name = "NAME", value_parser = location)]
    pub location: String,
    /// Name of this agent in the rows; the host's name when not set
    #[arg(long, env = "WATCHER_AGENT_NAME", value_name = "NAME")]
    pub agent_name: Option<String>,
    /// Label of a variant of settings, for comparisons
    #[arg(
        long,
        env = "WATCHER_ARM",
        default_value = "default",
        value_name = "NAME"
    )]
    pub arm: String,
    /// All arms of a comparison, this one included, comma-separated and the same in each: they divide the ticks of every
    /// endpoint between them. Start as many processes of each arm as one needs without; `watcher compare` tells the
    /// difference
    #[arg(
        long,
        env = "WATCHER_ARMS",
        value_delimiter = ',',
        value_name = "NAME,NAME"
    )]
    pub arms: Vec<String>,
    /// Probes under way at most in one process; a due probe above that is skipped (overload)
    #[arg(long, env = "WATCHER_IN_FLIGHT_MAX", default_value_t = 4_000, value_name = "N", value_parser = at_least_one)]
    pub in_flight_max: usize,
    /// Probes under way at most to one host and port; not limited when not set
    #[arg(long, env = "WATCHER_IN_FLIGHT_PER_HOST", value_name = "N", value_parser = at_least_one)]
    pub in_flight_per_host: Option<usize>,
    /// Rows that make a batch; where more wait and the store keeps up, one takes up to three times as many
    #[arg(long, env = "WATCHER_BATCH_ROWS", default_value_t = 10_000, value_name = "N", value_parser = at_least_one)]
    pub batch_rows: usize,
    /// A sample waits no longer than this for its batch to fill
    #[arg(long, env = "WATCHER_BATCH_AGE", default_value = "1s", value_name = "TIME", value_parser = duration)]
    pub batch_age: Duration,
    /// Keepers, each with a database connection of its own, in one process
    #[arg(long, env = "WATCHER_KEEPERS", default_value_t = 1, value_name = "N", value_parser = at_least_one)]
    pub keepers: usize,
    /// One batch may take so long to be stored, 1s to 10m; the server gives its statements three quarters of that
    #[arg(long, env = "WATCHER_WRITE_TIMEOUT", default_value = "20s", value_name = "TIME", value_parser = write_timeout)]
    pub write_timeout: Duration,
    /// Samples held in memory while the database is away, in one process (some 200 bytes each)
    #[arg(long, env = "WATCHER_BUFFER_ROWS", default_value_t = 131_072, value_name = "N", value_parser = at_least_one)]
    pub buffer_rows: usize,
    /// When samples go to the spool: off, outage (only while the database is away), always (each batch first)
    #[arg(
        long,
        env = "WATCHER_SPOOL",
        default_value = "outage",
        value_name = "MODE"
    )]
    pub spool: SpoolMode,
    /// Folder of the spool's files; without one, samples are held in memory only
    #[arg(long, env = "WATCHER_SPOOL_DIR", value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,
    /// Size of one process's spool at most, in MiB; when it is full its oldest samples go, and are counted
    #[arg(long, env = "WATCHER_SPOOL_MIB_MAX", default_value_t = 1_024, value_name = "MIB", value_parser = at_least_one)]
    pub spool_mib_max: usize,
    /// Keep a snapshot of the endpoints in the spool's folder, and probe from it after a start while the database is away
    #[arg(
        long,
        env = "WATCHER_CATALOG_SNAPSHOT",
        default_value = "on",
        value_name = "on|off"
    )]
    pub catalog_snapshot: Switch,
    /// A snapshot older than this is not probed from
    #[arg(long, env = "WATCHER_CATALOG_SNAPSHOT_MAX_AGE", default_value = "24h", value_name = "TIME", value_parser = duration)]
    pub catalog_snapshot_max_age: Duration,
    /// When a large part of the endpoints is deleted at once, go on probing them for so long; 0 applies it at once
    #[arg(long, env = "WATCHER_MASS_REMOVAL_GRACE", default_value = "10m", value_name = "TIME", value_parser = duration_or_zero)]
    pub mass_removal_grace: Duration,
    /// A large part is so many percent of one process's endpoints, and at least 10
    #[arg(long, env = "WATCHER_MASS_REMOVAL_PERCENT", default_value_t = 50, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub mass_removal_percent: u8,
    /// Changes of the endpoints are looked for this often, also when no notification comes
    #[arg(long, env = "WATCHER_CATALOG_POLL", default_value = "1s", value_name = "TIME", value_parser = duration)]
    pub catalog_poll: Duration,
    /// Time that matching one body may take on the match thread
    #[arg(long, env = "WATCHER_REGEX_BUDGET", default_value = "50ms", value_name = "TIME", value_parser = duration)]
    pub regex_budget: Duration,
    /// A sample is marked suspect, and left out of percentiles, when the agent itself may have added more than this to its
    /// duration
    #[arg(long, env = "WATCHER_SUSPECT_ABOVE", default_value = "2ms", value_name = "TIME", value_parser = duration)]
    pub suspect_above: Duration,
    /// When the agent itself may have added more than this to one in fifty durations, or to those of its own canary, fewer
    /// probes are made until it is less; the rest is skipped (overload). Not limited when not set
    #[arg(long, env = "WATCHER_MAX_ERROR", value_name = "TIME", value_parser = duration)]
    pub max_error: Option<Duration>,
    /// Probes under way at the stop have so long to end; the rest is skipped (shutdown)
    #[arg(long, env = "WATCHER_STOP_GRACE", default_value = "3s", value_name = "TIME", value_parser = duration)]
    pub stop_grace: Duration,
    /// Refuse to probe private and loopback addresses
    #[arg(long, env = "WATCHER_DENY_PRIVATE")]
    pub deny_private: bool,
    /// Networks that may be probed although they are link-local or metadata addresses (repeated or comma-separated)
    #[arg(
        long,
        env = "WATCHER_ALLOW_ADDRESSES",
        value_delimiter = ',',
        value_name = "CIDR"
    )]
    pub allow_addresses: Vec<IpNet>,
    /// Further networks that must not be probed (repeated or comma-separated)
    #[arg(
        long,
        env = "WATCHER_DENY_ADDRESSES",
        value_delimiter = ',',
        value_name = "CIDR"
    )]
    pub deny_addresses: Vec<IpNet>,
    /// Pin each process to a core of its own; only where this container has its cores for itself
    #[arg(long, env = "WATCHER_PIN")]
    pub pin: bool,
}

impl AgentSettings {
    /// The arm, and with whom it shares the ticks.
    pub fn arm(&self) -> Result<Arm, Problem> {
        Arm::new(&self.arm, &self.arms).map_err(|error| {
            let field = match error {
                ArmError::Name(_) | ArmError::Stranger { .. } => "arm",
                ArmError::Twice(_) | ArmError::Count(_) => "arms",
            };
            Problem::of(field, error.to_string())
        })
    }

    /// Folder for what outlives the process; none when samples are held in memory only.
    pub fn folder(&self) -> Option<&Path> {
        self.spool_dir
            .as_deref()
            .filter(|_| self.spool != SpoolMode::Off)
    }

    /// Folder of the snapshot of the endpoints, when there is to be one.
    pub fn snapshot_folder(&self) -> Option<&Path> {
        self.folder()
            .filter(|_| self.catalog_snapshot == Switch::On)
    }

    /// The same settings as environment variables, for the processes that `up` starts.
    pub fn to_env(&self) -> Vec<(&'static str, String)> {
        let micros = |duration: Duration| format!("{}us", duration.as_micros());
        let list = |nets: &[IpNet]| {
            nets.iter()
                .map(IpNet::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        let mut env = vec![
            ("WATCHER_LOCATION", self.location.clone()),
            ("WATCHER_ARM", self.arm.clone()),
            ("WATCHER_IN_FLIGHT_MAX", self.in_flight_max.to_string()),
            ("WATCHER_BATCH_ROWS", self.batch_rows.to_string()),
            ("WATCHER_BATCH_AGE", micros(self.batch_age)),
            ("WATCHER_KEEPERS", self.keepers.to_string()),
            ("WATCHER_WRITE_TIMEOUT", micros(self.write_timeout)),
            ("WATCHER_BUFFER_ROWS", self.buffer_rows.to_string()),
            ("WATCHER_SPOOL", value_name(self.spool)),
            ("WATCHER_SPOOL_MIB_MAX", self.spool_mib_max.to_string()),
            (
                "WATCHER_CATALOG_SNAPSHOT",
                value_name(self.catalog_snapshot),
            ),
            (
                "WATCHER_CATALOG_SNAPSHOT_MAX_AGE",
                micros(self.catalog_snapshot_max_age),
            ),
            (
                "WATCHER_MASS_REMOVAL_GRACE",
                micros(self.mass_removal_grace),
            ),
            (
                "WATCHER_MASS_REMOVAL_PERCENT",
                self.mass_removal_percent.to_string(),
            ),
            ("WATCHER_CATALOG_POLL", micros(self.catalog_poll)),
            ("WATCHER_REGEX_BUDGET", micros(self.regex_budget)),
            ("WATCHER_SUSPECT_ABOVE", micros(self.suspect_above)),
            ("WATCHER_STOP_GRACE", micros(self.stop_grace)),
            ("WATCHER_DENY_PRIVATE", self.deny_private.to_string()),
            ("WATCHER_PIN", self.pin.to_string()),
        ];
        env.extend(
            self.agent_name
                .clone()
                .map(|name| ("WATCHER_AGENT_NAME", name)),
        );
        env.extend(
            self.in_flight_per_host
                .map(|max| ("WATCHER_IN_FLIGHT_PER_HOST", max.to_string())),
        );
        env.extend(self.max_error.map(|max| ("WATCHER_MAX_ERROR", micros(max))));
        if let Some(dir) = &self.spool_dir {
            env.push(("WATCHER_SPOOL_DIR", dir.to_string_lossy().into_owned()));
        }
        if !self.arms.is_empty() {
            env.push(("WATCHER_ARMS", self.arms.join(",")));
        }
        for (name, nets) in [
            ("WATCHER_ALLOW_ADDRESSES", &self.allow_addresses),
            ("WATCHER_DENY_ADDRESSES", &self.deny_addresses),
        ] {
            if !nets.is_empty() {
                env.push((name, list(nets)));
            }
        }
        env
    }
}

/// Settings of `watcher agent`.
#[derive(Args, Clone, Debug)]
pub struct AgentArgs {
    /// This process's share of the endpoints: those whose id modulo N is I
    #[arg(
        long,
        env = "WATCHER_PARTITION",
        default_value = "0/1",
        value_name = "I/N"
    )]
    pub partition: Partition,
    /// Health and metrics; not served when started by `up`, which serves them for all
    #[arg(
        long,
        env = "WATCHER_LISTEN",
        default_value = "0.0.0.0:9464",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub agent: AgentSettings,
}

/// Settings of `watcher up`.
#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    /// Agent processes: a number, or one per core that this container may use
    #[arg(
        long,
        env = "WATCHER_PROCESSES",
        default_value = "auto",
        value_name = "auto|N"
    )]
    pub processes: Processes,
    /// This node's place among several that share the endpoints of one location, each with as many processes
    #[arg(long, env = "WATCHER_NODE", default_value = "0/1", value_name = "I/N")]
    pub node: Partition,
    /// Health and metrics of the whole container
    #[arg(
        long,
        env = "WATCHER_LISTEN",
        default_value = "0.0.0.0:9464",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,
    /// After the signal to stop, agents have so long before they are killed; keep it below the container's own grace
    #[arg(long, env = "WATCHER_STOP_TIMEOUT", default_value = "8s", value_name = "TIME", value_parser = duration)]
    pub stop_timeout: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub agent: AgentSettings,
}

/// Number of agent processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Processes {
    /// One per core that the cgroup and the affinity leave us.
    Auto,
    /// So many.
    Count(u32),
}

impl Processes {
    /// The number, at least 1.
    pub fn count(self) -> u32 {
        match self {
            Self::Auto => {
                std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
            }
            Self::Count(count) => count,
        }
    }
}

impl std::str::FromStr for Processes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => match text.parse() {
                Ok(count @ 1..=1024) => Ok(Self::Count(count)),
                _ => Err("expected `auto` or a number from 1 to 1024".to_owned()),
            },
        }
    }
}

/// A span of time such as `30s`, `1m 30s`, `50ms` or `30d`, above zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a span of time such as 500ms, 30s, 10m or 30d".to_owned();
    let span: jiff::Span = text.parse().map_err(|_| expected())?;
    let duration = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .ok()
        .and_then(|d| Duration::try_from(d).ok())
        .ok_or_else(expected)?;
    if duration.is_zero() {
        Err("expected a span of time above zero".to_owned())
    } else {
        Ok(duration)
    }
}

/// A span of time as [`duration`] takes it, or `0`.
pub fn duration_or_zero(text: &str) -> Result<Duration, String> {
    match text.trim() {
        "0" | "0s" | "0us" => Ok(Duration::ZERO),
        text => duration(text),
    }
}

/// Below a second a healthy database under load would look like one that is away; above ten minutes one that is away
/// would look healthy.
fn write_timeout(text: &str) -> Result<Duration, String> {
    let (min, max) = (Duration::from_secs(1), Duration::from_secs(600));
    duration(text).and_then(|timeout| {
        if (min..=max).contains(&timeout) {
            Ok(timeout)
        } else {
            Err("expected a span of time from 1s to 10m".to_owned())
        }
    })
}

fn value_name(value: impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|&n| n >= 1)
        .ok_or_else(|| "expected a number of at least 1".to_owned())
}

fn location(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 63 && text.chars().all(|c| !c.is_control());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 63 bytes without control characters".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        agent: AgentSettings,
    }

    #[test]
    fn what_is_handed_on_is_what_was_set() {
        let flags = [
            "x",
            "--location",
            "fra",
            "--agent-name",
            "n1",
            "--arm",
            "new",
            "--arms",
            "new,old",
            "--in-flight-per-host",
            "3",
            "--batch-age",
            "250ms",
            "--deny-private",
            "--allow-addresses",
            "169.254.1.0/24,fe80::/64",
        ];
        let settings = Cli::parse_from(flags).agent;
        let env: std::collections::BTreeMap<_, _> = settings.to_env().into_iter().collect();
        assert_eq!(env["WATCHER_BATCH_AGE"], "250000us");
        assert_eq!(env["WATCHER_ALLOW_ADDRESSES"], "169.254.1.0/24,fe80::/64");
        assert_eq!(env["WATCHER_DENY_PRIVATE"], "true");
        assert_eq!(
            (&*env["WATCHER_ARM"], &*env["WATCHER_ARMS"]),
            ("new", "new,old")
        );
        // Every flag of AgentSettings has its variable here, but for those not set.
        let command = <Cli as clap::CommandFactory>::command();
        let variables = command
            .get_arguments()
            .filter_map(|arg| arg.get_env()?.to_str());
        let missing: Vec<_> = variables.filter(|name| !env.contains_key(name)).collect();
        assert_eq!(
            missing,
            [
                "WATCHER_SPOOL_DIR",
                "WATCHER_MAX_ERROR",
                "WATCHER_DENY_ADDRESSES"
            ]
        );
        assert_eq!(
            duration(&env["WATCHER_BATCH_AGE"]),
            Ok(Duration::from_millis(250))
        );
    }

    #[test]
    fn a_write_takes_a_second_to_ten_minutes() {
        assert_eq!(write_timeout("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(write_timeout("10m"), Ok(Duration::from_secs(600)));
        for bad in ["999ms", "10m 1ms", "soon"] {
            assert!(write_timeout(bad).is_err(), "{bad}");
        }
        let unset = Cli::parse_from(["x"]).agent.write_timeout;
        assert_eq!(unset, Duration::from_secs(20));
    }

    #[test]
    fn spans_of_time_are_read_as_people_write_them() {
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "0s", "-1s", "ten", "5"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(duration_or_zero("0"), Ok(Duration::ZERO));
        assert_eq!(duration_or_zero("10m"), Ok(Duration::from_secs(600)));
        assert!(duration_or_zero("5").is_err());
    }
}
