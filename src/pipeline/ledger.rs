//! Gaps on their way to the store. A gap is a small fact that must not be lost: it is kept until it is written.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Gap;
use super::keeper::{chain, random};
use crate::domain::{Backoff, EndpointId};
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

/// Gaps that are not written yet; clones share them, so that they outlive the task that writes them.
#[derive(Clone, Default, Debug)]
pub struct Unwritten(Rc<RefCell<Pending>>);

#[derive(Default, Debug)]
struct Pending {
    /// Sent to the store; not known to be written.
    sent: Vec<Gap>,
    waiting: Vec<Gap>,
    /// Those of single endpoints: one span an endpoint and reason, so no more than there are endpoints.
    of_endpoints: HashMap<(EndpointId, &'static str), Gap>,
}

impl Unwritten {
    /// Those that are left when the task has ended or was given up.
    pub fn take(&self) -> Vec<Gap> {
        let Pending {
            mut sent,
            waiting,
            of_endpoints,
        } = self.0.take();
        sent.extend(waiting);
        sent.extend(of_endpoints.into_values());
        sent
    }

    fn note(&self, gap: Gap) {
        telemetry::gap(gap.reason.label());
        let mut pending = self.0.borrow_mut();
        match gap.endpoint {
            None => note(&mut pending.waiting, gap),
            Some(endpoint) => {
                pending
                    .of_endpoints
                    .entry((endpoint, gap.reason.label()))
                    .and_modify(|other| join(other, &gap))
                    .or_insert(gap);
            }
        }
    }

    /// What is to be sent now: what was sent before first.
    fn to_send(&self) -> Vec<Gap> {
        let mut pending = self.0.borrow_mut();
        if pending.sent.is_empty() {
            pending.sent = std::mem::take(&mut pending.waiting);
            let of_endpoints = std::mem::take(&mut pending.of_endpoints);
            pending.sent.extend(of_endpoints.into_values());
        }
        pending.sent.clone()
    }

    fn written(&self) {
        self.0.borrow_mut().sent.clear();
    }
}

/// Writes gaps until all senders are gone and none is left, however long the store is away.
pub async fn run(
    store: impl GapStore,
    mut gaps: mpsc::UnboundedReceiver<Gap>,
    unwritten: Unwritten,
) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut open = true;
    loop {
        while let Ok(gap) = gaps.try_recv() {
            unwritten.note(gap);
        }
        let sent = unwritten.to_send();
        if sent.is_empty() {
            match gaps.recv().await {
                Some(gap) => unwritten.note(gap),
                None => return,
            }
            continue;
        }
        let attempt = async {
            match store.record(&sent).await {
                Ok(()) => {
                    unwritten.written();
                    backoff.reset();
                }
                Err(error) => {
                    tracing::debug!(
                        cause = chain(&*error),
                        gaps = sent.len(),
                        "gaps are not written yet"
                    );
                    sleep(backoff.next(random())).await;
                }
            }
        };
        let mut attempt = std::pin::pin!(attempt);
        loop {
            tokio::select! {
                () = &mut attempt => break,
                gap = gaps.recv(), if open => match gap {
                    Some(gap) => unwritten.note(gap),
                    None => open = false,
                },
            }
        }
    }
}

fn note(pending: &mut Vec<Gap>, gap: Gap) {
    let full = pending.len() >= PENDING_MAX;
    let near = |other: &Gap| {
        other.reason == gap.reason
            && (full || gap.from <= other.to.plus(JOIN) && other.from <= gap.to.plus(JOIN))
    };
    match pending.iter_mut().rev().find(|other| near(other)) {
        Some(other) => join(other, &gap),
        None => pending.push(gap),
    }
}

fn join(one: &mut Gap, other: &Gap) {
    one.from = one.from.min(other.from);
    one.to = one.to.max(other.to);
    one.samples = match (one.samples, other.samples) {
        (Some(one), Some(two)) => Some(one + two),
        (one, two) => one.or(two),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::store::GapReason;
    use std::cell::Cell;

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
            endpoint: None,
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
        let unwritten = Unwritten::default();
        tokio::join!(run(store.clone(), receiver, unwritten.clone()), close);
        assert_eq!(unwritten.take(), []);
        assert_eq!(
            *store.written.borrow(),
            [
                gap(0, 900, GapReason::BufferFull),
                gap(500, 900, GapReason::Paused)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn gaps_of_single_endpoints_stay_apart_however_many_they_are() {
        let store = Flaky::default();
        store.failures_left.set(2);
        let (sender, receiver) = mpsc::unbounded_channel();
        for id in 0..PENDING_MAX as i64 * 3 {
            for from in [id, id + 50] {
                let endpoint = Some(EndpointId(id));
                let gap = gap(from, from + 10, GapReason::CatalogBehind);
                sender.send(Gap { endpoint, ..gap }).unwrap();
            }
        }
        drop(sender);
        run(store.clone(), receiver, Unwritten::default()).await;
        let written = store.written.borrow();
        assert_eq!(written.len(), PENDING_MAX * 3);
        assert!(written.iter().all(|gap| {
            let id = gap.endpoint.expect("one endpoint's").0;
            gap.from.as_millis() == id && gap.to.as_millis() == id + 60
        }));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_store_that_stays_away_did_not_take_is_left() {
        let store = Flaky::default();
        store.failures_left.set(u32::MAX);
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(gap(0, 100, GapReason::Paused)).unwrap();
        let unwritten = Unwritten::default();
        let run = run(store.clone(), receiver, unwritten.clone());
        let later = async {
            sleep(Duration::from_secs(30)).await;
            sender
                .send(gap(500_000, 500_100, GapReason::Paused))
                .unwrap();
            sleep(Duration::from_secs(30)).await;
        };
        tokio::select! {
            () = run => panic!("there is a gap left"),
            () = later => {}
        }
        let left: Vec<_> = unwritten
            .take()
            .iter()
            .map(|gap| gap.from.as_millis())
            .collect();
        assert_eq!(left, [0, 500_000]);
    }
}
