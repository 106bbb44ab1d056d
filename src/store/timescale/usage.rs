//! `agent_usage`: what an agent process used, per minute.

use super::sessions::instant;
use super::{Error, Timescale};
use crate::domain::{AgentIdentity, Timestamp};

/// What a process used in one minute.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Usage {
    /// User and system time, µs.
    pub cpu_us: u64,
    /// Resident memory at the end of the minute.
    pub rss_bytes: u64,
    /// Sent to targets.
    pub bytes_sent: u64,
    /// Received from targets.
    pub bytes_received: u64,
    /// Probes made.
    pub probes: u32,
    /// Rows that the store acknowledged.
    pub rows_written: u32,
}

impl Timescale {
    /// Records what a process used in the minute that holds `minute`. A second record of the same minute is passed over.
    pub async fn record_usage(
        &self,
        agent: &AgentIdentity,
        minute: Timestamp,
        usage: &Usage,
    ) -> Result<(), Error> {
        let minute = instant(minute);
        let [cpu, rss, sent, received] = [
            usage.cpu_us,
            usage.rss_bytes,
            usage.bytes_sent,
            usage.bytes_received,
        ]
        .map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        let [probes, rows] =
            [usage.probes, usage.rows_written].map(|n| i32::try_from(n).unwrap_or(i32::MAX));
        self.run("record this agent's usage", async |client| {
            client
                .execute(
                    include_str!("usage_insert.sql"),
                    &[
                        &&*agent.name,
                        &&*agent.location,
                        &minute,
                        &cpu,
                        &rss,
                        &sent,
                        &received,
                        &probes,
                        &rows,
                    ],
                )
                .await
        })
        .await
        .map(drop)
    }
}
