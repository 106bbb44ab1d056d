//! The two clocks, as a seam: tests step them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::domain::Timestamp;

/// Wall and monotonic time.
pub trait Clock {
    /// Wall time.
    fn wall(&self) -> Timestamp;
    /// Time since a fixed point, never going back.
    fn mono(&self) -> Duration;
}

/// The machine's clocks. Monotonic time is tokio's, so that it stands still with a paused runtime.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        wall_now()
    }

    fn mono(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Wall time now, for those that only stamp a message or a row.
pub fn wall_now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(since.as_micros() as i64)
}
