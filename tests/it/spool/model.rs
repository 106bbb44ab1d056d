//! Any order of puts, hand-outs, returns, removals and restarts, against a plain list.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Put { rows: u32 },
    PutTogether { count: u32, rows: u32 },
    Oldest { batches: usize },
    Return { place: usize },
    Remove { place: usize },
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..3_000u32).prop_map(|rows| Step::Put { rows }),
        1 => (2..6u32, 1..500u32).prop_map(|(count, rows)| Step::PutTogether { count, rows }),
        2 => (0..5usize).prop_map(|batches| Step::Oldest { batches }),
        1 => (0..8usize).prop_map(|place| Step::Return { place }),
        2 => (0..8usize).prop_map(|place| Step::Remove { place }),
        1 => Just(Step::Restart),
    ]
}

#[derive(Default)]
struct Model {
    /// Number and rows of what is in the spool, and its id while it is handed out.
    batches: VecDeque<(u32, u32, Option<SpoolId>)>,
    next: u32,
    dropped: u64,
}

impl Model {
    /// The spool says that this was dropped: it must be the oldest that was not handed out, to the row.
    fn drop_oldest(&mut self, dropped: &[Dropped]) {
        for span in dropped {
            let mut rows = 0;
            for _ in 0..span.batches {
                let free = self.batches.iter().position(|(_, _, id)| id.is_none());
                let (n, r, _) = self.batches.remove(free.unwrap()).unwrap();
                let first = Timestamp::from_millis(i64::from(n) * 1_000);
                assert!(span.from <= first && first <= span.to);
                rows += u64::from(r);
            }
            assert_eq!(rows, span.rows);
            self.dropped += rows;
        }
    }

    fn handed_out(&self) -> Vec<(usize, SpoolId)> {
        let held =
            |(place, (_, _, id)): (usize, &(u32, u32, Option<SpoolId>))| Some((place, (*id)?));
        self.batches.iter().enumerate().filter_map(held).collect()
    }
}

async fn run(steps: Vec<Step>) {
    let (_directory, path) = new_path();
    let limits = options(MIB);
    let (mut spool, mut thread) = Spool::open(&path, limits.clone()).unwrap();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Put { rows } => {
                let n = model.next;
                model.next += 1;
                match spool.put(&batch(n, rows)).await {
                    Ok(stored) => {
                        model.drop_oldest(&stored.dropped);
                        model.batches.push_back((n, rows, None));
                    }
                    Err(error) => {
                        assert!(matches!(error, SpoolError::NoRoom), "{error}");
                        assert!(!model.handed_out().is_empty());
                    }
                }
            }
            Step::PutTogether { count, rows } => {
                let numbers: Vec<u32> = (model.next..model.next + count).collect();
                model.next += count;
                let batches: Vec<Batch> = numbers.iter().map(|&n| batch(n, rows)).collect();
                let puts = batches.iter().map(|batch| spool.put(batch));
                let stored = futures_util::future::join_all(puts).await;
                for (n, stored) in numbers.into_iter().zip(stored) {
                    if let Ok(stored) = stored {
                        model.drop_oldest(&stored.dropped);
                        model.batches.push_back((n, rows, None));
                    }
                }
            }
            Step::Oldest { batches } => {
                let found = spool.oldest(batches).await.unwrap();
                let free = model.batches.iter_mut().filter(|(_, _, id)| id.is_none());
                let expected: Vec<_> = free.take(batches).collect();
                assert_eq!(found.len(), expected.len());
                for ((id, found), (n, rows, held)) in found.iter().zip(expected) {
                    assert_eq!((number(found), found.rows() as u32), (*n, *rows));
                    *held = Some(*id);
                }
            }
            Step::Return { place } => {
                if let Some(&(place, id)) = model.handed_out().get(place) {
                    spool.return_to_queue(&[id]);
                    model.batches[place].2 = None;
                }
            }
            Step::Remove { place } => {
                if let Some(&(place, id)) = model.handed_out().get(place) {
                    spool.remove(&[id]).await.unwrap();
                    model.batches.remove(place);
                }
            }
            Step::Restart => {
                close(spool, thread);
                (spool, thread) = Spool::open(&path, limits.clone()).unwrap();
                model.batches.iter_mut().for_each(|(_, _, id)| *id = None);
                model.dropped = 0;
                assert_eq!(spool.opened().batches, model.batches.len() as u64);
            }
        }
        let stats = spool.stats();
        let rows: u64 = model
            .batches
            .iter()
            .map(|(_, rows, _)| u64::from(*rows))
            .sum();
        assert_eq!(
            (stats.batches, stats.rows),
            (model.batches.len() as u64, rows)
        );
        assert_eq!(stats.dropped_rows, model.dropped);
        assert_eq!(stats.handed_out, model.handed_out().len() as u64);
        assert!(stats.file_bytes <= MIB, "{stats:?}");
        assert_eq!(
            (stats.damaged_batches, stats.unreadable, stats.disk_errors),
            (0, 0, 0)
        );
    }
    let held: Vec<SpoolId> = model.handed_out().into_iter().map(|(_, id)| id).collect();
    spool.return_to_queue(&held);
    let expected: Vec<u32> = model.batches.iter().map(|(n, _, _)| *n).collect();
    assert_eq!(drain(&spool).await, expected);
    close(spool, thread);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_spool_does_what_a_list_does(steps in proptest::collection::vec(any_step(), 1..60)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(run(steps));
    }
}
