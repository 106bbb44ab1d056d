//! The spool on real files: what is acknowledged stays, what is damaged is not delivered, what is dropped is named.

mod damage;
mod disk;
mod model;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use watcher::domain::{AgentIdentity, Batch, EndpointId, Failure, Reason, Sample, Timestamp};
use watcher::spool::{
    DropCause, Dropped, Durability, Spool, SpoolError, SpoolId, SpoolOptions, SpoolThread,
};

const MIB: u64 = 1 << 20;

fn agent() -> Arc<AgentIdentity> {
    Arc::new(AgentIdentity {
        name: "host/0".into(),
        location: "here".into(),
    })
}

/// Batch `n`: its rows are due in second `n`, and their content follows from `n`.
fn batch(n: u32, rows: u32) -> Batch {
    let sample = |row: u32| {
        let at = Timestamp::from_millis(i64::from(n) * 1_000 + i64::from(row % 1_000));
        let mut sample = Sample::new(EndpointId(i64::from(row)), at);
        sample.status_code = Some(200 + (n % 300) as u16);
        sample.duration_us = Some(n.wrapping_mul(2_654_435_769) ^ row);
        sample.bytes_received = row.wrapping_mul(40_503);
        if row.is_multiple_of(3) {
            sample.reason = Some(Reason::Failed(Failure::BodyMismatch));
            sample.detail = Some(format!("row {row} of batch {n}").into());
        }
        sample
    };
    Batch {
        agent: agent(),
        samples: (0..rows).map(sample).collect(),
    }
}

/// Which batch this is; panics when it is not exactly as it was put.
fn number(found: &Batch) -> u32 {
    let n = (found.samples[0].scheduled_at.as_millis() / 1_000) as u32;
    let original = batch(n, found.rows() as u32);
    assert_eq!(found.samples, original.samples, "batch {n} was changed");
    assert_eq!(found.agent, original.agent);
    n
}

fn options(bytes_max: u64) -> SpoolOptions {
    SpoolOptions {
        bytes_max,
        durability: Durability::Process,
        deadline: Duration::from_secs(30),
    }
}

fn open(path: &Path) -> (Spool, SpoolThread) {
    Spool::open(path, options(64 * MIB)).unwrap()
}

fn close(spool: Spool, thread: SpoolThread) {
    drop(spool);
    thread.join(Duration::from_secs(30)).unwrap();
}

fn new_path() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("spool-0.db");
    (directory, path)
}

/// Everything that is in the spool, in its order, removed.
async fn drain(spool: &Spool) -> Vec<u32> {
    let mut numbers = Vec::new();
    loop {
        let found = spool.oldest(7).await.unwrap();
        if found.is_empty() {
            return numbers;
        }
        numbers.extend(found.iter().map(|(_, batch)| number(batch)));
        let ids: Vec<SpoolId> = found.iter().map(|(id, _)| *id).collect();
        spool.remove(&ids).await.unwrap();
    }
}

#[tokio::test]
async fn batches_come_back_in_their_order_also_in_the_next_process() {
    let (_directory, path) = new_path();
    let (spool, thread) = open(&path);
    for n in 0..20 {
        let stored = spool.put(&batch(n, 10 + n)).await.unwrap();
        assert_eq!(stored.dropped, []);
    }
    let first = spool.oldest(3).await.unwrap();
    assert_eq!(
        first.iter().map(|(_, b)| number(b)).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    spool.remove(&[first[0].0, first[1].0]).await.unwrap();
    close(spool, thread);

    let (spool, thread) = open(&path);
    let left: u64 = (2..20).map(|n| 10 + n).sum();
    assert_eq!((spool.opened().batches, spool.opened().rows), (18, left));
    assert_eq!(spool.opened().recovered, None);
    assert_eq!((spool.stats().batches, spool.stats().rows), (18, left));
    assert_eq!(drain(&spool).await, (2..20).collect::<Vec<_>>());
    assert_eq!((spool.stats().batches, spool.stats().bytes), (0, 0));
    close(spool, thread);
}

#[tokio::test]
async fn what_is_handed_out_is_not_handed_out_again_until_it_is_returned() {
    let (_directory, path) = new_path();
    let (spool, thread) = open(&path);
    for n in 0..4 {
        spool.put(&batch(n, 5)).await.unwrap();
    }
    let first = spool.oldest(2).await.unwrap();
    let second = spool.oldest(9).await.unwrap();
    assert_eq!(
        second.iter().map(|(_, b)| number(b)).collect::<Vec<_>>(),
        [2, 3]
    );
    assert_eq!(spool.stats().handed_out, 4);
    assert!(spool.oldest(1).await.unwrap().is_empty());
    spool.return_to_queue(&[first[1].0]);
    let again = spool.oldest(9).await.unwrap();
    assert_eq!(
        again.iter().map(|(_, b)| number(b)).collect::<Vec<_>>(),
        [1]
    );
    close(spool, thread);
}

#[tokio::test]
async fn an_answer_that_nobody_takes_hands_nothing_out() {
    let (_directory, path) = new_path();
    let (spool, thread) = open(&path);
    spool.put(&batch(1, 5)).await.unwrap();
    let unread = {
        let mut asked = Box::pin(spool.oldest(1));
        // The order is on its way; the answer comes when nobody listens any more.
        let _ = futures_util::poll!(&mut asked);
        asked
    };
    drop(unread);
    // Orders are carried out one after the other, so the first one's answer is gone by now.
    spool.remove(&[]).await.unwrap();
    assert_eq!(drain(&spool).await, [1]);
    close(spool, thread);
}

#[tokio::test]
async fn a_full_spool_drops_the_oldest_and_says_exactly_what() {
    let (_directory, path) = new_path();
    let (spool, thread) = Spool::open(&path, options(2 * MIB)).unwrap();
    let mut dropped: Vec<Dropped> = Vec::new();
    let puts = 60;
    for n in 0..puts {
        let stored = spool.put(&batch(n, 2_000)).await.unwrap();
        dropped.extend(stored.dropped);
        let stats = spool.stats();
        assert!(stats.file_bytes <= 2 * MIB, "{stats:?}");
    }
    let stats = spool.stats();
    let kept = drain(&spool).await;
    assert!(stats.bytes > MIB, "most of the cap is used: {stats:?}");
    let gone = puts - kept.len() as u32;
    assert_eq!(kept, (gone..puts).collect::<Vec<_>>());
    assert_eq!(stats.dropped_rows, u64::from(gone) * 2_000);
    assert_eq!(stats.dropped_batches, u64::from(gone));
    // The reports together name each dropped batch once, and the times follow on each other.
    assert_eq!(
        dropped.iter().map(|d| d.batches).sum::<u64>(),
        u64::from(gone)
    );
    assert_eq!(
        dropped.iter().map(|d| d.rows).sum::<u64>(),
        stats.dropped_rows
    );
    let mut next = 0;
    for span in &dropped {
        assert_eq!((span.cause, &span.agent), (DropCause::Full, &agent()));
        assert_eq!(span.from, Timestamp::from_millis(next * 1_000));
        next += span.batches as i64;
        assert_eq!(span.to, Timestamp::from_millis(next * 1_000 - 1));
    }
    close(spool, thread);
}

#[tokio::test]
async fn what_is_being_replayed_is_not_dropped() {
    let (_directory, path) = new_path();
    let (spool, thread) = Spool::open(&path, options(MIB)).unwrap();
    let mut n = 0;
    while spool.stats().dropped_batches == 0 {
        spool.put(&batch(n, 2_000)).await.unwrap();
        n += 1;
    }
    let replayed = spool.oldest(usize::MAX).await.unwrap();
    let refused = spool.put(&batch(n, 2_000)).await.unwrap_err();
    assert!(matches!(refused, SpoolError::NoRoom), "{refused}");
    let ids: Vec<SpoolId> = replayed.iter().map(|(id, _)| *id).collect();
    spool.return_to_queue(&ids);
    spool.take_dropped();
    let stored = spool.put(&batch(n, 2_000)).await.unwrap();
    assert_eq!(
        stored.dropped[0].from,
        replayed[0].1.samples[0].scheduled_at
    );
    close(spool, thread);
}

#[tokio::test]
async fn the_file_shrinks_when_it_has_been_drained() {
    let (_directory, path) = new_path();
    let (spool, thread) = open(&path);
    for n in 0..40 {
        spool.put(&batch(n, 5_000)).await.unwrap();
    }
    let database = || std::fs::metadata(&path).unwrap().len();
    assert!(spool.stats().bytes > 5 * MIB && database() > 3 * MIB);
    drain(&spool).await;
    for _ in 0..1_000 {
        if database() < 2 * MIB {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(database() < 2 * MIB, "{:?}", spool.stats());
    close(spool, thread);
    // At rest there is no log either.
    assert!(!path.with_extension("db-wal").exists());
}

#[tokio::test]
async fn puts_that_wait_together_are_all_stored() {
    let (_directory, path) = new_path();
    let (spool, thread) = open(&path);
    let puts = (0..50).map(|n| {
        let spool = spool.clone();
        async move { spool.put(&batch(n, 20)).await.unwrap().id }
    });
    let mut ids = futures_util::future::join_all(puts).await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    let mut found = drain(&spool).await;
    found.sort_unstable();
    assert_eq!(found, (0..50).collect::<Vec<_>>());
    close(spool, thread);
}

#[tokio::test]
async fn a_batch_that_cannot_fit_is_refused() {
    let (_directory, path) = new_path();
    let (spool, thread) = Spool::open(&path, options(MIB)).unwrap();
    spool.put(&batch(1, 10)).await.unwrap();
    let refused = spool.put(&batch(2, 50_000)).await.unwrap_err();
    assert!(matches!(refused, SpoolError::TooLarge { .. }), "{refused}");
    assert_eq!(drain(&spool).await, [1]);
    close(spool, thread);
}

#[tokio::test]
async fn a_second_opener_is_refused_whoever_it_is() {
    let (_directory, path) = new_path();
    let (spool, thread) = open(&path);
    spool.put(&batch(1, 10)).await.unwrap();
    let refused = Spool::open(&path, options(MIB)).unwrap_err();
    assert!(matches!(refused, SpoolError::InUse { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    let other = child(&path, "open").output().unwrap();
    let text = String::from_utf8_lossy(&other.stdout);
    assert!(text.contains("refused: InUse"), "{text}");
    // Nor did the attempts harm the first.
    spool.put(&batch(2, 10)).await.unwrap();
    assert_eq!(drain(&spool).await, [1, 2]);
    close(spool, thread);
    close_again(&path);
}

fn close_again(path: &Path) {
    let (spool, thread) = open(path);
    close(spool, thread);
}

/// This test program again, in the role of another agent process.
fn child(path: &Path, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "spool::another_process",
            "--ignored",
            "--nocapture",
        ])
        .env("WATCHER_TEST_SPOOL", path)
        .env("WATCHER_TEST_SPOOL_ROLE", role)
        .stdout(Stdio::piped());
    command
}

/// Not a test: what [`child`] starts.
#[tokio::test]
#[ignore = "the other process of other tests"]
async fn another_process() {
    let (Ok(path), Ok(role)) = (
        std::env::var("WATCHER_TEST_SPOOL"),
        std::env::var("WATCHER_TEST_SPOOL_ROLE"),
    ) else {
        return;
    };
    let (spool, thread) = match Spool::open(Path::new(&path), options(64 * MIB)) {
        Ok(opened) => opened,
        Err(error) => {
            println!("refused: {error:?}");
            return;
        }
    };
    if role == "put" {
        let first = spool.opened().batches as u32;
        for n in first.. {
            spool.put(&batch(n, 50 + n % 700)).await.unwrap();
            println!("acknowledged {n}");
            std::io::stdout().flush().unwrap();
        }
    }
    close(spool, thread);
}

#[tokio::test]
async fn every_acknowledged_batch_survives_kill_9() {
    let (_directory, path) = new_path();
    let mut acknowledged = 0;
    for round in 0..12 {
        let mut process = child(&path, "put").spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        // A different moment each time: the kill falls between an acknowledgement and the next one's commit.
        let stop_after = 5 + round * 7;
        let mut seen = 0;
        for line in output.lines() {
            let line = line.unwrap();
            if let Some(n) = line.split("acknowledged ").nth(1) {
                acknowledged = n.parse::<u32>().unwrap() + 1;
                seen += 1;
            }
            if seen == stop_after {
                process.kill().unwrap();
            }
        }
        process.wait().unwrap();
        assert!(seen >= stop_after, "the child put {seen}");
        let (spool, thread) = open(&path);
        assert_eq!(spool.opened().recovered, None);
        assert!(spool.opened().batches >= u64::from(acknowledged));
        close(spool, thread);
    }
    let (spool, thread) = open(&path);
    let found = drain(&spool).await;
    // The last one may have been committed without its acknowledgement having been read.
    assert_eq!(found, (0..found.len() as u32).collect::<Vec<_>>());
    assert!(found.len() as u32 >= acknowledged);
    close(spool, thread);
}
