//! `watcher plan` with the real binary on a real database.

use crate::support::database::TestDatabase;
use crate::support::process::watcher;

/// Runs `watcher plan --json` and gives its exit code and one object a location.
async fn plan(
    database: &TestDatabase,
    arguments: &[&str],
) -> (Option<i32>, Vec<serde_json::Value>) {
    let output = watcher()
        .args(["plan", "--json"])
        .args(arguments)
        .env("DATABASE_URL", database.url())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let objects = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (output.status.code(), objects.collect())
}

#[tokio::test]
async fn measured_costs_go_before_assumed_ones() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    client
        .batch_execute(
            "insert into endpoints (url, interval_s, timeout_ms) select 'http://a/', 10, 5000 from generate_series(1, 100);
             insert into endpoints (url, interval_s, locations) values ('http://b/', 5, '{far}');
             insert into agents (name, location, partition_index, partition_count, version, started, last_seen)
                 values ('a', 'near', 0, 1, 'test', now(), now());
             insert into agent_usage (agent, location, time, cpu_us, rss_bytes, bytes_sent, bytes_received, probes, rows_written)
                 values ('a', 'near', now(), 12000, 1, 1, 1, 100, 100);
             insert into metrics (time, endpoint_id, location, outcome, lag_us, duration_us, suspect, hops, bytes_sent, bytes_received, cpu_us, agent)
                 values (now(), 1, 'near', 'up', 1, 400000, false, 0, 100, 900, 80, 'a')",
        )
        .await
        .unwrap();

    let (code, locations) = plan(&database, &["--processes", "2"]).await;
    assert_eq!(code, Some(0));
    let [far, near] = &locations[..] else {
        panic!("{locations:?}");
    };
    assert_eq!(near["location"], "near");
    assert_eq!(near["endpoints"], 100);
    assert_eq!(near["probes_per_s"], 10.0);
    assert_eq!(near["cpu_us_per_probe"], 120.0);
    assert_eq!(near["in_flight"], 4.0);
    assert_eq!(near["in_flight_worst"], 50.0);
    assert_eq!(near["rows_per_day"], 864_000.0);
    assert_eq!(near["assumed"], serde_json::json!([]));
    // Everywhere and `far` itself; nothing was measured there.
    assert_eq!(far["endpoints"], 101);
    assert_eq!(far["assumed"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn a_limit_that_would_be_met_is_said_and_is_exit_code_1() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    client
        .batch_execute(
            "insert into endpoints (url, interval_s, locations) values ('http://a/', 5, '{here}')",
        )
        .await
        .unwrap();
    let more = ["--more", "100000", "--interval", "5s", "--processes", "1"];
    let (code, locations) = plan(&database, &more).await;
    assert_eq!(code, Some(1));
    let warnings = locations[0]["warnings"].to_string();
    assert!(warnings.contains("run more processes"), "{warnings}");
    assert!(warnings.contains("would be under way"), "{warnings}");
}
