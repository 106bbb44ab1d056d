//! Samples of any content.

use std::net::IpAddr;
use std::sync::Arc;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use watcher::domain::{AgentIdentity, Batch, EndpointId, Phases, Reason, Sample, Timestamp};

/// A batch as the engine makes one up.
#[derive(Arbitrary, Debug)]
pub struct BatchInput {
    name: String,
    location: String,
    rows: Vec<Row>,
}

#[derive(Arbitrary, Debug)]
struct Row {
    endpoint: i64,
    scheduled_at: i64,
    reason: u8,
    status_code: Option<u16>,
    matched: Option<bool>,
    lag_us: Option<u32>,
    phases: [Option<u32>; 5],
    duration_us: Option<u32>,
    error_us: Option<u32>,
    suspect: bool,
    remote_ip: Option<IpAddr>,
    http_version: Option<u8>,
    hops: u8,
    bytes_sent: u32,
    bytes_received: u32,
    cpu_us: u32,
    tls_not_after: Option<i64>,
    detail: Option<String>,
}

impl BatchInput {
    /// As the agent holds it.
    pub fn batch(self) -> Batch {
        let agent = AgentIdentity {
            name: self.name.into(),
            location: self.location.into(),
        };
        Batch {
            agent: Arc::new(agent),
            samples: self.rows.into_iter().map(Row::sample).collect(),
        }
    }
}

impl Row {
    fn sample(self) -> Sample {
        let [resolve_us, connect_us, tls_us, processing_us, transfer_us] = self.phases;
        let at = Timestamp::from_micros(self.scheduled_at);
        let mut sample = Sample::new(EndpointId(self.endpoint), at);
        sample.reason = Reason::all().nth(usize::from(self.reason));
        sample.status_code = self.status_code;
        sample.matched = self.matched;
        sample.lag_us = self.lag_us;
        sample.phases = Phases {
            resolve_us,
            connect_us,
            tls_us,
            processing_us,
            transfer_us,
        };
        sample.duration_us = self.duration_us;
        sample.error_us = self.error_us;
        sample.suspect = self.suspect;
        sample.remote_ip = self.remote_ip;
        sample.http_version = self.http_version;
        sample.hops = self.hops;
        sample.bytes_sent = self.bytes_sent;
        sample.bytes_received = self.bytes_received;
        sample.cpu_us = self.cpu_us;
        sample.tls_not_after = self.tls_not_after.map(Timestamp::from_micros);
        sample.detail = self.detail.map(Into::into);
        sample
    }
}

/// What holds of every sample, whatever the target did.
pub fn plausible(sample: &Sample) {
    if let Some(detail) = &sample.detail {
        assert!(detail.len() <= 200, "{sample:?}");
        assert!(!detail.chars().any(char::is_control), "{sample:?}");
        assert!(!detail.contains(super::CANARY), "{sample:?}");
    }
    let total = sample.duration_us.unwrap_or(u32::MAX);
    let p = &sample.phases;
    let phases = [
        p.resolve_us,
        p.connect_us,
        p.tls_us,
        p.processing_us,
        p.transfer_us,
    ];
    let sum: u64 = phases.into_iter().flatten().map(u64::from).sum();
    // Rounding: each phase up to a microsecond.
    assert!(sum <= u64::from(total) + 5, "{sample:?}");
}
