use std::net::IpAddr;

use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::domain::{EndpointId, Phases, Reason, Sample, SkipReason, Timestamp};

fn any_text() -> impl Strategy<Value = Box<str>> {
    prop_oneof![
        "\\PC{0,40}".prop_map(String::into_boxed_str),
        any::<String>().prop_map(String::into_boxed_str),
    ]
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        (1_700_000_000_000i64..1_700_000_300_000).prop_map(Timestamp::from_millis),
        any::<i64>().prop_map(Timestamp::from_micros),
    ]
}

fn any_reason() -> impl Strategy<Value = Option<Reason>> {
    option::of(select(Reason::all().collect::<Vec<_>>()))
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let us = option::of(any::<u32>());
    let identity = (any::<i64>(), any_time(), any_reason(), any::<Option<u16>>());
    let times = proptest::array::uniform8(us);
    let network = (
        any::<Option<IpAddr>>(),
        any::<Option<u8>>(),
        any::<u8>(),
        any::<[u32; 3]>(),
    );
    let rest = (
        any::<Option<bool>>(),
        any::<bool>(),
        option::of(any_time()),
        option::of(any_text()),
    );
    (identity, times, network, rest).prop_map(|(identity, times, network, rest)| {
        let (endpoint, scheduled_at, reason, status_code) = identity;
        let [
            lag_us,
            resolve_us,
            connect_us,
            tls_us,
            processing_us,
            transfer_us,
            duration_us,
            error_us,
        ] = times;
        let (remote_ip, http_version, hops, [bytes_sent, bytes_received, cpu_us]) = network;
        let (matched, suspect, tls_not_after, detail) = rest;
        Sample {
            endpoint: EndpointId(endpoint),
            scheduled_at,
            reason,
            status_code,
            matched,
            lag_us,
            phases: Phases {
                resolve_us,
                connect_us,
                tls_us,
                processing_us,
                transfer_us,
            },
            duration_us,
            error_us,
            suspect,
            remote_ip,
            http_version,
            hops,
            bytes_sent,
            bytes_received,
            cpu_us,
            tls_not_after,
            detail,
        }
    })
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let samples = proptest::collection::vec(any_sample(), 0..20);
    (any_text(), any_text(), samples).prop_map(|(name, location, samples)| Batch {
        agent: Arc::new(AgentIdentity { name, location }),
        samples,
    })
}

fn one_skipped() -> Batch {
    Batch {
        agent: Arc::new(AgentIdentity {
            name: "a".into(),
            location: "l".into(),
        }),
        samples: vec![Sample::skipped(
            EndpointId(7),
            Timestamp::from_millis(1_000),
            SkipReason::Overload,
        )],
    }
}

/// The batch with another body, its checksums right.
fn with_body(batch: &Batch, version: u8, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let bytes = encode(batch);
    let head = Head::read(&bytes).unwrap();
    let mut body = head.body(&bytes).unwrap().to_vec();
    change(&mut body);
    head.seal(version, &body)
}

/// The bytes of a batch as another version of the format would have them.
pub(in crate::spool) fn with_version(bytes: &[u8], version: u8) -> Vec<u8> {
    let head = Head::read(bytes).unwrap();
    head.seal(version, head.body(bytes).unwrap())
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(batch in any_batch()) {
        let bytes = encode(&batch);
        let decoded = decode(&bytes).unwrap();
        prop_assert_eq!(&decoded.agent, &batch.agent);
        prop_assert_eq!(&decoded.samples, &batch.samples);
        let head = Head::read(&bytes).unwrap();
        prop_assert_eq!(head.rows as usize, batch.rows());
        let times = || batch.samples.iter().map(|sample| sample.scheduled_at);
        prop_assert_eq!(head.from, times().min().unwrap_or_default());
        prop_assert_eq!(head.to, times().max().unwrap_or_default());
    }

    #[test]
    fn a_changed_byte_is_an_error(batch in any_batch(), at in any::<Index>(), flip in 1u8..) {
        let mut bytes = encode(&batch);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn a_cut_or_longer_batch_is_an_error(batch in any_batch(), cut in any::<Index>()) {
        let mut bytes = encode(&batch);
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert_eq!(decode(&bytes).unwrap_err(), DecodeError::Length);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in any::<Vec<u8>>()) {
        let _ = decode(&bytes);
    }

    /// Past the checksums, where a fuzzer does not come by itself.
    #[test]
    fn an_arbitrary_body_does_no_harm(body in any::<Vec<u8>>(), rows in any::<u32>()) {
        let mut head = Head::of(&one_skipped());
        head.rows = rows % 64;
        let _ = decode(&head.seal(VERSION, &body));
        head.rows = u32::MAX;
        prop_assert!(decode(&head.seal(VERSION, &body)).is_err());
    }
}

#[test]
fn version_1_stays_readable() {
    // Bytes as the first release wrote them; they must never have to change.
    let bytes = [
        "77736201",
        "20000000",
        "b9eb822b",
        "087dc962", // prefix
        "01000000",
        "40420f0000000000",
        "40420f0000000000",
        "1200000000000000",
        "0161",
        "016c",
        "01086f7665726c6f6164",
        "01",
        "0e",
        "000000000000",
    ]
    .concat();
    let hex: String = encode(&one_skipped())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, bytes);
}

#[test]
fn a_later_release_is_told_from_damage() {
    let later_version = with_body(&one_skipped(), 2, |body| body.clear());
    let error = decode(&later_version).unwrap_err();
    assert_eq!(error, DecodeError::Version(2));
    assert!(error.is_of_a_later_release());
    // Even so the head says what is in it.
    assert_eq!(Head::read(&later_version).unwrap().rows, 1);

    let later_label = with_body(&one_skipped(), VERSION, |body| body[2] = b'O');
    let error = decode(&later_label).unwrap_err();
    assert_eq!(error, DecodeError::Label("Overload".into()));
    assert!(error.is_of_a_later_release());

    let malformed = with_body(&one_skipped(), VERSION, |body| body.push(0));
    let error = decode(&malformed).unwrap_err();
    assert!(!error.is_of_a_later_release(), "{error}");
}
