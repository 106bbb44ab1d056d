//! Exponential backoff with full jitter. The random number is passed in.

use std::time::Duration;

/// Delays that double from `first` to `max`, each drawn between half of itself and itself.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    /// Starts at `first`, never above `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            attempt: 0,
        }
    }

    /// The next delay. `random` is uniform over all of `u32`; it spreads agents that failed together.
    pub fn next(&mut self, random: u32) -> Duration {
        let full = self
            .first
            .saturating_mul(1 << self.attempt.min(20))
            .min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        let half = full / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Back to the first delay, after a success.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let full: Vec<_> = (0..5).map(|_| backoff.next(u32::MAX).as_millis()).collect();
        assert_eq!(full, [100, 200, 400, 800, 1_000]);
        backoff.reset();
        assert_eq!(backoff.next(0).as_millis(), 50);
    }
}
