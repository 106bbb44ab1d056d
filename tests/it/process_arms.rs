//! Two arms against a real database: every tick once, each missing one its own arm's, and a difference that is there is
//! found.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::database::{TestDatabase, number, row};
use crate::support::process::{Running, eventually, watcher};

/// Answers at once, but takes its time for who comes with the token `slow`.
async fn picky_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                if String::from_utf8_lossy(&head).contains("Bearer slow") {
                    tokio::time::sleep(Duration::from_millis(60)).await;
                }
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

async fn json(database: &TestDatabase, arguments: &[&str]) -> Value {
    let output = watcher()
        .args(arguments)
        .env("DATABASE_URL", database.url())
        .output()
        .await
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// Due ticks without a row while the arm `arm` of (a, b) ran or should have, by arm.
async fn missing_of(database: &TestDatabase, arm: i32) -> i64 {
    let sql = format!(
        "with span as (select min(started) as since, max(ended) as until from agents)
         select count(*) from endpoints e cross join span
         cross join generate_series(grid_next(e.id, 5000, span.since), span.until, interval '5 seconds') as tick
         where tick_arm(e.id, grid_tick(e.id, 5000, tick), 2) = {arm}
           and exists (select from endpoint_schedules s where s.endpoint_id = e.id and s.valid @> tick)
           and (select min(started) from agents where arm_index = {arm}) <= tick
           and (select max(ended) from agents where arm_index = {arm}) > tick
           and not exists (select from metrics m where m.endpoint_id = e.id and m.time = tick)"
    );
    number(&database.client().await, &sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_arms_take_every_tick_once_and_their_difference_is_found() {
    let database = TestDatabase::migrated().await;
    let server = picky_server().await;
    let client = database.client().await;
    client
        .execute(
            "insert into endpoints (url, interval_s, settings)
             select $1 || n, 5, '{\"auth\": {\"bearer\": {\"secret_ref\": \"env:PACE\"}}}' from generate_series(1, 60) n",
            &[&format!("http://{server}/")],
        )
        .await
        .unwrap();
    let url = database.url();
    let start = |command: &[&str], arm: &'static str| {
        // The lists differ in their order alone.
        let arms = [
            "--arm",
            arm,
            "--arms",
            if arm == "fast" {
                "fast,slow"
            } else {
                "slow,fast"
            },
        ];
        let arguments: Vec<&str> = command.iter().copied().chain(arms).collect();
        let env = [
            ("DATABASE_URL", &*url),
            ("PACE", arm),
            ("WATCHER_AGENT_NAME", "node"),
        ];
        Running::start(&arguments, &env)
    };
    let mut fast = start(&["up", "--processes", "1"], "fast");
    let mut slow = start(&["agent"], "slow");
    fast.ready().await;
    slow.ready().await;
    let blocks = async || {
        let sql = "select coalesce(extract(epoch from max(time) - min(time)), 0)::bigint from metrics where agent = 'node/0/slow'";
        number(&client, sql).await
    };
    eventually("some rows of slow", async || {
        (blocks().await >= 6).then_some(())
    })
    .await;

    // Slow is killed, and comes back after one tick of each endpoint at least.
    slow.signal(Signal::KILL);
    slow.ended().await;
    let ticked = async || {
        let sql =
            "select extract(epoch from max(time))::bigint from metrics where agent = 'node/0/fast'";
        number(&client, sql).await
    };
    let then = ticked().await;
    eventually("two rounds of fast's ticks", async || {
        (ticked().await >= then + 11).then_some(())
    })
    .await;
    let mut slow = start(&["agent"], "slow");
    slow.ready().await;
    for seconds in [30, 46] {
        eventually("more rows of slow", async || {
            (blocks().await >= seconds).then_some(())
        })
        .await;
    }
    slow.stop().await;
    fast.stop().await;

    let audit = json(&database, &["audit", "--json", "--since", "10m"]).await;
    assert_eq!(audit["duplicates"], 0, "{audit}");
    assert_eq!(
        audit["missing_by"]["agent_died"], audit["missing"],
        "{audit}"
    );
    // Of 60 endpoints each lacks at least one tick of the arm that was killed, and none of the other.
    assert_eq!(missing_of(&database, 0).await, 0);
    let missing = missing_of(&database, 1).await;
    assert!(missing >= 60, "{missing}");
    assert_eq!(audit["missing"], missing, "{audit}");
    // Each row is of the agent whose tick it is.
    let strays = "select count(*) from metrics m join agents a on a.name = m.agent
        where tick_arm(m.endpoint_id, grid_tick(m.endpoint_id, 5000, m.time), a.arm_count) <> a.arm_index";
    assert_eq!(number(&client, strays).await, 0);
    let names: String = row(
        &client,
        "select string_agg(distinct agent, ' ' order by agent) from metrics",
        &[],
    )
    .await
    .get(0);
    assert_eq!(names, "node/0/fast node/0/slow");

    let compared = json(&database, &["compare", "fast", "slow", "--json"]).await;
    let median = &compared["median_us"];
    assert_eq!(compared["endpoints"], 60, "{compared}");
    assert!(median["low"].as_f64() > Some(40_000.0), "{compared}");
    assert!(median["high"].as_f64() < Some(80_000.0), "{compared}");
    assert_eq!(compared["a"]["lower_median_at"], 60, "{compared}");
    assert_eq!(compared["down"]["difference"], 0.0, "{compared}");
    assert!(compared["cpu_us"]["a"].as_f64() > Some(0.0), "{compared}");
    // The pace of the connection is the same.
    let connect = ["compare", "fast", "slow", "--json", "--metric", "connect"];
    let connect = json(&database, &connect).await;
    let difference = connect["median_us"]["difference"].as_f64().unwrap();
    assert!(difference.abs() < 10_000.0, "{connect}");
}

/// Exit code and what was said.
async fn said(database: &TestDatabase, arguments: &[&str]) -> (i32, String) {
    let output = watcher()
        .args(arguments)
        .env("DATABASE_URL", database.url())
        .output()
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_arms_is_refused_with_the_way_out() {
    let database = TestDatabase::migrated().await;
    for command in ["agent", "up"] {
        let (code, text) = said(&database, &[command, "--arms", "a,b"]).await;
        assert_eq!(code, 64, "{text}");
        assert!(
            text.contains("the arm \"default\" is none of the arms a,b; set the arm (--arm, WATCHER_ARM) to one of them"),
            "{text}"
        );
    }
    for (arguments, expected) in [
        (&["compare", "a", "a"][..], "both arms are \"a\"; name two"),
        (
            &["compare", "a", "b"],
            "no agent of arm \"a\" ran in this window; no agent did",
        ),
        (
            &["compare", "a", "b", "--since", "10m", "--until", "20m"],
            "no agent of arm",
        ),
        (
            &["compare", "a", "b", "--metric", "speed"],
            "invalid value 'speed'",
        ),
        (
            &[
                "compare",
                "a",
                "b",
                "--since",
                "2026-01-01T00:00:00Z",
                "--until",
                "2025-01-01T00:00:00Z",
            ],
            "is not before the window's end",
        ),
    ] {
        let (code, text) = said(&database, arguments).await;
        assert_eq!(code, 64, "{text}");
        assert!(text.contains(expected), "{text}");
    }
}
