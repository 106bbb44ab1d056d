//! A sample as one JSON object with the columns of `metrics`.

use serde_json::{Value as Json, json};

use crate::domain::{Reason, Sample, Timestamp};

/// Every column is there, null where the table would have null. No endpoint and no agent stand behind a single probe.
pub(super) fn row(sample: &Sample, location: &str) -> Json {
    json!({
        "time": instant(sample.scheduled_at),
        "endpoint_id": null,
        "location": location,
        "outcome": sample.outcome().label(),
        "reason": sample.reason.map(Reason::label),
        "status_code": sample.status_code,
        "matched": sample.matched,
        "lag_us": sample.lag_us,
        "resolve_us": sample.phases.resolve_us,
        "connect_us": sample.phases.connect_us,
        "tls_us": sample.phases.tls_us,
        "processing_us": sample.phases.processing_us,
        "transfer_us": sample.phases.transfer_us,
        "duration_us": sample.duration_us,
        "error_us": sample.error_us,
        "suspect": sample.suspect,
        "remote_ip": sample.remote_ip.map(|ip| ip.to_string()),
        "http_version": sample.http_version,
        "hops": sample.hops,
        "bytes_sent": sample.bytes_sent,
        "bytes_received": sample.bytes_received,
        "cpu_us": sample.cpu_us,
        "tls_not_after": sample.tls_not_after.map(instant),
        "agent": null,
        "detail": sample.detail,
    })
}

/// RFC 3339, UTC.
pub(super) fn instant(at: Timestamp) -> Option<String> {
    let at = jiff::Timestamp::from_microsecond(at.as_micros()).ok()?;
    Some(at.to_string())
}
