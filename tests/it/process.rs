//! The real binary against a real database and a real target: what an operator relies on.

use std::time::Duration;

use rustix::process::{Signal, kill_process, test_kill_process};
use serde_json::Value;
use tokio::time::Instant;

use watcher::target::Target;

use crate::support::chaos_proxy::ChaosProxy;
use crate::support::database::{TestDatabase, number};
use crate::support::process::{Running, eventually, free_address, get, watcher};

use crate::support::target::target;

/// A migrated database with `count` endpoints on the target, every 5 s.
async fn stage(count: i64, query: &str) -> (TestDatabase, Target) {
    let database = TestDatabase::migrated().await;
    let target = target();
    add(&database, &target, count, query).await;
    (database, target)
}

async fn add(database: &TestDatabase, target: &Target, count: i64, query: &str) {
    let insert = "insert into endpoints (url, interval_s) select $1 || '/e/' || n || $2, 5 from generate_series(1, $3::bigint) n";
    let client = database.client().await;
    client
        .execute(insert, &[&target.http_url().to_string(), &query, &count])
        .await
        .unwrap();
}

async fn audit(database: &TestDatabase, arguments: &[&str]) -> Value {
    let output = watcher()
        .args(["audit", "--json", "--since", "10m"])
        .args(arguments)
        .env("DATABASE_URL", database.url())
        .output()
        .await
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

async fn count(database: &TestDatabase, sql: &str) -> i64 {
    number(&database.client().await, sql).await
}

async fn rows(database: &TestDatabase) -> i64 {
    count(database, "select count(*) from metrics").await
}

fn assert_clean(audit: &Value) {
    assert_eq!(
        (&audit["missing"], &audit["duplicates"]),
        (&Value::from(0), &Value::from(0)),
        "{audit}"
    );
    assert!(audit["due"].as_i64() > Some(0), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_take_every_due_tick_once_and_stop_clean() {
    let (database, target) = stage(200, "").await;
    let mut up = Running::start(
        &["up", "--processes", "2"],
        &[("DATABASE_URL", &database.url())],
    );
    up.ready().await;
    eventually("rows of 8 s", async || {
        (rows(&database).await >= 320).then_some(())
    })
    .await;
    let metrics = get(up.listen, "/metrics").await.unwrap().1;
    assert!(
        metrics.contains("watcher_probes_total{partition=\"0\",outcome=\"up\"}"),
        "{metrics}"
    );
    assert!(
        metrics.contains("watcher_probes_total{partition=\"1\",outcome=\"up\"}"),
        "{metrics}"
    );
    assert_eq!(get(up.listen, "/live").await.unwrap().0, 200);
    let took = up.stop().await;
    assert!(took < Duration::from_secs(8), "{took:?}");

    let audit = audit(&database, &[]).await;
    assert_clean(&audit);
    assert_eq!(
        audit["up"].as_i64().unwrap() + audit["skipped"]["shutdown"].as_i64().unwrap_or(0),
        audit["stored"].as_i64().unwrap()
    );
    // The target is the oracle: it served what the rows say was probed, and both processes have their share.
    let probed = count(
        &database,
        "select count(*) from metrics where outcome <> 'skipped'",
    )
    .await;
    assert_eq!(target.count("/e/") as i64, probed);
    let shares = count(&database, "select count(distinct agent) from metrics").await;
    assert_eq!(shares, 2);
    let strays =
        "select count(*) from metrics where split_part(agent, '/', 2)::int <> endpoint_id % 2";
    assert_eq!(count(&database, strays).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_answers_for_probes_that_are_cut_off() {
    let (database, _target) = stage(300, "?latency=4s").await;
    let mut up = Running::start(
        &["up", "--processes", "2", "--stop-grace", "1s"],
        &[("DATABASE_URL", &database.url())],
    );
    up.ready().await;
    eventually("probes that ended", async || {
        (rows(&database).await >= 100).then_some(())
    })
    .await;
    let took = up.stop().await;
    assert!(took < Duration::from_secs(8), "{took:?}");
    let audit = audit(&database, &[]).await;
    assert_clean(&audit);
    assert!(audit["skipped"]["shutdown"].as_i64() > Some(50), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_comes_back_and_its_gap_has_a_name() {
    let (database, _target) = stage(200, "").await;
    let mut up = Running::start(
        &["up", "--processes", "2"],
        &[("DATABASE_URL", &database.url())],
    );
    up.ready().await;
    eventually("rows", async || {
        (rows(&database).await >= 100).then_some(())
    })
    .await;
    let [first, _second] = up.children()[..] else {
        panic!("{:?}", up.children())
    };
    kill_process(first, Signal::KILL).unwrap();
    eventually("a new agent", async || {
        (up.children().len() == 2 && !up.children().contains(&first)).then_some(())
    })
    .await;
    up.ready().await;
    let then = rows(&database).await;
    eventually("rows of both", async || {
        (rows(&database).await >= then + 300).then_some(())
    })
    .await;
    up.stop().await;
    let audit = audit(&database, &[]).await;
    assert_eq!(audit["duplicates"], 0, "{audit}");
    let missing = audit["missing"].as_i64().unwrap();
    assert_eq!(
        audit["missing_by"]["agent_died"].as_i64().unwrap_or(0),
        missing,
        "{audit}"
    );
    // The sibling went on: what is missing belongs to one partition.
    let died = count(
        &database,
        "select count(*) from agents where end_reason = 'died'",
    )
    .await;
    assert_eq!(died, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_end_when_their_supervisor_is_killed() {
    let (database, target) = stage(20, "").await;
    let mut up = Running::start(
        &["up", "--processes", "2"],
        &[("DATABASE_URL", &database.url())],
    );
    up.ready().await;
    let agents = up.children();
    assert_eq!(agents.len(), 2);
    up.signal(Signal::KILL);
    let killed = Instant::now();
    up.ended().await;
    eventually("no agent", async || {
        // An orphan that has ended may wait for its reaper as a zombie.
        let alive = |pid: &rustix::process::Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
                .unwrap_or_default();
            test_kill_process(*pid).is_ok() && !stat.contains(") Z ")
        };
        (!agents.iter().any(alive)).then_some(())
    })
    .await;
    assert!(killed.elapsed() < Duration::from_secs(10));
    let served = target.count("/e/");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(target.count("/e/"), served, "somebody goes on probing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_waits_for_the_database_and_then_works() {
    let (database, _target) = stage(20, "").await;
    let proxy = ChaosProxy::start(database.address(), false);
    let url = database.url_through(proxy.address);
    let up = Running::start(&["up", "--processes", "1"], &[("DATABASE_URL", &url)]);
    eventually("live", async || {
        (get(up.listen, "/live").await?.0 == 200).then_some(())
    })
    .await;
    let (status, body) = get(up.listen, "/ready").await.unwrap();
    assert_eq!(
        (status, body.as_str()),
        (503, "not ready: waiting for the database\n")
    );
    proxy.heal();
    eventually("rows", async || (rows(&database).await > 40).then_some(())).await;
    up.stop().await;
    assert_clean(&audit(&database, &[]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_loses_and_doubles_nothing() {
    let (database, target) = stage(100, "").await;
    let proxy = ChaosProxy::start(database.address(), true);
    let url = database.url_through(proxy.address);
    let mut up = Running::start(&["up", "--processes", "1"], &[("DATABASE_URL", &url)]);
    up.ready().await;
    for _ in 0..3 {
        let before = rows(&database).await;
        eventually("rows", async || {
            (rows(&database).await > before + 20).then_some(())
        })
        .await;
        proxy.cut();
        let served = target.count("/e/");
        // Probing goes on meanwhile.
        eventually("probes", async || {
            (target.count("/e/") > served + 60).then_some(())
        })
        .await;
        proxy.heal();
    }
    let before = rows(&database).await;
    eventually("rows again", async || {
        (rows(&database).await > before).then_some(())
    })
    .await;
    up.stop().await;
    assert_clean(&audit(&database, &[]).await);
    let probed = count(
        &database,
        "select count(*) from metrics where outcome <> 'skipped'",
    )
    .await;
    assert_eq!(target.count("/e/") as i64, probed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_during_an_outage_loses_nothing_and_the_next_run_tells_the_rest() {
    let (database, target) = stage(100, "").await;
    let proxy = ChaosProxy::start(database.address(), true);
    let folder = tempfile::tempdir().unwrap();
    let env = [
        ("DATABASE_URL", database.url_through(proxy.address)),
        (
            "WATCHER_SPOOL_DIR",
            folder.path().to_string_lossy().into_owned(),
        ),
    ];
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut up = Running::start(&["up", "--processes", "2"], &env);
    up.ready().await;
    eventually("rows", async || (rows(&database).await > 50).then_some(())).await;
    proxy.cut();
    let served = target.count("/e/");
    eventually("probes", async || {
        (target.count("/e/") > served + 60).then_some(())
    })
    .await;
    let took = up.stop().await;
    assert!(took < Duration::from_secs(8), "{took:?}");
    let stored = rows(&database).await;

    proxy.heal();
    let mut up = Running::start(&["up", "--processes", "1"], &env);
    up.ready().await;
    eventually("the backlog", async || {
        (rows(&database).await > stored + 100).then_some(())
    })
    .await;
    eventually("an empty spool", async || {
        let metrics = get(up.listen, "/metrics").await?.1;
        let rows = metrics
            .lines()
            .find(|line| line.starts_with("watcher_spool_rows{"))?;
        rows.ends_with(" 0").then_some(())
    })
    .await;
    up.stop().await;
    assert_clean(&audit(&database, &[]).await);
    let probed = count(
        &database,
        "select count(*) from metrics where outcome <> 'skipped'",
    )
    .await;
    assert_eq!(target.count("/e/") as i64, probed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_reach_a_running_agent_and_disturb_no_other() {
    let (database, target) = stage(50, "").await;
    let mut up = Running::start(
        &["up", "--processes", "2"],
        &[("DATABASE_URL", &database.url())],
    );
    up.ready().await;
    let client = database.client().await;
    let insert = "insert into endpoints (url, interval_s, regex) values ($1, 5, $2) returning id";
    let id: i64 = client
        .query_one(insert, &[&format!("{}/new", target.http_url()), &"hello"])
        .await
        .unwrap()
        .get(0);
    eventually("the new endpoint is probed", async || {
        (target.count("/new") > 0).then_some(())
    })
    .await;

    let update = "update endpoints set url = $2 where id = $1";
    client
        .execute(update, &[&id, &format!("{}/other", target.http_url())])
        .await
        .unwrap();
    eventually("the changed endpoint is probed", async || {
        (target.count("/other") > 0).then_some(())
    })
    .await;

    client
        .execute("update endpoints set regex = '(' where id = $1", &[&id])
        .await
        .unwrap();
    let why = eventually("a problem", async || {
        let problem =
            "select field || ': ' || message from endpoint_problems where endpoint_id = $1";
        client
            .query_opt(problem, &[&id])
            .await
            .unwrap()
            .map(|row| row.get::<_, String>(0))
    })
    .await;
    assert!(why.starts_with("regex: "), "{why}");

    client
        .execute("update endpoints set regex = null where id = $1", &[&id])
        .await
        .unwrap();
    let problems = format!("select count(*) from endpoint_problems where endpoint_id = {id}");
    eventually("no problem", async || {
        (count(&database, &problems).await == 0).then_some(())
    })
    .await;
    let served = target.count("/other");
    eventually("it is probed again", async || {
        (target.count("/other") > served).then_some(())
    })
    .await;

    client
        .execute("delete from endpoints where id = $1", &[&id])
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let served = target.count("/other");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(target.count("/other"), served, "it is deleted");
    up.stop().await;
    assert_clean(&audit(&database, &[]).await);
}

#[tokio::test]
async fn a_missing_setting_a_bad_one_and_a_taken_port_are_said_in_one_line() {
    let run = async |arguments: &[&str], env: &[(&str, &str)]| {
        let output = watcher()
            .args(arguments)
            .envs(env.iter().copied())
            .output()
            .await
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said) = run(&["up"], &[]).await;
    assert!(
        code == 64 && said.contains("DATABASE_URL: is not set"),
        "{code} {said}"
    );
    let (code, said) = run(
        &["up"],
        &[
            ("DATABASE_URL", "postgres://u@h/d"),
            ("DATABASE_URL_FILE", "/x"),
        ],
    )
    .await;
    assert!(code == 64 && said.contains("both set"), "{code} {said}");
    let (code, said) = run(
        &["agent", "--partition", "2/2"],
        &[("DATABASE_URL", "postgres://u@127.0.0.1/d")],
    )
    .await;
    assert!(code == 64 && said.contains("0 <= I < N"), "{code} {said}");
    let (code, said) = run(&["up", "--batch-age", "soon"], &[]).await;
    assert!(code == 64 && said.contains("30s"), "{code} {said}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = run(
        &["up"],
        &[
            ("DATABASE_URL", "postgres://u@127.0.0.1:1/d"),
            ("WATCHER_LISTEN", &address),
        ],
    )
    .await;
    assert!(
        code == 1 && said.contains(&address) && said.contains("WATCHER_LISTEN"),
        "{code} {said}"
    );

    let folder = [
        ("DATABASE_URL", "postgres://u@127.0.0.1:1/d"),
        ("WATCHER_SPOOL_DIR", "/proc/nowhere"),
    ];
    let (code, said) = run(&["up"], &folder).await;
    assert!(
        code == 64 && said.contains("/proc/nowhere") && said.contains("writable"),
        "{code} {said}"
    );

    let nobody = format!("postgres://u:p@{}/d", free_address());
    let (code, said) = run(
        &["wait-db", "--timeout", "1s"],
        &[("DATABASE_URL", &nobody)],
    )
    .await;
    assert_eq!(code, 75, "{said}");
    assert!(!said.contains("u:p"), "{said}");
}
