//! When a large part of the endpoints goes at once, somebody may have made a mistake: they are probed for a while longer.

use std::collections::HashSet;
use std::time::Duration;

use crate::domain::{EndpointId, Timestamp};
use crate::store::HeldRemoval;

/// Removals of so long count as one.
const AT_ONCE: Duration = Duration::from_secs(60);

/// What a large part is, and how long it is held.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RemovalOptions {
    /// Zero: nothing is held.
    pub grace: Duration,
    /// Of the endpoints.
    pub part: f64,
    /// Fewer than this are never held.
    pub at_least: usize,
}

impl RemovalOptions {
    /// Every removal is applied at once.
    pub const OFF: Self = Self {
        grace: Duration::ZERO,
        part: 1.0,
        at_least: usize::MAX,
    };
}

/// Decides which removals wait. Time is passed in; what it says is done by the catalog.
#[derive(Debug)]
pub(super) struct Removals {
    options: RemovalOptions,
    held: HashSet<EndpointId>,
    /// Of how many, since when; meaningless while nothing is held.
    of: usize,
    since: Timestamp,
    /// Endpoints at the beginning of the present minute, and those deleted in it.
    minute: Option<(Timestamp, usize, usize)>,
}

impl Removals {
    pub(super) fn new(options: RemovalOptions) -> Self {
        Self {
            options,
            held: HashSet::new(),
            of: 0,
            since: Timestamp::default(),
            minute: None,
        }
    }

    /// Whether removals have to be looked at at all.
    pub(super) fn is_on(&self) -> bool {
        !self.options.grace.is_zero()
    }

    pub(super) fn grace(&self) -> Duration {
        self.options.grace
    }

    /// Of `known` endpoints these were deleted by `now`; whether they wait. `since`: when an earlier run began to hold
    /// them.
    pub(super) fn deleted(
        &mut self,
        deleted: &[EndpointId],
        known: usize,
        now: Timestamp,
        since: Option<Timestamp>,
    ) -> bool {
        if !self.is_on() || deleted.is_empty() {
            return false;
        }
        let (begun, before, gone) = match self.minute {
            Some((begun, before, gone)) if now.since(begun) < AT_ONCE && begun <= now => {
                (begun, before, gone)
            }
            _ => (now, known, 0),
        };
        let gone = gone + deleted.len();
        self.minute = Some((begun, before, gone));
        let is_large =
            gone >= self.options.at_least && gone as f64 >= before as f64 * self.options.part;
        if self.held.is_empty() {
            if !is_large {
                return false;
            }
            self.of = before;
            self.since = since.unwrap_or(now);
        }
        self.held.extend(deleted);
        true
    }

    /// It is in the table; whether it was held.
    pub(super) fn is_back(&mut self, id: EndpointId) -> bool {
        self.held.remove(&id)
    }

    /// What is held.
    pub(super) fn held(&self) -> Option<HeldRemoval> {
        (!self.held.is_empty()).then(|| HeldRemoval {
            endpoints: self.held.len(),
            of: self.of,
            since: self.since,
            until: self.since.plus(self.options.grace),
        })
    }

    pub(super) fn holds(&self, id: EndpointId) -> bool {
        self.held.contains(&id)
    }

    pub(super) fn ids(&self) -> &HashSet<EndpointId> {
        &self.held
    }

    /// They are to go now.
    pub(super) fn release(&mut self) -> Vec<EndpointId> {
        self.minute = None;
        self.held.drain().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<i64>) -> Vec<EndpointId> {
        range.map(EndpointId).collect()
    }

    fn removals() -> Removals {
        Removals::new(RemovalOptions {
            grace: Duration::from_secs(600),
            part: 0.5,
            at_least: 10,
        })
    }

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn half_at_once_waits_and_less_or_few_do_not() {
        assert!(!removals().deleted(&ids(0..49), 100, at(0), None));
        assert!(removals().deleted(&ids(0..50), 100, at(0), None));
        assert!(!removals().deleted(&ids(0..9), 9, at(0), None));
        assert!(removals().deleted(&ids(0..10), 10, at(0), None));
        let mut off = Removals::new(RemovalOptions::OFF);
        assert!(!off.deleted(&ids(0..100), 100, at(0), None));
    }

    #[test]
    fn row_by_row_within_a_minute_counts_together_and_over_hours_it_does_not() {
        let mut fast = removals();
        let held: Vec<i64> = (0..100)
            .filter(|&n| fast.deleted(&ids(n..n + 1), 100 - n as usize, at(n / 2), None))
            .collect();
        assert_eq!(held, (49..100).collect::<Vec<_>>());
        assert_eq!(
            fast.held(),
            Some(HeldRemoval {
                endpoints: 51,
                of: 100,
                since: at(24),
                until: at(624)
            })
        );
        let mut slow = removals();
        assert!(
            (0..90).all(|n| { !slow.deleted(&ids(n..n + 1), 100 - n as usize, at(n * 61), None) })
        );
    }

    #[test]
    fn rows_that_come_back_are_forgotten_and_the_grace_outlives_the_process() {
        let mut removals = removals();
        assert!(removals.deleted(&ids(0..60), 100, at(900), Some(at(500))));
        assert_eq!(removals.held().map(|held| held.until), Some(at(1_100)));
        assert!(removals.is_back(EndpointId(7)) && !removals.is_back(EndpointId(7)));
        assert!(removals.deleted(&ids(70..71), 100, at(2_000), None));
        assert_eq!(removals.release().len(), 60);
        assert_eq!(removals.held(), None);
    }
}
