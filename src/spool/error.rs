//! What can go wrong with a spool.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the spool could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process, or another part of this one, has the file.
    #[error(
        "the spool {} is in use by another process: every agent process needs a spool file of its own \
         (WATCHER_SPOOL_DIR, --partition)",
        path.display()
    )]
    InUse {
        /// The spool's file.
        path: PathBuf,
    },
    /// The directory does not exist and cannot be made, or nothing can be written in it.
    #[error(
        "write in the spool's directory {}: give this user (uid {uid}) a directory it may write in by WATCHER_SPOOL_DIR",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Who we are.
        uid: u32,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file cannot be opened.
    #[error("open the spool {}", path.display())]
    Open {
        /// The spool's file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// A damaged file could not be put aside.
    #[error("put the damaged spool {} aside", path.display())]
    SetAside {
        /// The spool's file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The thread could not be started.
    #[error("start the spool thread")]
    Thread(#[source] io::Error),
    /// The batch is larger than one may be with this cap: put its halves.
    #[error(
        "a batch of {bytes} bytes is too large for this spool, which takes batches of {bytes_max}"
    )]
    TooLarge {
        /// Encoded size.
        bytes: usize,
        /// The largest that fits.
        bytes_max: u64,
    },
    /// No room below the cap or on the disk, and what is in the spool is being replayed at this moment.
    #[error("the spool or its disk is full, and there is nothing in it that may be dropped now")]
    NoRoom,
    /// The disk refused. What was asked has not happened.
    #[error("{doing} the spool {}", path.display())]
    Disk {
        /// What we were doing.
        doing: &'static str,
        /// The spool's file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// No answer from the disk in time. A batch may nevertheless be in the spool, or get there.
    #[error("no answer from the spool within {0:?}")]
    Deadline(Duration),
    /// The spool thread has ended.
    #[error("the spool is closed")]
    Closed,
}
