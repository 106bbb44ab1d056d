//! What the matcher did, counted from both threads.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the matcher did since it started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MatchCounts {
    /// Bodies judged on the probe thread.
    pub inline: u64,
    /// Bodies given to the match thread.
    pub queued: u64,
    /// Bodies not judged because the queue was full, or held one of that endpoint.
    pub refused: u64,
    /// Bodies not decided within the budget.
    pub timed_out: u64,
    /// Bodies not judged because the match thread got too little of the budget as CPU time.
    pub starved: u64,
    /// Bodies not judged because their endpoint rested.
    pub quarantined: u64,
    /// Matches that panicked. Each is a defect.
    pub panicked: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) inline: AtomicU64,
    pub(super) queued: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) starved: AtomicU64,
    pub(super) quarantined: AtomicU64,
    pub(super) panicked: AtomicU64,
}

impl Counters {
    pub(super) fn snapshot(&self) -> MatchCounts {
        MatchCounts {
            inline: self.inline.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            timed_out: self.timed_out.load(Ordering::Relaxed),
            starved: self.starved.load(Ordering::Relaxed),
            quarantined: self.quarantined.load(Ordering::Relaxed),
            panicked: self.panicked.load(Ordering::Relaxed),
        }
    }
}
