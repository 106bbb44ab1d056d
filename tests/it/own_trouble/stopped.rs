//! SIGSTOP and SIGCONT.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use super::{Oracle, add, query, summary};
use crate::support::database::{TestDatabase, number};
use crate::support::prober::full_backlog;
use crate::support::process::{Running, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_under_way_while_the_agent_was_stopped_are_nobodys_failures() {
    let database = TestDatabase::migrated().await;
    // At any time a fifth of these are waiting for their answer.
    let oracle = Oracle::start(Duration::from_secs(1));
    add(&database, oracle.address, 100, Duration::from_secs(2)).await;
    let silent = full_backlog("127.0.0.1:0".parse().unwrap());
    add(&database, silent.address, 10, Duration::from_secs(2)).await;
    let agent = Running::start(
        &["agent", "--partition", "0/1"],
        &[("DATABASE_URL", &database.url())],
    );
    let rows = async || number(&database.client().await, "select count(*) from metrics").await;
    eventually("first rows", async || (rows().await >= 50).then_some(())).await;
    for stopped_for in [Duration::from_secs(3), Duration::from_secs(12)] {
        agent.signal(Signal::STOP);
        sleep(stopped_for).await;
        agent.signal(Signal::CONT);
        let then = rows().await;
        eventually("rows of more than an interval", async || {
            (rows().await >= then + 150).then_some(())
        })
        .await;
    }
    let log = agent.log();
    agent.stop().await;

    let summary = summary(&database).await;
    println!("{summary}");
    let falsely = format!(
        "select count(*) from metrics m join endpoints e on e.id = m.endpoint_id \
         where outcome in ('down', 'degraded') and e.url like '%:{}/%'",
        oracle.address.port()
    );
    let client = database.client().await;
    assert_eq!(number(&client, &falsely).await, 0, "{summary}");
    let excused = "select count(*) from metrics where reason = 'paused'";
    assert!(number(&client, excused).await >= 10, "{summary}");
    // An answer that waited for us is up, but nobody should believe its time.
    let inflated = "select count(*) from metrics where duration_us > 2500000 and outcome = 'up' and not suspect";
    assert_eq!(number(&client, inflated).await, 0, "{summary}");
    let found = format!(
        "select count(*) from metrics m join endpoints e on e.id = m.endpoint_id \
         where outcome = 'down' and e.url like '%:{}/%'",
        silent.address.port()
    );
    assert!(number(&client, &found).await > 0, "{summary}");
    // The stop of 12 s is a gap; that of 3 s is shorter than any interval.
    let gaps = query(&database, "select reason::text from gaps").await;
    let gaps: Vec<String> = gaps.iter().map(|row| row.get(0)).collect();
    assert_eq!(gaps, ["paused"], "{log}");
}
