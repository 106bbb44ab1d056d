//! A row of `endpoints` → a validated [`Endpoint`]. The one place that says which endpoints are probed and which are
//! refused: agents use it for the table's rows, the CLI for files before it writes them.

mod cache;

use std::time::Duration;

use super::error::Problem;
use super::raw::EndpointRow;
use super::read::Finding;
use super::secret::SecretSource;
use super::target;
use crate::domain::{Endpoint, Interval};

pub use cache::CheckCache;

/// Where neither the row nor its interval says less.
const TIMEOUT_MS_DEFAULT: u32 = 10_000;
/// Ten years: no certificate lasts longer.
const CERT_WARN_DAYS_MAX: i32 = 3_650;

/// The endpoint of `row`, or every problem it has, each with the column (`settings.…` for a key within).
///
/// Checks and patterns come from `cache`, so that equal ones are shared; `secrets` is asked when a check is built.
pub fn endpoint(
    row: &EndpointRow,
    cache: &mut CheckCache,
    secrets: &dyn SecretSource,
) -> Result<Endpoint, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut keep = |field: &str, message: String| problems.push(Problem::of(field, message));

    let target = target::parse(&row.url).map_err(|message| keep("url", message));
    let interval = Interval::from_secs(row.interval_s.into()).map_err(|_| {
        keep(
            "interval_s",
            format!(
                "{} s is outside {}–{} s; choose one in between",
                row.interval_s,
                Interval::MIN_S,
                Interval::MAX_S
            ),
        );
    });
    let timeout =
        timeout(row.timeout_ms, interval.ok()).map_err(|message| keep("timeout_ms", message));
    if row.degraded_after_ms.is_some_and(|millis| millis < 1) {
        let message = "must be longer than 0 ms; leave it out to have no limit";
        keep("degraded_after_ms", message.to_owned());
    }
    if row
        .cert_warn_days
        .is_some_and(|days| !(0..=CERT_WARN_DAYS_MAX).contains(&days))
    {
        let message = format!("is outside 0–{CERT_WARN_DAYS_MAX} days; choose one in between");
        keep("cert_warn_days", message);
    }
    let check = match row.kind.as_str() {
        "http" => cache.http(row, secrets).map_err(|found| {
            problems.extend(found);
        }),
        other => {
            let other = super::values::shortened(other);
            keep("kind", format!("`{other}` is unknown; known is http"));
            Err(())
        }
    };
    match (target, interval, timeout, check) {
        (Ok(target), Ok(interval), Ok(timeout), Ok(check)) if problems.is_empty() => Ok(Endpoint {
            id: row.id,
            target,
            interval,
            timeout,
            degraded_after: row.degraded_after_ms.map(millis),
            cert_warn: row
                .cert_warn_days
                .map(|days| Duration::from_secs(u64::from(days.unsigned_abs()) * 86_400)),
            check,
        }),
        _ => Err(problems),
    }
}

fn millis(millis: i32) -> Duration {
    Duration::from_millis(millis.unsigned_abs().into())
}

fn timeout(timeout_ms: Option<i32>, interval: Option<Interval>) -> Result<Duration, String> {
    let interval_ms = interval.map_or(u32::MAX, Interval::millis);
    match timeout_ms {
        None => Ok(Duration::from_millis(
            TIMEOUT_MS_DEFAULT.min(interval_ms).into(),
        )),
        Some(given) if given < 1 => {
            Err("must be longer than 0 ms; leave it out for 10 s or the interval".to_owned())
        }
        Some(given) if given.unsigned_abs() > interval_ms => Err(format!(
            "{} is longer than the interval of {} s; shorten it or lengthen the interval",
            super::values::written_millis(given),
            interval_ms / 1_000
        )),
        Some(given) => Ok(millis(given)),
    }
}

/// A finding in the column `settings`.
fn in_settings(finding: Finding) -> Problem {
    let field = match finding.path.as_str() {
        "" => "settings".to_owned(),
        path => format!("settings.{path}"),
    };
    Problem::of(field, finding.message)
}
