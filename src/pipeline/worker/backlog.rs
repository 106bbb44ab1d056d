//! How long a tick may wait for its start.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::domain::clock::PAUSE_MAX;

/// A tick that has waited longer is skipped (overload). After a pause of up to that, ticks are probed late.
const LAG_MAX: Duration = PAUSE_MAX;
/// Where the worker has not caught up for [`LAG_MAX`], it is no pause but a load above what the core can do: then each tick
/// would be as late as it may be. As many are skipped when none waits longer than this, and when the load falls the
/// worker has caught up within a second.
const STANDING_MAX: Duration = Duration::from_secs(1);

/// Ticks that wait for their start.
#[derive(Default)]
pub(super) struct Backlog {
    /// Ticks have been late since, and were never caught up with.
    late_since: Option<Timestamp>,
}

impl Backlog {
    /// Whether a tick is not to be probed any more that has waited so long at `now`.
    pub(super) fn is_too_late(&mut self, waited: Duration, now: Timestamp) -> bool {
        if waited <= STANDING_MAX {
            return false;
        }
        let late_since = *self.late_since.get_or_insert(now);
        waited > LAG_MAX || now.since(late_since) > LAG_MAX
    }

    /// Nothing waits.
    pub(super) fn caught_up(&mut self) {
        self.late_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A core that starts `per_s` ticks of 100 a second from a backlog of `waiting`: lag and share skipped, by second.
    fn run(waiting: f64, per_s: f64, seconds: usize) -> Vec<(f64, f64)> {
        let mut backlog = Backlog::default();
        let (mut head, mut room) = (-waiting, 0.0);
        let mut seen = Vec::new();
        for step in 0..seconds * 100 {
            let now = step as f64 / 100.0;
            let at = Timestamp::from_micros((1e12 + now * 1e6) as i64);
            room += per_s / 100.0;
            let (mut skipped, mut lag) = (0.0, 0.0);
            while head <= now && room >= 1.0 {
                lag = now - head;
                head += 0.01;
                if backlog.is_too_late(Duration::from_secs_f64(lag), at) {
                    skipped += 1.0;
                } else {
                    room -= 1.0;
                }
            }
            if head > now {
                backlog.caught_up();
                room = 0.0;
            }
            if step % 100 == 0 {
                seen.push((0.0, 0.0));
            }
            let second = seen.last_mut().expect("one was pushed");
            *second = (lag.max(second.0), second.1 + skipped / 100.0);
        }
        seen
    }

    #[test]
    fn after_a_pause_ticks_are_probed_late() {
        let seen = run(4.0, 200.0, 10);
        assert!(seen.iter().all(|(_, skipped)| *skipped == 0.0), "{seen:?}");
        assert!(seen[0].0 > 3.9 && seen[6].0 < 0.1, "{seen:?}");
    }

    #[test]
    fn under_a_standing_overload_no_tick_waits_for_long_and_half_of_them_are_probed() {
        let seen = run(0.0, 50.0, 60);
        for (lag, skipped) in &seen[20..] {
            assert!(*lag < 1.1 && (0.4..0.6).contains(skipped), "{seen:?}");
        }
    }
}
