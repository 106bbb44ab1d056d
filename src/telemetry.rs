//! One function per fact. What a number is called is in `names`; who reads it is in the exporters. No label ever
//! carries a URL, a host or a name: labels are closed sets.

mod buckets;
pub mod logging;
pub mod names;
pub mod prometheus;

use std::iter::zip;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge, histogram};

use self::buckets::ProbeBuckets;
use crate::domain::{Outcome, Phases, Reason, Sample, SkipReason};

/// Of a process that probes: as with the recorder, there is one in a process.
static PROBES: OnceLock<ProbeBuckets> = OnceLock::new();

/// Handles for what is counted per sample: looked up once, since a look-up costs more than the count.
#[derive(Clone)]
pub struct ProbeMetrics {
    outcomes: [Counter; 4],
    buckets: &'static ProbeBuckets,
    in_flight: Gauge,
    endpoints: Gauge,
    suspect: Counter,
    held: Gauge,
    admitted: Gauge,
}

impl Default for ProbeMetrics {
    fn default() -> Self {
        Self {
            outcomes: [
                Outcome::Up,
                Outcome::Degraded,
                Outcome::Down,
                Outcome::Skipped,
            ]
            .map(|outcome| counter!(names::PROBES, "outcome" => outcome.label())),
            buckets: PROBES.get_or_init(ProbeBuckets::default),
            in_flight: gauge!(names::IN_FLIGHT),
            endpoints: gauge!(names::ENDPOINTS),
            suspect: counter!(names::SUSPECT),
            held: gauge!(names::HELD),
            admitted: gauge!(names::ADMITTED),
        }
    }
}

impl ProbeMetrics {
    /// A sample was taken, skipped ones included.
    pub fn sampled(&self, sample: &Sample) {
        self.outcomes[sample.outcome() as usize].increment(1);
        if sample.suspect {
            self.suspect.increment(1);
        }
        match sample.reason {
            Some(Reason::Skipped(why)) => {
                counter!(names::SKIPPED, "reason" => why.label()).increment(1)
            }
            Some(Reason::Failed(why)) => {
                counter!(names::FAILURES, "reason" => why.label()).increment(1)
            }
            _ => {}
        }
        let Phases {
            resolve_us,
            connect_us,
            tls_us,
            processing_us,
            transfer_us,
        } = sample.phases;
        let phases = [resolve_us, connect_us, tls_us, processing_us, transfer_us];
        for (buckets, us) in zip(&self.buckets.phases, phases) {
            buckets.record(us);
        }
        self.buckets.total.record(sample.duration_us);
        self.buckets.lag.record(sample.lag_us);
    }

    /// Probes under way.
    pub fn in_flight(&self, probes: usize) {
        self.in_flight.set(probes as f64);
    }

    /// The share of due probes that is admitted.
    pub fn admitted(&self, share: f64) {
        self.admitted.set(share);
    }

    /// Samples that wait until it is clear whether our own network is down.
    pub fn held(&self, samples: usize) {
        self.held.set(samples as f64);
    }

    /// Endpoints that this process probes.
    pub fn endpoints(&self, endpoints: usize) {
        self.endpoints.set(endpoints as f64);
    }
}

/// Why samples were lost. Each loss is also an ERROR in the log and a gap in the audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// The buffer was full while the store was away.
    BufferFull,
    /// The store refused the row.
    Refused,
    /// The store was away until the end of the shutdown.
    Shutdown,
    /// The spool was full.
    SpoolFull,
    /// The spool's file was damaged.
    SpoolDamaged,
}

impl DropReason {
    const fn label(self) -> &'static str {
        match self {
            Self::BufferFull => "buffer_full",
            Self::Refused => "refused",
            Self::Shutdown => "shutdown",
            Self::SpoolFull => "spool_full",
            Self::SpoolDamaged => "spool_damaged",
        }
    }
}

/// Samples were lost.
pub fn samples_dropped(reason: DropReason, samples: u64) {
    counter!(names::DROPPED, "reason" => reason.label()).increment(samples);
}

/// A batch is in the store.
pub fn batch_stored(rows: usize, took: Duration) {
    counter!(names::STORED).increment(rows as u64);
    histogram!(names::BATCH_ROWS).record(rows as f64);
    histogram!(names::WRITE_DURATION).record(took.as_secs_f64());
}

/// A batch could not be stored at this try.
pub fn store_failed(kind: &'static str) {
    counter!(names::STORE_ERRORS, "kind" => kind).increment(1);
}

/// Whether a keeper has a working connection.
pub fn store_connected(connected: bool) {
    gauge!(names::STORE_CONNECTED).set(if connected { 1.0 } else { 0.0 });
}

/// Samples waiting for a keeper.
pub fn buffered(rows: usize) {
    gauge!(names::BUFFER_ROWS).set(rows as f64);
}

/// Samples went to the spool.
pub fn samples_spooled(samples: u64) {
    counter!(names::SPOOLED).increment(samples);
}

/// What waits in the spool.
pub fn spool(bytes: u64, rows: u64) {
    gauge!(names::SPOOL_BYTES).set(bytes as f64);
    gauge!(names::SPOOL_ROWS).set(rows as f64);
}

/// Ticks in a span of time were not probed or not stored.
pub fn gap(reason: &'static str) {
    counter!(names::GAPS, "reason" => reason).increment(1);
}

/// Endpoints that are not probed because their row is not valid.
pub fn endpoint_problems(endpoints: usize) {
    gauge!(names::ENDPOINT_PROBLEMS).set(endpoints as f64);
}

/// Deleted endpoints that are still probed.
pub fn endpoints_held(endpoints: usize) {
    gauge!(names::ENDPOINTS_HELD).set(endpoints as f64);
}

/// Since the snapshot of the endpoints on disk was last in line with the table.
pub fn snapshot_age(age: Duration) {
    gauge!(names::SNAPSHOT_AGE).set(age.as_secs_f64());
}

/// How far our clock is ahead of the database's.
pub fn clock_offset(seconds: f64) {
    gauge!(names::CLOCK_OFFSET).set(seconds);
}

/// Whether the agent holds its own network to be down.
pub fn network_down(is_down: bool) {
    gauge!(names::NETWORK_DOWN).set(if is_down { 1.0 } else { 0.0 });
}

/// What the agent added to a probe of its own target.
pub fn canary(error: Duration) {
    histogram!(names::CANARY).record(error.as_secs_f64());
}

/// CPU time and memory of this process so far.
pub fn process_usage(cpu: Duration, resident_bytes: u64) {
    counter!(names::PROCESS_CPU_US).absolute(cpu.as_micros() as u64);
    gauge!(names::PROCESS_RESIDENT).set(resident_bytes as f64);
}

/// The supervisor started an agent again.
pub fn agent_restarted() {
    counter!(names::AGENT_RESTARTS).increment(1);
}

/// Makes series of counters that may stay at zero appear from the start, so that a rate over them works.
pub fn register() {
    for reason in [
        DropReason::BufferFull,
        DropReason::Refused,
        DropReason::Shutdown,
        DropReason::SpoolFull,
        DropReason::SpoolDamaged,
    ] {
        samples_dropped(reason, 0);
    }
    for why in SkipReason::ALL {
        counter!(names::SKIPPED, "reason" => why.label()).increment(0);
    }
    counter!(names::STORED).increment(0);
    store_connected(false);
    endpoints_held(0);
    buffered(0);
    network_down(false);
}
