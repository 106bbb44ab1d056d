//! The keeper against a store that fails on command.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};

use super::*;
use crate::config::args::SpoolMode;
use crate::domain::{EndpointId, Sample, Timestamp};
use crate::spool::{Spool, SpoolOptions};
use crate::store::{Aside, BoxFuture};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    /// All is well, this time.
    None,
    /// The connection fails; nothing was stored.
    LostBefore,
    /// The connection fails; the commit had landed.
    LostAfter,
    /// Away: connecting fails.
    NoConnection,
    Hold,
}

#[derive(Default)]
struct World {
    faults: VecDeque<Fault>,
    poison: HashSet<i64>,
    rows: Vec<i64>,
    aside: Vec<i64>,
    connected: bool,
    forgets_on_loss: bool,
    /// How long each write takes.
    takes: Duration,
    writes: Vec<(usize, WritePath)>,
}

#[derive(Clone, Default)]
struct Store(Rc<RefCell<World>>);

fn lost(rows: usize) -> WriteError {
    WriteError::Lost {
        rows,
        source: "gone".into(),
    }
}

impl SampleStore for Store {
    fn connect(&mut self) -> BoxFuture<'_, Result<(), WriteError>> {
        let mut world = self.0.borrow_mut();
        let fails = world.faults.front() == Some(&Fault::NoConnection);
        if fails {
            world.faults.pop_front();
        }
        world.connected = !fails;
        Box::pin(async move { if fails { Err(lost(0)) } else { Ok(()) } })
    }

    fn write_meanwhile<'a>(
        &'a mut self,
        batch: &'a Batch,
        path: WritePath,
        meanwhile: &'a mut dyn FnMut(),
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        meanwhile();
        let mut world = self.0.borrow_mut();
        let rows = batch.rows();
        world.writes.push((rows, path));
        assert!(world.connected, "a write without a connection");
        let ids: Vec<i64> = batch.samples.iter().map(|s| s.endpoint.0).collect();
        let fault = world.faults.pop_front();
        let result = match fault {
            Some(Fault::LostBefore | Fault::NoConnection) => Err(lost(rows)),
            Some(Fault::Hold) => Err(WriteError::Hold {
                source: "disk full".into(),
            }),
            _ if ids.iter().any(|id| world.poison.contains(id)) => Err(WriteError::Refused {
                rows,
                source: "bad row".into(),
            }),
            _ if path == WritePath::Fast && ids.iter().any(|id| world.rows.contains(id)) => {
                Err(WriteError::Conflict)
            }
            _ => {
                let new: Vec<i64> = ids
                    .into_iter()
                    .filter(|id| !world.rows.contains(id))
                    .collect();
                world.rows.extend(&new);
                if fault == Some(Fault::LostAfter) {
                    Err(lost(rows))
                } else {
                    Ok(new.len() as u64)
                }
            }
        };
        if matches!(result, Err(WriteError::Lost { .. })) {
            world.connected = false;
            if world.forgets_on_loss {
                world.rows.clear();
            }
        }
        let takes = world.takes;
        Box::pin(async move {
            sleep(takes).await;
            result
        })
    }

    fn is_connected(&self) -> bool {
        self.0.borrow().connected
    }

    fn set_aside<'a>(
        &'a mut self,
        batch: &'a Batch,
        _: &'a WriteError,
    ) -> BoxFuture<'a, Result<Aside, WriteError>> {
        let mut world = self.0.borrow_mut();
        world
            .aside
            .extend(batch.samples.iter().map(|s| s.endpoint.0));
        Box::pin(async { Ok(Aside::Store) })
    }
}

fn options() -> Rc<KeeperOptions> {
    Rc::new(KeeperOptions {
        agent: Arc::new(AgentIdentity {
            name: "a".into(),
            location: "l".into(),
        }),
        batch_rows: 4,
        batch_age: Duration::from_secs(1),
        drain_grace: Duration::from_secs(5),
    })
}

struct Run {
    rows: Vec<i64>,
    unsaved: u64,
    gaps: Vec<Gap>,
    aside: Vec<i64>,
    writes: Vec<(usize, WritePath)>,
}

/// Feeds ten samples, closes the buffer, and runs the keeper to its end.
async fn run(world: World) -> Run {
    run_with(10, world).await
}

async fn run_with(samples: i64, world: World) -> Run {
    let store = Store(Rc::new(RefCell::new(world)));
    let buffer = SampleBuffer::new(100, 4);
    for id in 1..=samples {
        buffer
            .push(Sample::new(
                EndpointId(id),
                Timestamp::from_millis(id * 5_000),
            ))
            .unwrap();
    }
    buffer.close();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let unsaved = Keeper::new(
        options(),
        buffer,
        store.clone(),
        None,
        sender,
        Totals::default(),
    )
    .run()
    .await;
    let mut gaps = Vec::new();
    while let Ok(gap) = receiver.try_recv() {
        gaps.push(gap);
    }
    let mut world = store.0.borrow_mut();
    let mut rows = std::mem::take(&mut world.rows);
    rows.sort_unstable();
    Run {
        rows,
        unsaved,
        gaps,
        aside: std::mem::take(&mut world.aside),
        writes: std::mem::take(&mut world.writes),
    }
}

fn all() -> Vec<i64> {
    (1..=10).collect()
}

#[tokio::test(start_paused = true)]
async fn batches_are_cut_by_size_and_the_rest_is_drained() {
    let run = run(World::default()).await;
    assert_eq!(run.rows, all());
    // The first batch after a connection was made takes the tolerant path: a predecessor may have sent the same rows.
    assert_eq!(
        run.writes,
        [
            (4, WritePath::Tolerant),
            (4, WritePath::Fast),
            (2, WritePath::Fast)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_written_in_larger_batches_while_the_store_keeps_up() {
    let sizes = async |takes_ms| {
        let takes = Duration::from_millis(takes_ms);
        let world = World {
            takes,
            ..World::default()
        };
        let run = run_with(40, world).await;
        assert_eq!(run.rows.len(), 40);
        run.writes
            .into_iter()
            .map(|(rows, _)| rows)
            .collect::<Vec<_>>()
    };
    // The second was taken while the first was written.
    assert_eq!(sizes(10).await, [4, 4, 12, 12, 8]);
    assert_eq!(sizes(1_000).await, [4; 10]);
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_that_was_too_much_is_tried_again_in_parts() {
    for fault in [Fault::LostBefore, Fault::Hold] {
        let faults = [Fault::None, Fault::None, fault];
        let run = run_with(
            20,
            World {
                faults: faults.into(),
                ..World::default()
            },
        )
        .await;
        assert_eq!(run.rows, (1..=20).collect::<Vec<_>>());
        let sizes: Vec<_> = run.writes.iter().map(|(rows, _)| *rows).collect();
        // The third was too much; the first two are told again to whoever answers now.
        assert_eq!(sizes, [4, 4, 12, 4, 4, 3, 3, 3, 3], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_after_a_loss_goes_in_batches_of_the_usual_size() {
    let mut faults = [Fault::None; 5];
    faults[4] = Fault::LostBefore;
    let world = World {
        faults: faults.into(),
        ..World::default()
    };
    let run = run_with(44, world).await;
    assert_eq!(run.rows, (1..=44).collect::<Vec<_>>());
    let lost = run
        .writes
        .iter()
        .position(|&write| write == (12, WritePath::Fast));
    assert_eq!(lost, Some(2), "large ones before: {:?}", run.writes);
    assert!(
        run.writes[5..].iter().all(|&(rows, _)| rows <= 4),
        "{:?}",
        run.writes
    );
}

#[tokio::test(start_paused = true)]
async fn every_row_is_stored_once_whatever_connection_faults_come() {
    use Fault::{Hold, LostAfter, LostBefore, NoConnection};
    let menus: [&[Fault]; 5] = [
        &[LostBefore],
        &[LostAfter],
        &[NoConnection, NoConnection, LostAfter, NoConnection],
        &[Hold, Hold, LostAfter, Hold, LostBefore],
        &[LostAfter, LostAfter, LostAfter, LostAfter],
    ];
    for faults in menus {
        let run = run(World {
            faults: faults.iter().copied().collect(),
            ..World::default()
        })
        .await;
        assert_eq!((run.rows, run.unsaved), (all(), 0), "{faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_failover_lost_is_sent_again() {
    // The second batch's connection is lost, and the new server lacks the first batch, which was acknowledged.
    let world = World {
        forgets_on_loss: true,
        ..World::default()
    };
    let store = Store(Rc::new(RefCell::new(world)));
    let buffer = SampleBuffer::new(100, 4);
    for id in 1..=4 {
        buffer
            .push(Sample::new(EndpointId(id), Timestamp::default()))
            .unwrap();
    }
    let (sender, _receiver) = mpsc::unbounded_channel();
    let keeper = Keeper::new(
        options(),
        buffer.clone(),
        store.clone(),
        None,
        sender,
        Totals::default(),
    );
    let feed = async {
        sleep(Duration::from_secs(2)).await;
        store.0.borrow_mut().faults.push_back(Fault::LostBefore);
        for id in 5..=8 {
            buffer
                .push(Sample::new(EndpointId(id), Timestamp::default()))
                .unwrap();
        }
        sleep(Duration::from_secs(5)).await;
        buffer.close();
    };
    let (unsaved, ()) = tokio::join!(keeper.run(), feed);
    assert_eq!(unsaved, 0);
    let mut rows = store.0.borrow().rows.clone();
    rows.sort_unstable();
    assert_eq!(rows, (1..=8).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_is_set_aside_and_the_others_are_stored() {
    let run = run(World {
        poison: [3, 9].into(),
        ..World::default()
    })
    .await;
    assert_eq!(run.rows, [1, 2, 4, 5, 6, 7, 8, 10]);
    assert_eq!(run.aside, [3, 9]);
    let lost: Vec<_> = run
        .gaps
        .iter()
        .map(|gap| (gap.from.as_millis(), gap.reason))
        .collect();
    assert_eq!(
        lost,
        [(15_000, GapReason::Refused), (45_000, GapReason::Refused)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_ends_the_drain_with_the_number_lost() {
    let faults = std::iter::repeat_n(Fault::NoConnection, 10_000).collect();
    let run = run(World {
        faults,
        ..World::default()
    })
    .await;
    assert_eq!((run.rows.len(), run.unsaved), (0, 10));
}

/// Ten samples, and a keeper with a spool; in real time, since the spool has a thread of its own.
async fn run_spooled(
    store: &Store,
    path: &std::path::Path,
    mode: SpoolMode,
    samples: bool,
) -> (u64, u64) {
    let (spool, thread) = Spool::open(path, SpoolOptions::default()).unwrap();
    let buffer = SampleBuffer::new(100, 4);
    for id in 1..=10 * i64::from(samples) {
        buffer
            .push(Sample::new(
                EndpointId(id),
                Timestamp::from_millis(id * 5_000),
            ))
            .unwrap();
    }
    let (sender, _receiver) = mpsc::unbounded_channel();
    let overflow = Overflow::new(spool.clone(), Vec::new(), mode, sender.clone());
    let keeper = Keeper::new(
        options(),
        buffer.clone(),
        store.clone(),
        Some(overflow),
        sender,
        Totals::default(),
    );
    let close = async {
        // Without live samples the keeper is given the time to replay.
        for _ in 0..200 {
            if samples || spool.stats().rows == 0 {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        buffer.close();
    };
    let (unsaved, ()) = tokio::join!(keeper.run(), close);
    let waiting = spool.stats().rows;
    drop(spool);
    thread.join(Duration::from_secs(5)).unwrap();
    (unsaved, waiting)
}

fn stored(store: &Store) -> Vec<i64> {
    let mut rows = store.0.borrow().rows.clone();
    rows.sort_unstable();
    rows
}

#[tokio::test]
async fn what_a_stop_during_an_outage_leaves_in_the_spool_the_next_run_stores() {
    for mode in [SpoolMode::Outage, SpoolMode::Always] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.db");
        let faults = std::iter::repeat_n(Fault::NoConnection, 1_000).collect();
        let away = Store(Rc::new(RefCell::new(World {
            faults,
            ..World::default()
        })));
        assert_eq!(
            run_spooled(&away, &path, mode, true).await,
            (0, 10),
            "{mode:?}"
        );
        assert_eq!(stored(&away), Vec::<i64>::new());

        let back = Store::default();
        assert_eq!(
            run_spooled(&back, &path, mode, false).await,
            (0, 0),
            "{mode:?}"
        );
        assert_eq!(stored(&back), all());
    }
}

#[tokio::test]
async fn with_a_spool_every_row_is_stored_once_whatever_connection_faults_come() {
    use Fault::{Hold, LostAfter, LostBefore, NoConnection};
    let menus: [&[Fault]; 4] = [
        &[],
        &[LostAfter],
        &[NoConnection, LostAfter, NoConnection],
        &[Hold, LostBefore, LostAfter],
    ];
    for mode in [SpoolMode::Outage, SpoolMode::Always] {
        for faults in menus {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("samples.db");
            let world = World {
                faults: faults.iter().copied().collect(),
                ..World::default()
            };
            let store = Store(Rc::new(RefCell::new(world)));
            let (unsaved, _) = run_spooled(&store, &path, mode, true).await;
            let (_, waiting) = run_spooled(&store, &path, mode, false).await;
            assert_eq!(
                (unsaved, waiting, stored(&store)),
                (0, 0, all()),
                "{mode:?} {faults:?}"
            );
        }
    }
}

/// In a thread of its own: a loop that never waits would hold up whoever waits for it, too.
#[test]
fn a_buffer_smaller_than_a_batch_is_relieved_without_spinning_while_the_store_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("samples.db");
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let spooled = runtime.block_on(async {
            let (spool, _thread) = Spool::open(&path, SpoolOptions::default()).unwrap();
            let buffer = SampleBuffer::new(8, 100);
            for id in 1..=5 {
                let at = Timestamp::from_millis(id * 5_000);
                buffer.push(Sample::new(EndpointId(id), at)).unwrap();
            }
            let (sender, _receiver) = mpsc::unbounded_channel();
            let mut overflow = Overflow::new(spool.clone(), Vec::new(), SpoolMode::Outage, sender);
            let options = KeeperOptions {
                batch_rows: 100,
                ..(*options()).clone()
            };
            let hangs = async {
                while spool.stats().rows == 0 {
                    sleep(Duration::from_millis(10)).await;
                }
                Ok(())
            };
            beside(hangs, Some(&mut overflow), &buffer, &options)
                .await
                .unwrap();
            spool.stats().rows
        });
        tell.send(spooled).unwrap();
    });
    let spooled = told.recv_timeout(Duration::from_secs(30));
    assert_eq!(spooled, Ok(5));
}
