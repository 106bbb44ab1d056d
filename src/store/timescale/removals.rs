//! Deleted endpoints that an agent goes on probing for a while, since a large part of them went at once.

use super::sessions::{instant, share};
use super::{Error, Timescale};
use crate::domain::{AgentIdentity, EndpointId, Partition};
use crate::store::HeldRemoval;

impl Timescale {
    /// Of `ids`, those that are still rows of `endpoints`: disabled, or for other locations.
    pub async fn endpoints_present(&self, ids: &[EndpointId]) -> Result<Vec<EndpointId>, Error> {
        let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
        self.run("look whether endpoints were deleted", async |client| {
            let rows = client
                .query(include_str!("removals_present.sql"), &[&ids])
                .await?;
            rows.iter()
                .map(|row| row.try_get(0).map(EndpointId))
                .collect()
        })
        .await
    }

    /// Says in `held_removals` what is held; whether somebody has confirmed that it was meant.
    pub async fn hold_removal(
        &self,
        agent: &AgentIdentity,
        partition: Partition,
        held: &HeldRemoval,
    ) -> Result<bool, Error> {
        let (index, count) = share(partition);
        let narrow = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.run("say which removals are held", async |client| {
            let row = client
                .query_one(
                    include_str!("removal_hold.sql"),
                    &[
                        &&*agent.location,
                        &index,
                        &count,
                        &&*agent.name,
                        &narrow(held.endpoints),
                        &narrow(held.of),
                        &instant(held.since),
                        &instant(held.until),
                    ],
                )
                .await?;
            row.try_get(0)
        })
        .await
    }

    /// Nothing is held any more.
    pub async fn release_removal(
        &self,
        agent: &AgentIdentity,
        partition: Partition,
    ) -> Result<(), Error> {
        let (index, count) = share(partition);
        self.run("say that no removal is held", async |client| {
            client
                .execute(
                    include_str!("removal_release.sql"),
                    &[&&*agent.location, &index, &count, &&*agent.name],
                )
                .await
        })
        .await
        .map(drop)
    }
}
