//! The match thread, and the judgement of bodies by patterns.
//!
//! Short bodies under cheap patterns are judged where they are, on the probe thread; all else on one thread of lower
//! priority behind a bounded queue, under a budget. What an endpoint does to that thread stays its own trouble: one
//! job of it at most is queued, those that spent their budget last are served after the others, and after several in
//! a row the endpoint rests (`quarantine`).

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::pace::Pace;
use crate::domain::{EndpointId, Pattern};

mod counts;
mod quarantine;
mod queue;
mod thread;

pub use counts::MatchCounts;
use quarantine::Quarantine;
pub use quarantine::QuarantinePolicy;
use queue::{Job, Queue};

/// Settings of the matcher.
#[derive(Clone, Debug)]
pub struct MatcherOptions {
    /// Time that one body may take on the look-around engine, from the start of its match.
    pub budget: Duration,
    /// A match that spent its budget, but got less than this share of it as CPU time, was starved: the body counts as not
    /// judged for lack of the agent's time, not as undecidable. 0 blames the pattern always.
    pub cpu_share_min: f64,
    /// A body is judged on the probe thread when its patterns take no longer than this at their very worst.
    pub inline_max: Duration,
    /// Jobs that may wait. Most take below 1 ms; were all undecidable, at 50 ms each, the last would wait for 13 s.
    pub queued_jobs_max: usize,
    /// Bytes of bodies that may wait: 64 of the longest by default.
    pub queued_bytes_max: usize,
    /// When an endpoint rests, and how long.
    pub quarantine: QuarantinePolicy,
}

impl Default for MatcherOptions {
    fn default() -> Self {
        Self {
            budget: Duration::from_millis(50),
            cpu_share_min: 0.5,
            inline_max: Duration::from_millis(1),
            queued_jobs_max: 256,
            queued_bytes_max: 64 << 20,
            quarantine: QuarantinePolicy::default(),
        }
    }
}

/// What a body came to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// It passes.
    Matched,
    /// The pattern that must match does not.
    NotMatched,
    /// The pattern that must not match does.
    Forbidden,
    /// Not decided within the budget.
    TimedOut,
    /// Not judged: the endpoint rests after running out of its budget again and again.
    Quarantined,
    /// Not judged, by the agent's own doing: the queue is full, or the match thread is starved, gone or failed.
    Overloaded,
}

/// A handle to the match thread. Cheap to clone.
#[derive(Clone)]
pub struct Matcher {
    shared: Arc<Shared>,
}

/// The match thread's owner: stopping joins it, and so does dropping.
pub struct MatchThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    options: MatcherOptions,
    queue: Queue,
    quarantine: Mutex<Quarantine>,
    counts: counts::Counters,
}

impl Matcher {
    /// Starts the match thread.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(options: MatcherOptions) -> io::Result<(Self, MatchThread)> {
        let shared = Arc::new(Shared {
            queue: Queue::new(options.queued_jobs_max, options.queued_bytes_max),
            quarantine: Mutex::new(Quarantine::new(options.quarantine)),
            counts: counts::Counters::default(),
            options,
        });
        let thread = thread::spawn(Arc::clone(&shared))?;
        let owner = MatchThread {
            shared: Arc::clone(&shared),
            thread: Some(thread),
        };
        Ok((Self { shared }, owner))
    }

    /// Judges `body` by the pattern that must and the pattern that must not be found in it.
    ///
    /// Dropping the future takes the body out of the queue; a match that runs goes on to the end of its budget, and
    /// counts for the quarantine.
    pub async fn judge(
        &self,
        endpoint: EndpointId,
        must: Option<&Arc<Pattern>>,
        must_not: Option<&Arc<Pattern>>,
        body: Vec<u8>,
    ) -> Verdict {
        let pace = Pace::default();
        self.judge_at(&pace, endpoint, must, must_not, body).await
    }

    /// Likewise; what is done on this thread is done at `pace`.
    pub(super) async fn judge_at(
        &self,
        pace: &Pace,
        endpoint: EndpointId,
        must: Option<&Arc<Pattern>>,
        must_not: Option<&Arc<Pattern>>,
        body: Vec<u8>,
    ) -> Verdict {
        let counts = &self.shared.counts;
        if must.is_none() && must_not.is_none() {
            return Verdict::Matched;
        }
        let worst_case: Option<Duration> = must
            .into_iter()
            .chain(must_not)
            .map(|pattern| pattern.worst_case(body.len()))
            .sum();
        if worst_case.is_some_and(|time| time <= self.shared.options.inline_max) {
            counts.inline.fetch_add(1, Ordering::Relaxed);
            return pace
                .work(|| thread::verdict(must, must_not, &body, &|| false))
                .await;
        }
        if self.is_quarantined(endpoint) {
            counts.quarantined.fetch_add(1, Ordering::Relaxed);
            return Verdict::Quarantined;
        }
        let suspect = self.shared.quarantine().is_suspect(endpoint);
        let (reply, verdict) = oneshot::channel();
        let job = Job {
            endpoint,
            must: must.cloned(),
            must_not: must_not.cloned(),
            body,
            reply,
        };
        if self.shared.queue.push(job, suspect).is_err() {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            return Verdict::Overloaded;
        }
        counts.queued.fetch_add(1, Ordering::Relaxed);
        // The sender is dropped unused when the job panics or the thread has stopped.
        verdict.await.unwrap_or(Verdict::Overloaded)
    }

    /// Whether the endpoint rests now. Its next probe need not be made: it could not be judged.
    pub fn is_quarantined(&self, endpoint: EndpointId) -> bool {
        self.shared
            .quarantine()
            .is_resting(endpoint, Instant::now())
    }

    /// Forgets what the endpoint's patterns did: it was edited, or deleted.
    pub fn forget(&self, endpoint: EndpointId) {
        self.shared.quarantine().forget(endpoint);
    }

    /// What was done so far.
    pub fn counts(&self) -> MatchCounts {
        self.shared.counts.snapshot()
    }
}

impl Shared {
    /// Nothing panics while holding it, and its state is valid after each step.
    fn quarantine(&self) -> MutexGuard<'_, Quarantine> {
        self.quarantine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl MatchThread {
    /// Ends the thread and joins it. What is queued or running is answered with `Verdict::Overloaded`.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.take() {
            // Panics are caught per job; should one get through all the same, there is nothing left to save.
            let _ = thread.join();
        }
    }
}

impl Drop for MatchThread {
    fn drop(&mut self) {
        self.end();
    }
}
