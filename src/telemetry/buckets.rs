//! Durations of probes, counted into their buckets where they are measured, seven a probe.
//!
//! The recorder's own histograms keep every value, with the time it came, until its upkeep goes over them all: for a probe
//! 0.75 µs, then 120 bytes, and at 20 000 probes a second half a million values at once on the core that probes.

use std::fmt::Write;
use std::iter::zip;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::names;

const BOUNDS: usize = names::SECONDS.len();

/// The bounds in microseconds, which is what is measured.
const BOUNDS_US: [u32; BOUNDS] = {
    let mut bounds = [0; BOUNDS];
    let mut at = 0;
    while at < BOUNDS {
        bounds[at] = (names::SECONDS[at] * 1e6 + 0.5) as u32;
        at += 1;
    }
    bounds
};

/// One series of a histogram. Counts go on for the life of the process.
#[derive(Default, Debug)]
pub(super) struct Buckets {
    /// Each of its bucket alone, the last of what is above all bounds.
    counts: [AtomicU64; BOUNDS + 1],
    sum_us: AtomicU64,
}

impl Buckets {
    /// Nothing, where there was nothing to measure.
    pub(super) fn record(&self, us: Option<u32>) {
        let Some(us) = us else { return };
        let bucket = BOUNDS_US.partition_point(|&bound| bound < us);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us.into(), Relaxed);
    }

    /// Its lines of the text format; `labels` is empty, or ends with a comma.
    pub(super) fn render(&self, name: &str, labels: &str, text: &mut String) {
        let alone = self.counts.each_ref().map(|count| count.load(Relaxed));
        let mut count = 0;
        for (bound, of_bucket) in zip(names::SECONDS, alone) {
            count += of_bucket;
            let _ = writeln!(text, "{name}_bucket{{{labels}le=\"{bound}\"}} {count}");
        }
        count += alone[BOUNDS];
        let _ = writeln!(text, "{name}_bucket{{{labels}le=\"+Inf\"}} {count}");
        let labels = match labels.trim_end_matches(',') {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        let sum = self.sum_us.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(
            text,
            "{name}_sum{labels} {sum}\n{name}_count{labels} {count}"
        );
    }
}

/// The histograms of all probes.
#[derive(Default, Debug)]
pub(super) struct ProbeBuckets {
    pub(super) phases: [Buckets; names::PHASES.len()],
    pub(super) total: Buckets,
    pub(super) lag: Buckets,
}

impl ProbeBuckets {
    /// Both families in the text format.
    pub(super) fn render(&self, text: &mut String) {
        family(names::PROBE_DURATION, names::PROBE_DURATION_HELP, text);
        let phases = zip(names::PHASES, &self.phases).chain([("total", &self.total)]);
        for (phase, buckets) in phases {
            let labels = format!("phase=\"{phase}\",");
            buckets.render(names::PROBE_DURATION, &labels, text);
        }
        family(names::SCHEDULE_LAG, names::SCHEDULE_LAG_HELP, text);
        self.lag.render(names::SCHEDULE_LAG, "", text);
    }
}

fn family(name: &str, help: &str, text: &mut String) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_every_bucket_that_holds_it() {
        let buckets = Buckets::default();
        // At a bound, right above it, above all of them; and nothing.
        for us in [Some(100), Some(101), Some(60_000_001), None] {
            buckets.record(us);
        }
        let mut text = String::new();
        buckets.render("x_seconds", "", &mut text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), BOUNDS + 3);
        assert_eq!(
            lines[..2],
            [
                "x_seconds_bucket{le=\"0.0001\"} 1",
                "x_seconds_bucket{le=\"0.00025\"} 2"
            ]
        );
        assert_eq!(
            lines[BOUNDS - 1..],
            [
                "x_seconds_bucket{le=\"60\"} 2",
                "x_seconds_bucket{le=\"+Inf\"} 3",
                "x_seconds_sum 60.000202",
                "x_seconds_count 3"
            ]
        );
    }

    #[test]
    fn each_phase_is_a_series() {
        let buckets = ProbeBuckets::default();
        buckets.phases[1].record(Some(5_000));
        buckets.lag.record(Some(1));
        let mut text = String::new();
        buckets.render(&mut text);
        for line in [
            "# TYPE watcher_probe_duration_seconds histogram",
            "watcher_probe_duration_seconds_bucket{phase=\"connect\",le=\"0.0025\"} 0",
            "watcher_probe_duration_seconds_bucket{phase=\"connect\",le=\"0.005\"} 1",
            "watcher_probe_duration_seconds_sum{phase=\"connect\"} 0.005",
            "watcher_probe_duration_seconds_count{phase=\"total\"} 0",
            "watcher_schedule_lag_seconds_count 1",
        ] {
            assert!(
                text.lines().any(|it| it == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn bounds_are_whole_microseconds() {
        for (seconds, us) in zip(names::SECONDS, BOUNDS_US) {
            assert_eq!(seconds, f64::from(us) / 1e6);
        }
    }
}
