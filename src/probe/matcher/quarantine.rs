//! Which endpoints rest because their patterns run out of budget again and again. The clock is passed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::domain::EndpointId;

/// When an endpoint rests, and how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuarantinePolicy {
    /// Budgets spent in a row before the first rest; at least 1.
    pub strikes: u32,
    /// The first rest. After each, one body is judged again; the rest doubles with each that spends its budget too.
    pub rest: Duration,
    /// The longest rest.
    pub rest_max: Duration,
}

impl Default for QuarantinePolicy {
    /// Three strikes, then a minute, up to an hour: an endpoint that is never decided at 5 s costs 50 ms an hour.
    fn default() -> Self {
        Self {
            strikes: 3,
            rest: Duration::from_secs(60),
            rest_max: Duration::from_secs(3_600),
        }
    }
}

/// Below this many entries nothing is thrown out: 64 bytes each.
const ENTRIES_KEPT: usize = 1_024;

/// Endpoints whose last body was not decided in time. An endpoint without trouble has no entry.
#[derive(Debug)]
pub(super) struct Quarantine {
    policy: QuarantinePolicy,
    entries: HashMap<EndpointId, Entry>,
    /// Entries are looked through for old ones at this many, so that endpoints deleted meanwhile do not pile up.
    prune_at: usize,
}

#[derive(Debug)]
struct Entry {
    strikes: u32,
    last: Instant,
    rests_until: Option<Instant>,
}

impl Quarantine {
    pub(super) fn new(policy: QuarantinePolicy) -> Self {
        Self {
            policy,
            entries: HashMap::new(),
            prune_at: ENTRIES_KEPT,
        }
    }

    /// Whether the endpoint rests at `now`.
    pub(super) fn is_resting(&self, endpoint: EndpointId, now: Instant) -> bool {
        self.entries
            .get(&endpoint)
            .and_then(|entry| entry.rests_until)
            .is_some_and(|until| now < until)
    }

    /// Whether its last body was not decided in time.
    pub(super) fn is_suspect(&self, endpoint: EndpointId) -> bool {
        self.entries.contains_key(&endpoint)
    }

    /// A body of the endpoint spent its budget.
    pub(super) fn struck(&mut self, endpoint: EndpointId, now: Instant) {
        if self.entries.len() >= self.prune_at {
            self.prune(now);
        }
        let entry = self.entries.entry(endpoint).or_insert(Entry {
            strikes: 0,
            last: now,
            rests_until: None,
        });
        entry.strikes = entry.strikes.saturating_add(1);
        entry.last = now;
        if let Some(rests) = entry.strikes.checked_sub(self.policy.strikes) {
            let rest = self.policy.rest.saturating_mul(1 << rests.min(20));
            entry.rests_until = now.checked_add(rest.min(self.policy.rest_max));
        }
    }

    /// A body of the endpoint was decided.
    pub(super) fn decided(&mut self, endpoint: EndpointId) {
        self.entries.remove(&endpoint);
    }

    /// The endpoint was edited or deleted.
    pub(super) fn forget(&mut self, endpoint: EndpointId) {
        self.entries.remove(&endpoint);
    }

    /// Drops entries that nobody asked about for two of the longest rests.
    fn prune(&mut self, now: Instant) {
        let old = 2 * self.policy.rest_max;
        self.entries
            .retain(|_, entry| now.saturating_duration_since(entry.last) < old);
        self.prune_at = (2 * self.entries.len()).max(ENTRIES_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: EndpointId = EndpointId(7);
    const SECOND: Duration = Duration::from_secs(1);

    /// `x` an undecided body, `o` a decided one, a digit so many minutes; the answer is whether it rests then.
    fn rests_after(story: &str) -> bool {
        let mut quarantine = Quarantine::new(QuarantinePolicy::default());
        let mut now = Instant::now();
        for event in story.chars() {
            match event {
                'x' => quarantine.struck(ENDPOINT, now),
                'o' => quarantine.decided(ENDPOINT),
                'e' => quarantine.forget(ENDPOINT),
                minutes => now += 60 * SECOND * minutes.to_digit(10).unwrap_or(0),
            }
        }
        quarantine.is_resting(ENDPOINT, now)
    }

    #[test]
    fn three_undecided_bodies_in_a_row_open_a_rest() {
        assert!(!rests_after("xx"));
        assert!(rests_after("xxx"));
        assert!(!rests_after("xxox"));
    }

    #[test]
    fn rests_grow_with_each_try_that_fails_and_end_with_one_that_does_not() {
        assert!(!rests_after("xxx1"));
        assert!(rests_after("xxx1x1"));
        assert!(!rests_after("xxx1x2"));
        assert!(rests_after("xxx1x2x3"));
        assert!(!rests_after("xxx1xo"));
        // At most an hour.
        assert!(rests_after("xxxxxxxxxxxxxxxx999999"));
        assert!(!rests_after("xxxxxxxxxxxxxxxx9999996"));
    }

    #[test]
    fn an_edited_endpoint_starts_anew() {
        assert!(!rests_after("xxxe"));
        assert!(!rests_after("xxxexx"));
    }

    #[test]
    fn endpoints_long_gone_do_not_pile_up() {
        let mut quarantine = Quarantine::new(QuarantinePolicy::default());
        let start = Instant::now();
        for hour in 0..100 {
            for id in 0..500 {
                let endpoint = EndpointId(i64::from(hour * 500 + id));
                quarantine.struck(endpoint, start + 3_600 * SECOND * hour as u32);
            }
        }
        assert!(
            quarantine.entries.len() <= 4 * ENTRIES_KEPT,
            "{}",
            quarantine.entries.len()
        );
    }
}
