//! How a spool's cap is shared out between database and log.

/// SQLite's default size of a page.
pub(super) const PAGE_BYTES: u64 = 4096;
/// The log's share of the cap at most. It is allocated at open, so that what is in the spool can be removed, and the
/// oldest dropped for newer ones, when the disk is full. A batch may take half of it: 4 MiB are some 80 000 rows.
const LOG_BYTES_MAX: u64 = 8 << 20;

/// The parts of the cap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sizes {
    /// Pages of the database at most.
    pub(super) pages_max: u64,
    /// The log's share, bytes. A quarter is the mark at which the log is copied back into the database, half is for
    /// the commit that passes the mark, and a quarter for giving space back meanwhile.
    pub(super) log_bytes: u64,
    /// Bytes of batches in one commit, and of the largest batch.
    pub(super) commit_bytes_max: u64,
    /// Pages that are given back at a time: 1 MiB, some milliseconds, which is how long an order may wait for it.
    pub(super) vacuum_pages: u64,
}

impl Sizes {
    /// `bytes_max` below 1 MiB counts as 1 MiB.
    pub(super) fn of(bytes_max: u64) -> Self {
        let bytes_max = bytes_max.max(1 << 20);
        let log_bytes = (bytes_max / 4).min(LOG_BYTES_MAX);
        Self {
            pages_max: (bytes_max - log_bytes) / PAGE_BYTES,
            log_bytes,
            commit_bytes_max: log_bytes / 2,
            vacuum_pages: (log_bytes / 8 / PAGE_BYTES).min(256),
        }
    }
}

/// Pages that a row of `bytes` takes at most: its overflow pages, and a share of leaf and pointer-map pages.
pub(super) fn pages(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(PAGE_BYTES - 4) + 2
}
