//! What this process has done since it started, for its rows in `agent_usage`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::domain::{Outcome, Sample};

/// Running totals; clones share them.
#[derive(Clone, Default, Debug)]
pub struct Totals(Arc<Counters>);

#[derive(Default, Debug)]
struct Counters {
    probes: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    rows_stored: AtomicU64,
}

/// Totals at one instant.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Probes made; skipped ones are not.
    pub probes: u64,
    /// Bytes that probes sent.
    pub bytes_sent: u64,
    /// Bytes that probes received.
    pub bytes_received: u64,
    /// Rows stored.
    pub rows_stored: u64,
}

impl Totals {
    /// A sample was taken.
    pub fn sampled(&self, sample: &Sample) {
        if sample.outcome() != Outcome::Skipped {
            self.0.probes.fetch_add(1, Relaxed);
        }
        self.0
            .bytes_sent
            .fetch_add(u64::from(sample.bytes_sent), Relaxed);
        self.0
            .bytes_received
            .fetch_add(u64::from(sample.bytes_received), Relaxed);
    }

    /// Rows were stored.
    pub fn stored(&self, rows: u64) {
        self.0.rows_stored.fetch_add(rows, Relaxed);
    }

    /// The totals now.
    pub fn read(&self) -> Reading {
        Reading {
            probes: self.0.probes.load(Relaxed),
            bytes_sent: self.0.bytes_sent.load(Relaxed),
            bytes_received: self.0.bytes_received.load(Relaxed),
            rows_stored: self.0.rows_stored.load(Relaxed),
        }
    }
}

impl Reading {
    /// What was added since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            probes: self.probes - earlier.probes,
            bytes_sent: self.bytes_sent - earlier.bytes_sent,
            bytes_received: self.bytes_received - earlier.bytes_received,
            rows_stored: self.rows_stored - earlier.rows_stored,
        }
    }
}
