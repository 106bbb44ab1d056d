//! Torn and damaged files: the spool starts, without panic and without a human, and delivers nothing that is not exactly
//! what was put.

use std::fs;

use super::*;

/// A spool with 12 batches in the database and 4 in the log, as a killed process leaves it.
async fn left_by_a_killed_process() -> (Vec<u8>, Vec<u8>) {
    let (_directory, path) = new_path();
    let (spool, thread) = open(&path);
    for n in 0..12 {
        spool.put(&batch(n, 300)).await.unwrap();
    }
    close(spool, thread);
    let (spool, thread) = open(&path);
    for n in 12..16 {
        spool.put(&batch(n, 30)).await.unwrap();
    }
    let database = fs::read(&path).unwrap();
    let mut log = fs::read(path.with_extension("db-wal")).unwrap();
    // The rest is allocated and not written. A frame is a page and its head, after the log's own head.
    let written = log.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    log.truncate(32 + (written - 32).next_multiple_of(4_096 + 24));
    assert!(database.len() > 80_000 && log.len() > 8_000);
    close(spool, thread);
    (database, log)
}

/// Opens what is there and takes everything out of it. Returns the batches, the damaged ones and whether the file was
/// put aside.
async fn revive(database: &[u8], log: &[u8]) -> (Vec<u32>, u64, bool) {
    let (_directory, path) = new_path();
    fs::write(&path, database).unwrap();
    fs::write(path.with_extension("db-wal"), log).unwrap();
    let (spool, thread) = open(&path);
    let found = drain(&spool).await;
    assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
    let lost = spool.stats().damaged_batches;
    let recovered = spool.opened().recovered.is_some();
    // And it works on.
    spool.put(&batch(99, 300)).await.unwrap();
    assert_eq!(drain(&spool).await, [99]);
    close(spool, thread);
    (found, lost, recovered)
}

#[tokio::test]
async fn an_undamaged_pair_of_files_is_whole() {
    let (database, log) = left_by_a_killed_process().await;
    let found = revive(&database, &log).await;
    assert_eq!(found, ((0..16).collect(), 0, false));
}

#[tokio::test]
async fn flipped_bits_anywhere_lose_little_and_deliver_nothing_false() {
    let (database, log) = left_by_a_killed_process().await;
    let (mut put_aside, mut set_aside, mut whole) = (0, 0, 0);
    // A prime step, so that the places differ within their pages; the first page, with the structure, more densely.
    let places = (0..4_096)
        .step_by(29)
        .chain((4_096..database.len()).step_by(1_013));
    for (turn, place) in places.enumerate() {
        let mut damaged = database.clone();
        damaged[place] ^= 1 << (turn % 8);
        let (found, lost, recovered) = revive(&damaged, &log).await;
        match (recovered, lost) {
            (true, _) => put_aside += 1,
            (false, 0) => whole += 1,
            (false, _) => {
                set_aside += 1;
                assert!(found.len() >= 15, "byte {place}: {found:?}");
            }
        }
        if !recovered && lost == 0 {
            assert_eq!(found.len(), 16, "byte {place}: lost without a word");
        }
    }
    assert!(
        put_aside > 0 && set_aside > 0 && whole > 0,
        "{put_aside} {set_aside} {whole}"
    );
}

#[tokio::test]
async fn a_damaged_log_loses_its_tail_only() {
    let (database, log) = left_by_a_killed_process().await;
    for place in (0..log.len()).step_by(499) {
        let mut damaged = log.clone();
        damaged[place] ^= 0x10;
        let (found, _, _) = revive(&database, &damaged).await;
        assert!(found.len() >= 12, "byte {place}: {found:?}");
        let (found, _, _) = revive(&database, &log[..place]).await;
        assert!(found.len() >= 12, "cut at {place}: {found:?}");
    }
}

#[tokio::test]
async fn a_cut_file_gives_what_is_left() {
    let (database, _) = left_by_a_killed_process().await;
    let mut most = 0;
    for length in (0..database.len()).step_by(2_503) {
        let (found, _, _) = revive(&database[..length], &[]).await;
        most = most.max(found.len());
    }
    assert!(most >= 8, "a file cut near its end still gave only {most}");
}

#[tokio::test]
async fn overwritten_pages_and_foreign_files_are_put_aside_and_three_are_kept() {
    let (directory, path) = new_path();
    for round in 0..5u8 {
        fs::write(&path, vec![round; 20_000]).unwrap();
        let (spool, thread) = open(&path);
        let recovered = spool.opened().recovered.clone().unwrap();
        assert_eq!(fs::read(&recovered.aside).unwrap(), vec![round; 20_000]);
        spool.put(&batch(1, 10)).await.unwrap();
        close(spool, thread);
    }
    let aside = fs::read_dir(directory.path())
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().contains("damaged")
        })
        .count();
    assert_eq!(aside, 3);

    let (database, _) = left_by_a_killed_process().await;
    for page in 0..database.len() / 4_096 {
        let mut damaged = database.clone();
        damaged[page * 4_096..][..4_096].fill(0xa5);
        revive(&damaged, &[]).await;
    }
}

#[tokio::test]
async fn a_damaged_batch_is_named_as_lost() {
    let (database, log) = left_by_a_killed_process().await;
    // In the overflow pages of some batch: its detail texts are there in plain letters.
    let text = b"of batch 5";
    let place = database
        .windows(text.len())
        .rposition(|w| w == text)
        .unwrap();
    let mut damaged = database.clone();
    damaged[place] ^= 1;
    let (_directory, path) = new_path();
    fs::write(&path, damaged).unwrap();
    fs::write(path.with_extension("db-wal"), log).unwrap();
    let (spool, thread) = open(&path);
    let mut expected: Vec<u32> = (0..16).collect();
    expected.remove(5);
    assert_eq!(drain(&spool).await, expected);
    let lost = Dropped {
        cause: DropCause::Damaged,
        agent: agent(),
        batches: 1,
        rows: 300,
        from: Timestamp::from_millis(5_000),
        to: Timestamp::from_millis(5_299),
    };
    assert_eq!(spool.take_dropped(), [lost]);
    assert_eq!(spool.stats().damaged_rows, 300);
    close(spool, thread);
}
