//! Durable overflow for the samples of one agent process: batches in one SQLite file, oldest first, until the store
//! has acknowledged them.
//!
//! A thread of its own does all disk work; callers wait for it with a deadline and never hold a lock over it. One row
//! is one batch (see [`codec`]), checked on the way out: a damaged row is never delivered. When the file's cap is
//! reached, or the disk is full, the oldest batches go, and what went is reported exactly once ([`Dropped`]).
//!
//! The spool knows nothing of stores, gaps or metrics: whoever uses it records losses, logs them and settles what it
//! took. A batch may come twice (an acknowledgement or a removal that was cut off), so it is replayed on the
//! conflict-tolerant path.
//!
//! What `path` may lie beside: `path-wal` (SQLite's log), `path.lock` (held while the spool is open) and up to three
//! `path.damaged-<unix time>` that a person may look into or delete.

pub mod codec;
mod commit;
mod dropped;
mod engine;
mod error;
mod file;
mod index;
mod open;
mod queue;
mod recover;
mod shared;
mod sizes;
mod thread;

pub use dropped::{DropCause, Dropped};
pub use error::SpoolError;
pub use recover::Recovered;
pub use shared::SpoolStats;
pub use thread::SpoolThread;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::domain::Batch;
use shared::Shared;
use thread::{Command, Put, Reply};

/// Orders waiting for the thread. Each caller waits for its answer, so this is the number of callers that may ask at
/// once without waiting for a place: a keeper or two, replay, and room to spare. Full: the caller waits its turn
/// within its deadline. At 250 KB a batch that is 4 MB at most.
const ORDERS: usize = 16;

/// What an acknowledged `put` survives.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Durability {
    /// The end of the process in any way (`kill -9`, out of memory). A power cut or a crash of the machine may take
    /// what was acknowledged since the log was last synced, at most some MiB; what is there is whole, and removed
    /// batches may come back. SQLite's `synchronous=normal`.
    #[default]
    Process,
    /// A power cut as well, as far as the disk keeps its own promises: each commit is synced. `synchronous=full`.
    PowerCut,
}

/// How a spool behaves.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// What the database and its log may take on disk together, bytes; below 1 MiB counts as 1 MiB. The log's share (a
    /// quarter, 8 MiB at most) is allocated at once; an encoded batch may be half as large as that.
    pub bytes_max: u64,
    /// What an acknowledged `put` survives.
    pub durability: Durability,
    /// How long a caller waits for the disk, its place in the queue included.
    pub deadline: Duration,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 30,
            durability: Durability::default(),
            deadline: Duration::from_secs(5),
        }
    }
}

/// Names a batch in the spool. Grows with age; valid in this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct SpoolId(i64);

impl SpoolId {
    const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Whether we may have made it. Leaves room for more ids than there will ever be.
    const fn is_sane(self) -> bool {
        self.0 > 0 && self.0 < i64::MAX / 2
    }
}

/// A batch is in the spool.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored {
    /// Its name.
    pub id: SpoolId,
    /// What was lost since somebody was last told, mostly to make room for this one.
    pub dropped: Vec<Dropped>,
}

/// What was found when the spool was opened.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Opened {
    /// Batches that a previous process left; they are replayed like any other.
    pub batches: u64,
    /// Their samples.
    pub rows: u64,
    /// Set when the file was damaged and a new one was started.
    pub recovered: Option<Recovered>,
}

/// A handle on the spool. Cheap to clone; the thread ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Spool {
    orders: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl Spool {
    /// Opens or creates the spool file at `path` and starts its thread. Waits for the disk: for start-up, not for an
    /// async task.
    ///
    /// # Errors
    /// [`SpoolError::InUse`] when another process has it, [`SpoolError::Directory`] when nothing can be written there.
    /// A damaged file is no error: it is put aside and what is intact in it is taken over, see [`Self::opened`].
    pub fn open(path: &Path, options: SpoolOptions) -> Result<(Self, SpoolThread), SpoolError> {
        let (engine, shared) = open::open(path, options)?;
        let (orders, received) = mpsc::channel(ORDERS);
        let thread = SpoolThread::start(engine, received)?;
        Ok((Self { orders, shared }, thread))
    }

    /// Puts a batch into the spool; it is there for good ([`Durability`]) when this returns. The caller keeps the
    /// batch, so an error loses nothing. Puts that wait together share a commit.
    ///
    /// # Errors
    /// The batch is not in the spool, except after [`SpoolError::Deadline`], when it may be.
    /// Dropping the future is like its deadline.
    pub async fn put(&self, batch: &Batch) -> Result<Stored, SpoolError> {
        let put = Put {
            head: codec::Head::of(batch),
            encoded: codec::encode(batch),
        };
        let id = self.ask(|reply| Command::Put(put, reply)).await?;
        // Taken here and not by the thread: an answer that nobody reads must not take a report with it.
        let dropped = self.shared.take_dropped();
        Ok(Stored { id, dropped })
    }

    /// The oldest batches, `batches` at most, oldest first. They stay in the spool, are not handed out again and are
    /// not dropped for want of room, until [`Self::remove`] or [`Self::return_to_queue`] settles them. A damaged one
    /// among them is set aside and reported as [`Dropped`].
    ///
    /// # Errors
    /// Nothing is handed out then. Dropping the future hands nothing out either.
    pub async fn oldest(&self, batches: usize) -> Result<Vec<(SpoolId, Batch)>, SpoolError> {
        let handed_out = self.ask(|reply| Command::Oldest(batches, reply)).await?;
        Ok(handed_out.take())
    }

    /// Removes batches that the store has acknowledged. Unknown ids are passed over.
    ///
    /// # Errors
    /// They are still there and still handed out: ask again, or return them.
    pub async fn remove(&self, ids: &[SpoolId]) -> Result<(), SpoolError> {
        let ids = ids.to_vec();
        self.ask(|reply| Command::Remove(ids, reply)).await
    }

    /// Batches that were handed out and could not be stored go back to where they were. At once; no disk work.
    pub fn return_to_queue(&self, ids: &[SpoolId]) {
        let mut handed_out = self.shared.handed_out();
        for id in ids {
            handed_out.remove(id);
        }
    }

    /// What was lost since somebody was last told, by this or by [`Self::put`].
    pub fn take_dropped(&self) -> Vec<Dropped> {
        self.shared.take_dropped()
    }

    /// What was found at [`Self::open`].
    pub fn opened(&self) -> &Opened {
        &self.shared.opened
    }

    /// The present counts: a few atomic loads.
    pub fn stats(&self) -> SpoolStats {
        self.shared.stats()
    }

    async fn ask<T>(&self, order: impl FnOnce(Reply<T>) -> Command) -> Result<T, SpoolError> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            let sent = self.orders.send(order(reply)).await;
            sent.map_err(|_| SpoolError::Closed)?;
            answer.await.unwrap_or(Err(SpoolError::Closed))
        };
        let deadline = self.shared.options.deadline;
        timeout(deadline, exchange)
            .await
            .unwrap_or(Err(SpoolError::Deadline(deadline)))
    }
}
