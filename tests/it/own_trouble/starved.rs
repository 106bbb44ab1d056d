//! A fifth of a core, and a neighbour in the same group that takes what there is.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use watcher::domain::Timestamp;

use super::{Oracle, add, query, summary};
use crate::support::database::{TestDatabase, number};
use crate::support::prober::full_backlog;
use crate::support::process::{Running, eventually};

/// A control group with a CPU quota; removed when dropped. Its processes must have ended.
struct Quota(PathBuf);

impl Quota {
    /// Of so many percent of one core. `None`, said aloud, where this user or machine has no such groups.
    fn percent(percent: u32) -> Option<Self> {
        let name = format!("watcher_test_{}", std::process::id());
        let made = if fs::exists("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").unwrap_or(false) {
            let group = PathBuf::from("/sys/fs/cgroup/cpu").join(name);
            fs::create_dir(&group).and_then(|()| {
                let group = Self(group);
                fs::write(
                    group.0.join("cpu.cfs_quota_us"),
                    format!("{}", percent * 1_000),
                )?;
                Ok(group)
            })
        } else {
            let group = PathBuf::from("/sys/fs/cgroup").join(name);
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu");
            fs::create_dir(&group).and_then(|()| {
                let group = Self(group);
                fs::write(
                    group.0.join("cpu.max"),
                    format!("{} 100000", percent * 1_000),
                )?;
                Ok(group)
            })
        };
        made.inspect_err(|error| println!("skipped: no control group with a CPU quota: {error}"))
            .ok()
    }

    fn take(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A process that never sleeps.
struct Hog(Child);

impl Hog {
    fn start(quota: &Quota) -> Self {
        let hog = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        quota.take(hog.id() as i32);
        Self(hog)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts all threads of this process, those to come included, before everything else on this machine: an oracle that is
/// late itself accuses others.
fn be_on_time() {
    let pid = std::process::id().to_string();
    let set = Command::new("chrt")
        .args(["-a", "-f", "-p", "10", &pid])
        .status();
    if !set.is_ok_and(|status| status.success()) {
        println!("the oracle may be late: no real-time priority");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_starved_agent_blames_nobody_and_says_which_samples_it_spoiled() {
    let Some(quota) = Quota::percent(20) else {
        return;
    };
    let database = TestDatabase::migrated().await;
    let agent = Running::start(
        &["agent", "--partition", "0/1"],
        &[("DATABASE_URL", &database.url())],
    );
    let hog = Hog::start(&quota);
    quota.take(agent.pid().as_raw_nonzero().get());
    be_on_time();
    let oracle = Oracle::start(Duration::from_millis(20));
    add(&database, oracle.address, 30, Duration::from_secs(1)).await;
    let silent = full_backlog("127.0.0.1:0".parse().unwrap());
    add(&database, silent.address, 5, Duration::from_secs(1)).await;
    let seconds = std::env::var("WATCHER_TEST_STARVED_S").map_or(15, |s| s.parse().unwrap());
    let rows = 7 * seconds;
    for _ in 0..1 + seconds / 20 {
        // Each wait is bounded by 30 s.
        let have = number(&database.client().await, "select count(*) from metrics").await;
        eventually("rows of a starved agent", async || {
            let now = number(&database.client().await, "select count(*) from metrics").await;
            (now >= rows.min(have + 140)).then_some(())
        })
        .await;
    }
    drop(hog);
    drop(agent);
    drop(quota);

    let sql = format!(
        "select e.url like '%:{}/%', time, lag_us, duration_us, error_us, suspect, m.outcome::text, m.reason::text \
         from metrics m join endpoints e on e.id = m.endpoint_id",
        oracle.address.port()
    );
    let (mut judged, mut wrong, mut flagged, mut unbounded, mut silent_down) = (0, 0, 0, 0, 0);
    let mut missed = Vec::new();
    for row in query(&database, &sql).await {
        let outcome: &str = row.get(6);
        if !row.get::<_, bool>(0) {
            assert_ne!(outcome, "up");
            silent_down += u32::from(outcome == "down");
            continue;
        }
        assert_ne!(outcome, "down", "{}", row.get::<_, &str>(7));
        if outcome == "skipped" {
            continue;
        }
        let micros = |index| row.get::<_, i32>(index) as u64;
        let time: std::time::SystemTime = row.get(1);
        let scheduled = time.duration_since(std::time::UNIX_EPOCH).unwrap();
        let started = Timestamp::from_micros(scheduled.as_micros() as i64)
            .plus(Duration::from_micros(micros(2)));
        let duration = Duration::from_micros(micros(3));
        let error = Duration::from_micros(micros(4));
        let Some(truth) = oracle.took(started, started.plus(duration)) else {
            continue;
        };
        judged += 1;
        let added = duration.saturating_sub(truth);
        unbounded += u32::from(added > error + Duration::from_millis(1));
        if added > Duration::from_millis(2) {
            wrong += 1;
            if row.get::<_, bool>(5) {
                flagged += 1;
            } else {
                missed.push((added, error));
            }
        }
    }
    println!(
        "judged {judged}, wrong by more than 2 ms {wrong}, flagged {flagged}, above their bound {unbounded}, missed {missed:?}; \
         silent targets found down {silent_down}; {}",
        summary(&database).await
    );
    assert!(
        wrong >= 10,
        "the agent was not starved: {wrong} of {judged}"
    );
    // 99.9 % is measured over a longer run; of these few, one may be the oracle's own lateness.
    assert!(missed.len() <= 1 + wrong / 100, "{missed:?} of {wrong}");
}
