//! Descriptors and ports.

use std::net::TcpListener;
use std::time::Duration;

use super::network::{Apart, Socket};
use super::{Oracle, add, summary};
use crate::support::database::{TestDatabase, number};
use crate::support::process::{Running, eventually, get};

async fn rows(database: &TestDatabase, filter: &str) -> i64 {
    let sql = format!("select count(*) from metrics where {filter}");
    number(&database.client().await, &sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_runs_out_of_descriptors_keeps_those_it_needs_and_blames_nobody() {
    let database = TestDatabase::migrated().await;
    // 600 probes that each take 4 of 5 s: 480 under way, if they could.
    let oracle = Oracle::start(Duration::from_secs(4));
    add(&database, oracle.address, 600, Duration::from_secs(5)).await;
    let spool = tempfile::tempdir().unwrap();
    let agent = Running::start_under(
        &["prlimit", "--nofile=256:256"],
        &["agent", "--partition", "0/1", "--stop-grace", "1s"],
        &[
            ("DATABASE_URL", &database.url()),
            ("WATCHER_SPOOL_DIR", spool.path().to_str().unwrap()),
        ],
    );
    eventually("probes that could not be made", async || {
        (rows(&database, "outcome = 'skipped'").await >= 300).then_some(())
    })
    .await;
    eventually("probes that could", async || {
        (rows(&database, "outcome = 'up'").await >= 150).then_some(())
    })
    .await;
    assert_eq!(get(agent.listen, "/ready").await.unwrap().0, 200);
    let metrics = get(agent.listen, "/metrics").await.unwrap().1;
    assert!(metrics.contains("watcher_store_connected 1"), "{metrics}");
    agent.stop().await;
    let summary = summary(&database).await;
    println!("{summary}");
    assert_eq!(rows(&database, "outcome = 'down'").await, 0, "{summary}");
    let other =
        "outcome = 'skipped' and reason not in ('overload', 'descriptor_limit', 'shutdown')";
    assert_eq!(rows(&database, other).await, 0, "{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_free_ports_blames_nobody() {
    let Some(apart) = Apart::start(&["198.18.1.1"]) else {
        return;
    };
    apart.run(&["sysctl", "-q", "net.ipv4.ip_local_port_range=40000 40099"]);
    let database = TestDatabase::migrated().await;
    let socket = Socket::to(&database);
    let oracle = Oracle::on(
        TcpListener::bind("198.18.1.1:0").unwrap(),
        Duration::from_secs(4),
    );
    add(&database, oracle.address, 300, Duration::from_secs(5)).await;
    let agent = Running::start_under(
        &["ip", "netns", "exec", &apart.name],
        &["agent", "--partition", "0/1", "--stop-grace", "1s"],
        &[("DATABASE_URL", &socket.url(&database))],
    );
    eventually("probes without a port", async || {
        (rows(&database, "reason = 'port_exhausted'").await >= 100).then_some(())
    })
    .await;
    eventually("probes with one", async || {
        (rows(&database, "outcome = 'up'").await >= 80).then_some(())
    })
    .await;
    agent.stop().await;
    let summary = summary(&database).await;
    println!("{summary}");
    assert_eq!(rows(&database, "outcome = 'down'").await, 0, "{summary}");
}
