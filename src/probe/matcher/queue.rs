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

#[cfg(test)]
mod tests {
    use super::*;

    fn job(endpoint: i64, bytes: usize) -> (Job, oneshot::Receiver<Verdict>) {
        let (reply, verdict) = oneshot::channel();
        let job = Job {
            endpoint: EndpointId(endpoint),
            must: None,
            must_not: None,
            body: vec![0; bytes],
            reply,
        };
        (job, verdict)
    }

    fn order(queue: &Queue, jobs: usize) -> Vec<i64> {
        (0..jobs)
            .filter_map(|_| queue.pop())
            .map(|job| job.endpoint.0)
            .collect()
    }

    #[test]
    fn suspects_wait_behind_the_others_but_not_forever() {
        let queue = Queue::new(32, 1_000);
        let mut waiting = Vec::new();
        for endpoint in 0..12 {
            let (job, verdict) = job(endpoint, 1);
            waiting.push(verdict);
            assert!(queue.push(job, endpoint < 2).is_ok());
        }
        assert_eq!(order(&queue, 12), [2, 3, 4, 5, 6, 7, 8, 9, 0, 10, 11, 1]);
    }

    #[test]
    fn it_is_bounded_in_jobs_in_bytes_and_per_endpoint() {
        let queue = Queue::new(4, 100);
        let mut waiting = Vec::new();
        let mut push = |endpoint, bytes, suspect| {
            let (job, verdict) = job(endpoint, bytes);
            waiting.push(verdict);
            queue.push(job, suspect).is_ok()
        };
        assert!(push(1, 60, false));
        assert!(!push(1, 1, false), "one job an endpoint");
        assert!(!push(2, 41, false), "bytes");
        assert!(push(2, 40, true) && push(3, 0, true));
        assert!(!push(4, 0, true), "suspects take half of the places");
        assert!(push(5, 0, false));
        assert!(!push(6, 0, false), "jobs");
        assert_eq!(order(&queue, 4), [1, 5, 2, 3]);
        let (job, _verdict) = job(1, 100);
        assert!(queue.push(job, false).is_ok(), "all was given back");
    }

    #[test]
    fn a_job_that_nobody_waits_for_is_passed_over() {
        let queue = Queue::new(4, 100);
        let (left, verdict) = job(1, 1);
        drop(verdict);
        let (awaited, _verdict) = job(2, 1);
        assert!(queue.push(left, false).is_ok() && queue.push(awaited, false).is_ok());
        assert_eq!(order(&queue, 1), [2]);
    }

    #[test]
    fn a_closed_queue_takes_and_gives_nothing() {
        let queue = Queue::new(4, 100);
        let (queued, mut verdict) = job(1, 1);
        assert!(queue.push(queued, false).is_ok());
        queue.close();
        assert!(queue.pop().is_none());
        assert!(verdict.try_recv().is_err(), "who waited is told");
        let (late, _verdict) = job(2, 1);
        assert!(queue.push(late, false).is_err());
    }
}
