//! Samples that found no room.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::domain::{Sample, Timestamp};
use crate::pipeline::Gap;
use crate::store::GapReason;
use crate::telemetry::{self, DropReason};

/// Samples that found the buffer full: counted one by one, said and recorded once a second.
#[derive(Default)]
pub(super) struct Dropped {
    samples: u64,
    span: Option<(Timestamp, Timestamp)>,
    said_at: Timestamp,
}

impl Dropped {
    pub(super) fn note(&mut self, sample: &Sample, now: Timestamp) {
        telemetry::samples_dropped(DropReason::BufferFull, 1);
        if self.samples == 0 {
            self.said_at = now;
        }
        self.samples += 1;
        let after = sample.scheduled_at.plus(Duration::from_millis(1));
        let (from, to) = self.span.unwrap_or((sample.scheduled_at, after));
        self.span = Some((from.min(sample.scheduled_at), to.max(after)));
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.samples > 0 && now.since(self.said_at) >= Duration::from_secs(1)
    }

    pub(super) fn report(&mut self, gaps: &mpsc::UnboundedSender<Gap>) {
        if let Some((from, to)) = self.span.take() {
            tracing::error!(
                samples = self.samples,
                "the buffer is full, since the store is away or slower than the probes; samples are lost"
            );
            let samples = std::mem::take(&mut self.samples);
            let _ = gaps.send(Gap {
                endpoint: None,
                from,
                to,
                reason: GapReason::BufferFull,
                samples: Some(samples),
            });
        }
    }
}
