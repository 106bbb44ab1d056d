//! How far a probe has come. It lives outside the future that makes the probe, so that a deadline which drops that
//! future finds everything measured up to then, and the phase in which it struck.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::fault::Stop;
use super::matcher::Verdict;
use crate::domain::attention::Lost;
use crate::domain::{Failure, Phases, Sample, SkipReason, Timestamp};
use crate::net::attention;
use crate::net::meter::{Meter, Reading};

/// The phases of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Resolve,
    Connect,
    Tls,
    Processing,
    Transfer,
}

/// What is known of a probe under way.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    /// What the thread had lost when it started, and when the phase under way began.
    lost_at_start: Lost,
    lost_at_phase: Cell<Lost>,
    took: Cell<Duration>,
    /// What the agent may have added; absent until the end, and where the thread is not watched.
    error: Cell<Option<Duration>>,
    /// The turn in which a name was asked for, and what the thread may have added to that, whose events are not the
    /// probe's own to see.
    asked_in: Cell<u64>,
    unseen: Cell<Duration>,
    phase: Cell<Phase>,
    /// When the phase under way began; absent between phases.
    since: Cell<Option<Instant>>,
    phases: Cell<Phases>,
    meter: Rc<Meter>,
    /// Of connections that outlive the probe.
    kept_meters: RefCell<Vec<Rc<Meter>>>,
    pub(super) remote_ip: Cell<Option<IpAddr>>,
    pub(super) http_version: Cell<Option<u8>>,
    pub(super) tls_not_after: Cell<Option<Timestamp>>,
    pub(super) hops: Cell<u8>,
    pub(super) status_code: Cell<Option<u16>>,
    /// Set when the status code alone decides, whatever becomes of the body.
    pub(super) status_unexpected: Cell<bool>,
    matched: Cell<Option<bool>>,
}

impl Progress {
    pub(super) fn new(started: Instant) -> Self {
        let lost = attention::lost().unwrap_or_default();
        Self {
            started,
            lost_at_start: lost,
            lost_at_phase: Cell::new(lost),
            error: Cell::default(),
            took: Cell::default(),
            asked_in: Cell::default(),
            unseen: Cell::default(),
            phase: Cell::new(Phase::Resolve),
            since: Cell::default(),
            phases: Cell::default(),
            meter: Meter::new(),
            kept_meters: RefCell::default(),
            remote_ip: Cell::default(),
            http_version: Cell::default(),
            tls_not_after: Cell::default(),
            hops: Cell::default(),
            status_code: Cell::default(),
            status_unexpected: Cell::default(),
            matched: Cell::default(),
        }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// The meter of the probe itself and of connections that end with it.
    pub(super) fn meter(&self) -> Rc<Meter> {
        Rc::clone(&self.meter)
    }

    /// What `meter` counts until the end of this probe is this probe's too.
    pub(super) fn count_kept(&self, meter: &Rc<Meter>) {
        self.kept_meters.borrow_mut().push(Rc::clone(meter));
    }

    /// Everything counted; once.
    pub(super) fn reading(&self) -> Reading {
        let mut reading = self.meter.take();
        for meter in self.kept_meters.borrow().iter() {
            reading += meter.take();
        }
        reading
    }

    /// The phase under way, or the last one.
    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// When the phase under way began.
    pub(super) fn phase_since(&self) -> Instant {
        self.since.get().unwrap_or(self.started)
    }

    /// Ends the phase under way and begins the next.
    pub(super) fn enter(&self, phase: Phase) {
        self.enter_at(phase, Instant::now());
    }

    fn enter_at(&self, phase: Phase, now: Instant) {
        self.close(now);
        self.phase.set(phase);
        self.since.set(Some(now));
        if phase == Phase::Resolve {
            self.asked_in
                .set(attention::turn_number().unwrap_or_default());
        }
        if let Some(lost) = attention::lost() {
            self.lost_at_phase.set(lost);
        }
    }

    /// The phase under way did not take place after all.
    pub(super) fn retract(&self) {
        self.since.set(None);
    }

    /// The probe itself read a name server's answer `at` this instant, of this age: ends the phase under way when it came.
    pub(super) fn resolved(&self, at: Instant, age: Option<Duration>) {
        let late = self.meter.heard(at, age);
        self.end_phase(at.checked_sub(late).unwrap_or(at));
    }

    /// The connection was made `late` ago: ends the phase under way then. What has passed since is the agent's.
    pub(super) fn connected(&self, late: Duration) {
        let now = Instant::now();
        self.meter.noticed(now, late);
        let at = now.checked_sub(late).unwrap_or(now);
        self.end_phase(at);
    }

    /// The head of the response is there: ends the phase under way when its bytes came, and begins the transfer.
    pub(super) fn enter_transfer(&self) {
        let since = self.phase_since();
        let at = self.arrived().map(|(at, _)| at);
        let at = at.filter(|&at| at >= since);
        self.enter_at(Phase::Transfer, at.unwrap_or_else(Instant::now));
    }

    /// The last byte is there. The probe ends when it came, as well as that is known; what follows is the agent's time
    /// and not the target's.
    pub(super) fn finish(&self) {
        let since = self.phase_since();
        match self.arrived() {
            Some((at, error)) if at >= since => self.end(at, Some(error)),
            _ => self.fail(),
        }
    }

    /// There will be no last byte.
    pub(super) fn fail(&self) {
        let now = Instant::now();
        self.end(now, self.error_at(now));
    }

    fn end(&self, at: Instant, error: Option<Duration>) {
        self.close(at);
        self.took.set(at.saturating_duration_since(self.started));
        self.error.set(error);
    }

    /// When the last bytes came, and what the agent had added by then.
    fn arrived(&self) -> Option<(Instant, Duration)> {
        let kept = self.kept_meters.borrow();
        let meters = || kept.iter().chain([&self.meter]);
        let (at, error, by) = meters()
            .filter_map(|meter| meter.arrived().map(|(at, error)| (at, error, meter)))
            .max_by_key(|(at, ..)| *at)?;
        let others = meters().filter(|meter| !Rc::ptr_eq(meter, by));
        let others: Duration = others.filter_map(|meter| meter.error_so_far()).sum();
        Some((at, error + others))
    }

    fn error_at(&self, now: Instant) -> Option<Duration> {
        let kept = self.kept_meters.borrow();
        let kept = kept.iter().filter_map(|meter| meter.error(now));
        Some(self.meter.error(now)? + kept.sum::<Duration>())
    }

    /// Upper bound on what the agent added up to the end; absent where the thread is not watched.
    pub(super) fn error(&self) -> Option<Duration> {
        Some(self.error.get()? + self.unseen.get())
    }

    /// How long it took; zero until the end.
    pub(super) fn took(&self) -> Duration {
        self.took.get()
    }

    /// How far it has come, in a form that differs after any step.
    pub(super) fn step(&self) -> (Phase, u64) {
        let kept = self.kept_meters.borrow();
        let received = kept.iter().map(|meter| meter.received());
        (
            self.phase.get(),
            self.meter.received() + received.sum::<u64>(),
        )
    }

    /// What of `lost`, which the thread has lost so far, fell into this probe.
    pub(super) fn lost_of(&self, lost: Lost) -> Lost {
        lost.since(self.lost_at_start)
    }

    /// What was lost of it before the phase under way, or the last one.
    pub(super) fn lost_before_phase(&self) -> Lost {
        self.lost_at_phase.get().since(self.lost_at_start)
    }

    fn close(&self, now: Instant) {
        if let (Phase::Resolve, Some(since)) = (self.phase.get(), self.since.get()) {
            // Questions and answers pass through tasks of the resolver, each of which may have been late.
            let unseen = attention::unseen(self.asked_in.get()).unwrap_or_default();
            self.unseen.set(self.unseen.get() + unseen.min(now - since));
        }
        self.end_phase(now);
    }

    fn end_phase(&self, now: Instant) {
        let Some(since) = self.since.take() else {
            return;
        };
        let mut phases = self.phases.get();
        let slot = match self.phase.get() {
            Phase::Resolve => &mut phases.resolve_us,
            Phase::Connect => &mut phases.connect_us,
            Phase::Tls => &mut phases.tls_us,
            Phase::Processing => &mut phases.processing_us,
            Phase::Transfer => &mut phases.transfer_us,
        };
        let before = slot.unwrap_or(0);
        *slot = Some(before.saturating_add(micros(now - since)));
        self.phases.set(phases);
    }

    /// The status code, where it alone decides.
    pub(super) fn unexpected_status(&self) -> Option<u16> {
        self.status_code
            .get()
            .filter(|_| self.status_unexpected.get())
    }

    /// What the patterns came to.
    pub(super) fn judged(&self, verdict: Verdict) -> Result<(), Stop> {
        let (matched, stop) = match verdict {
            Verdict::Matched => (Some(true), Ok(())),
            Verdict::NotMatched => (
                Some(false),
                Err(Stop::failed(
                    Failure::BodyMismatch,
                    "the pattern does not match",
                )),
            ),
            Verdict::Forbidden => (
                Some(false),
                Err(Stop::failed(
                    Failure::BodyForbidden,
                    "the forbidden pattern matches",
                )),
            ),
            Verdict::TimedOut => (
                None,
                Err(Stop::failed(
                    Failure::RegexTimeout,
                    "the pattern was not decided within its budget",
                )),
            ),
            Verdict::Quarantined => (
                None,
                Err(Stop::skipped(
                    SkipReason::Quarantined,
                    "the pattern rests after running out of its budget",
                )),
            ),
            Verdict::Overloaded => (
                None,
                Err(Stop::skipped(
                    SkipReason::Overload,
                    "the match thread has too much to do",
                )),
            ),
        };
        self.matched.set(matched);
        stop
    }

    /// Puts everything measured into `sample`, but for costs.
    pub(super) fn fill(&self, sample: &mut Sample) {
        sample.phases = self.phases.get();
        sample.duration_us = Some(micros(self.took.get()));
        sample.remote_ip = self.remote_ip.get();
        sample.http_version = self.http_version.get();
        sample.tls_not_after = self.tls_not_after.get();
        sample.hops = self.hops.get();
        sample.status_code = self.status_code.get();
        sample.matched = self.matched.get();
    }
}

/// Whole microseconds, at most what an `int` column holds.
pub(super) fn micros(duration: Duration) -> u32 {
    duration.as_micros().min(i32::MAX as u128) as u32
}
