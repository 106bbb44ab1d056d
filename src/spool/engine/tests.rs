use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::domain::{AgentIdentity, Batch, EndpointId, Sample, Timestamp};
use crate::spool::codec::Head;
use crate::spool::{SpoolOptions, open};

/// Batch `n`: `rows` samples due in second `n`.
fn put(n: i64, rows: i64) -> Put {
    let agent = Arc::new(AgentIdentity {
        name: "host/0".into(),
        location: "here".into(),
    });
    let samples = (0..rows)
        .map(|row| Sample::new(EndpointId(row), Timestamp::from_millis(n * 1_000)))
        .collect();
    let batch = Batch { agent, samples };
    Put {
        head: Head::of(&batch),
        encoded: codec::encode(&batch),
    }
}

fn numbers(found: &[(SpoolId, Batch)]) -> Vec<i64> {
    let second = |batch: &Batch| batch.samples[0].scheduled_at.as_millis() / 1_000;
    found.iter().map(|(_, batch)| second(batch)).collect()
}

struct Fixture {
    engine: Engine,
    path: PathBuf,
    _directory: TempDir,
}

fn fixture() -> Fixture {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("spool.db");
    let options = SpoolOptions {
        bytes_max: 64 << 20,
        ..SpoolOptions::default()
    };
    let (engine, _) = open::open(&path, options).unwrap();
    Fixture {
        engine,
        path,
        _directory: directory,
    }
}

#[test]
fn when_the_disk_has_no_room_the_oldest_make_it() {
    let Fixture { mut engine, .. } = fixture();
    for n in 0..10 {
        engine.put(&[put(n, 5_000)]).unwrap();
    }
    // From now on SQLite says "database or disk is full" for each new page.
    engine.file().unwrap().limit_pages(1).unwrap();
    engine.put(&[put(10, 5_000)]).unwrap();
    let stats = engine.shared.stats();
    assert_eq!((stats.batches, stats.dropped_rows), (9, 10_000));
    assert_eq!(stats.disk_errors, 0, "it was put right");
    let dropped = engine.shared.take_dropped();
    assert_eq!(dropped[0].to, Timestamp::from_millis(1_000));
    let found = engine.oldest(99).unwrap().take();
    assert_eq!(numbers(&found), [2, 3, 4, 5, 6, 7, 8, 9, 10]);

    // All of it is handed out: nothing may be dropped, and the batch stays with its owner.
    let refused = engine.put(&[put(11, 50_000)]).unwrap_err();
    assert!(matches!(refused, SpoolError::Disk { .. }), "{refused}");
    assert_eq!(engine.shared.stats().disk_errors, 1);
    assert_eq!(engine.shared.take_dropped(), []);
    engine.file().unwrap().limit_pages(1 << 20).unwrap();
    engine.put(&[put(12, 50_000)]).unwrap();
    assert_eq!(numbers(&engine.oldest(9).unwrap().take()), [12]);
}

#[test]
fn what_a_later_release_wrote_stays_for_it() {
    let Fixture {
        mut engine,
        path,
        _directory,
    } = fixture();
    let mut later = put(2, 10);
    // The version is under the head's checksum: a head with another version, sealed as the encoder does.
    later.encoded = codec::tests::with_version(&later.encoded, 2);
    for put in [put(1, 10), later, put(3, 10)] {
        engine.put(&[put]).unwrap();
    }
    assert_eq!(numbers(&engine.oldest(9).unwrap().take()), [1, 3]);
    let stats = engine.shared.stats();
    assert_eq!(
        (stats.batches, stats.unreadable, stats.damaged_batches),
        (3, 1, 0)
    );
    engine.close();
    let (engine, _) = open::open(&path, SpoolOptions::default()).unwrap();
    assert_eq!(engine.shared.opened.rows, 30);
}

#[test]
fn damage_that_shows_at_run_time_costs_only_what_is_damaged() {
    let Fixture {
        mut engine,
        path,
        _directory,
    } = fixture();
    for n in 0..8 {
        engine.put(&[put(n, 3_000)]).unwrap();
    }
    let first = engine.oldest(1).unwrap().take();
    engine.file().unwrap().copy_back().unwrap();
    // Page 12 is in the middle of some batch's overflow pages; its link to the next page is destroyed on disk.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[11 * 4_096..][..4].fill(0xff);
    engine.close();
    std::fs::write(&path, bytes).unwrap();

    // As if the file had been sound at open: no check.
    let options = SpoolOptions::default();
    let file = SpoolFile::open_damaged(&path, &options).unwrap();
    let (engine, _) = open::open(&path.with_extension("other"), options).unwrap();
    let Engine { shared, _lock, .. } = engine;
    let mut shared = Arc::try_unwrap(shared).unwrap();
    shared.path = path.clone();
    let mut file = file;
    let index = Index::of(&mut file, SpoolId::default()).unwrap();
    let mut engine = Engine::new(file, index, _lock, Arc::new(shared));

    let found = engine.oldest(99).unwrap().take();
    let lost: Vec<i64> = (0..8).filter(|n| !numbers(&found).contains(n)).collect();
    assert_eq!((lost.len(), found.len()), (1, 7));
    assert_eq!(found[0].0, first[0].0, "ids stay what they were");
    let dropped = engine.shared.take_dropped();
    assert_eq!((dropped.len(), dropped[0].rows), (1, 3_000));
    assert_eq!(dropped[0].from, Timestamp::from_millis(lost[0] * 1_000));
    assert_eq!(dropped[0].cause, DropCause::Damaged);
    // And new ids go on after the old ones.
    let new = engine.put(&[put(9, 10)]).unwrap();
    assert!(new[0] > found[6].0);
}
