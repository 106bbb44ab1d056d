//! The worker with a prober that sleeps, under paused time.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::uri::{PathAndQuery, Scheme};
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::*;
use crate::domain::{
    Arm, Auth, Check, Connection, DnsMode, Grid, HttpCheck, HttpVersion, Interval, IpFamily,
    Outcome, Reason, StatusRanges, Target, TlsSettings,
};

const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);

#[derive(Clone)]
struct TestClock {
    begun: Instant,
    stepped: Rc<Cell<Duration>>,
}

impl Clock for TestClock {
    fn wall(&self) -> Timestamp {
        START.plus(self.begun.elapsed()).plus(self.stepped.get())
    }
    fn mono(&self) -> Duration {
        self.begun.elapsed()
    }
}

struct Sleeper {
    takes: Duration,
    panics_on: Option<i64>,
    at_once: Cell<usize>,
    at_once_max: Cell<usize>,
}

impl Probe for Sleeper {
    fn probe(
        self: &Rc<Self>,
        endpoint: Rc<Endpoint>,
        scheduled_at: Timestamp,
        started_at: Timestamp,
    ) -> impl Future<Output = Sample> + 'static {
        let this = self.clone();
        async move {
            assert_ne!(this.panics_on, Some(endpoint.id.0), "on purpose");
            this.at_once.set(this.at_once.get() + 1);
            this.at_once_max
                .set(this.at_once_max.get().max(this.at_once.get()));
            sleep(this.takes).await;
            this.at_once.set(this.at_once.get() - 1);
            let mut sample = Sample::new(endpoint.id, scheduled_at);
            sample.lag_us = Some(started_at.since(scheduled_at).as_micros() as u32);
            sample
        }
    }

    fn canary_error(&self) -> Option<Duration> {
        None
    }

    fn is_crowded(&self) -> bool {
        false
    }

    fn forget(&self, _endpoint: EndpointId) {}
}

pub(crate) fn endpoint(id: i64, seconds: i64) -> Endpoint {
    let check = HttpCheck {
        method: http::Method::GET,
        headers: http::HeaderMap::new(),
        body: Box::default(),
        expected_status: StatusRanges::default(),
        must_match: None,
        must_not_match: None,
        auth: None::<Auth>,
        redirects_max: 0,
        connect_to: None,
        ip_family: IpFamily::Any,
        http_version: HttpVersion::Auto,
        tls: TlsSettings::default(),
        connection: Connection::Fresh,
        dns: DnsMode::Cached,
        body_bytes_max: 1024,
    };
    Endpoint {
        id: EndpointId(id),
        target: Target {
            scheme: Scheme::HTTP,
            host: "127.0.0.1".into(),
            port: 80,
            path_and_query: PathAndQuery::from_static("/"),
        },
        interval: Interval::from_secs(seconds).unwrap(),
        timeout: Duration::from_secs(5),
        degraded_after: None,
        cert_warn: None,
        check: Arc::new(Check::Http(check)),
    }
}

struct Harness {
    options: WorkerOptions,
    takes: Duration,
    panics_on: Option<i64>,
    buffer_rows: usize,
    /// A keeper empties the buffer, so many rows every 10 ms.
    kept_rows: usize,
    endpoints: Vec<Endpoint>,
    stepped: Rc<Cell<Duration>>,
}

struct Outcomes {
    samples: Vec<Sample>,
    gaps: Vec<Gap>,
    stopped_at: Timestamp,
    at_once_max: usize,
}

impl Default for Harness {
    fn default() -> Self {
        Self {
            options: WorkerOptions {
                partition: Partition::ALL,
                arm: ArmShare::ALL,
                in_flight_max: 1_000,
                in_flight_per_host: None,
                error_max: None,
                stop_grace: Duration::from_secs(1),
            },
            takes: Duration::from_millis(20),
            panics_on: None,
            buffer_rows: 100_000,
            kept_rows: 0,
            endpoints: (1..=50).map(|id| endpoint(id, 5)).collect(),
            stepped: Rc::default(),
        }
    }
}

impl Harness {
    async fn run<F: Future<Output = ()>>(
        self,
        script: impl FnOnce(mpsc::Sender<Command>) -> F,
    ) -> Outcomes {
        let clock = TestClock {
            begun: Instant::now(),
            stepped: self.stepped,
        };
        let prober = Rc::new(Sleeper {
            takes: self.takes,
            panics_on: self.panics_on,
            at_once: Cell::new(0),
            at_once_max: Cell::new(0),
        });
        let buffer = SampleBuffer::new(self.buffer_rows, 1_000);
        let (gap_sender, mut gap_receiver) = mpsc::unbounded_channel();
        let (sender, receiver) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let worker = Worker::new(
            self.options,
            prober.clone(),
            clock,
            buffer.clone(),
            gap_sender,
            Totals::default(),
        );
        let endpoints = self.endpoints;
        let drive = async {
            sender
                .send(Command::Upsert(
                    endpoints.into_iter().map(|e| changed(e, START)).collect(),
                ))
                .await
                .unwrap();
            sender.send(Command::Begin(START)).await.unwrap();
            script(sender).await;
            stop.cancel();
        };
        let mut samples = Vec::new();
        let keep = async {
            while self.kept_rows > 0 && !buffer.is_closed() {
                buffer.take(samples.len() + self.kept_rows, &mut samples);
                sleep(Duration::from_millis(10)).await;
            }
        };
        let (stopped_at, (), ()) = LocalSet::new()
            .run_until(async { tokio::join!(worker.run(receiver, stop.clone()), drive, keep) })
            .await;
        buffer.take(usize::MAX, &mut samples);
        let gaps = std::iter::from_fn(|| gap_receiver.try_recv().ok()).collect();
        Outcomes {
            samples,
            gaps,
            stopped_at,
            at_once_max: prober.at_once_max.get(),
        }
    }
}

fn changed(endpoint: Endpoint, at: Timestamp) -> Changed {
    Changed { endpoint, at }
}

fn ticks(id: i64, seconds: i64, from: Timestamp, to: Timestamp) -> Vec<i64> {
    let interval = Interval::from_secs(seconds).unwrap();
    let first = Grid::new(EndpointId(id), interval).at_or_after(from);
    (0..)
        .map(|k| first + k * seconds * 1_000)
        .take_while(|&ms| ms * 1_000 < to.as_micros())
        .collect()
}

fn by_endpoint(samples: &[Sample]) -> BTreeMap<i64, Vec<i64>> {
    let mut map: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for sample in samples {
        map.entry(sample.endpoint.0)
            .or_default()
            .push(sample.scheduled_at.as_millis());
    }
    map.values_mut().for_each(|ticks| ticks.sort_unstable());
    map
}

async fn seconds(s: f64) {
    sleep(Duration::from_secs_f64(s)).await;
}

#[tokio::test(start_paused = true)]
async fn every_tick_until_the_stop_leaves_exactly_one_sample() {
    let run = Harness::default().run(|_| seconds(61.234)).await;
    assert_eq!(run.gaps, []);
    for (id, got) in by_endpoint(&run.samples) {
        assert_eq!(got, ticks(id, 5, START, run.stopped_at), "endpoint {id}");
    }
    assert_eq!(by_endpoint(&run.samples).len(), 50);
    assert!(run.samples.iter().all(|s| s.lag_us.unwrap_or(0) <= 2_000));
}

#[tokio::test(start_paused = true)]
async fn two_partitions_take_every_tick_exactly_once() {
    let mut all = Vec::new();
    for index in 0..2 {
        let partition = Partition::new(index, 2).unwrap();
        let harness = Harness::default();
        let run = Harness {
            options: WorkerOptions {
                partition,
                ..harness.options.clone()
            },
            ..harness
        }
        .run(|_| seconds(31.0));
        all.extend(run.await.samples);
    }
    for (id, got) in by_endpoint(&all) {
        assert_eq!(
            got,
            ticks(id, 5, START, START.plus(Duration::from_secs(31))),
            "endpoint {id}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn arms_take_every_tick_exactly_once_also_those_that_a_stop_cuts_off() {
    let arms = ["a", "b", "c"].map(str::to_owned);
    let mut all = Vec::new();
    for name in &arms {
        let harness = Harness::default();
        let arm = Arm::new(name, &arms).unwrap().share();
        let run = Harness {
            options: WorkerOptions {
                arm,
                in_flight_max: 3,
                ..harness.options.clone()
            },
            // Most ticks find no room, and the last are under way at the stop.
            takes: Duration::from_secs(4),
            ..harness
        }
        .run(|_| seconds(31.0))
        .await;
        assert!(
            run.samples
                .iter()
                .any(|s| s.reason == Some(Reason::Skipped(SkipReason::Shutdown)))
        );
        all.extend(run.samples);
    }
    for (id, got) in by_endpoint(&all) {
        assert_eq!(
            got,
            ticks(id, 5, START, START.plus(Duration::from_secs(31))),
            "endpoint {id}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_start_is_skipped_with_the_reason() {
    for (in_flight_max, per_host, reason) in [
        (7, None, SkipReason::Overload),
        (1_000, Some(7), SkipReason::HostLimit),
    ] {
        let harness = Harness::default();
        let options = WorkerOptions {
            in_flight_max,
            in_flight_per_host: per_host,
            ..harness.options.clone()
        };
        let run = Harness {
            options,
            takes: Duration::from_secs(4),
            ..harness
        }
        .run(|_| seconds(30.0))
        .await;
        assert_eq!(run.at_once_max, 7);
        let skipped = run
            .samples
            .iter()
            .filter(|s| s.reason == Some(Reason::Skipped(reason)))
            .count();
        assert!(skipped > 100, "{skipped}");
        for (id, got) in by_endpoint(&run.samples) {
            assert_eq!(got, ticks(id, 5, START, run.stopped_at), "endpoint {id}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn probes_cut_off_by_the_stop_are_skipped() {
    let run = Harness {
        takes: Duration::from_secs(4),
        ..Harness::default()
    }
    .run(|_| seconds(20.0))
    .await;
    for (id, got) in by_endpoint(&run.samples) {
        assert_eq!(got, ticks(id, 5, START, run.stopped_at), "endpoint {id}");
    }
    let cut = run
        .samples
        .iter()
        .filter(|s| s.reason == Some(Reason::Skipped(SkipReason::Shutdown)))
        .count();
    // Those under way whose remaining time is above the grace of 1 s: some 3/4 of 4 s' worth of starts.
    assert!((20..=40).contains(&cut), "{cut}");
}

/// 20 000 endpoints and, at the stop, four seconds' worth of ticks that nothing was done about.
async fn stopped_under_overload(buffer_rows: usize, kept_rows: usize) -> (Outcomes, Duration) {
    let stopping = Rc::new(Cell::new(Instant::now()));
    let at = stopping.clone();
    let run = Harness {
        buffer_rows,
        kept_rows,
        endpoints: (1..=20_000).map(|id| endpoint(id, 5)).collect(),
        ..Harness::default()
    }
    .run(|_| async move {
        seconds(1.0).await;
        tokio::time::advance(Duration::from_secs(4)).await;
        at.set(Instant::now());
    })
    .await;
    (run, stopping.get().elapsed())
}

fn waited_for_nothing(run: &Outcomes) -> usize {
    let is_it = |s: &&Sample| s.reason == Some(Reason::Skipped(SkipReason::Shutdown));
    run.samples.iter().filter(is_it).count()
}

#[tokio::test(start_paused = true)]
async fn more_than_the_buffer_holds_waits_at_the_stop_and_all_of_it_has_its_row() {
    let (run, took) = stopped_under_overload(5_000, 500).await;
    assert_eq!(run.gaps, []);
    assert!(waited_for_nothing(&run) > 15_000);
    for (id, got) in by_endpoint(&run.samples) {
        assert_eq!(got, ticks(id, 5, START, run.stopped_at), "endpoint {id}");
    }
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_no_keeper_makes_room_for_at_the_stop_is_a_gap_that_counts_it() {
    for (kept_rows, kept_at_most) in [(0, 5_000), (20, 10_000)] {
        let (run, took) = stopped_under_overload(5_000, kept_rows).await;
        // The grace of 1 s, and no more.
        assert!(
            took <= Duration::from_millis(1_050),
            "{kept_rows}: {took:?}"
        );
        let due: usize = (1..=20_000)
            .map(|id| ticks(id, 5, START, run.stopped_at).len())
            .sum();
        let lost: u64 = run.gaps.iter().filter_map(|gap| gap.samples).sum();
        assert_eq!(due, run.samples.len() + lost as usize);
        assert!((5_000..=kept_at_most).contains(&run.samples.len()));
        let reasons = run.gaps.iter().map(|gap| gap.reason);
        assert!(reasons.eq(run.gaps.iter().map(|_| GapReason::BufferFull)));
        let kept = by_endpoint(&run.samples);
        for id in 1..=20_000 {
            for tick in ticks(id, 5, START, run.stopped_at) {
                let in_gap = |gap: &Gap| (gap.from.as_millis()..gap.to.as_millis()).contains(&tick);
                assert!(
                    run.gaps.iter().any(in_gap)
                        || kept.get(&id).is_some_and(|kept| kept.contains(&tick)),
                    "endpoint {id} at {tick}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ticks_that_wait_when_their_endpoint_goes_or_changes_have_their_row() {
    let run = Harness::default()
        .run(|commands| async move {
            seconds(20.0).await;
            tokio::time::advance(Duration::from_secs(4)).await;
            let now = START.plus(Duration::from_secs(24));
            let gone = (1..=20).map(EndpointId).collect();
            let changes = (21..=40).map(|id| changed(endpoint(id, 10), now));
            for command in [Command::Remove(gone), Command::Upsert(changes.collect())] {
                commands.send(command).await.unwrap();
            }
            seconds(10.0).await;
        })
        .await;
    let at = START.plus(Duration::from_secs(24));
    let got = by_endpoint(&run.samples);
    for id in 1..=50 {
        let before = if id > 40 { run.stopped_at } else { at };
        let mut due = ticks(id, 5, START, before);
        if (21..=40).contains(&id) {
            due.extend(ticks(id, 10, at, run.stopped_at));
        }
        assert_eq!(got[&id], due, "endpoint {id}");
    }
    // 32 waited, but for the few that the worker took before it heard.
    let is_it = |s: &&Sample| s.reason == Some(Reason::Skipped(SkipReason::Overload));
    let waited = run.samples.iter().filter(is_it).count();
    assert!((20..=32).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_step_is_one_gap_and_no_burst() {
    let harness = Harness::default();
    let stepped = harness.stepped.clone();
    let run = harness
        .run(|_| async move {
            seconds(20.0).await;
            stepped.set(Duration::from_secs(3_600));
            seconds(20.0).await;
        })
        .await;
    let [gap] = run.gaps[..] else {
        panic!("{:?}", run.gaps)
    };
    assert_eq!(gap.reason, GapReason::ClockStep);
    for (id, got) in by_endpoint(&run.samples) {
        let due = ticks(id, 5, START, run.stopped_at);
        let outside: Vec<_> = due
            .into_iter()
            .filter(|&ms| ms * 1_000 < gap.from.as_micros() || ms * 1_000 >= gap.to.as_micros())
            .collect();
        assert_eq!(got, outside, "endpoint {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_is_a_gap_that_covers_what_was_lost() {
    let run = Harness {
        buffer_rows: 100,
        ..Harness::default()
    }
    .run(|_| seconds(30.0))
    .await;
    assert_eq!(run.samples.len(), 100);
    assert!(
        !run.gaps.is_empty()
            && run
                .gaps
                .iter()
                .all(|gap| gap.reason == GapReason::BufferFull)
    );
    let kept = by_endpoint(&run.samples);
    for id in 1..=50 {
        for tick in ticks(id, 5, START, run.stopped_at) {
            let covered = run
                .gaps
                .iter()
                .any(|gap| (gap.from.as_millis()..gap.to.as_millis()).contains(&tick));
            assert!(
                covered || kept[&id].contains(&tick),
                "endpoint {id} at {tick}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_is_answered_for() {
    let run = Harness {
        panics_on: Some(3),
        ..Harness::default()
    }
    .run(|_| seconds(12.0))
    .await;
    let reasons: Vec<_> = run
        .samples
        .iter()
        .filter(|s| s.endpoint.0 == 3)
        .map(|s| s.reason)
        .collect();
    assert!(reasons.len() >= 2);
    assert!(
        reasons
            .iter()
            .all(|r| *r == Some(Reason::Skipped(SkipReason::AgentError)))
    );
    assert!(
        run.samples
            .iter()
            .filter(|s| s.endpoint.0 != 3)
            .all(|s| s.outcome() == Outcome::Up)
    );
}

#[tokio::test(start_paused = true)]
async fn changes_move_only_the_endpoints_they_name() {
    let run = Harness::default()
        .run(|commands| async move {
            seconds(20.0).await;
            let now = START.plus(Duration::from_secs(20));
            let both = [endpoint(1, 10), endpoint(99, 5)].map(|e| changed(e, now));
            commands.send(Command::Upsert(both.into())).await.unwrap();
            commands
                .send(Command::Remove(vec![EndpointId(2)]))
                .await
                .unwrap();
            seconds(40.0).await;
        })
        .await;
    let at = START.plus(Duration::from_secs(20));
    let got = by_endpoint(&run.samples);
    assert_eq!(
        got[&1],
        [ticks(1, 5, START, at), ticks(1, 10, at, run.stopped_at)].concat()
    );
    assert_eq!(got[&2], ticks(2, 5, START, at));
    assert_eq!(got[&99], ticks(99, 5, at, run.stopped_at));
    assert_eq!(got[&3], ticks(3, 5, START, run.stopped_at));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_comes_late_is_a_gap_from_the_grace_on() {
    let run = Harness::default()
        .run(|commands| async move {
            seconds(20.0).await;
            let at = |s| START.plus(Duration::from_secs(s));
            // One that was changed before the session could hear of it, one late, one in time.
            let three = [(98, at(0)), (99, at(10)), (97, at(18))];
            let three = three.map(|(id, at)| changed(endpoint(id, 5), at));
            commands.send(Command::Upsert(three.into())).await.unwrap();
            seconds(1.0).await;
        })
        .await;
    let gaps: Vec<_> = run.gaps.iter().map(|g| (g.endpoint, g.from)).collect();
    let late = |id, s| (Some(EndpointId(id)), START.plus(Duration::from_secs(s)));
    assert_eq!(gaps, [late(98, 3), late(99, 13)]);
    assert!(
        run.gaps
            .iter()
            .all(|g| g.reason == GapReason::CatalogBehind)
    );
}
