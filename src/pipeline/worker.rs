//! The worker: takes due ticks from the schedule, starts a probe for each, and hands its sample to the buffer.
//!
//! Every due tick leaves exactly one sample: of a probe, or `skipped` with the reason. Completions go before new
//! starts, and starts go a few per turn of the loop: else work bunches, and the latency reported is our own.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::buffer::SampleBuffer;
use super::clock::Clock;
use super::totals::Totals;
use super::{Changed, Command, Gap};
use crate::domain::admission::Admission;
use crate::domain::network::NetworkGuard;
use crate::domain::{
    ArmShare, ClockGap, Due, Endpoint, EndpointId, Interval, Partition, Sample, Schedule,
    ScheduleClock, SkipReason, Timestamp,
};
use crate::net::attention;
use crate::net::way::Ways;
use crate::probe::Prober;
use crate::store::GapReason;
use crate::telemetry::ProbeMetrics;

mod admission;
mod backlog;
mod dropped;
mod in_flight;
mod network;

use self::backlog::Backlog;
use self::dropped::Dropped;
use self::in_flight::InFlight;

/// Probes started in one turn of the loop, before completions are looked at again. LIMITS: pacing the starts takes the
/// p99 of the reported latency from tens of milliseconds to under one at 95 % load.
const STARTS_PER_TURN: usize = 4;
/// Ticks looked at for that: to skip one takes little beside a probe.
const TICKS_PER_TURN: usize = 64;
/// Waiting ticks answered for in one turn at the stop: probes under way have theirs in between.
const STOP_PIECE: usize = 1_024;
/// How often a full buffer is looked at then.
const ROOM_EVERY: Duration = Duration::from_millis(5);
/// The clocks are looked at no later than this, so that a step or a pause is found where nothing is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Likewise while probes are under way, so that a stop of the process cannot hide in a wait for a target: 50 wakes a second,
/// some 5 µs each, and none where as many events come anyway.
const WATCH_EVERY: Duration = Duration::from_millis(20);
/// The grid's history grants a change so long to arrive (`endpoint_schedules`); what comes later is a gap.
const CHANGE_GRACE: Duration = Duration::from_secs(3);

/// What takes samples: a seam, since the network is not predictable.
pub trait Probe: 'static {
    /// One probe of `endpoint` for the tick `scheduled_at`, called at `started_at`. Ends within the endpoint's timeout.
    fn probe(
        self: &Rc<Self>,
        endpoint: Rc<Endpoint>,
        scheduled_at: Timestamp,
        started_at: Timestamp,
    ) -> impl Future<Output = Sample> + 'static;

    /// What the agent added to the last probe of a target whose part is known; once each.
    fn canary_error(&self) -> Option<Duration>;

    /// Whether so many probes wait for the thread to end them that it should start few new ones.
    fn is_crowded(&self) -> bool;

    /// The endpoint was changed or removed: drop what is kept for it between probes.
    fn forget(&self, endpoint: EndpointId);
}

impl Probe for Prober {
    fn probe(
        self: &Rc<Self>,
        endpoint: Rc<Endpoint>,
        scheduled_at: Timestamp,
        started_at: Timestamp,
    ) -> impl Future<Output = Sample> + 'static {
        let prober = self.clone();
        let called_at = Instant::now();
        // What the loop does between the call and the first poll is part of the lag.
        async move {
            let started_at = started_at.plus(called_at.elapsed());
            Self::probe(&prober, &endpoint, scheduled_at, started_at).await
        }
    }

    fn canary_error(&self) -> Option<Duration> {
        Self::canary_error(self)
    }

    fn is_crowded(&self) -> bool {
        Self::is_crowded(self)
    }

    fn forget(&self, endpoint: EndpointId) {
        Self::forget(self, endpoint);
    }
}

/// Bounds of a worker.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Its share of the endpoints.
    pub partition: Partition,
    /// Its share of their ticks.
    pub arm: ArmShare,
    /// Probes under way at most; a tick above that is skipped(overload).
    pub in_flight_max: usize,
    /// Probes under way at most to one host and port; a tick above that is skipped(host_limit).
    pub in_flight_per_host: Option<usize>,
    /// Probes are shed, skipped(overload), when the agent may have added more than this to their durations.
    pub error_max: Option<Duration>,
    /// After the stop, probes under way have so long to end; the rest is skipped(shutdown).
    pub stop_grace: Duration,
}

/// The probe thread's state.
pub struct Worker<P, C> {
    options: WorkerOptions,
    prober: Rc<P>,
    clock: C,
    time: ScheduleClock,
    schedule: Schedule,
    endpoints: HashMap<EndpointId, Rc<Endpoint>>,
    probes: JoinSet<(usize, Option<Sample>)>,
    in_flight: InFlight,
    buffer: SampleBuffer,
    gaps: mpsc::UnboundedSender<Gap>,
    totals: Totals,
    backlog: Backlog,
    dropped: Dropped,
    admission: Option<Admission>,
    network: NetworkGuard,
    ways: Ways,
    /// Samples that the guard lets go.
    judged: Vec<Sample>,
    metrics: ProbeMetrics,
    /// Since when ticks are answered for.
    begun: Option<Timestamp>,
    floor_said: Option<Timestamp>,
    due: Vec<Due>,
}

impl<P: Probe, C: Clock> Worker<P, C> {
    /// A worker without endpoints; they come as commands.
    pub fn new(
        options: WorkerOptions,
        prober: Rc<P>,
        clock: C,
        buffer: SampleBuffer,
        gaps: mpsc::UnboundedSender<Gap>,
        totals: Totals,
    ) -> Self {
        let now = clock.wall();
        Self {
            time: ScheduleClock::new(now, clock.mono()),
            schedule: Schedule::new(now),
            in_flight: InFlight::default(),
            endpoints: HashMap::new(),
            probes: JoinSet::new(),
            backlog: Backlog::default(),
            dropped: Dropped::default(),
            admission: options.error_max.map(Admission::new),
            network: NetworkGuard::default(),
            ways: Ways::default(),
            judged: Vec::new(),
            metrics: ProbeMetrics::default(),
            begun: None,
            floor_said: None,
            due: Vec::with_capacity(STARTS_PER_TURN),
            options,
            prober,
            clock,
            buffer,
            gaps,
            totals,
        }
    }

    /// Runs on a `LocalSet` until `stop`, then lets probes under way end and closes the buffer. Returns the instant at
    /// which the schedule stopped: later ticks were not taken.
    pub async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) -> Timestamp {
        let mut commands_open = true;
        while !stop.is_cancelled() {
            while let Some(done) = self.probes.try_join_next() {
                self.finish(done);
            }
            // One a turn: there are hundreds where many endpoints change at once.
            if let Ok(command) = commands.try_recv() {
                self.apply(command);
            }
            self.look();
            if self.start_due() {
                // More is due: let the probes under way have their turn first.
                attention::turn().await;
                continue;
            }
            self.metrics.in_flight(self.in_flight.len());
            let wake = self.next_wake();
            attention::wake_by(Some(wake.into_std()));
            tokio::select! {
                Some(done) = self.probes.join_next(), if !self.probes.is_empty() => self.finish(done),
                command = commands.recv(), if commands_open => match command {
                    Some(command) => self.apply(command),
                    None => commands_open = false,
                },
                () = stop.cancelled() => {}
                () = sleep_until(wake) => {}
            }
        }
        self.stop().await
    }

    async fn stop(mut self) -> Timestamp {
        attention::wake_by(None);
        self.look();
        let stopped_at = self.time.now();
        let grace_ends = Instant::now() + self.options.stop_grace;
        if self.begun.is_some() {
            // A tick at the very instant belongs to the time after it.
            let last = stopped_at.minus(Duration::from_micros(1));
            self.skip_waiting(last, grace_ends).await;
        }
        let ended = timeout_at(grace_ends, async {
            while let Some(done) = self.probes.join_next().await {
                self.finish(done);
            }
        });
        let all_ended = ended.await.is_ok();
        self.probes.abort_all();
        for (endpoint, scheduled_at) in self.in_flight.rest() {
            self.keep(Sample::skipped(
                endpoint,
                scheduled_at,
                SkipReason::Shutdown,
            ));
        }
        if !all_ended {
            tracing::info!(
                "probes under way were cut off by the shutdown and are stored as skipped"
            );
        }
        self.network.release(&mut self.judged);
        let mut judged = std::mem::take(&mut self.judged);
        self.store(&mut judged);
        self.dropped.report(&self.gaps);
        self.buffer.close();
        stopped_at
    }

    /// What was due up to `last` is answered for: taken now, and skipped, since it cannot be started any more. Where more
    /// waits than the buffer has room for, the keepers make some meanwhile; what is left at `until` is lost, and counted.
    async fn skip_waiting(&mut self, last: Timestamp, until: Instant) {
        let mut due = std::mem::take(&mut self.due);
        loop {
            let limit = if Instant::now() < until {
                // Probes under way find room, too.
                let answers = self.in_flight.len() + self.network.held();
                let room = self.buffer.capacity() - self.buffer.rows();
                room.saturating_sub(answers).min(STOP_PIECE)
            } else {
                usize::MAX
            };
            due.clear();
            let more = self.schedule.take_due(last, limit, &mut due);
            for &Due {
                endpoint: id,
                scheduled_at,
            } in &due
            {
                let endpoint = self.endpoints.get(&id);
                // Another arm's tick is its to answer for.
                if endpoint.is_some_and(|endpoint| self.owns(endpoint, scheduled_at)) {
                    self.keep(Sample::skipped(id, scheduled_at, SkipReason::Shutdown));
                }
            }
            if !more {
                break;
            }
            while let Some(done) = self.probes.try_join_next() {
                self.finish(done);
            }
            if due.is_empty() {
                sleep_until(until.min(Instant::now() + ROOM_EVERY)).await;
            } else {
                attention::turn().await;
            }
        }
        self.due = due;
    }

    fn look(&mut self) {
        let gap = self.time.look(self.clock.wall(), self.clock.mono());
        if let Some(ClockGap { from, to, stepped }) = gap
            && self.begun.is_some()
        {
            let reason = if stepped {
                GapReason::ClockStep
            } else {
                GapReason::Paused
            };
            tracing::warn!(
                seconds = to.since(from).as_secs_f64(),
                reason = reason.label(),
                "time went on without us; the ticks in between are a gap"
            );
            // Ticks up to the last look were taken already; those that were still waiting lie in the gap too.
            let from = self.schedule.next_due().map_or(from, |next| next.min(from));
            self.schedule.jump(to);
            let _ = self.gaps.send(Gap {
                endpoint: None,
                from,
                to,
                reason,
                samples: None,
            });
        }
        self.look_at_network();
        self.look_at_errors();
        self.say_floor();
        if self.dropped.is_due(self.time.now()) {
            self.dropped.report(&self.gaps);
        }
    }

    /// What a death would take with it begins at the oldest tick that has no sample yet.
    fn say_floor(&mut self) {
        let now = self.time.now();
        let said = self.floor_said;
        if self.begun.is_none() || said.is_some_and(|said| now.since(said) < LOOK_EVERY) {
            return;
        }
        self.floor_said = Some(now);
        let waiting = self.schedule.next_due().unwrap_or(now);
        let in_flight = self.in_flight.oldest().unwrap_or(now);
        let held = self.network.oldest_held().unwrap_or(now);
        self.buffer.floor(now.min(waiting).min(in_flight).min(held));
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::Upsert(endpoints) => {
                for Changed { endpoint, at } in endpoints {
                    let (id, interval) = (endpoint.id, endpoint.interval);
                    self.note_late(id, at);
                    if self.begun.is_some() && self.interval_of(id).is_some_and(|it| it != interval)
                    {
                        self.skip_lost(id);
                    }
                    if self.endpoints.insert(id, Rc::new(endpoint)).is_some() {
                        self.prober.forget(id);
                    }
                    if self.begun.is_some() {
                        self.schedule.upsert(id, interval, self.time.now());
                    }
                }
            }
            Command::Remove(ids) => ids.into_iter().for_each(|id| self.remove(id)),
            Command::Begin(at) => {
                self.look();
                self.begun = Some(at);
                self.schedule = Schedule::new(at);
                for endpoint in self.endpoints.values() {
                    self.schedule.upsert(endpoint.id, endpoint.interval, at);
                }
            }
        }
        self.metrics.endpoints(self.endpoints.len());
    }

    fn interval_of(&self, id: EndpointId) -> Option<Interval> {
        self.endpoints.get(&id).map(|endpoint| endpoint.interval)
    }

    /// An endpoint leaves its grid: what was due on it until now and still waits will not be taken any more. Many do where
    /// endpoints are cut because there were too many.
    fn skip_lost(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoints.get(&id).cloned() else {
            return;
        };
        for scheduled_at in self.schedule.waiting(id, self.time.now()) {
            if self.owns(&endpoint, scheduled_at) {
                self.keep(Sample::skipped(id, scheduled_at, SkipReason::Overload));
            }
        }
    }

    fn remove(&mut self, id: EndpointId) {
        if self.begun.is_some() {
            self.skip_lost(id);
        }
        if self.endpoints.remove(&id).is_some() {
            self.schedule.remove(id);
            self.prober.forget(id);
        }
    }

    fn note_late(&self, endpoint: EndpointId, changed_at: Timestamp) {
        let Some(begun) = self.begun else { return };
        let expected = changed_at.plus(CHANGE_GRACE).max(begun);
        let now = self.time.now();
        if expected < now {
            let _ = self.gaps.send(Gap {
                endpoint: Some(endpoint),
                from: expected,
                to: now,
                reason: GapReason::CatalogBehind,
                samples: None,
            });
        }
    }

    /// Starts a few of the due probes; whether more are due.
    fn start_due(&mut self) -> bool {
        if self.begun.is_none() {
            return false;
        }
        let now = self.time.now();
        let limit = if self.prober.is_crowded() {
            1
        } else {
            STARTS_PER_TURN
        };
        let mut due = std::mem::take(&mut self.due);
        let (mut started, mut looked_at) = (0, 0);
        let mut more = true;
        while more && started < limit && looked_at < TICKS_PER_TURN {
            due.clear();
            more = self.schedule.take_due(now, limit - started, &mut due);
            looked_at += due.len();
            for &due in &due {
                started += usize::from(self.start(due));
            }
        }
        self.due = due;
        if !more {
            self.backlog.caught_up();
        }
        more
    }

    fn owns(&self, endpoint: &Endpoint, at: Timestamp) -> bool {
        let WorkerOptions { partition, arm, .. } = self.options;
        partition.owns(endpoint.id, at) && arm.owns(endpoint.id, endpoint.interval, at)
    }

    /// Starts a probe for the tick, or says why not; whether one was started.
    fn start(
        &mut self,
        Due {
            endpoint: id,
            scheduled_at,
        }: Due,
    ) -> bool {
        let Some(endpoint) = self.endpoints.get(&id) else {
            return false;
        };
        if !self.owns(endpoint, scheduled_at) {
            return false;
        }
        let now = self.time.now();
        let is_late = self.backlog.is_too_late(now.since(scheduled_at), now);
        let admission = self.admission.as_ref();
        let is_shed = admission.is_some_and(|admission| !admission.admits(id, scheduled_at));
        if is_late || is_shed || self.in_flight.len() >= self.options.in_flight_max {
            self.keep(Sample::skipped(id, scheduled_at, SkipReason::Overload));
            return false;
        }
        if let Some(max) = self.options.in_flight_per_host
            && self.in_flight.to_host(endpoint) >= max
        {
            self.keep(Sample::skipped(id, scheduled_at, SkipReason::HostLimit));
            return false;
        }
        let endpoint = endpoint.clone();
        let slot = self.in_flight.enter(
            &endpoint,
            scheduled_at,
            self.options.in_flight_per_host.is_some(),
        );
        // The clocks were looked at before the others of this turn were started.
        let started_at = self.time.at(self.clock.mono());
        let probe = self.prober.probe(endpoint, scheduled_at, started_at);
        self.probes
            .spawn_local(async move { (slot, AssertUnwindSafe(probe).catch_unwind().await.ok()) });
        true
    }

    fn finish(&mut self, done: Result<(usize, Option<Sample>), tokio::task::JoinError>) {
        // Tasks neither panic (caught inside) nor are they aborted before the stop.
        let Ok((slot, sample)) = done else { return };
        let (endpoint, scheduled_at) = self.in_flight.leave(slot);
        let sample = sample.unwrap_or_else(|| {
            tracing::error!(
                endpoint = endpoint.0,
                "a probe panicked; its sample is stored as skipped"
            );
            Sample::skipped(endpoint, scheduled_at, SkipReason::AgentError)
        });
        self.keep(sample);
    }

    /// A sample waits here while it is in doubt whether our own network is down.
    fn keep(&mut self, sample: Sample) {
        let mut judged = std::mem::take(&mut self.judged);
        let way = |ip| self.ways.to(ip);
        self.network
            .take(self.clock.mono(), sample, way, &mut judged);
        self.store(&mut judged);
        self.judged = judged;
    }

    fn look_at_errors(&mut self) {
        if let Some(admission) = &mut self.admission {
            if let Some(error) = self.prober.canary_error() {
                admission.canary(error);
            }
            admission::tell(admission.look(self.clock.mono()));
            self.metrics.admitted(admission.share());
        }
    }

    fn look_at_network(&mut self) {
        let mut judged = std::mem::take(&mut self.judged);
        self.network.pass(self.clock.mono(), &mut judged);
        self.store(&mut judged);
        self.judged = judged;
        self.metrics.held(self.network.held());
        network::tell(&mut self.network, self.clock.mono());
    }

    fn store(&mut self, samples: &mut Vec<Sample>) {
        for sample in samples.drain(..) {
            self.store_one(sample);
        }
    }

    fn store_one(&mut self, sample: Sample) {
        if let (Some(admission), Some(error_us)) = (&mut self.admission, sample.error_us) {
            admission.sampled(Duration::from_micros(error_us.into()));
        }
        self.metrics.sampled(&sample);
        self.totals.sampled(&sample);
        if let Err(sample) = self.buffer.push(sample) {
            self.dropped.note(&sample, self.time.now());
        }
    }

    fn next_wake(&self) -> Instant {
        let now = self.time.now();
        let next = self.begun.and_then(|_| self.schedule.next_due());
        let longest = if self.probes.is_empty() {
            LOOK_EVERY
        } else {
            WATCH_EVERY
        };
        let wait = next.map_or(longest, |next| next.since(now).min(longest));
        Instant::now() + wait
    }
}

#[cfg(test)]
pub(super) mod tests;
