//! The time that the schedule follows: wall time, except where wall time misbehaves.
//!
//! * A forward step or a pause longer than [`PAUSE_MAX`] is one gap; the ticks inside are not caught up.
//! * After a backward step the schedule goes on by the monotonic clock, a twentieth slower, until wall time has caught
//!   up: no grid point is used twice, and the two meet again.

use std::time::Duration;

use super::timestamp::Timestamp;

/// The shortest interval: below it no endpoint can miss more than one tick, which is probed late, with its lag.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Differences that slewing (adjtime) and rounding make between two looks; not steps.
const STEP_MIN_US: i64 = 1_000;
/// One in so many is lost while wall time is behind.
const SLEW: i64 = 20;

/// Ticks in `from..to` were not and will not be probed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockGap {
    /// Last instant before the gap.
    pub from: Timestamp,
    /// First instant after it.
    pub to: Timestamp,
    /// Whether the wall clock stepped; else the process was paused or starved.
    pub stepped: bool,
}

/// Follows wall and monotonic time.
#[derive(Debug)]
pub struct ScheduleClock {
    now: Timestamp,
    wall: Timestamp,
    mono: Duration,
}

impl ScheduleClock {
    /// Starts at `wall`. `mono` is time since any fixed point of the monotonic clock.
    pub const fn new(wall: Timestamp, mono: Duration) -> Self {
        Self {
            now: wall,
            wall,
            mono,
        }
    }

    /// The schedule's time at the last look.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The schedule's time a little after the last look, which need not be repeated for it.
    pub fn at(&self, mono: Duration) -> Timestamp {
        self.now.plus(mono.saturating_sub(self.mono))
    }

    /// How far the schedule is ahead of wall time.
    pub const fn ahead(&self) -> Duration {
        self.now.since(self.wall)
    }

    /// Looks at both clocks. The schedule's time never goes back.
    pub fn look(&mut self, wall: Timestamp, mono: Duration) -> Option<ClockGap> {
        let elapsed = mono.saturating_sub(self.mono);
        let elapsed_us = elapsed.as_micros() as i64;
        let stepped_us = wall.as_micros() - self.wall.as_micros() - elapsed_us;
        let before = self.now;
        self.wall = wall;
        self.mono = mono;
        let by_mono = before.plus(elapsed);
        self.now = if wall >= by_mono || (stepped_us > STEP_MIN_US && wall > before) {
            wall
        } else if by_mono.since(wall).as_micros() as i64 <= STEP_MIN_US {
            // Ordinary slewing: wall time, as long as it does not go back.
            wall.max(before)
        } else {
            before.plus(elapsed - elapsed / SLEW as u32).max(wall)
        };
        let gap = self.now.since(before) > PAUSE_MAX;
        gap.then_some(ClockGap {
            from: before,
            to: self.now,
            stepped: stepped_us > STEP_MIN_US && elapsed <= PAUSE_MAX,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    const fn mono(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_quiet_clock_is_wall_time() {
        let mut clock = ScheduleClock::new(s(1_000), mono(5));
        assert_eq!(clock.look(s(1_001), mono(6)), None);
        assert_eq!(clock.now(), s(1_001));
        assert_eq!(clock.at(mono(8)), s(1_003));
        // Slewed back by half a millisecond: still wall time.
        assert_eq!(
            clock.look(Timestamp::from_micros(1_001_999_500), mono(7)),
            None
        );
        assert_eq!(clock.now(), Timestamp::from_micros(1_001_999_500));
    }

    #[test]
    fn a_pause_longer_than_the_shortest_interval_is_one_gap() {
        let mut clock = ScheduleClock::new(s(1_000), mono(0));
        assert_eq!(clock.look(s(1_005), mono(5)), None);
        let gap = clock.look(s(1_035), mono(35));
        assert_eq!(
            gap,
            Some(ClockGap {
                from: s(1_005),
                to: s(1_035),
                stepped: false
            })
        );
        assert_eq!(clock.look(s(1_036), mono(36)), None);
    }

    #[test]
    fn a_forward_step_is_one_gap() {
        let mut clock = ScheduleClock::new(s(1_000), mono(0));
        let gap = clock.look(s(4_601), mono(1));
        assert_eq!(
            gap,
            Some(ClockGap {
                from: s(1_000),
                to: s(4_601),
                stepped: true
            })
        );
        assert_eq!(clock.now(), s(4_601));
    }

    #[test]
    fn after_a_backward_step_time_goes_on_slower_until_wall_time_has_caught_up() {
        let mut clock = ScheduleClock::new(s(10_000), mono(0));
        let mut last = clock.now();
        for second in 1..=300 {
            assert_eq!(
                clock.look(s(10_000 - 10 + second), mono(second as u64)),
                None
            );
            assert!(clock.now() > last, "second {second}");
            last = clock.now();
        }
        assert_eq!(clock.now(), s(10_290));
        assert_eq!(clock.ahead(), Duration::ZERO);
    }

    #[test]
    fn a_step_back_and_forth_uses_no_instant_twice() {
        let mut clock = ScheduleClock::new(s(10_000), mono(0));
        clock.look(s(6_401), mono(1));
        let held = clock.now();
        assert!(held > s(10_000) && held < s(10_001));
        assert_eq!(clock.look(s(10_002), mono(2)), None);
        assert_eq!(clock.now(), s(10_002));
    }
}
