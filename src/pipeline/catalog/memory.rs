//! What is remembered of the catalog beyond the process.

use std::collections::HashSet;

use crate::domain::{EndpointId, Timestamp};
use crate::store::CatalogChange;

/// Remembers the rows as they are probed. No call waits for a disk; what cannot be remembered is not, and said once.
pub trait CatalogMemory {
    /// Everything comes anew.
    fn begin(&mut self);
    /// A row that is probed from now on, or one that is not any more.
    fn note(&mut self, change: &CatalogChange);
    /// What was noted is in line with the table at `at`. Rows of `held` stay although a load did not give them, since
    /// `held_since`.
    fn commit(&mut self, at: Timestamp, held: &HashSet<EndpointId>, held_since: Option<Timestamp>);
    /// What was noted since the last commit is not so.
    fn abandon(&mut self);
    /// Something was missed, and everything should come anew.
    fn wants_all(&mut self) -> bool;
}

/// Remembers nothing.
pub struct Forgetful;

impl CatalogMemory for Forgetful {
    fn begin(&mut self) {}
    fn note(&mut self, _: &CatalogChange) {}
    fn commit(&mut self, _: Timestamp, _: &HashSet<EndpointId>, _: Option<Timestamp>) {}
    fn abandon(&mut self) {}
    fn wants_all(&mut self) -> bool {
        false
    }
}
