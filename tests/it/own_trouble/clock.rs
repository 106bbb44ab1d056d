//! A wall clock that jumps: Debian's libfaketime, told by a file, and without touching the monotonic clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Oracle, add, query, summary};
use crate::support::database::{TestDatabase, number};
use crate::support::process::{Running, eventually};

#[cfg(target_arch = "aarch64")]
const LIBRARY: &str = "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1";
#[cfg(not(target_arch = "aarch64"))]
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

struct FakeClock(tempfile::TempDir);

impl FakeClock {
    /// `None`, said aloud, where the library is not installed.
    fn start() -> Option<Self> {
        if !Path::new(LIBRARY).exists() {
            println!("skipped: {LIBRARY} is not there (apt-get install libfaketime)");
            return None;
        }
        let clock = Self(tempfile::tempdir().unwrap());
        clock.set("+0");
        Some(clock)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("offset")
    }

    fn set(&self, offset: &str) {
        let next = self.0.path().join("next");
        fs::write(&next, offset).unwrap();
        fs::rename(next, self.file()).unwrap();
    }

    fn env<'a>(&self, file: &'a str) -> [(&'a str, &'a str); 4] {
        [
            ("LD_PRELOAD", LIBRARY),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_jumps_spoils_no_duration_and_doubles_no_tick() {
    let Some(clock) = FakeClock::start() else {
        return;
    };
    let database = TestDatabase::migrated().await;
    let oracle = Oracle::start(Duration::from_millis(50));
    add(&database, oracle.address, 100, Duration::from_secs(2)).await;
    let (file, url) = (clock.file(), database.url());
    let mut env = vec![("DATABASE_URL", &*url)];
    env.extend(clock.env(file.to_str().unwrap()));
    let agent = Running::start(&["agent", "--partition", "0/1"], &env);
    let client = database.client().await;
    let rows = async || number(&client, "select count(*) from metrics").await;
    eventually("first rows", async || (rows().await >= 100).then_some(())).await;
    for offset in ["+1", "+0", "+3600", "+0", "-3600", "+0"] {
        clock.set(offset);
        let then = rows().await;
        eventually("rows of more than an interval", async || {
            (rows().await >= then + 150).then_some(())
        })
        .await;
    }
    let log = agent.log();
    agent.stop().await;
    let summary = summary(&database).await;
    println!("{summary}\n{log}");

    let odd = "select count(*) from metrics where outcome = 'up' and not suspect and duration_us not between 50000 and 1000000";
    assert_eq!(number(&client, odd).await, 0, "{summary}");
    assert_eq!(
        number(
            &client,
            "select count(*) from metrics where outcome = 'down' or lag_us < 0"
        )
        .await,
        0,
        "{summary}"
    );
    let doubled = "select count(*) from (select from metrics group by endpoint_id, time having count(*) > 1) twice";
    assert_eq!(number(&client, doubled).await, 0);
    // What each endpoint was probed for lies on its grid, with no hole outside the gaps.
    let holes = "select count(*) from (
        select time, lead(time) over (partition by endpoint_id order by time) as next from metrics
    ) ticks where next - time > interval '5 s' and not exists (
        select from gaps where during && tstzrange(time, next)
    )";
    assert_eq!(number(&client, holes).await, 0, "{log}");
    let gaps = query(
        &database,
        "select reason::text, extract(epoch from upper(during) - lower(during))::float8 from gaps order by lower(during)",
    )
    .await;
    let gaps: Vec<(String, f64)> = gaps.iter().map(|row| (row.get(0), row.get(1))).collect();
    // A step of 1 s is shorter than any interval; after a step back the schedule follows the monotonic clock, so that
    // only the steps forward are gaps: to +1 h, and none on the way back, through -1 h and home again.
    let steps: Vec<_> = gaps.iter().filter(|(_, s)| *s > 5.0).collect();
    assert!(
        steps
            .iter()
            .any(|(reason, s)| reason == "clock_step" && (3_595.0..3_606.0).contains(s)),
        "{gaps:?}"
    );
    assert!(
        gaps.iter().all(|(reason, _)| reason == "clock_step"),
        "{gaps:?}"
    );
}
