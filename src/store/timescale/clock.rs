//! How far this machine's clock is from the database's.

use std::time::{Duration, Instant, SystemTime};

use super::{Error, Timescale};

/// The database's clock minus ours.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ClockOffset {
    /// Seconds; positive when the database is ahead.
    pub seconds: f64,
    /// The offset is this close to the truth: half of the round trip.
    pub error: Duration,
}

impl Timescale {
    /// Asks the database for its time.
    pub async fn clock_offset(&self) -> Result<ClockOffset, Error> {
        self.run("compare clocks", async |client| {
            let statement = client.prepare_cached(include_str!("clock.sql")).await?;
            let asked = Instant::now();
            let ours = SystemTime::now();
            let row = client.query_one(&statement, &[]).await?;
            let half = asked.elapsed() / 2;
            let theirs: f64 = row.try_get(0)?;
            let ours = ours
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            Ok(ClockOffset {
                seconds: theirs - (ours + half).as_secs_f64(),
                error: half,
            })
        })
        .await
    }
}
