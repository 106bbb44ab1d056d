//! From the catalog to the store, one straight line:
//! `catalog` → `worker` (schedule, probes) → `buffer` → `keeper` → store. Names neither a protocol nor PostgreSQL.
//!
//! The worker lives on the probe thread; catalog, keepers and ledger on the keeper thread. Samples cross at the
//! lock-free buffer only; endpoints and gaps cross on channels that see a few messages a second.

pub mod buffer;
pub mod catalog;
pub mod clock;
pub mod keeper;
pub mod ledger;
pub mod overflow;
pub mod totals;
pub mod worker;

use crate::domain::{Endpoint, EndpointId, Timestamp};
use crate::store::GapReason;

/// What the keeper thread tells the worker.
#[derive(Debug)]
pub enum Command {
    /// Endpoints to probe, new or changed.
    Upsert(Vec<Changed>),
    /// Endpoints not to be probed any more.
    Remove(Vec<EndpointId>),
    /// The first load is complete: start the schedule at this instant, the session's `started`.
    Begin(Timestamp),
}

/// An endpoint, new or changed.
#[derive(Debug)]
pub struct Changed {
    /// As it is to be probed from now on.
    pub endpoint: Endpoint,
    /// When it was changed, by the database's clock.
    pub at: Timestamp,
}

/// Ticks in `from..to` may be absent from the store, for a reason: a row of `gaps` to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// Of this endpoint alone; of the whole share when not set.
    pub endpoint: Option<EndpointId>,
    /// First instant.
    pub from: Timestamp,
    /// First instant after it.
    pub to: Timestamp,
    /// Why.
    pub reason: GapReason,
    /// How many samples were lost, where they were counted.
    pub samples: Option<u64>,
}
