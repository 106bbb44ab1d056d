//! Every metric: its name, its unit and its sentence.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(super) const PROBES: &str = "watcher_probes_total";
pub(super) const SKIPPED: &str = "watcher_probes_skipped_total";
pub(super) const FAILURES: &str = "watcher_probe_failures_total";
pub(super) const PROBE_DURATION: &str = "watcher_probe_duration_seconds";
pub(super) const SCHEDULE_LAG: &str = "watcher_schedule_lag_seconds";
pub(super) const IN_FLIGHT: &str = "watcher_probes_in_flight";
pub(super) const ENDPOINTS: &str = "watcher_endpoints";
pub(super) const ENDPOINT_PROBLEMS: &str = "watcher_endpoint_problems";
pub(super) const ENDPOINTS_HELD: &str = "watcher_endpoints_held";
pub(super) const SNAPSHOT_AGE: &str = "watcher_catalog_snapshot_age_seconds";
pub(super) const STORED: &str = "watcher_samples_stored_total";
pub(super) const DROPPED: &str = "watcher_samples_dropped_total";
pub(super) const BUFFER_ROWS: &str = "watcher_buffer_rows";
pub(super) const BATCH_ROWS: &str = "watcher_batch_rows";
pub(super) const WRITE_DURATION: &str = "watcher_store_write_duration_seconds";
pub(super) const STORE_ERRORS: &str = "watcher_store_errors_total";
pub(super) const STORE_CONNECTED: &str = "watcher_store_connected";
pub(super) const SPOOLED: &str = "watcher_samples_spooled_total";
pub(super) const SPOOL_BYTES: &str = "watcher_spool_bytes";
pub(super) const SPOOL_ROWS: &str = "watcher_spool_rows";
pub(super) const GAPS: &str = "watcher_gaps_total";
pub(super) const CLOCK_OFFSET: &str = "watcher_clock_offset_seconds";
pub(super) const NETWORK_DOWN: &str = "watcher_network_down";
pub(super) const CANARY: &str = "watcher_canary_error_seconds";
pub(super) const ADMITTED: &str = "watcher_admitted_share";
pub(super) const HELD: &str = "watcher_samples_held";
pub(super) const SUSPECT: &str = "watcher_probes_suspect_total";
pub(super) const PROCESS_CPU_US: &str = "watcher_process_cpu_microseconds_total";
pub(super) const PROCESS_RESIDENT: &str = "watcher_process_resident_bytes";
pub(super) const AGENT_RESTARTS: &str = "watcher_agent_restarts_total";

pub(super) const PROBE_DURATION_HELP: &str =
    "Duration of probes by phase; total is the whole probe";
pub(super) const SCHEDULE_LAG_HELP: &str = "Actual start of a probe after its scheduled instant";

/// The phases, in the words of blackbox_exporter.
pub(super) const PHASES: [&str; 5] = ["resolve", "connect", "tls", "processing", "transfer"];

/// Buckets of durations, in seconds: 100 µs (loopback) to 60 s.
pub(super) const SECONDS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

/// Buckets of `watcher_batch_rows`.
pub(super) const ROWS: [f64; 9] = [
    1.0, 10.0, 100.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 30_000.0,
];

pub(super) fn describe() {
    describe_counter!(PROBES, "Due probes by outcome");
    describe_counter!(SKIPPED, "Due probes that the agent did not make, by reason");
    describe_counter!(FAILURES, "Probes that ended down, by reason");
    describe_gauge!(IN_FLIGHT, "Probes under way");
    describe_gauge!(ENDPOINTS, "Endpoints that this process probes");
    describe_gauge!(
        ENDPOINT_PROBLEMS,
        "Endpoints that are not probed because their row is not valid"
    );
    describe_gauge!(
        ENDPOINTS_HELD,
        "Deleted endpoints that are still probed, since a large part went at once"
    );
    describe_gauge!(
        SNAPSHOT_AGE,
        Unit::Seconds,
        "Since the snapshot of the endpoints on disk was last in line with the table"
    );
    describe_counter!(STORED, "Samples stored");
    describe_counter!(DROPPED, "Samples lost, by reason");
    describe_gauge!(BUFFER_ROWS, "Samples waiting for a keeper");
    describe_histogram!(BATCH_ROWS, "Rows of a stored batch");
    describe_histogram!(WRITE_DURATION, Unit::Seconds, "Time to store a batch");
    describe_counter!(STORE_ERRORS, "Tries to store a batch that failed, by kind");
    describe_gauge!(
        STORE_CONNECTED,
        "Whether the keeper's connection stands (1) or not (0)"
    );
    describe_counter!(SPOOLED, "Samples that went to the spool");
    describe_gauge!(SPOOL_BYTES, Unit::Bytes, "What waits in the spool");
    describe_gauge!(SPOOL_ROWS, "Samples that wait in the spool");
    describe_counter!(
        GAPS,
        "Spans of time in which ticks were not probed or not stored, by reason"
    );
    describe_gauge!(
        CLOCK_OFFSET,
        Unit::Seconds,
        "This machine's clock ahead of the database's"
    );
    describe_gauge!(
        NETWORK_DOWN,
        "Whether the agent holds its own network to be down (1) or not (0)"
    );
    describe_histogram!(
        CANARY,
        Unit::Seconds,
        "What the agent added to a probe of a target of its own"
    );
    describe_gauge!(
        ADMITTED,
        "Share of the due probes that is made, so that the agent's error stays below --max-error"
    );
    describe_gauge!(
        HELD,
        "Failed samples that wait until it is clear whether the agent's own network is down"
    );
    describe_counter!(
        SUSPECT,
        "Probes whose duration the agent itself may have lengthened beyond the accepted bound"
    );
    describe_counter!(
        PROCESS_CPU_US,
        Unit::Microseconds,
        "CPU time of this process, user and system"
    );
    describe_gauge!(
        PROCESS_RESIDENT,
        Unit::Bytes,
        "Resident memory of this process"
    );
    describe_counter!(AGENT_RESTARTS, "Agents started again after they died");
}
