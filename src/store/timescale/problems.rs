//! `endpoint_problems`: why a row of `endpoints` is not being probed, for the person who wrote it.

use super::sessions::instant;
use super::{Error, Timescale};
use crate::config::Problem;
use crate::domain::{AgentIdentity, EndpointId, Partition, Timestamp};

/// The columns' limits (migrations/V3__agents.sql), in bytes.
const FIELD_BYTES_MAX: usize = 255;
const MESSAGE_BYTES_MAX: usize = 1024;

/// A problem and whose it is.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointProblem {
    /// Of this row.
    pub endpoint: EndpointId,
    /// What is wrong.
    pub problem: Problem,
    /// Since when the row is not probed for it.
    pub since: Timestamp,
}

impl Timescale {
    /// Makes `problems` the problems of `endpoint` at the agent's location, `since` an instant; none clears them. A problem
    /// that stays keeps its `since`.
    pub async fn set_problems(
        &self,
        agent: &AgentIdentity,
        endpoint: EndpointId,
        since: Timestamp,
        problems: &[Problem],
    ) -> Result<(), Error> {
        let (fields, messages): (Vec<_>, Vec<_>) = problems.iter().map(columns).unzip();
        self.run("record an endpoint's problems", async |client| {
            let transaction = client.transaction().await?;
            // First what is new: a row that stays bad is bad throughout.
            if !problems.is_empty() {
                transaction
                    .execute(
                        include_str!("problem_insert.sql"),
                        &[
                            &endpoint.0,
                            &&*agent.location,
                            &fields,
                            &messages,
                            &&*agent.name,
                            &instant(since),
                        ],
                    )
                    .await?;
            }
            transaction
                .execute(
                    include_str!("problem_delete.sql"),
                    &[
                        &endpoint.0,
                        &&*agent.location,
                        &fields,
                        &messages,
                        &&*agent.name,
                    ],
                )
                .await?;
            transaction.commit().await
        })
        .await
    }

    /// Makes `problems` all the problems of a share at the agent's location: after a full load.
    pub async fn replace_problems(
        &self,
        agent: &AgentIdentity,
        partition: Partition,
        problems: &[EndpointProblem],
    ) -> Result<(), Error> {
        let (index, count) = (i64::from(partition.index()), i64::from(partition.count()));
        let ids: Vec<i64> = problems.iter().map(|p| p.endpoint.0).collect();
        let (fields, messages): (Vec<_>, Vec<_>) =
            problems.iter().map(|p| columns(&p.problem)).unzip();
        let since: Vec<_> = problems.iter().map(|p| instant(p.since)).collect();
        self.run("record the endpoints' problems", async |client| {
            client
                .execute(
                    include_str!("problems_replace.sql"),
                    &[
                        &index,
                        &count,
                        &&*agent.location,
                        &ids,
                        &fields,
                        &messages,
                        &&*agent.name,
                        &since,
                    ],
                )
                .await
        })
        .await
        .map(drop)
    }
}

fn columns(problem: &Problem) -> (String, String) {
    (
        storable(&problem.field, FIELD_BYTES_MAX),
        storable(&problem.message, MESSAGE_BYTES_MAX),
    )
}

/// At most `bytes_max` bytes, cut between characters, without NUL, which PostgreSQL's text cannot hold.
fn storable(text: &str, bytes_max: usize) -> String {
    let clean = text.replace('\0', "\u{fffd}");
    clean[..clean.floor_char_boundary(bytes_max)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters_and_hold_no_nul() {
        assert_eq!(storable("aß", 2), "a");
        assert_eq!(storable("a\0b", 10), "a\u{fffd}b");
        assert_eq!(storable("short", 5), "short");
    }
}
