//! Gaps on their way to the store. A gap is a small fact that must not be lost: it is kept until it is written.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::Gap;
use super::keeper::{chain, random};
use crate::domain::Backoff;
use crate::store::BoxFuture;
use crate::telemetry;

/// Gaps of the same reason closer than this are one row.
const JOIN: Duration = Duration::from_secs(1);
/// Spans kept while the store is away; beyond it neighbours of one reason are joined however far apart they are, which
/// explains too much rather than losing one.
const PENDING_MAX: usize = 1_000;

/// Where gaps are written. Each call ends within a deadline of its own.
pub trait GapStore {
    /// Writes `gaps`, all or none.
    fn record<'a>(
        &'a self,
        gaps: &'a [Gap],
    ) -> BoxFuture<'a, Result<(), Box<dyn std::error::Error>>>;
}

/// Writes gaps until all senders are gone and none is left. Returns how many could not be written within
/// `drain_grace` of that.
pub async fn run(
    store: impl GapStore,
    mut gaps: mpsc::UnboundedReceiver<Gap>,
    drain_grace: Duration,
) -> u64 {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut pending: Vec<Gap> = Vec::new();
    while let Some(gap) = gaps.recv().await {
        note(&mut pending, gap);
        while !pending.is_empty() {
            while let Ok(gap) = gaps.try_recv() {
                note(&mut pending, gap);
            }
            match store.record(&pending).await {
                Ok(()) => {
                    pending.clear();
                    backoff.reset();
                }
                Err(error) if gaps.is_closed() => {
                    return last_try(&store, &pending, drain_grace, &*error).await;
                }
                Err(error) => {
                    tracing::debug!(
                        cause = chain(&*error),
                        gaps = pending.len(),
                        "gaps are not written yet"
                    );
                    sleep(backoff.next(random())).await;
                }
            }
        }
    }
    0
}

async fn last_try(
    store: &impl GapStore,
    pending: &[Gap],
    grace: Duration,
    first: &dyn std::error::Error,
) -> u64 {
    let retry = async {
        while store.record(pending).await.is_err() {
            sleep(Duration::from_millis(200)).await;
        }
    };
    if timeout(grace, retry).await.is_ok() {
        return 0;
    }
    tracing::error!(
        gaps = pending.len(),
        cause = chain(first),
        "gaps could not be written; the audit cannot name them"
    );
    pending.len() as u64
}

fn note(pending: &mut Vec<Gap>, gap: Gap) {
    telemetry::gap(gap.reason.label());
    let full = pending.len() >= PENDING_MAX;
    let near = |other: &Gap| {
        other.reason == gap.reason
            && (full || gap.from <= other.to.plus(JOIN) && other.from <= gap.to.plus(JOIN))
    };
    match pending.iter_mut().rev().find(|other| near(other)) {
        Some(other) => {
            other.from = other.from.min(gap.from);
            other.to = other.to.max(gap.to);
            other.samples = match (other.samples, gap.samples) {
                (Some(one), Some(two)) => Some(one + two),
                (one, two) => one.or(two),
            };
        }
        None => pending.push(gap),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::store::GapReason;
    use std::cell::{Cell, RefCell};

    #[derive(Default)]
    struct World {
        failures_left: Cell<u32>,
        written: RefCell<Vec<Gap>>,
    }

    type Flaky = std::rc::Rc<World>;

    impl GapStore for Flaky {
        fn record<'a>(
            &'a self,
            gaps: &'a [Gap],
        ) -> BoxFuture<'a, Result<(), Box<dyn std::error::Error>>> {
            Box::pin(async move {
                if self.failures_left.get() > 0 {
                    self.failures_left.set(self.failures_left.get() - 1);
                    return Err("away".into());
                }
                self.written.borrow_mut().extend(gaps);
                Ok(())
            })
        }
    }

    fn gap(from: i64, to: i64, reason: GapReason) -> Gap {
        Gap {
            from: Timestamp::from_millis(from),
            to: Timestamp::from_millis(to),
            reason,
            samples: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gaps_are_kept_until_the_store_is_back_and_neighbours_are_one() {
        let store = Flaky::default();
        store.failures_left.set(3);
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(gap(0, 100, GapReason::BufferFull)).unwrap();
        sender.send(gap(500, 900, GapReason::BufferFull)).unwrap();
        sender.send(gap(500, 900, GapReason::Paused)).unwrap();
        let close = async {
            sleep(Duration::from_secs(60)).await;
            drop(sender);
        };
        let (unwritten, ()) =
            tokio::join!(run(store.clone(), receiver, Duration::from_secs(1)), close);
        assert_eq!(unwritten, 0);
        assert_eq!(
            *store.written.borrow(),
            [
                gap(0, 900, GapReason::BufferFull),
                gap(500, 900, GapReason::Paused)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stays_away_ends_the_drain() {
        let store = Flaky::default();
        store.failures_left.set(u32::MAX);
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(gap(0, 100, GapReason::Paused)).unwrap();
        drop(sender);
        assert_eq!(
            run(store.clone(), receiver, Duration::from_secs(1)).await,
            1
        );
    }
}
