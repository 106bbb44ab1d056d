//! Samples on their way to the store, and who took them.

use std::sync::Arc;

use super::sample::{AgentIdentity, Sample};

/// Samples written together: at most some thousand rows. The order is the order of completion.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Whose samples these are; the same for all of one process.
    pub agent: Arc<AgentIdentity>,
    /// The rows.
    pub samples: Vec<Sample>,
}

impl Batch {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.samples.len()
    }

    /// Two halves, for finding the row that a store refuses. Neither is empty when there are two rows or more.
    pub fn halves(mut self) -> (Self, Self) {
        let tail = self.samples.split_off(self.samples.len() / 2);
        let second = Self {
            agent: self.agent.clone(),
            samples: tail,
        };
        (self, second)
    }
}
