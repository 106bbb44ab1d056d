//! A sample as one JSON object with the columns of `metrics`.

use serde_json::{Value as Json, json};

use crate::domain::{Reason, Sample, Timestamp};

/// Every column is there, null where the table would have null. Without an agent no endpoint stands behind the sample
/// either: it is of a single probe. Numbers beyond a column's range become the range's end, as in the table.
pub fn row(sample: &Sample, location: &str, agent: Option<&str>) -> Json {
    let whole = |value: u32| value.min(i32::MAX as u32);
    let some = |value: Option<u32>| value.map(whole);
    json!({
        "time": instant(sample.scheduled_at),
        "endpoint_id": agent.map(|_| sample.endpoint.0),
        "location": location,
        "outcome": sample.outcome().label(),
        "reason": sample.reason.map(Reason::label),
        "status_code": sample.status_code,
        "matched": sample.matched,
        "lag_us": some(sample.lag_us),
        "resolve_us": some(sample.phases.resolve_us),
        "connect_us": some(sample.phases.connect_us),
        "tls_us": some(sample.phases.tls_us),
        "processing_us": some(sample.phases.processing_us),
        "transfer_us": some(sample.phases.transfer_us),
        "duration_us": some(sample.duration_us),
        "error_us": some(sample.error_us),
        "suspect": sample.suspect,
        "remote_ip": sample.remote_ip.map(|ip| ip.to_string()),
        "http_version": sample.http_version,
        "hops": sample.hops,
        "bytes_sent": whole(sample.bytes_sent),
        "bytes_received": whole(sample.bytes_received),
        "cpu_us": whole(sample.cpu_us),
        "tls_not_after": sample.tls_not_after.map(instant),
        "agent": agent,
        "detail": sample.detail,
    })
}

/// RFC 3339, UTC.
pub fn instant(at: Timestamp) -> Option<String> {
    let at = jiff::Timestamp::from_microsecond(at.as_micros()).ok()?;
    Some(at.to_string())
}
