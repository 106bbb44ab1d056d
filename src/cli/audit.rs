//! `watcher audit`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args as ClapArgs;
use jiff::{SignedDuration, Timestamp as Instant};
use serde::Serialize;

use super::output::{plain, print};
use crate::config::{Problem, env};
use crate::domain::Timestamp;
use crate::store::timescale::{Audit, AuditWindow, EndpointAudit, Error, Timescale};

/// Account for every due probe: stored, off (no agent there yet, or stopped), or missing, with the reason.
///
/// Exit 0 when nothing is missing or stored twice, 1 otherwise. The database is WATCHER_ADMIN_DATABASE_URL, else
/// DATABASE_URL; an agent's role may not read samples.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Start of the window: RFC 3339, or how long before its end
    #[arg(
        long,
        env = "WATCHER_AUDIT_SINCE",
        default_value = "10m",
        value_name = "DURATION|TIME"
    )]
    pub since: Edge,
    /// End of the window: RFC 3339, or how long ago [default: the last tick whose timeout and flush have passed]
    #[arg(long, env = "WATCHER_AUDIT_UNTIL", value_name = "DURATION|TIME")]
    pub until: Option<Edge>,
    /// Print one JSON object
    #[arg(long, env = "WATCHER_AUDIT_JSON")]
    pub json: bool,
    /// Also list each endpoint and location that was due
    #[arg(long, env = "WATCHER_AUDIT_ENDPOINTS")]
    pub endpoints: bool,
}

/// An edge of the window, as it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edge {
    /// An instant.
    At(Instant),
    /// So long before.
    Before(SignedDuration),
}

impl FromStr for Edge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        match text.parse::<SignedDuration>() {
            Ok(before) if !before.is_negative() => Ok(Self::Before(before)),
            _ => Err(
                "write a duration such as 10m or 2h, or an instant such as 2026-11-21T10:00:00Z"
                    .to_owned(),
            ),
        }
    }
}

impl Edge {
    /// The instant, by the end of the window.
    pub(super) fn from(self, end: Instant) -> Instant {
        match self {
            Self::At(at) => at,
            Self::Before(before) => end.checked_sub(before).unwrap_or(Instant::MIN),
        }
    }
}

/// The contract's object.
#[derive(Serialize)]
struct Report<'a> {
    since: String,
    until: String,
    #[serde(flatten)]
    audit: &'a Audit,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoints: Option<&'a [EndpointAudit]>,
}

/// Runs `watcher audit`.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let store = Timescale::open(&env::admin_database_url()?)?;
    audit(&store, &args).await
}

async fn audit(store: &Timescale, args: &Args) -> anyhow::Result<ExitCode> {
    let now = Instant::now();
    let (until, since_from) = match args.until {
        Some(edge) => (edge.from(now), edge.from(now)),
        // The last ten minutes are those before now, of which the very last are not judged yet.
        None => (
            instant(
                store
                    .audit_horizon()
                    .await
                    .map_err(advised("the audit failed"))?,
            ),
            now,
        ),
    };
    // To the microsecond, as it is audited.
    let since = instant(Timestamp::from_micros(
        args.since.from(since_from).as_microsecond(),
    ));
    if since >= until {
        let message = format!("{since} is not before the window's end, {until}");
        return Err(Problem::of("--since", message).into());
    }
    let window = AuditWindow {
        since: Timestamp::from_micros(since.as_microsecond()),
        until: Timestamp::from_micros(until.as_microsecond()),
    };
    let (audit, endpoints) = if args.endpoints {
        let (audit, endpoints) = store
            .audit_endpoints(window)
            .await
            .map_err(advised("the audit failed"))?;
        (audit, Some(endpoints))
    } else {
        (
            store
                .audit(window)
                .await
                .map_err(advised("the audit failed"))?,
            None,
        )
    };
    print(|out| {
        if args.json {
            let report = Report {
                since: since.to_string(),
                until: until.to_string(),
                audit: &audit,
                endpoints: endpoints.as_deref(),
            };
            serde_json::to_writer(&mut *out, &report)?;
            return writeln!(out);
        }
        out.write_all(table(since, until, &audit).as_bytes())?;
        for endpoint in endpoints.iter().flatten() {
            out.write_all(line(endpoint).as_bytes())?;
        }
        Ok(())
    })?;
    Ok(if audit.missing > 0 || audit.duplicates > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn instant(at: Timestamp) -> Instant {
    Instant::from_microsecond(at.as_micros()).unwrap_or(Instant::MAX)
}

/// The error with what to do about it, else with what it ended.
pub(super) fn advised(otherwise: &'static str) -> impl Fn(Error) -> anyhow::Error {
    move |error| {
        let advice = match &error {
            error if error.is_missing_privilege() => {
                "this user may not read samples; set WATCHER_ADMIN_DATABASE_URL to the owner's"
            }
            error if error.is_missing_schema() => {
                "the schema is missing or older than this release; run watcher migrate"
            }
            _ => otherwise,
        };
        match error {
            // Not ready, rather than a fault: told by its type.
            Error::Connect(error) => error.into(),
            error => anyhow::Error::from(error).context(advice),
        }
    }
}

fn table(since: Instant, until: Instant, audit: &Audit) -> String {
    let mut text = format!("{since:.3} to {until:.3}\n");
    let mut row = |name: &str, count: i64| text.push_str(&format!("{name:<24}{count:>14}\n"));
    row("due", audit.due);
    row("stored", audit.stored);
    row("  up", audit.up);
    row("  degraded", audit.degraded);
    row("  down", audit.down);
    row("  skipped", audit.skipped.values().sum());
    for (reason, count) in &audit.skipped {
        row(&format!("    {reason}"), *count);
    }
    row("off", audit.off);
    row("missing", audit.missing);
    for (reason, count) in &audit.missing_by {
        row(&format!("  {reason}"), *count);
    }
    row("duplicates", audit.duplicates);
    text
}

fn line(endpoint: &EndpointAudit) -> String {
    let EndpointAudit {
        endpoint_id,
        location,
        audit,
    } = endpoint;
    let by = |reasons: &BTreeMap<String, i64>| {
        let list: Vec<_> = reasons.iter().map(|(r, n)| format!("{r} {n}")).collect();
        if list.is_empty() {
            String::new()
        } else {
            format!(" ({})", list.join(", "))
        }
    };
    let skipped: i64 = audit.skipped.values().sum();
    format!(
        "endpoint {endpoint_id} at {}: due {}, up {}, degraded {}, down {}, skipped {skipped}{}, off {}, missing {}{}\n",
        plain(location),
        audit.due,
        audit.up,
        audit.degraded,
        audit.down,
        by(&audit.skipped),
        audit.off,
        audit.missing,
        by(&audit.missing_by),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_an_instant_or_a_time_before() {
        let end: Instant = "2026-11-21T10:00:00Z".parse().unwrap();
        let from = |text: &str| text.parse::<Edge>().map(|edge| edge.from(end).to_string());
        assert_eq!(from("10m").unwrap(), "2026-11-21T09:50:00Z");
        assert_eq!(from("1h30m").unwrap(), "2026-11-21T08:30:00Z");
        assert_eq!(
            from("2026-11-20T23:00:00+01:00").unwrap(),
            "2026-11-20T22:00:00Z"
        );
        for bad in ["", "ten", "-5m", "2026-11-20", "10"] {
            assert!(from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_line_of_an_endpoint_says_every_reason() {
        let by = |pairs: &[(&str, i64)]| pairs.iter().map(|(r, n)| ((*r).to_owned(), *n)).collect();
        let endpoint = EndpointAudit {
            endpoint_id: 7,
            location: "fra".into(),
            audit: Audit {
                due: 20,
                stored: 8,
                up: 6,
                skipped: by(&[("overload", 1), ("shutdown", 1)]),
                off: 2,
                missing: 10,
                missing_by: by(&[
                    ("agent_died", 3),
                    ("catalog_behind", 2),
                    ("endpoint_problem", 5),
                ]),
                ..Audit::default()
            },
        };
        assert_eq!(
            line(&endpoint),
            "endpoint 7 at fra: due 20, up 6, degraded 0, down 0, skipped 2 (overload 1, shutdown 1), off 2, \
             missing 10 (agent_died 3, catalog_behind 2, endpoint_problem 5)\n"
        );
    }

    #[test]
    fn the_object_is_that_of_the_contract() {
        let audit = Audit {
            due: 9,
            stored: 6,
            up: 4,
            skipped: [("overload".to_owned(), 2)].into(),
            off: 1,
            missing: 2,
            missing_by: [("unexplained".to_owned(), 2)].into(),
            ..Audit::default()
        };
        let report = Report {
            since: "a".into(),
            until: "b".into(),
            audit: &audit,
            endpoints: None,
        };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"since":"a","until":"b","due":9,"stored":6,"up":4,"degraded":0,"down":0,"skipped":{"overload":2},"off":1,"missing":2,"missing_by":{"unexplained":2},"duplicates":0}"#
        );
    }
}
