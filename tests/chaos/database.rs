//! The database goes away, comes back, or takes nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::time::sleep;

use crate::instance::{self, Stop};
use crate::scenario::{Outcome, Run, Scenario};
use crate::stage::{Ending, INTERVAL_S, Stage};
use crate::support::chaos_proxy::ChaosProxy;
use crate::support::process::get;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "restart",
        what: "the server restarts, fast and immediate in turn",
        rounds: 100,
        smoke: Some(2),
        rate: 2_000,
        run: |run| Box::pin(restart(run)),
    },
    Scenario {
        name: "outage",
        what: "the server is down for 3 minutes",
        rounds: 1,
        smoke: None,
        rate: 2_000,
        run: |run| Box::pin(outage(run)),
    },
    Scenario {
        name: "absent-at-start",
        what: "the server is not there for the first minute",
        rounds: 1,
        smoke: None,
        rate: 500,
        run: |run| Box::pin(absent_at_start(run)),
    },
    Scenario {
        name: "black-hole",
        what: "packets to and from the server vanish",
        rounds: 10,
        smoke: None,
        rate: 200,
        run: |run| Box::pin(black_hole(run)),
    },
    Scenario {
        name: "half-open",
        what: "connections to the server fall silent for good, sockets stay open",
        rounds: 20,
        smoke: None,
        rate: 200,
        run: |run| Box::pin(half_open(run)),
    },
    Scenario {
        name: "readonly",
        what: "the server takes no writes for some seconds",
        rounds: 20,
        smoke: None,
        rate: 500,
        run: |run| Box::pin(readonly(run)),
    },
    Scenario {
        name: "poison",
        what: "the server refuses the rows of one endpoint in fifty",
        rounds: 1,
        smoke: Some(1),
        rate: 500,
        run: |run| Box::pin(poison(run)),
    },
];

/// The bar of FAULTS on memory, per process.
const MEMORY_MIB_MAX: u64 = 256;

fn usual_figures(outcome: &mut Outcome, ending: &Ending) {
    outcome.figure("RSS max", format!("{} MiB", ending.memory_mib));
    outcome.figure("drain", format!("{:.1} s", ending.drained.as_secs_f64()));
    outcome.figure("exit", format!("{:.1} s", ending.took.as_secs_f64()));
    outcome.figure("store errors", ending.store_errors);
    outcome.figure("in memory before the stop", ending.in_hand);
    outcome.bar(ending.dropped == 0, format!("{} dropped", ending.dropped));
    outcome.bar(
        ending.in_hand >= 0,
        format!("{} more stored than produced", -ending.in_hand),
    );
}

async fn restart(run: &mut Run) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let up = stage.up(&stage.url, &[]).await?;
    stage.loaded(1).await?;
    let (mut seen, mut unready) = (0, Duration::ZERO);
    let mut errors = 0;
    for round in 0..run.rounds {
        sleep(run.rng.millis(1_000, 4_000)).await;
        let how = if round % 2 == 0 {
            Stop::Fast
        } else {
            Stop::Immediate
        };
        let began = Instant::now();
        run.instance.restart(how).await?;
        unready = unready.max(began.elapsed());
        // The connections that stood are gone, whatever they were doing; agents meet that at their next batch.
        let mut now = errors;
        for _ in 0..30 {
            now = up
                .metric("watcher_store_errors_total")
                .await
                .unwrap_or(errors);
            if now > errors {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        seen += u64::from(now > errors);
        errors = now;
        if round % 10 == 9 || run.smoke {
            run.say(format_args!(
                "{} restarts, {errors} store errors, {} rows",
                round + 1,
                stage.rows().await?
            ));
        }
    }
    let (judged, ending) = stage.end(up).await?;
    let mut outcome = Outcome::of(judged);
    outcome.nothing_lost();
    outcome.must_be_seen(seen, u64::from(run.rounds / 2).max(1));
    outcome.figure("restart max", format!("{:.1} s", unready.as_secs_f64()));
    usual_figures(&mut outcome, &ending);
    Ok(outcome)
}

async fn outage(run: &mut Run) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let mut up = stage.up(&stage.url, &[]).await?;
    stage.loaded(i64::from(run.rate) * 5).await?;
    let mut outcome = Outcome::default();
    let (mut fresh_max, mut drain_max) = (Duration::ZERO, Duration::ZERO);
    for round in 0..run.rounds {
        let before = stage.target.total().await?;
        run.instance.stop(Stop::Fast).await?;
        let down = if run.smoke { 10 } else { 180 };
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(down) {
            sleep(Duration::from_secs(5)).await;
            up.look_at_memory();
        }
        let served = stage.target.total().await? - before;
        let due = (f64::from(run.rate) * began.elapsed().as_secs_f64()) as i64;
        outcome.bar(
            served * 10 >= due * 9,
            format!("{served} probes of {due} during the outage"),
        );
        let spooled = up.metric("watcher_spool_rows").await.context("/metrics")?;
        outcome.bar(spooled > 0, "nothing was spooled");
        run.instance.start_again().await?;
        let fresh = stage.fresh_rows().await?;
        let drained = stage.drained(&up).await?;
        (fresh_max, drain_max) = (fresh_max.max(fresh), drain_max.max(drained + fresh));
        run.say(format_args!(
            "outage {}: {spooled} spooled, fresh rows after {:.1} s, drained after {:.1} s",
            round + 1,
            fresh.as_secs_f64(),
            (drained + fresh).as_secs_f64()
        ));
        outcome.seen += 1;
        outcome.figure("spooled", spooled);
    }
    let (judged, ending) = stage.end(up).await?;
    outcome.judged = judged;
    outcome.nothing_lost();
    outcome.figure(
        "fresh rows after",
        format!("{:.1} s", fresh_max.as_secs_f64()),
    );
    outcome.figure(
        "backlog gone after",
        format!("{:.1} s", drain_max.as_secs_f64()),
    );
    usual_figures(&mut outcome, &ending);
    if !run.smoke {
        outcome.bar(
            fresh_max <= Duration::from_secs(10),
            "fresh rows later than 10 s",
        );
        outcome.bar(
            ending.memory_mib <= MEMORY_MIB_MAX,
            format!("{} MiB resident", ending.memory_mib),
        );
    }
    Ok(outcome)
}

async fn absent_at_start(run: &mut Run) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let mut outcome = Outcome::default();
    let (mut first_max, mut ready_max) = (Duration::ZERO, Duration::ZERO);
    let absence = Duration::from_secs(if run.smoke { 5 } else { 60 });
    for _ in 0..run.rounds {
        let before = stage.rows().await?;
        run.instance.stop(Stop::Fast).await?;
        // From the second round on there is a snapshot to start from, and nothing to wait for.
        let waits = [("WATCHER_CATALOG_SNAPSHOT", "off")];
        let mut up = stage.start_up(&stage.url, &waits)?;
        let (pid, began) = (up.pid()?, Instant::now());
        let mut answers = 0;
        while began.elapsed() < absence {
            sleep(Duration::from_millis(500)).await;
            match get(up.listen, "/live").await {
                Some((200, _)) => answers += 1,
                // Before it listens; afterwards each answer counts.
                other => ensure!(answers == 0, "/live: {other:?}"),
            }
            if answers > 0 {
                let (status, _) = get(up.listen, "/ready").await.context("/ready")?;
                ensure!(status == 503, "/ready: {status}");
            }
        }
        ensure!(answers > 0 && up.pid()? == pid, "it does not live");
        let said = up.last_words();
        outcome.bar(
            said.contains("waiting for the database"),
            "it does not say what it waits for",
        );
        run.instance.start_again().await?;
        let client = instance::accepting(&stage.url).await?;
        let returned = Instant::now();
        let mut ready = None;
        loop {
            if ready.is_none() && matches!(get(up.listen, "/ready").await, Some((200, _))) {
                ready = Some(returned.elapsed());
            }
            let rows: i64 = client
                .query_one("select count(*) from metrics", &[])
                .await?
                .get(0);
            if rows > before {
                break;
            }
            ensure!(
                returned.elapsed() < Duration::from_secs(60),
                "no rows:\n{}",
                up.last_words()
            );
            sleep(Duration::from_millis(20)).await;
        }
        let first = returned.elapsed();
        up.ready().await?;
        ready_max = ready_max.max(ready.unwrap_or(first));
        first_max = first_max.max(first);
        run.say(format_args!(
            "ready after {:.2} s, first rows after {:.2} s",
            ready.unwrap_or(first).as_secs_f64(),
            first.as_secs_f64()
        ));
        outcome.seen += 1;
        let (judged, ending) = stage.end(up).await?;
        outcome.judged = judged;
        outcome.figure("exit", format!("{:.1} s", ending.took.as_secs_f64()));
    }
    outcome.nothing_lost();
    outcome.figure("absent", format!("{} s", absence.as_secs()));
    outcome.figure("ready after", format!("{:.2} s", ready_max.as_secs_f64()));
    outcome.figure(
        "first rows after",
        format!("{:.2} s", first_max.as_secs_f64()),
    );
    if !run.smoke {
        outcome.bar(
            first_max <= Duration::from_secs(2),
            "first rows later than 2 s after the server takes connections",
        );
    }
    Ok(outcome)
}

/// Drops all packets to and from a port of this network namespace, or ends that.
async fn drop_packets(port: u16, drop: bool) -> anyhow::Result<()> {
    ensure!(
        std::env::var_os("WATCHER_CHAOS_NAMESPACE").is_some(),
        "needs a network of its own; run scripts/chaos as root"
    );
    for side in ["--dport", "--sport"] {
        let status = tokio::process::Command::new("iptables")
            .args([
                if drop { "-I" } else { "-D" },
                "INPUT",
                "-i",
                "lo",
                "-p",
                "tcp",
            ])
            .args([side, &port.to_string(), "-j", "DROP"])
            .status()
            .await?;
        ensure!(status.success(), "iptables: {status}");
    }
    Ok(())
}

/// As when a cable is pulled: neither side hears that the other has gone.
async fn black_hole(run: &mut Run) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let up = stage
        .up(&stage.url, &[("WATCHER_WRITE_TIMEOUT", "4s")])
        .await?;
    stage.loaded(1).await?;
    // The server's socket file is no packet.
    let beside = run.instance.socket_url(&stage.database).await?;
    let client = instance::connect(&beside).await?;
    let sessions = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name like 'watcher/%' and client_addr is not null";
    let mut outcome = Outcome::default();
    let (mut freed_max, mut fresh_max) = (Duration::ZERO, Duration::ZERO);
    let port = run.instance.port().await?;
    for round in 0..run.rounds {
        sleep(run.rng.millis(1_000, 3_000)).await;
        let held: i64 = client.query_one(sessions, &[]).await?.get(0);
        drop_packets(port, true).await?;
        let began = Instant::now();
        while client.query_one(sessions, &[]).await?.get::<_, i64>(0) > 0 {
            ensure!(
                began.elapsed() < Duration::from_secs(120),
                "the server keeps our sessions"
            );
            sleep(Duration::from_millis(50)).await;
        }
        let freed = began.elapsed();
        freed_max = freed_max.max(freed);
        drop_packets(port, false).await?;
        let fresh = stage.fresh_rows().await?;
        fresh_max = fresh_max.max(fresh);
        outcome.seen += u64::from(held > 0);
        run.say(format_args!(
            "round {}: {held} sessions freed after {:.1} s, fresh rows {:.1} s after the heal",
            round + 1,
            freed.as_secs_f64(),
            fresh.as_secs_f64()
        ));
    }
    let (judged, ending) = stage.end(up).await?;
    outcome.judged = judged;
    outcome.nothing_lost();
    let seen = outcome.seen;
    outcome.must_be_seen(seen, u64::from(run.rounds));
    outcome.figure(
        "sessions freed after",
        format!("{:.1} s at most", freed_max.as_secs_f64()),
    );
    outcome.figure(
        "fresh rows after",
        format!("{:.1} s", fresh_max.as_secs_f64()),
    );
    // 15 s by its settings; one more for looking.
    outcome.bar(
        freed_max <= Duration::from_secs(16),
        "the server kept a session longer than 15 s",
    );
    usual_figures(&mut outcome, &ending);
    Ok(outcome)
}

async fn half_open(run: &mut Run) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let proxy = ChaosProxy::start(run.instance.address().await?, true);
    let url = stage.url_through(proxy.address)?;
    let settings = [
        ("WATCHER_WRITE_TIMEOUT", "4s"),
        ("WATCHER_BATCH_AGE", "200ms"),
    ];
    let up = stage.up(&url, &settings).await?;
    stage.loaded(1).await?;
    let mut outcome = Outcome::default();
    let mut fresh_max = Duration::ZERO;
    for round in 0..run.rounds {
        let before = proxy.seen().silenced;
        proxy.silence();
        let served = stage.target.total().await?;
        // Longer than the writer's deadline, so that it has to be met.
        sleep(run.rng.millis(5_000, 8_000)).await;
        outcome.bar(stage.target.total().await? > served, "no probes meanwhile");
        proxy.heal();
        let fresh = stage.fresh_rows().await?;
        fresh_max = fresh_max.max(fresh);
        outcome.seen += u64::from(proxy.seen().silenced > before);
        run.say(format_args!(
            "round {}: fresh rows after {:.1} s",
            round + 1,
            fresh.as_secs_f64()
        ));
    }
    let (judged, ending) = stage.end(up).await?;
    outcome.judged = judged;
    outcome.nothing_lost();
    let seen = outcome.seen;
    outcome.must_be_seen(seen, u64::from(run.rounds));
    outcome.figure("connections silenced", proxy.seen().silenced);
    outcome.figure(
        "fresh rows after",
        format!("{:.1} s", fresh_max.as_secs_f64()),
    );
    usual_figures(&mut outcome, &ending);
    Ok(outcome)
}

async fn readonly(run: &mut Run) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let up = stage.up(&stage.url, &[]).await?;
    stage.loaded(1).await?;
    let admin = run.instance.client("postgres").await?;
    let mut outcome = Outcome::default();
    let mut fresh_max = Duration::ZERO;
    let mut errors = 0;
    for _ in 0..run.rounds {
        admin
            .batch_execute("alter system set default_transaction_read_only = on")
            .await?;
        admin.batch_execute("select pg_reload_conf()").await?;
        sleep(run.rng.millis(3_000, 8_000)).await;
        let now = up
            .metric("watcher_store_errors_total")
            .await
            .context("/metrics")?;
        outcome.seen += u64::from(now > errors);
        errors = now;
        admin
            .batch_execute("set default_transaction_read_only = off")
            .await?;
        admin
            .batch_execute("alter system reset default_transaction_read_only")
            .await?;
        admin.batch_execute("select pg_reload_conf()").await?;
        fresh_max = fresh_max.max(stage.fresh_rows().await?);
    }
    let (judged, ending) = stage.end(up).await?;
    outcome.judged = judged;
    outcome.nothing_lost();
    let seen = outcome.seen;
    outcome.must_be_seen(seen, u64::from(run.rounds));
    outcome.figure(
        "fresh rows after",
        format!("{:.1} s", fresh_max.as_secs_f64()),
    );
    usual_figures(&mut outcome, &ending);
    Ok(outcome)
}

async fn poison(run: &mut Run) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let client = stage.client().await?;
    let refuse = "alter table metrics add constraint poison check (endpoint_id % 50 <> 7)";
    client.batch_execute(refuse).await?;
    let up = stage.up(&stage.url, &[]).await?;
    let rounds = i64::from(run.rounds);
    stage.loaded(rounds * 3 * i64::from(run.rate)).await?;
    stage.fresh_rows().await?;
    let names = [
        "watcher_samples_dropped_total",
        "watcher_samples_stored_total",
    ];
    let counts = up.metrics(&names).await.context("/metrics")?;
    let (status, took) = up.stop().await?;
    ensure!(status.success(), "watcher up ended with {status}");
    let judged = stage.judge().await?;
    let poisoned = i64::from(run.rate * INTERVAL_S / 50);
    let mut outcome = Outcome::of(judged);
    outcome.sound();
    let judged = outcome.judged.clone();
    let others = judged
        .lost_by
        .iter()
        .filter(|(id, _)| *id % 50 != 7)
        .map(|(_, lost)| lost)
        .sum::<i64>();
    outcome.bar(others == 0, format!("{others} of other endpoints lost"));
    let refused = judged.missing_for("refused");
    outcome.bar(
        judged.missing == refused,
        format!("missing: {}", judged.missing_by()),
    );
    // The oracle knows of these too: served, and in no row. All but those that asked the target nothing, as far as is
    // known: on a starved machine a poisoned endpoint's tick may be skipped, and its sample is refused like any other.
    let unasked =
        "select count(*) from refused_samples where sample->>'outcome' in ('skipped', 'down')";
    let unasked: i64 = client.query_one(unasked, &[]).await?.get(0);
    outcome.bar(
        (refused - unasked..=refused).contains(&judged.lost),
        format!(
            "{} served without a row, {refused} refused, of which {unasked} may not have been served",
            judged.lost
        ),
    );
    outcome.must_be_seen(refused.unsigned_abs(), 1);
    outcome.figure("endpoints poisoned", poisoned);
    outcome.figure("dropped by then", counts[0]);
    outcome.figure("exit", format!("{:.1} s", took.as_secs_f64()));
    Ok(outcome)
}
