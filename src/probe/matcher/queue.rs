//! The bounded queue in front of the match thread.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::Verdict;
use crate::domain::{EndpointId, Pattern};

/// A suspect job is served after so many others at the latest.
const OTHERS_BEFORE_A_SUSPECT: u32 = 8;

/// A body to be judged.
pub(super) struct Job {
    pub(super) endpoint: EndpointId,
    pub(super) must: Option<Arc<Pattern>>,
    pub(super) must_not: Option<Arc<Pattern>>,
    pub(super) body: Vec<u8>,
    pub(super) reply: oneshot::Sender<Verdict>,
}

/// The queue has no room, holds a job of that endpoint already, or is closed.
pub(super) struct Refused;

/// Jobs in two lines: suspects, whose last body was not decided in time, wait behind the others.
pub(super) struct Queue {
    jobs_max: usize,
    bytes_max: usize,
    lines: Mutex<Lines>,
    wake: Condvar,
}

#[derive(Default)]
struct Lines {
    others: VecDeque<Job>,
    suspects: VecDeque<Job>,
    endpoints: HashSet<EndpointId>,
    bytes: usize,
    others_in_a_row: u32,
    closed: bool,
}

impl Queue {
    pub(super) fn new(jobs_max: usize, bytes_max: usize) -> Self {
        Self {
            jobs_max,
            bytes_max,
            lines: Mutex::new(Lines::default()),
            wake: Condvar::new(),
        }
    }

    /// Queues `job`, unless there is no room for it. Suspects may take half of the places.
    pub(super) fn push(&self, job: Job, suspect: bool) -> Result<(), Refused> {
        let mut lines = self.lines();
        let no_place = lines.others.len() + lines.suspects.len() >= self.jobs_max
            || suspect && lines.suspects.len() >= self.jobs_max.div_ceil(2);
        let no_room = lines.bytes + job.body.len() > self.bytes_max;
        if lines.closed || no_place || no_room || !lines.endpoints.insert(job.endpoint) {
            return Err(Refused);
        }
        lines.bytes += job.body.len();
        if suspect {
            lines.suspects.push_back(job);
        } else {
            lines.others.push_back(job);
        }
        drop(lines);
        self.wake.notify_one();
        Ok(())
    }

    /// The next job that somebody still waits for; blocks for one. None once closed.
    pub(super) fn pop(&self) -> Option<Job> {
        let mut lines = self.lines();
        loop {
            if lines.closed {
                return None;
            }
            match lines.next() {
                Some(job) if job.reply.is_closed() => {}
                Some(job) => return Some(job),
                None => {
                    lines = self
                        .wake
                        .wait(lines)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Drops all jobs and ends the thread that pops.
    pub(super) fn close(&self) {
        let closed = Lines {
            closed: true,
            ..Lines::default()
        };
        let dropped = std::mem::replace(&mut *self.lines(), closed);
        self.wake.notify_all();
        drop(dropped);
    }

    /// Nothing panics while holding it.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn next(&mut self) -> Option<Job> {
        let suspects_turn = self.others_in_a_row >= OTHERS_BEFORE_A_SUSPECT;
        let job = if self.others.is_empty() || suspects_turn && !self.suspects.is_empty() {
            self.others_in_a_row = 0;
            self.suspects.pop_front()
        } else {
            self.others_in_a_row += 1;
            self.others.pop_front()
        }?;
        self.endpoints.remove(&job.endpoint);
        self.bytes -= job.body.len();
        Some(job)
    }
}
