//! Binary COPY: what is encoded is taken apart again by a reader written from PostgreSQL's documentation.
#![no_main]

use std::net::IpAddr;

use bytes::Buf;
use libfuzzer_sys::fuzz_target;
use watcher::domain::{Reason, Sample};
use watcher::store::timescale::RowEncoder;
use watcher_fuzz::BatchInput;

fuzz_target!(|input: BatchInput| {
    let batch = input.batch();
    let encoded = RowEncoder::default().encode(&batch);
    let mut bytes = &encoded.bytes[..];
    assert_eq!(&bytes[..11], b"PGCOPY\n\xff\r\n\0");
    bytes.advance(11);
    assert_eq!(
        (bytes.get_i32(), bytes.get_i32()),
        (0, 0),
        "flags and extension"
    );
    for (row, sample) in batch.samples.iter().enumerate() {
        assert_eq!(encoded.offsets[row], encoded.bytes.len() - bytes.len());
        assert_eq!(bytes.get_i16(), 25, "fields");
        let fields: Vec<Option<&[u8]>> = (0..25).map(|_| field(&mut bytes)).collect();
        same(&fields, sample, &batch.agent.location, &batch.agent.name);
    }
    assert_eq!(
        encoded.offsets[batch.samples.len()],
        encoded.bytes.len() - 2
    );
    assert_eq!(bytes.get_i16(), -1);
    assert!(bytes.is_empty());
});

fn field<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let len = usize::try_from(bytes.get_i32()).ok()?;
    let (field, rest) = bytes.split_at(len);
    *bytes = rest;
    Some(field)
}

fn same(fields: &[Option<&[u8]>], sample: &Sample, location: &str, agent: &str) {
    let int8 = |n: usize| fields[n].map(|f| i64::from_be_bytes(f.try_into().unwrap()));
    let int4 = |n: usize| fields[n].map(|f| i32::from_be_bytes(f.try_into().unwrap()));
    let int2 = |n: usize| fields[n].map(|f| i16::from_be_bytes(f.try_into().unwrap()));
    let bool = |n: usize| fields[n].map(|f| f == [1]);
    let text = |n: usize| fields[n].map(|f| std::str::from_utf8(f).unwrap());
    // Microseconds since 2000, saturating where the time lies before all that the type holds.
    let time = |at: watcher::domain::Timestamp| at.as_micros().saturating_sub(946_684_800_000_000);
    let narrow4 = |value: Option<u32>| value.map(|v| i32::try_from(v).unwrap_or(i32::MAX));
    let narrow2 = |value: Option<u16>| value.map(|v| i16::try_from(v).unwrap_or(i16::MAX));
    let p = &sample.phases;
    assert_eq!(int8(0), Some(time(sample.scheduled_at)));
    assert_eq!(int8(1), Some(sample.endpoint.0));
    assert_eq!(int8(2), sample.tls_not_after.map(time));
    assert_eq!(text(3), Some(sample.outcome().label()));
    assert_eq!(text(4), sample.reason.map(Reason::label));
    let numbers = [
        sample.lag_us,
        p.resolve_us,
        p.connect_us,
        p.tls_us,
        p.processing_us,
        p.transfer_us,
        sample.duration_us,
        sample.error_us,
        Some(sample.bytes_sent),
        Some(sample.bytes_received),
        Some(sample.cpu_us),
    ];
    for (n, number) in numbers.into_iter().enumerate() {
        assert_eq!(int4(5 + n), narrow4(number), "field {}", 5 + n);
    }
    assert_eq!(int2(16), narrow2(sample.status_code));
    assert_eq!(int2(17), sample.http_version.map(i16::from));
    assert_eq!(int2(18), Some(i16::from(sample.hops)));
    assert_eq!((bool(19), bool(20)), (sample.matched, Some(sample.suspect)));
    assert_eq!((text(21), text(22)), (Some(location), Some(agent)));
    let address = fields[23].map(|f| match f {
        [2, 32, 0, 4, octets @ ..] => IpAddr::from(<[u8; 4]>::try_from(octets).unwrap()),
        [3, 128, 0, 16, octets @ ..] => IpAddr::from(<[u8; 16]>::try_from(octets).unwrap()),
        other => panic!("inet {other:?}"),
    });
    assert_eq!(address, sample.remote_ip);
    assert_eq!(text(24), sample.detail.as_deref());
}
