//! Time in polls → CPU time.
//!
//! The thread's CPU clock is a system call (0.2–0.5 µs, and a probe has some seven polls), the monotonic clock is not
//! (22 ns). So polls are timed by the monotonic clock, and the sums are compared with the thread's CPU clock about once
//! a second: what polls took in wall time is scaled so that the `cpu_us` of all samples add up to what the thread really
//! used, its idle wake-ups, timers and dropped futures included. Measured at 1 000 to 10 000 probes a second for a
//! minute: sum / clock 1.000–1.002.

use std::time::{Duration, Instant};

/// How often the sums are compared with the thread's clock. Shorter gives noisier factors, longer makes them stale.
const PERIOD: Duration = Duration::from_secs(1);
/// A longer time without a sample is the process's overhead, and no sample is charged with it.
const QUIET: Duration = Duration::from_secs(10);
/// Furthest that one period's factor may lie from the plain ratio while the difference of earlier periods is paid off.
const CORRECTION_MAX: f64 = 2.0;

/// Turns poll times into CPU times that add up to the thread's own. Belongs to one thread.
///
/// What was polled for no sample (a probe that was cut off, a connection that outlived its probe) and what was used
/// between polls is spread over the samples that finish: the factor of each period is chosen so that its samples carry
/// that period's CPU time and what is still owed from the periods before.
#[derive(Debug)]
pub struct CpuScale {
    used: fn() -> Duration,
    base: Duration,
    compared_at: Instant,
    used_then: f64,
    factor: f64,
    /// Poll time of the samples finished in this period, µs.
    polled_us: f64,
    /// What samples were given, in all, µs.
    given_us: f64,
    /// Below one µs, owed to the next sample.
    rest_us: f64,
}

impl CpuScale {
    /// For the calling thread, from now on.
    pub fn of_this_thread() -> Self {
        Self::new(thread_cpu, Instant::now())
    }

    fn new(used: fn() -> Duration, now: Instant) -> Self {
        Self {
            used,
            base: used(),
            compared_at: now,
            used_then: 0.0,
            factor: 1.0,
            polled_us: 0.0,
            given_us: 0.0,
            rest_us: 0.0,
        }
    }

    /// CPU time of a sample whose polls took `polled`, µs.
    pub fn charge(&mut self, polled: Duration, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.compared_at);
        if elapsed >= PERIOD {
            self.compare(now, elapsed >= QUIET);
        }
        let polled_us = polled.as_nanos() as f64 / 1_000.0;
        self.polled_us += polled_us;
        let exact = polled_us * self.factor + self.rest_us;
        let whole = exact.floor().clamp(0.0, f64::from(u32::MAX));
        self.rest_us = exact - whole;
        self.given_us += whole;
        whole as u32
    }

    fn compare(&mut self, now: Instant, quiet: bool) {
        let used_us = (self.used)().saturating_sub(self.base).as_nanos() as f64 / 1_000.0;
        if quiet {
            self.given_us = used_us;
        } else if self.polled_us > 0.0 {
            let plain = (used_us - self.used_then) / self.polled_us;
            let owed = (used_us - self.given_us) / self.polled_us;
            self.factor = (plain + owed).clamp(plain / CORRECTION_MAX, plain * CORRECTION_MAX);
        } else {
            return;
        }
        self.used_then = used_us;
        self.polled_us = 0.0;
        self.compared_at = now;
    }
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    thread_local! {
        static USED_US: AtomicU64 = const { AtomicU64::new(0) };
    }

    fn use_us(us: u64) {
        USED_US.with(|u| u.fetch_add(us, Relaxed));
    }

    fn used() -> Duration {
        Duration::from_micros(USED_US.with(|u| u.load(Relaxed)))
    }

    #[test]
    fn the_samples_add_up_to_what_the_thread_used() {
        let start = Instant::now();
        let mut scale = CpuScale::new(used, start);
        let mut given = 0_u64;
        // 100 samples a second whose polls take 30 µs while the thread spends 45 µs on each, then 80 µs.
        for n in 0..6_000_u64 {
            let now = start + Duration::from_millis(10 * n);
            use_us(if n < 3_000 { 45 } else { 80 });
            given += u64::from(scale.charge(Duration::from_micros(30), now));
        }
        let used = used().as_micros() as f64;
        assert!(
            (given as f64 / used - 1.0).abs() < 0.02,
            "{given} of {used}"
        );
    }

    #[test]
    fn the_first_sample_after_a_quiet_time_is_not_charged_with_it() {
        let start = Instant::now();
        let mut scale = CpuScale::new(used, start);
        for n in 0..200_u64 {
            use_us(30);
            scale.charge(
                Duration::from_micros(30),
                start + Duration::from_millis(10 * n),
            );
        }
        use_us(1_000_000);
        let late = start + Duration::from_secs(3_600);
        assert_eq!(scale.charge(Duration::from_micros(30), late), 30);
    }

    #[test]
    fn parts_of_a_microsecond_are_not_lost() {
        let start = Instant::now();
        let mut scale = CpuScale::new(used, start);
        let given: u32 = (0..1_000)
            .map(|_| scale.charge(Duration::from_nanos(500), start))
            .sum();
        assert!((499..=500).contains(&given), "{given}");
    }
}
