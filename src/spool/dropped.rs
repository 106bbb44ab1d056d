//! What was lost, until somebody has been told.

use std::sync::Arc;

use super::queue::Entry;
use crate::domain::{AgentIdentity, Timestamp};

/// Why batches left the spool without having been stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DropCause {
    /// The oldest made room for newer ones.
    Full,
    /// Their bytes in the file were damaged.
    Damaged,
}

/// Samples of one agent that were lost for one cause.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// Why.
    pub cause: DropCause,
    /// Whose samples they were.
    pub agent: Arc<AgentIdentity>,
    /// How many batches.
    pub batches: u64,
    /// How many samples.
    pub rows: u64,
    /// The earliest scheduled time among them.
    pub from: Timestamp,
    /// The latest scheduled time among them, itself included.
    pub to: Timestamp,
}

impl Dropped {
    pub(super) fn of(entry: &Entry, cause: DropCause) -> Self {
        Self {
            cause,
            agent: entry.agent.clone(),
            batches: 1,
            rows: entry.rows,
            from: entry.from,
            to: entry.to,
        }
    }

    /// Adds to the span of the same agent and cause. Oldest first means that what lies between was lost as well.
    pub(super) fn merge_into(self, all: &mut Vec<Self>) {
        let same = |other: &&mut Self| other.cause == self.cause && other.agent == self.agent;
        match all.iter_mut().find(same) {
            Some(span) => {
                span.batches += self.batches;
                span.rows += self.rows;
                span.from = span.from.min(self.from);
                span.to = span.to.max(self.to);
            }
            None => all.push(self),
        }
    }
}
