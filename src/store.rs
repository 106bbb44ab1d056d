//! The edge to the database. The traits name no PostgreSQL: `pipeline` knows only this file.

pub mod sample_json;
pub mod timescale;

use std::future::Future;
use std::pin::Pin;

use crate::config::EndpointRow;
use crate::domain::{AgentIdentity, Arm, Batch, EndpointId, Partition, Timestamp};

/// How a batch is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WritePath {
    /// Straight into the table: a row that is already there fails the batch with [`WriteError::Conflict`].
    Fast,
    /// Through a staging table; rows that are already there are passed over. Right after any doubt.
    Tolerant,
}

/// Why a batch was not (known to be) written. The policy for each is the keeper's.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A row of the batch is there already: write it again on the tolerant path.
    #[error("a sample of this batch is already stored")]
    Conflict,
    /// The connection failed, or the outcome of the commit is unknown: reconnect, then the tolerant path.
    #[error("lost the connection to the store while writing {rows} samples")]
    Lost {
        /// Rows of the batch.
        rows: usize,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row of the batch is not acceptable to the store: find it, set it aside, write the others.
    #[error("the store refuses a row of a batch of {rows}")]
    Refused {
        /// Rows of the batch.
        rows: usize,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store cannot take samples now (full disk, missing table or privilege, anything unknown): hold the batch.
    #[error("the store cannot take samples now")]
    Hold {
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Where a refused sample was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aside {
    /// In the store, beside the samples.
    Store,
    /// In a file of this machine.
    File,
}

/// A boxed future: one allocation a batch is nothing.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a keeper writes to. One connection (or file) each, owned by the keeper; not `Send`, since a keeper lives on
/// the keeper thread. Every call ends within a deadline of the implementation's own.
pub trait SampleStore {
    /// Makes sure that the store is reachable; a no-op when it is.
    fn connect(&mut self) -> BoxFuture<'_, Result<(), WriteError>>;

    /// Whether the connection stands, as far as is known without asking.
    fn is_connected(&self) -> bool;

    /// Writes a batch whole or not at all. Returns the rows that were new. A connection that ended since the last batch
    /// is an error, never made anew in silence. `meanwhile` is called once all is sent and the store is at work on it,
    /// for what can be done in that time; not at all where it does not come to that.
    fn write_meanwhile<'a>(
        &'a mut self,
        batch: &'a Batch,
        path: WritePath,
        meanwhile: &'a mut dyn FnMut(),
    ) -> BoxFuture<'a, Result<u64, WriteError>>;

    /// Likewise, with nothing to be done in that time.
    fn write<'a>(
        &'a mut self,
        batch: &'a Batch,
        path: WritePath,
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        Box::pin(async move { self.write_meanwhile(batch, path, &mut || ()).await })
    }

    /// Keeps a batch that the store refuses (for `why`) where a person finds it. Repeating it adds nothing. An error is
    /// [`WriteError::Lost`] when it is to be tried again, anything else when the samples are lost.
    fn set_aside<'a>(
        &'a mut self,
        batch: &'a Batch,
        why: &'a WriteError,
    ) -> BoxFuture<'a, Result<Aside, WriteError>>;
}

/// A change of the set of endpoints.
#[derive(Clone, PartialEq, Debug)]
pub enum CatalogChange {
    /// A row to be probed by this partition and location, new or changed.
    Upsert(Box<EndpointRow>),
    /// A row that is deleted, disabled, or no longer for this location.
    Remove(EndpointId),
}

/// Endpoints that were deleted and are still probed, since a large part of them went at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldRemoval {
    /// How many.
    pub endpoints: usize,
    /// Of how many that were probed before.
    pub of: usize,
    /// Since when they are gone.
    pub since: Timestamp,
    /// They are probed until then.
    pub until: Timestamp,
}

/// One run of an agent process: a row of `agents`.
#[derive(Clone, Debug)]
pub struct Session {
    /// Name and location.
    pub agent: std::sync::Arc<AgentIdentity>,
    /// Its variant of settings, and with whom that shares the ticks.
    pub arm: Arm,
    /// Its share.
    pub partition: Partition,
    /// First instant that this run answers for.
    pub started: Timestamp,
}

/// Why ticks in a span of time left no row: `gaps.reason`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GapReason {
    /// The process was paused or starved of CPU.
    Paused,
    /// The wall clock stepped forward.
    ClockStep,
    /// The process died.
    AgentDied,
    /// The buffer was full while the store was away; samples were dropped.
    BufferFull,
    /// A change of the endpoints took longer to arrive than the grace that the grid's history gives.
    CatalogBehind,
    /// The store refused rows, which were set aside.
    Refused,
    /// The spool was full; its oldest samples were dropped.
    SpoolFull,
    /// The spool's file was damaged.
    SpoolDamaged,
}

impl GapReason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::Paused,
        Self::ClockStep,
        Self::AgentDied,
        Self::BufferFull,
        Self::CatalogBehind,
        Self::Refused,
        Self::SpoolFull,
        Self::SpoolDamaged,
    ];

    /// The reason that a label names.
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.label() == label)
    }

    /// The label in SQL.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::ClockStep => "clock_step",
            Self::AgentDied => "agent_died",
            Self::BufferFull => "buffer_full",
            Self::CatalogBehind => "catalog_behind",
            Self::Refused => "refused",
            Self::SpoolFull => "spool_full",
            Self::SpoolDamaged => "spool_damaged",
        }
    }
}
