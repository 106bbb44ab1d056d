//! The body of version 1: labels, then rows. A row is a word of flags (which optional fields are there, and the
//! booleans) followed by the fields that are, as varints.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::DecodeError;
use super::head::Head;
use super::wire::{Reader, put_int, put_text, put_uint};
use crate::domain::{EndpointId, Phases, Reason, Sample, Timestamp};

const REASON: u32 = 1;
const STATUS_CODE: u32 = 1 << 1;
const JUDGED: u32 = 1 << 2;
const MATCHED: u32 = 1 << 3;
const LAG: u32 = 1 << 4;
const RESOLVE: u32 = 1 << 5;
const CONNECT: u32 = 1 << 6;
const TLS: u32 = 1 << 7;
const PROCESSING: u32 = 1 << 8;
const TRANSFER: u32 = 1 << 9;
const DURATION: u32 = 1 << 10;
const ERROR: u32 = 1 << 11;
const SUSPECT: u32 = 1 << 12;
const IPV4: u32 = 1 << 13;
const IPV6: u32 = 1 << 14;
const HTTP_VERSION: u32 = 1 << 15;
const TLS_NOT_AFTER: u32 = 1 << 16;
const DETAIL: u32 = 1 << 17;
const KNOWN: u32 = (1 << 18) - 1;

/// Flags, endpoint, time, hops, sent, received, CPU time: no row is shorter.
const ROW_BYTES_MIN: usize = 7;

pub(super) fn put_rows(out: &mut Vec<u8>, samples: &[Sample], from: Timestamp) {
    let mut labels: Vec<Reason> = Vec::new();
    for reason in samples.iter().filter_map(|sample| sample.reason) {
        if !labels.contains(&reason) {
            labels.push(reason);
        }
    }
    put_uint(out, labels.len() as u64);
    for reason in &labels {
        put_text(out, reason.label());
    }
    for sample in samples {
        put_row(out, sample, from, &labels);
    }
}

fn put_row(out: &mut Vec<u8>, sample: &Sample, from: Timestamp, labels: &[Reason]) {
    put_uint(out, u64::from(flags(sample)));
    put_int(out, sample.endpoint.0);
    // No sample is before the head's `from`; the difference of any two instants fits the unsigned type.
    let after = sample
        .scheduled_at
        .as_micros()
        .wrapping_sub(from.as_micros());
    put_uint(out, after as u64);
    if let Some(reason) = sample.reason {
        let place = labels.iter().position(|&label| label == reason);
        put_uint(out, place.unwrap_or_default() as u64);
    }
    let optional = [
        sample.status_code.map(u32::from),
        sample.lag_us,
        sample.phases.resolve_us,
        sample.phases.connect_us,
        sample.phases.tls_us,
        sample.phases.processing_us,
        sample.phases.transfer_us,
        sample.duration_us,
        sample.error_us,
    ];
    for value in optional.into_iter().flatten() {
        put_uint(out, u64::from(value));
    }
    match sample.remote_ip {
        Some(IpAddr::V4(address)) => out.extend_from_slice(&address.octets()),
        Some(IpAddr::V6(address)) => out.extend_from_slice(&address.octets()),
        None => {}
    }
    out.extend(sample.http_version);
    out.push(sample.hops);
    for value in [sample.bytes_sent, sample.bytes_received, sample.cpu_us] {
        put_uint(out, u64::from(value));
    }
    if let Some(end) = sample.tls_not_after {
        put_int(out, end.as_micros());
    }
    if let Some(detail) = &sample.detail {
        put_text(out, detail);
    }
}

fn flags(sample: &Sample) -> u32 {
    let Phases {
        resolve_us,
        connect_us,
        tls_us,
        processing_us,
        transfer_us,
    } = sample.phases;
    [
        (REASON, sample.reason.is_some()),
        (STATUS_CODE, sample.status_code.is_some()),
        (JUDGED, sample.matched.is_some()),
        (MATCHED, sample.matched == Some(true)),
        (LAG, sample.lag_us.is_some()),
        (RESOLVE, resolve_us.is_some()),
        (CONNECT, connect_us.is_some()),
        (TLS, tls_us.is_some()),
        (PROCESSING, processing_us.is_some()),
        (TRANSFER, transfer_us.is_some()),
        (DURATION, sample.duration_us.is_some()),
        (ERROR, sample.error_us.is_some()),
        (SUSPECT, sample.suspect),
        (IPV4, matches!(sample.remote_ip, Some(IpAddr::V4(_)))),
        (IPV6, matches!(sample.remote_ip, Some(IpAddr::V6(_)))),
        (HTTP_VERSION, sample.http_version.is_some()),
        (TLS_NOT_AFTER, sample.tls_not_after.is_some()),
        (DETAIL, sample.detail.is_some()),
    ]
    .into_iter()
    .fold(0, |flags, (bit, set)| if set { flags | bit } else { flags })
}

pub(super) fn take_rows(reader: &mut Reader<'_>, head: &Head) -> Result<Vec<Sample>, DecodeError> {
    let labels = take_labels(reader)?;
    let rows = head.rows as usize;
    if rows > reader.remaining() / ROW_BYTES_MIN {
        return Err(DecodeError::Malformed("rows"));
    }
    let mut samples = Vec::with_capacity(rows);
    for _ in 0..rows {
        samples.push(take_row(reader, head, &labels)?);
    }
    Ok(samples)
}

fn take_labels(reader: &mut Reader<'_>) -> Result<Vec<Reason>, DecodeError> {
    let count: usize = reader.narrow("labels")?;
    let mut labels = Vec::new();
    for _ in 0..count {
        let label = reader.text("label")?;
        let reason = Reason::all()
            .find(|reason| reason.label() == label)
            .ok_or_else(|| DecodeError::Label(label.into()))?;
        labels.push(reason);
    }
    Ok(labels)
}

fn take_row(
    reader: &mut Reader<'_>,
    head: &Head,
    labels: &[Reason],
) -> Result<Sample, DecodeError> {
    let flags: u32 = reader.narrow("flags")?;
    if flags & !KNOWN != 0 || flags & IPV4 != 0 && flags & IPV6 != 0 {
        return Err(DecodeError::Malformed("flags"));
    }
    let has = |bit| flags & bit != 0;
    let endpoint = EndpointId(reader.int("endpoint")?);
    let scheduled_at = head
        .from
        .as_micros()
        .checked_add_unsigned(reader.uint("time")?)
        .filter(|&at| at <= head.to.as_micros())
        .map(Timestamp::from_micros)
        .ok_or(DecodeError::Malformed("time"))?;
    let mut sample = Sample::new(endpoint, scheduled_at);
    if has(REASON) {
        let place: usize = reader.narrow("reason")?;
        let reason = labels.get(place).ok_or(DecodeError::Malformed("reason"))?;
        sample.reason = Some(*reason);
    }
    if has(STATUS_CODE) {
        sample.status_code = Some(reader.narrow("status")?);
    }
    sample.matched = has(JUDGED).then_some(has(MATCHED));
    let mut optional = |bit, field| has(bit).then(|| reader.narrow(field)).transpose();
    sample.lag_us = optional(LAG, "lag")?;
    sample.phases = Phases {
        resolve_us: optional(RESOLVE, "resolve")?,
        connect_us: optional(CONNECT, "connect")?,
        tls_us: optional(TLS, "tls")?,
        processing_us: optional(PROCESSING, "processing")?,
        transfer_us: optional(TRANSFER, "transfer")?,
    };
    sample.duration_us = optional(DURATION, "duration")?;
    sample.error_us = optional(ERROR, "error")?;
    sample.suspect = has(SUSPECT);
    if has(IPV4) {
        sample.remote_ip = Some(Ipv4Addr::from(reader.array::<4>("address")?).into());
    } else if has(IPV6) {
        sample.remote_ip = Some(Ipv6Addr::from(reader.array::<16>("address")?).into());
    }
    if has(HTTP_VERSION) {
        sample.http_version = Some(reader.byte("http version")?);
    }
    sample.hops = reader.byte("hops")?;
    sample.bytes_sent = reader.narrow("sent")?;
    sample.bytes_received = reader.narrow("received")?;
    sample.cpu_us = reader.narrow("cpu")?;
    if has(TLS_NOT_AFTER) {
        sample.tls_not_after = Some(Timestamp::from_micros(reader.int("certificate")?));
    }
    if has(DETAIL) {
        sample.detail = Some(reader.text("detail")?.into());
    }
    Ok(sample)
}
