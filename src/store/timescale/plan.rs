//! What is due at each location, and what its probes took lately.

use std::time::Duration;

use super::{Error, Timescale};
use crate::domain::capacity::Load;

/// Reads the window's rows of `metrics`: as long as an audit may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// One location: what is due there, and what its probes took; absent where nothing was measured.
#[derive(Clone, PartialEq, Debug)]
pub struct LocationLoad {
    /// The location.
    pub location: String,
    /// What is due.
    pub load: Load,
    /// CPU time of the agents by the probes they made, µs.
    pub cpu_us: Option<f64>,
    /// How long a probe took, s.
    pub duration_s: Option<f64>,
    /// Bytes of its row, index included.
    pub stored_bytes: Option<f64>,
    /// Bytes sent.
    pub sent_bytes: Option<f64>,
    /// Bytes received.
    pub received_bytes: Option<f64>,
    /// Probes skipped for overload.
    pub overloaded: i64,
}

impl Timescale {
    /// What is due at each location that has an agent or is named by an endpoint, and what its probes took in the last
    /// `window`. Needs the right to read `metrics`.
    pub async fn load_by_location(&self, window: Duration) -> Result<Vec<LocationLoad>, Error> {
        let window_s = window.as_secs_f64();
        self.run_within(
            DEADLINE,
            "look what is due and what it took",
            async |client| {
                let rows = client.query(include_str!("plan.sql"), &[&window_s]).await?;
                rows.iter()
                    .map(|row| {
                        Ok(LocationLoad {
                            location: row.try_get(0)?,
                            load: Load {
                                endpoints: row.try_get::<_, i64>(1)?.unsigned_abs(),
                                probes_per_s: row.try_get(2)?,
                                in_flight_worst: row.try_get(3)?,
                            },
                            cpu_us: row.try_get(4)?,
                            duration_s: row.try_get::<_, Option<f64>>(5)?.map(|us| us / 1e6),
                            stored_bytes: row.try_get(6)?,
                            sent_bytes: row.try_get(7)?,
                            received_bytes: row.try_get(8)?,
                            overloaded: row.try_get(9)?,
                        })
                    })
                    .collect()
            },
        )
        .await
    }
}
