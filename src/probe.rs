//! One probe: an endpoint and a tick in, a sample out, always. Failure is an outcome.
//!
//! All probes of a process run on one thread, inside a tokio `LocalSet`, and share a [`Prober`].

pub mod body;
mod canary;
mod doubt;
mod fault;
pub mod http;
pub mod matcher;
mod pace;
mod progress;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

pub use self::canary::Canary;
use self::fault::Stop;
use self::http::{Kept, Room};
use self::matcher::Matcher;
use self::pace::Pace;
use self::progress::Progress;
use crate::domain::{Check, Endpoint, EndpointId, Failure, Reason, Sample, SkipReason, Timestamp};
use crate::net::arrival::keep_stamping;
use crate::net::meter::{CpuScale, Metered};
use crate::net::policy::{AddressPolicy, PolicyOptions};
use crate::net::resolve::Resolver;
use crate::net::tls::TlsClients;

/// What the patterns of a probe may take after its deadline. They have a budget of their own (50 ms); beyond it they
/// were waiting for others.
const JUDGEMENT_GRACE: Duration = Duration::from_millis(80);

/// The usual bound above which a sample is suspect: what a measured duration may be off without misleading those who
/// compare percentiles over the internet, where 2 ms are jitter.
pub const SUSPECT_ABOVE: Duration = Duration::from_millis(2);

/// What a [`Prober`] is made from.
#[derive(Clone)]
pub struct ProberOptions {
    /// Which addresses may be dialled.
    pub policy: PolicyOptions,
    /// Ask these name servers instead of those in `/etc/resolv.conf`, and leave `/etc/hosts` aside.
    pub name_servers: Option<Vec<SocketAddr>>,
    /// Judges bodies by patterns.
    pub matcher: Matcher,
    /// A sample is suspect when the agent may have added more than this to its duration.
    pub suspect_above: Duration,
}

/// Makes probes. One per probe thread, made there: it reads that thread's CPU clock.
pub struct Prober {
    policy: AddressPolicy,
    resolver: Resolver,
    tls: TlsClients,
    matcher: Matcher,
    kept: Kept,
    room: Room,
    pace: Pace,
    scale: RefCell<CpuScale>,
    suspect_above: Duration,
    /// An address that may always be dialled: our own.
    canary: Cell<Option<SocketAddr>>,
    canary_error: Cell<Option<Duration>>,
}

impl Prober {
    /// Reads root certificates and `/etc/resolv.conf`, warms the crypto library up (some 50 ms in all) and starts to
    /// account for the calling thread's CPU time. Nothing that is missing keeps it from being made: what needs it
    /// fails, and says so.
    pub fn new(options: ProberOptions) -> Self {
        keep_stamping();
        let resolver = match options.name_servers {
            Some(servers) => Resolver::with_servers(&servers),
            None => Resolver::of_system(),
        };
        Self {
            policy: AddressPolicy::new(options.policy),
            resolver,
            tls: TlsClients::new(),
            matcher: options.matcher,
            kept: Kept::default(),
            room: Room::default(),
            pace: Pace::default(),
            scale: RefCell::new(CpuScale::of_this_thread()),
            suspect_above: options.suspect_above,
            canary: Cell::default(),
            canary_error: Cell::default(),
        }
    }

    /// Probes `endpoint` once. `scheduled_at` is the grid point, `started_at` the schedule's time now.
    ///
    /// Ends within `endpoint.timeout` and 80 ms (for patterns that have begun), whatever the target
    /// does, plus what the thread is late. Dropping the future closes what it opened. Must be polled inside a `LocalSet`.
    pub async fn probe(
        &self,
        endpoint: &Endpoint,
        scheduled_at: Timestamp,
        started_at: Timestamp,
    ) -> Sample {
        let progress = Progress::new(Instant::now());
        let meter = progress.meter();
        let run = pin!(self.run(endpoint, &progress));
        let stop = Metered::new(run, meter).await.err();
        let mut sample = Sample::new(endpoint.id, scheduled_at);
        sample.lag_us = Some(progress::micros(started_at.since(scheduled_at)));
        progress.fill(&mut sample);
        doubt::judge_error(&mut sample, &progress, self.suspect_above);
        match stop {
            Some(stop) => {
                sample.reason = Some(stop.reason);
                sample.detail = stop.detail;
            }
            None => sample.reason = degraded(endpoint, &mut sample, started_at),
        }
        if matches!(sample.reason, Some(Reason::Skipped(_))) {
            // The agent's own fault: what was measured up to it says nothing about the target.
            sample.lag_us = None;
            sample.duration_us = None;
            sample.error_us = None;
            sample.suspect = false;
            sample.phases = Default::default();
        }
        let reading = progress.reading();
        sample.bytes_sent = reading.sent.try_into().unwrap_or(u32::MAX);
        sample.bytes_received = reading.received.try_into().unwrap_or(u32::MAX);
        sample.cpu_us = self
            .scale
            .borrow_mut()
            .charge(reading.polled, Instant::now());
        sample
    }

    /// Drops what was kept for an endpoint that has changed or is gone.
    pub fn forget(&self, id: EndpointId) {
        self.kept.forget(id);
        self.matcher.forget(id);
    }

    /// What the last probe of the canary showed; once each.
    pub fn canary_error(&self) -> Option<Duration> {
        self.canary_error.take()
    }

    /// Whether so many bodies wait to be judged that few new probes should be started.
    pub fn is_crowded(&self) -> bool {
        self.pace.is_crowded()
    }

    async fn run(&self, endpoint: &Endpoint, progress: &Progress) -> Result<(), Stop> {
        let Check::Http(check) = &*endpoint.check;
        let deadline = progress.started().checked_add(endpoint.timeout);
        // A timeout that no clock can hold: `endpoint.timeout` is at most the interval, so this is not one.
        let deadline = deadline.unwrap_or_else(Instant::now);
        let mut exchange = pin!(http::exchange(self, endpoint, check, progress));
        let answer = timeout_at(deadline.into(), exchange.as_mut()).await;
        let body = match answer {
            Ok(Ok(body)) => {
                progress.finish();
                body
            }
            Ok(Err(stop)) => {
                progress.fail();
                return Err(doubt::doubt_failure(stop, endpoint.timeout, progress));
            }
            Err(_) => {
                let overdue = self.overdue(progress);
                progress.fail();
                return Err(
                    doubt::doubt_deadline(overdue, endpoint.timeout, progress, exchange).await,
                );
            }
        };
        let Some(body) = body else {
            return Ok(());
        };
        let judgement = self.matcher.judge_at(
            &self.pace,
            endpoint.id,
            check.must_match.as_ref(),
            check.must_not_match.as_ref(),
            body,
        );
        let latest = deadline.max(Instant::now()) + JUDGEMENT_GRACE;
        match timeout_at(latest.into(), judgement).await {
            Ok(verdict) => progress.judged(verdict),
            Err(_) => Err(Stop::skipped(
                SkipReason::Overload,
                "the match thread has too much to do",
            )),
        }
    }

    /// What it means that the deadline has passed now.
    fn overdue(&self, progress: &Progress) -> Stop {
        use self::progress::Phase;
        let failure = match progress.phase() {
            Phase::Resolve => return Stop::resolve(&self.resolver.overdue(progress.phase_since())),
            Phase::Connect => Failure::ConnectTimeout,
            Phase::Tls => Failure::TlsTimeout,
            Phase::Processing => Failure::ProcessingTimeout,
            Phase::Transfer => match progress.unexpected_status() {
                Some(status) => return Stop::status(status),
                None => Failure::TransferTimeout,
            },
        };
        Stop::failed(failure, "the deadline passed")
    }
}

/// Why a sample that passed is not simply `up`.
fn degraded(endpoint: &Endpoint, sample: &mut Sample, now: Timestamp) -> Option<Reason> {
    let span = |us: Option<u32>| us.map(u64::from).map(Duration::from_micros);
    // A certificate is about to end for days, and stands in a column of its own: slowness is not hidden behind it.
    if let (Some(limit), Some(took)) = (endpoint.degraded_after, span(sample.duration_us))
        && took > limit
    {
        let error = span(sample.error_us).unwrap_or_default();
        if took.saturating_sub(error) > limit {
            return Some(Reason::Slow);
        }
        // It may have been us who were slow.
        sample.suspect = true;
    }
    if let (Some(warn), Some(not_after)) = (endpoint.cert_warn, sample.tls_not_after)
        && not_after.since(now) < warn
    {
        return Some(Reason::CertificateExpiring);
    }
    None
}
