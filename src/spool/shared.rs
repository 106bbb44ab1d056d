//! What the handles and the thread have in common. Its locks are held for a few instructions, never over disk work.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::dropped::{DropCause, Dropped};
use super::{Opened, SpoolId, SpoolOptions};

/// Counts of a spool at one moment. The totals count from the start of this process.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SpoolStats {
    /// Batches in the spool, those handed out and those unreadable included.
    pub batches: u64,
    /// Their samples.
    pub rows: u64,
    /// Their encoded size, bytes.
    pub bytes: u64,
    /// What the spool's files take on disk (database and write-ahead log), bytes.
    pub file_bytes: u64,
    /// Batches handed out for replay and not settled yet.
    pub handed_out: u64,
    /// Batches that only a later release can read; they stay until it does, or until room is needed.
    pub unreadable: u64,
    /// Samples dropped because the spool was full: total.
    pub dropped_rows: u64,
    /// Batches dropped because the spool was full: total.
    pub dropped_batches: u64,
    /// Samples lost to damage of the file, as far as their number could still be read: total.
    pub damaged_rows: u64,
    /// Batches lost to damage of the file: total.
    pub damaged_batches: u64,
    /// Disk operations that failed: total.
    pub disk_errors: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) options: SpoolOptions,
    pub(super) opened: Opened,
    pub(super) counts: Counts,
    handed_out: Mutex<HashSet<SpoolId>>,
    dropped: Mutex<Vec<Dropped>>,
}

#[derive(Default, Debug)]
pub(super) struct Counts {
    pub(super) batches: AtomicU64,
    pub(super) rows: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) file_bytes: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) dropped_rows: AtomicU64,
    pub(super) dropped_batches: AtomicU64,
    pub(super) damaged_rows: AtomicU64,
    pub(super) damaged_batches: AtomicU64,
    pub(super) disk_errors: AtomicU64,
}

impl Shared {
    pub(super) fn new(path: PathBuf, options: SpoolOptions, opened: Opened) -> Self {
        Self {
            path,
            options,
            opened,
            counts: Counts::default(),
            handed_out: Mutex::default(),
            dropped: Mutex::default(),
        }
    }

    pub(super) fn handed_out(&self) -> MutexGuard<'_, HashSet<SpoolId>> {
        self.handed_out
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a loss and keeps it until it is taken.
    pub(super) fn lost(&self, dropped: Dropped) {
        let (batches, rows) = match dropped.cause {
            DropCause::Full => (&self.counts.dropped_batches, &self.counts.dropped_rows),
            DropCause::Damaged => (&self.counts.damaged_batches, &self.counts.damaged_rows),
        };
        batches.fetch_add(dropped.batches, Ordering::Relaxed);
        rows.fetch_add(dropped.rows, Ordering::Relaxed);
        let mut all = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        dropped.merge_into(&mut all);
    }

    pub(super) fn take_dropped(&self) -> Vec<Dropped> {
        let mut all = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut all)
    }

    pub(super) fn stats(&self) -> SpoolStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        SpoolStats {
            batches: read(&counts.batches),
            rows: read(&counts.rows),
            bytes: read(&counts.bytes),
            file_bytes: read(&counts.file_bytes),
            handed_out: self.handed_out().len() as u64,
            unreadable: read(&counts.unreadable),
            dropped_rows: read(&counts.dropped_rows),
            dropped_batches: read(&counts.dropped_batches),
            damaged_rows: read(&counts.damaged_rows),
            damaged_batches: read(&counts.damaged_batches),
            disk_errors: read(&counts.disk_errors),
        }
    }
}
