//! How many of the due probes are admitted once the agent's own error passes what the operator accepts: rather fewer
//! probes (the rest is skipped as overload) than durations that say more about the agent than about its targets.
//!
//! Additive increase, multiplicative decrease (Chiu and Jain, 1989): it settles near the most that the thread can do
//! without a model of what a probe costs, and gives way at once when a neighbour takes the core.

use std::time::Duration;

use super::endpoint::EndpointId;
use super::timestamp::Timestamp;

/// Samples are judged by the window: long enough for a convoy to pass, short beside the time that a cut takes to show.
const WINDOW: Duration = Duration::from_millis(200);
/// A window waits for so many samples...
const SAMPLES_MIN: u32 = 20;
/// ...but no longer than this.
const WINDOW_MAX: Duration = Duration::from_secs(5);
/// One late sample is chance, and so is one in fifty.
const OVER_MIN: u32 = 3;
const OVER_PART: u32 = 50;
/// So many canaries in a row are no chance either.
const CANARIES_OVER: u32 = 2;
/// A cut takes effect when the probes under way have ended; what they say until then is about the time before it.
const CUT_HOLD: Duration = Duration::from_secs(1);
const CUT: f64 = 0.7;
const RISE: f64 = 0.05;
/// Some are always probed, or nothing would tell that it is better.
const SHARE_MIN: f64 = 0.05;

/// What became of the share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdmissionChange {
    /// From now on some are shed.
    Sheds,
    /// All are admitted again.
    AdmitsAll,
}

/// Decides which due probes are made. All times are since a fixed point of the monotonic clock.
#[derive(Clone, Debug)]
pub struct Admission {
    error_max: Duration,
    share: f64,
    began: Duration,
    seen: u32,
    over: u32,
    canaries_over: u32,
    cut_at: Option<Duration>,
}

impl Admission {
    /// Admits all as long as errors stay below `error_max`.
    pub const fn new(error_max: Duration) -> Self {
        Self {
            error_max,
            share: 1.0,
            began: Duration::ZERO,
            seen: 0,
            over: 0,
            canaries_over: 0,
            cut_at: None,
        }
    }

    /// A sample's duration may be off by `error`.
    pub fn sampled(&mut self, error: Duration) {
        self.seen += 1;
        self.over += u32::from(error > self.error_max);
    }

    /// A probe of a target that we know was off by `error`.
    pub fn canary(&mut self, error: Duration) {
        self.canaries_over = if error > self.error_max {
            self.canaries_over + 1
        } else {
            0
        };
    }

    /// Time goes on: the window may be full.
    pub fn look(&mut self, now: Duration) -> Option<AdmissionChange> {
        let open = now.saturating_sub(self.began);
        let is_full = open >= WINDOW_MAX || (open >= WINDOW && self.seen >= SAMPLES_MIN);
        let canaries = self.canaries_over >= CANARIES_OVER;
        if !is_full && !canaries {
            return None;
        }
        let is_over = canaries || (self.over >= OVER_MIN && self.over * OVER_PART > self.seen);
        let shed = self.share < 1.0;
        (self.began, self.seen, self.over, self.canaries_over) = (now, 0, 0, 0);
        if !is_over {
            self.share = (self.share + RISE).min(1.0);
        } else if self.cut_at.is_none_or(|at| now >= at + CUT_HOLD) {
            self.share = (self.share * CUT).max(SHARE_MIN);
            self.cut_at = Some(now);
        }
        match (shed, self.share < 1.0) {
            (false, true) => Some(AdmissionChange::Sheds),
            (true, false) => Some(AdmissionChange::AdmitsAll),
            _ => None,
        }
    }

    /// Whether the probe of this tick is made. Each tick of each endpoint has the same chance, so that no endpoint is left
    /// out for long.
    pub fn admits(&self, endpoint: EndpointId, scheduled_at: Timestamp) -> bool {
        if self.share >= 1.0 {
            return true;
        }
        let tick =
            mixed(endpoint.0.cast_unsigned() ^ mixed(scheduled_at.as_millis().cast_unsigned()));
        (tick as f64) < self.share * 2_f64.powi(64)
    }

    /// The share of due probes that is admitted.
    pub const fn share(&self) -> f64 {
        self.share
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): neighbouring numbers come out far apart.
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(5);
    const FINE: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_millis(9);

    /// Windows of 100 samples each, of which `late` are late.
    fn windows(
        admission: &mut Admission,
        from_ms: u64,
        count: u64,
        late: u32,
    ) -> Vec<AdmissionChange> {
        let mut changes = Vec::new();
        for window in 1..=count {
            for n in 0..100 {
                admission.sampled(if n < late { LATE } else { FINE });
            }
            changes.extend(admission.look(Duration::from_millis(from_ms + 200 * window)));
        }
        changes
    }

    #[test]
    fn all_are_admitted_while_errors_are_small_or_rare() {
        let mut admission = Admission::new(MAX);
        assert_eq!(windows(&mut admission, 0, 50, 2), []);
        assert!(admission.admits(EndpointId(1), Timestamp::from_millis(5_000)));
    }

    #[test]
    fn a_lasting_error_cuts_again_and_again_and_is_forgotten_step_by_step() {
        let mut admission = Admission::new(MAX);
        assert_eq!(
            windows(&mut admission, 0, 50, 100),
            [AdmissionChange::Sheds]
        );
        // 10 s of it, a cut a second.
        assert!(admission.share() < 0.1, "{}", admission.share());
        windows(&mut admission, 10_000, 500, 100);
        assert!(admission.share() >= SHARE_MIN);
        assert_eq!(
            windows(&mut admission, 110_000, 25, 0),
            [AdmissionChange::AdmitsAll]
        );
        assert!(admission.share() >= 1.0);
    }

    #[test]
    fn a_few_samples_are_no_ground() {
        let mut admission = Admission::new(MAX);
        for second in 0..20 {
            // One or two of ten a window of 5 s.
            admission.sampled(if second % 4 == 1 { LATE } else { FINE });
            admission.sampled(FINE);
            assert_eq!(admission.look(Duration::from_secs(second)), None);
        }
        // Five a window of 5 s, all late, are.
        for second in 20..40 {
            admission.sampled(LATE);
            admission.look(Duration::from_secs(second));
        }
        assert!(admission.share() < 1.0);
    }

    #[test]
    fn two_late_canaries_cut_without_any_sample() {
        let mut admission = Admission::new(MAX);
        admission.canary(LATE);
        assert_eq!(admission.look(FINE), None);
        admission.canary(FINE);
        admission.canary(LATE);
        assert_eq!(admission.look(FINE), None);
        admission.canary(LATE);
        assert_eq!(admission.look(FINE), Some(AdmissionChange::Sheds));
    }

    #[test]
    fn the_share_is_fair_over_endpoints_and_over_time() {
        let mut admission = Admission::new(MAX);
        windows(&mut admission, 0, 1, 100);
        let share = admission.share();
        for id in 1..=50 {
            let ticks = (0..2_000).map(|k| Timestamp::from_millis(1_780_000_000_000 + 5_000 * k));
            let admitted = ticks.filter(|&at| admission.admits(EndpointId(id), at));
            let part = admitted.count() as f64 / 2_000.0;
            assert!((part - share).abs() < 0.06, "{id}: {part} of {share}");
        }
        let at = Timestamp::from_millis(1_780_000_000_000);
        let admitted = (1..=10_000).filter(|&id| admission.admits(EndpointId(id), at));
        let part = admitted.count() as f64 / 10_000.0;
        assert!((part - share).abs() < 0.03, "{part} of {share}");
    }
}
