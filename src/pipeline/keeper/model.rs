//! The keeper's policy against every schedule of faults: after all is healed, each sample is in the store, or was refused
//! and is named. Nothing else, and nothing of both.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::config::args::SpoolMode;
use crate::domain::{EndpointId, Sample, Timestamp};
use crate::spool::{Spool, SpoolOptions};
use crate::store::{Aside, BoxFuture};

/// How far a standby is behind when it takes over.
const LAG: Duration = Duration::from_secs(20);

/// What befalls one call of the store.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    /// The connection fails; nothing was stored.
    LostBefore,
    /// The connection fails; the commit had landed.
    LostAfter,
    /// A conflict that the keeper knows nothing of.
    Conflict,
    Hold,
    /// Nobody answers, so many times.
    Away(u8),
    /// Another server takes over, which lacks the newest commits, as many as these.
    Failover(u8),
}

/// What is fed to the keeper: samples, and how long until the next.
#[derive(Clone, Copy, Debug)]
struct Feed {
    samples: u8,
    pause_ms: u16,
    /// A failover while the keeper may be idle.
    failover: Option<u8>,
}

#[derive(Clone, Debug)]
struct Case {
    feeds: Vec<Feed>,
    faults: Vec<Fault>,
    /// Every so-many-th sample is refused.
    poison_every: Option<u8>,
    spool: SpoolMode,
}

#[derive(Default)]
struct World {
    faults: VecDeque<Fault>,
    away: u8,
    poison_every: Option<u8>,
    connected: bool,
    /// In the order of the commits, with their time.
    commits: Vec<(Instant, Vec<i64>)>,
    aside: BTreeSet<i64>,
    /// Neither kept nor to be tried again.
    lost: BTreeSet<i64>,
}

impl World {
    fn rows(&self) -> Vec<i64> {
        self.commits
            .iter()
            .flat_map(|(_, ids)| ids.clone())
            .collect()
    }

    fn refuses(&self, id: i64) -> bool {
        self.poison_every
            .is_some_and(|every| id % i64::from(every) == 0)
    }

    fn fail_over(&mut self, commits: u8) {
        self.connected = false;
        for _ in 0..commits {
            if self
                .commits
                .last()
                .is_some_and(|(at, _)| at.elapsed() <= LAG)
            {
                self.commits.pop();
            }
        }
    }

    fn connect(&mut self) -> Result<(), WriteError> {
        self.connected = false;
        match self.next() {
            Fault::None | Fault::Conflict | Fault::LostAfter => {
                self.connected = true;
                Ok(())
            }
            Fault::Hold => Err(hold()),
            _ => Err(lost()),
        }
    }

    fn write(&mut self, ids: &[i64], path: WritePath) -> Result<u64, WriteError> {
        let fault = self.next();
        if !self.connected {
            return Err(lost());
        }
        match fault {
            Fault::LostBefore | Fault::Away(_) | Fault::Failover(_) => {
                self.connected = false;
                return Err(lost());
            }
            Fault::Hold => {
                self.connected = false;
                return Err(hold());
            }
            Fault::Conflict => return Err(WriteError::Conflict),
            Fault::None | Fault::LostAfter => {}
        }
        if ids.iter().any(|&id| self.refuses(id)) {
            return Err(WriteError::Refused {
                rows: ids.len(),
                source: "bad row".into(),
            });
        }
        let stored: BTreeSet<i64> = self.rows().into_iter().collect();
        let new: Vec<i64> = ids
            .iter()
            .copied()
            .filter(|id| !stored.contains(id))
            .collect();
        if path == WritePath::Fast && new.len() < ids.len() {
            return Err(WriteError::Conflict);
        }
        let rows = new.len() as u64;
        self.commits.push((Instant::now(), new));
        if fault == Fault::LostAfter {
            self.connected = false;
            return Err(lost());
        }
        Ok(rows)
    }

    fn set_aside(&mut self, ids: &[i64]) -> Result<Aside, WriteError> {
        match self.next() {
            _ if !self.connected => Err(lost()),
            Fault::None | Fault::Conflict => {
                self.aside.extend(ids);
                Ok(Aside::Store)
            }
            Fault::LostAfter => {
                self.aside.extend(ids);
                self.connected = false;
                Err(lost())
            }
            // The table takes nothing, and there is no file.
            Fault::Hold => {
                self.lost.extend(ids);
                Err(hold())
            }
            _ => {
                self.connected = false;
                Err(lost())
            }
        }
    }

    fn settled(&self) -> usize {
        self.rows().len() + self.aside.union(&self.lost).count()
    }

    fn next(&mut self) -> Fault {
        if self.away > 0 {
            self.away -= 1;
            return Fault::Away(0);
        }
        let fault = self.faults.pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::Away(calls) => self.away = calls,
            Fault::Failover(commits) => self.fail_over(commits),
            _ => {}
        }
        fault
    }
}

fn lost() -> WriteError {
    WriteError::Lost {
        rows: 0,
        source: "gone".into(),
    }
}

fn hold() -> WriteError {
    WriteError::Hold {
        source: "disk full".into(),
    }
}

#[derive(Clone, Default)]
struct Store(Rc<RefCell<World>>);

fn ids(batch: &Batch) -> Vec<i64> {
    batch
        .samples
        .iter()
        .map(|sample| sample.endpoint.0)
        .collect()
}

impl SampleStore for Store {
    fn connect(&mut self) -> BoxFuture<'_, Result<(), WriteError>> {
        let connected = match self.is_connected() {
            true => Ok(()),
            false => self.0.borrow_mut().connect(),
        };
        Box::pin(async move { connected })
    }

    fn is_connected(&self) -> bool {
        self.0.borrow().connected
    }

    fn write_meanwhile<'a>(
        &'a mut self,
        batch: &'a Batch,
        path: WritePath,
        meanwhile: &'a mut dyn FnMut(),
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        meanwhile();
        let written = self.0.borrow_mut().write(&ids(batch), path);
        Box::pin(async move { written })
    }

    fn set_aside<'a>(
        &'a mut self,
        batch: &'a Batch,
        _: &'a WriteError,
    ) -> BoxFuture<'a, Result<Aside, WriteError>> {
        let kept = self.0.borrow_mut().set_aside(&ids(batch));
        Box::pin(async move { kept })
    }
}

/// What became of a case.
#[derive(Debug)]
struct Outcome {
    pushed: i64,
    rows: Vec<i64>,
    named: Vec<i64>,
    unsaved: u64,
    spooled: u64,
}

async fn play(case: &Case) -> Outcome {
    let store = Store::default();
    *store.0.borrow_mut() = World {
        faults: case.faults.iter().copied().collect(),
        poison_every: case.poison_every,
        ..World::default()
    };
    let options = KeeperOptions {
        agent: Arc::new(AgentIdentity {
            name: "a".into(),
            location: "l".into(),
        }),
        batch_rows: 4,
        batch_age: Duration::from_secs(1),
        drain_grace: Duration::from_secs(5),
    };
    let buffer = SampleBuffer::new(4_096, 4);
    let (sender, mut gaps) = mpsc::unbounded_channel();
    let folder = tempfile::tempdir().unwrap();
    let spool = (case.spool != SpoolMode::Off)
        .then(|| Spool::open(&folder.path().join("samples.db"), SpoolOptions::default()).unwrap());
    let overflow = spool
        .as_ref()
        .map(|(spool, _)| Overflow::new(spool.clone(), Vec::new(), case.spool, sender.clone()));
    let options = Rc::new(options);
    let keeper = Keeper::new(
        options.clone(),
        buffer.clone(),
        store.clone(),
        overflow,
        sender.clone(),
        Totals::default(),
    );
    let feed = async {
        let mut pushed = 0;
        for feed in &case.feeds {
            for _ in 0..feed.samples {
                pushed += 1;
                let sample =
                    Sample::new(EndpointId(pushed), Timestamp::from_millis(pushed * 5_000));
                buffer.push(sample).unwrap();
            }
            sleep(Duration::from_millis(feed.pause_ms.into())).await;
            if let Some(commits) = feed.failover {
                store.0.borrow_mut().fail_over(commits);
            }
        }
        {
            let mut world = store.0.borrow_mut();
            world.faults.clear();
            world.away = 0;
        }
        // Healed: longer than the longest backoff, and until nothing waits. The spool's thread lives in real time.
        sleep(Duration::from_secs(12)).await;
        for _ in 0..5_000 {
            let waits = spool.as_ref().map_or(0, |(spool, _)| spool.stats().rows);
            if waits == 0 && store.0.borrow().settled() == pushed as usize {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            sleep(Duration::from_millis(20)).await;
        }
        buffer.close();
        pushed
    };
    let (unsaved, pushed) = tokio::join!(keeper.run(), feed);
    if let Some((spool, _)) = &spool {
        // What was on its way into the spool at the end, the next run stores.
        let overflow = Overflow::new(spool.clone(), Vec::new(), case.spool, sender.clone());
        let buffer = SampleBuffer::new(4_096, 4);
        let next = Keeper::new(
            options,
            buffer.clone(),
            store.clone(),
            Some(overflow),
            sender,
            Totals::default(),
        );
        let drained = async {
            for _ in 0..5_000 {
                if spool.stats().rows == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
                sleep(Duration::from_millis(20)).await;
            }
            buffer.close();
        };
        let (left, ()) = tokio::join!(next.run(), drained);
        assert_eq!(left, 0);
    }
    let spooled = spool.as_ref().map_or(0, |(spool, _)| spool.stats().rows);
    if let Some((spool, thread)) = spool {
        drop(spool);
        thread.join(Duration::from_secs(10)).unwrap();
    }
    let mut named = BTreeSet::new();
    while let Ok(gap) = gaps.try_recv() {
        assert_eq!(gap.reason, GapReason::Refused);
        named.insert(gap.from.as_millis() / 5_000);
    }
    let mut rows = store.0.borrow().rows();
    rows.sort_unstable();
    Outcome {
        pushed,
        rows,
        named: named.into_iter().collect(),
        unsaved,
        spooled,
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        2 => Just(Fault::LostBefore),
        2 => Just(Fault::LostAfter),
        1 => Just(Fault::Conflict),
        1 => Just(Fault::Hold),
        1 => (0u8..20).prop_map(Fault::Away),
        2 => (0u8..4).prop_map(Fault::Failover),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let feed = (0u8..10, 0u16..5_000, prop::option::weighted(0.2, 0u8..4)).prop_map(
        |(samples, pause_ms, failover)| Feed {
            samples,
            pause_ms,
            failover,
        },
    );
    (
        prop::collection::vec(feed, 1..20),
        prop::collection::vec(fault(), 0..40),
        prop::option::weighted(0.5, 2u8..9),
        prop::sample::select(vec![SpoolMode::Off, SpoolMode::Outage, SpoolMode::Always]),
    )
        .prop_map(|(feeds, faults, poison_every, spool)| Case {
            feeds,
            faults,
            poison_every,
            spool,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn after_any_faults_each_sample_is_stored_once_or_named(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let outcome = runtime.block_on(play(&case));
        let refused = |id: &i64| case.poison_every.is_some_and(|every| id % i64::from(every) == 0);
        let (named, stored): (Vec<i64>, Vec<i64>) = (1..=outcome.pushed).partition(refused);
        prop_assert_eq!((outcome.unsaved, outcome.spooled), (0, 0), "{:?}", &outcome);
        prop_assert_eq!(&outcome.rows, &stored, "{:?}", &outcome);
        prop_assert_eq!(&outcome.named, &named, "{:?}", &outcome);
    }
}
