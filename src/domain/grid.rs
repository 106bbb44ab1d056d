//! The grid: when an endpoint is due. One formula here and in SQL (`migrations/`), so that every due tick can be
//! computed by anybody and a sample's identity is its place on the grid.

use super::endpoint::{EndpointId, Interval};
use super::timestamp::Timestamp;

/// Due at `k * interval + phase`, in milliseconds of UTC since the epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    interval_ms: u32,
    phase_ms: u32,
}

impl Grid {
    /// The grid of an endpoint. The phase is multiplicative hashing (Knuth's 2^32/φ): neighbouring ids land far apart,
    /// and in SQL's `bigint` nothing overflows.
    pub const fn new(id: EndpointId, interval: Interval) -> Self {
        let hash = ((id.0 & 0x7fff_ffff) * 2_654_435_769) & 0xffff_ffff;
        let phase = (hash * interval.millis() as i64) >> 32;
        Self {
            interval_ms: interval.millis(),
            phase_ms: phase as u32,
        }
    }

    /// Milliseconds between two ticks.
    pub const fn interval_ms(self) -> u32 {
        self.interval_ms
    }

    /// Offset of the ticks in their interval, below `interval_ms`.
    pub const fn phase_ms(self) -> u32 {
        self.phase_ms
    }

    /// The number of the tick at `at`, or of the last before it: tick 0 is the first of the epoch.
    pub const fn tick(self, at: Timestamp) -> i64 {
        (at.as_millis() - self.phase_ms as i64).div_euclid(self.interval_ms as i64)
    }

    /// The first tick at or after `at`, in milliseconds since the epoch.
    pub const fn at_or_after(self, at: Timestamp) -> i64 {
        // Round up to whole milliseconds first: a tick at 5 ms is not "at or after" 5.001 ms.
        let at_ms = -((-at.as_micros()).div_euclid(1_000));
        let interval = self.interval_ms as i64;
        let into = (at_ms - self.phase_ms as i64).rem_euclid(interval);
        if into == 0 {
            at_ms
        } else {
            at_ms + interval - into
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grid(id: i64, seconds: i64) -> Grid {
        Grid::new(EndpointId(id), Interval::from_secs(seconds).unwrap())
    }

    #[test]
    fn phases_are_those_of_the_formula() {
        // The same values come from PostgreSQL (tests/it/store_schema.rs): ((((id & 2147483647) * 2654435769) & 4294967295) * interval_ms) >> 32.
        let phases: Vec<_> = [
            (1, 5),
            (2, 5),
            (3, 300),
            (1_000_000, 60),
            (9_007_199_254_740_993, 60),
        ]
        .map(|(id, s)| grid(id, s).phase_ms())
        .to_vec();
        assert_eq!(phases, [3090, 1180, 256_230, 59_318, 37_082]);
    }

    proptest! {
        #[test]
        fn the_next_tick_is_on_the_grid_and_less_than_an_interval_away(
            id in any::<i64>(), seconds in 5i64..=300, at in -4_000_000_000_000_000i64..4_000_000_000_000_000
        ) {
            let grid = grid(id, seconds);
            let tick = grid.at_or_after(Timestamp::from_micros(at));
            prop_assert!(grid.phase_ms() < grid.interval_ms());
            prop_assert_eq!((tick - i64::from(grid.phase_ms())).rem_euclid(i64::from(grid.interval_ms())), 0);
            let ahead = tick * 1_000 - at;
            prop_assert!((0..i64::from(grid.interval_ms()) * 1_000).contains(&ahead));
        }
    }

    #[test]
    fn neighbouring_ids_spread_over_every_second() {
        // 100 000 ids at 60 s: the busiest second holds at most 1.2 times the mean.
        let mut seconds = [0u32; 60];
        for id in 1..=100_000 {
            seconds[grid(id, 60).phase_ms() as usize / 1_000] += 1;
        }
        let busiest = f64::from(*seconds.iter().max().unwrap());
        assert!(busiest <= 1.2 * 100_000.0 / 60.0, "{busiest}");
    }
}
