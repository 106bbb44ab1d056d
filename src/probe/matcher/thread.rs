//! What the match thread does.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::queue::Job;
use super::{Shared, Verdict};
use crate::domain::Pattern;
use crate::domain::pattern::BudgetSpent;

/// Added to the thread's nice value: probes go first, and a busy core still gives it a tenth.
const NICE: i32 = 10;

/// Starts the thread.
pub(super) fn spawn(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    Builder::new()
        .name("match".into())
        .spawn(move || run(&shared))
}

fn run(shared: &Shared) {
    // Linux keeps a nice value per thread; the thread's id names it alone.
    let thread = Some(rustix::thread::gettid());
    let lowered = rustix::process::getpriority_process(thread)
        .and_then(|nice| rustix::process::setpriority_process(thread, (nice + NICE).min(19)));
    if let Err(error) = lowered {
        warn!(%error, "the match thread keeps the priority of the probe thread");
    }
    while let Some(job) = shared.queue.pop() {
        serve(shared, job);
    }
}

fn serve(shared: &Shared, job: Job) {
    let started = Instant::now();
    let budget = shared.options.budget;
    let cpu_started = cpu_time();
    // A stop waits for the rest of the budget.
    let expired = || started.elapsed() >= budget;
    let judged = catch_unwind(AssertUnwindSafe(|| {
        verdict(
            job.must.as_ref(),
            job.must_not.as_ref(),
            &job.body,
            &expired,
        )
    }));
    let Ok(mut verdict) = judged else {
        shared.counts.panicked.fetch_add(1, Ordering::Relaxed);
        error!(
            endpoint = job.endpoint.0,
            "a pattern's match panicked; its probe is skipped"
        );
        return;
    };
    let share = cpu_time()
        .saturating_sub(cpu_started)
        .div_duration_f64(budget);
    if verdict == Verdict::TimedOut && share < shared.options.cpu_share_min {
        // The budget passed while others had the core: that is ours, not the pattern's.
        shared.counts.starved.fetch_add(1, Ordering::Relaxed);
        verdict = Verdict::Overloaded;
    } else if verdict == Verdict::TimedOut {
        shared.counts.timed_out.fetch_add(1, Ordering::Relaxed);
        shared.quarantine().struck(job.endpoint, Instant::now());
    } else {
        shared.quarantine().decided(job.endpoint);
    }
    // Nobody listens any more when the probe's deadline has passed.
    let _ = job.reply.send(verdict);
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Judges `body`; the pattern that must match first.
pub(super) fn verdict(
    must: Option<&Arc<Pattern>>,
    must_not: Option<&Arc<Pattern>>,
    body: &[u8],
    expired: &dyn Fn() -> bool,
) -> Verdict {
    let found = |pattern: Option<&Arc<Pattern>>| match pattern {
        Some(pattern) => pattern.is_match(body, expired).map(Some),
        None => Ok(None),
    };
    match (found(must), || found(must_not)) {
        (Err(BudgetSpent), _) => Verdict::TimedOut,
        (Ok(Some(false)), _) => Verdict::NotMatched,
        (Ok(_), must_not) => match must_not() {
            Err(BudgetSpent) => Verdict::TimedOut,
            Ok(Some(true)) => Verdict::Forbidden,
            Ok(_) => Verdict::Matched,
        },
    }
}
