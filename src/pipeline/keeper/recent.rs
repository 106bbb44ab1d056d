//! What was acknowledged lately, to be sent again after a reconnect.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Batch, Sample};

/// Acknowledged batches younger than this are kept to be sent again after a reconnect: a standby that was promoted may
/// lack them. By the time of the newest: an outage may last longer than this.
const RESEND_AGE: Duration = Duration::from_secs(60);
/// Rows kept for that at most: 32 MiB.
const RESEND_ROWS: usize = 32 * 1024 * 1024 / size_of::<Sample>();

/// Acknowledged batches of the last minute.
#[derive(Default)]
pub(super) struct Recent {
    batches: VecDeque<(Instant, Batch)>,
    rows: usize,
}

impl Recent {
    pub(super) fn push(&mut self, batch: Batch) {
        self.rows += batch.rows();
        self.batches.push_back((Instant::now(), batch));
        while let Some((acknowledged, batch)) = self.batches.front()
            && (self.rows > RESEND_ROWS || acknowledged.elapsed() > RESEND_AGE)
        {
            self.rows -= batch.rows();
            self.batches.pop_front();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().map(|(_, batch)| batch)
    }

    /// All were acknowledged again: a second failover may follow the first.
    pub(super) fn acknowledged_again(&mut self) {
        let now = Instant::now();
        for (acknowledged, _) in &mut self.batches {
            *acknowledged = now;
        }
    }
}
