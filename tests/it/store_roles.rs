//! What each role may do, by connecting as a login role that has it; and what the views say of known rows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use watcher::config::Problem;
use watcher::domain::{AgentIdentity, Arm, Batch, EndpointId, Partition, Sample, Timestamp};
use watcher::store::timescale::{Gap, SampleWriter, schema_state};
use watcher::store::{GapReason, HeldRemoval, SampleStore, Session, WritePath};

use crate::support::database::{TestDatabase, number, refusal, row};
use crate::support::login::Login;

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::default().plus(since.expect("a clock after 1970"))
}

fn identity(name: &str) -> Arc<AgentIdentity> {
    Arc::new(AgentIdentity {
        name: name.into(),
        location: "lab".into(),
    })
}

#[tokio::test]
async fn an_agent_may_do_its_work_and_nothing_else() {
    let database = TestDatabase::migrated().await;
    let admin = database.client().await;
    admin
        .batch_execute("insert into endpoints (id, url) values (1, 'http://x/')")
        .await
        .unwrap();
    let agent = Login::new(&database, "agent", "watcher_agent").await;
    let (store, client) = (agent.store(), agent.client().await);

    // Its work.
    let session = Session {
        agent: identity("a"),
        arm: Arm::label("default"),
        partition: Partition::ALL,
        started: now(),
    };
    let id = store
        .start_session(&session, Duration::ZERO, false)
        .await
        .unwrap();
    store.heartbeat(id, now(), None).await.unwrap();
    let mut seen = 0;
    let cursor = store
        .load_catalog(Partition::ALL, "lab", &mut |_| seen += 1)
        .await
        .unwrap();
    assert_eq!(seen, 1);
    store
        .catalog_changes(Partition::ALL, "lab", &cursor, &mut |_| {})
        .await
        .unwrap();
    store
        .set_problems(
            &session.agent,
            EndpointId(1),
            now(),
            &[Problem::of("url", "bad")],
        )
        .await
        .unwrap();
    store
        .record_gaps(
            &session,
            &[None, Some(EndpointId(1))].map(|endpoint| Gap {
                endpoint,
                from: now(),
                to: now(),
                reason: GapReason::Refused,
                samples: None,
                detail: None,
            }),
        )
        .await
        .unwrap();
    let held = HeldRemoval {
        endpoints: 5,
        of: 9,
        since: now(),
        until: now(),
    };
    for _ in 0..2 {
        let confirmed = store
            .hold_removal(&session.agent, Partition::ALL, &held)
            .await;
        assert!(!confirmed.unwrap());
    }
    let ids = [EndpointId(1)];
    assert_eq!(store.endpoints_present(&ids).await.unwrap().len(), 1);
    store
        .release_removal(&session.agent, Partition::ALL)
        .await
        .unwrap();
    store
        .set_problems(&session.agent, EndpointId(1), now(), &[])
        .await
        .unwrap();
    store
        .record_usage(&session.agent, now(), &Default::default())
        .await
        .unwrap();
    let mut writer = SampleWriter::new(store.database().clone());
    let samples = (0..10).map(|i| Sample::new(EndpointId(i), now())).collect();
    let batch = Batch {
        agent: session.agent.clone(),
        samples,
    };
    assert_eq!(writer.write(&batch, WritePath::Fast).await.unwrap(), 10);
    assert_eq!(writer.write(&batch, WritePath::Tolerant).await.unwrap(), 0);
    store.end_session(id, now()).await.unwrap();

    // Nothing else.
    for sql in [
        "select from metrics",
        "update metrics set cpu_us = 0",
        "delete from metrics",
        "truncate metrics",
        "drop table metrics",
        "select from gaps",
        "delete from gaps",
        "select from endpoint_gaps",
        "update endpoint_gaps set reason = 'refused'",
        "select endpoint_problems_found()",
        "select from agent_usage",
        "insert into endpoints (url) values ('http://y/')",
        "update endpoints set url = 'http://y/'",
        "delete from endpoints",
        "delete from endpoint_changes",
        "select from endpoint_schedules",
        "insert into endpoint_schedules select",
        "select from rate_cards",
        "update settings set raw_retention = null",
        "select from latency_5m",
        "select from refinery_schema_history",
        "create table mine (i integer)",
        "select apply_retention()",
    ] {
        let (state, message) = refusal(&client, sql).await;
        assert_eq!(state, "42501", "{sql}: {message}");
    }
    assert!(
        store
            .audit_horizon()
            .await
            .unwrap_err()
            .is_missing_privilege()
    );
    let state = schema_state(store.database()).await.unwrap();
    assert!(state.is_current(), "{state:?}");
    agent.remove().await;
}

#[tokio::test]
async fn an_agent_sees_and_changes_only_its_own_rows() {
    let database = TestDatabase::migrated().await;
    let mine = Login::new(&database, "mine", "watcher_agent").await;
    let other = Login::new(&database, "other", "watcher_agent").await;
    let session = |name| Session {
        agent: identity(name),
        arm: Arm::label("default"),
        partition: Partition::ALL,
        started: now(),
    };
    mine.store()
        .start_session(&session("m"), Duration::ZERO, false)
        .await
        .unwrap();
    mine.store()
        .set_problems(
            &identity("m"),
            EndpointId(1),
            now(),
            &[Problem::of("url", "bad")],
        )
        .await
        .unwrap();
    other
        .store()
        .start_session(&session("o"), Duration::ZERO, false)
        .await
        .unwrap();
    let client = other.client().await;
    for sql in [
        "update agents set last_seen = now()",
        "delete from agents",
        "update endpoint_problems set message = 'x'",
        "delete from endpoint_problems",
    ] {
        client.batch_execute(sql).await.expect(sql);
    }
    let forged = format!(
        "insert into agents (name, location, partition_index, partition_count, version, started, last_seen, db_role)
         values ('f', 'lab', 0, 1, 'v', now(), now(), '{}')",
        mine.name
    );
    assert_eq!(refusal(&client, &forged).await.0, "42501");
    let admin = database.client().await;
    let left: String = row(&admin, "select string_agg(name, ' ') from agents", &[])
        .await
        .get(0);
    assert_eq!(left, "m");
    assert_eq!(
        number(
            &admin,
            "select count(*) from endpoint_problems where message = 'bad'"
        )
        .await,
        1
    );
    mine.remove().await;
    other.remove().await;
}

#[tokio::test]
async fn a_reader_reads_the_views_and_nothing_else() {
    let database = TestDatabase::migrated().await;
    let reader = Login::new(&database, "reader", "watcher_reader").await;
    let client = reader.client().await;
    for view in [
        "latency_5m",
        "latency_hourly",
        "latency_daily",
        "availability_hourly",
        "availability_daily",
        "coverage_hourly",
        "cost_hourly",
        "cost_daily",
        "unit_price_now",
        "schema_version",
    ] {
        client
            .batch_execute(&format!("select * from {view}"))
            .await
            .expect(view);
    }
    for table in [
        "metrics",
        "endpoints",
        "agents",
        "gaps",
        "endpoint_problems",
        "agent_usage",
        "endpoint_schedules",
        "endpoint_changes",
        "rate_cards",
        "settings",
        "answered_for",
        "answered_ticks",
        "audit_horizon",
    ] {
        assert_eq!(
            refusal(&client, &format!("select from {table}")).await.0,
            "42501",
            "{table}"
        );
    }
    reader.remove().await;
}

#[tokio::test]
async fn one_who_may_edit_endpoints_needs_no_right_on_what_the_triggers_write() {
    let database = TestDatabase::migrated().await;
    let admin = database.client().await;
    let editor = Login::new(&database, "editor", "watcher_reader").await;
    let grant = format!(
        "grant select, insert, update, delete on endpoints to {}",
        editor.name
    );
    admin.batch_execute(&grant).await.unwrap();
    let client = editor.client().await;
    // A table of the same name that stands first in the caller's search path is not the one that is written.
    client
        .batch_execute(
            "create temporary table endpoint_changes (like public.endpoints);
             insert into endpoints (url) values ('http://x/'); update endpoints set interval_s = 5; delete from endpoints",
        )
        .await
        .unwrap();
    assert_eq!(
        number(&admin, "select count(*) from endpoint_changes").await,
        1
    );
    editor.remove().await;
}

#[tokio::test]
async fn the_views_say_what_the_rows_say() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    client
        .batch_execute(
            "insert into endpoints (id, name, url, interval_s) values (1, 'one', 'http://x/', 10);
             -- 100 durations of 1 to 100 ms; a suspect, a failure and a skipped one, which latency leaves out.
             insert into metrics (time, endpoint_id, outcome, reason, duration_us, connect_us, suspect, location, agent, cpu_us, bytes_sent, bytes_received)
             select time_bucket('5 minutes', now()) - interval '5 minutes' + i * interval '1 second', 1,
                case when i <= 90 then 'up' else 'degraded' end::probe_outcome, case when i > 90 then 'slow' end::probe_reason,
                i * 1000, 500, false, 'lab', 'a', 36, 1000, 9000
             from generate_series(1, 100) i
             union all
             select time_bucket('5 minutes', now()) - interval '5 minutes' + i * interval '1 second', 1,
                o::probe_outcome, r::probe_reason, d, null, s, 'lab', 'a', 36, 1000, 9000
             from (values (101, 'up', null, 900000, true), (102, 'down', 'dns_error', 800000, false), (103, 'skipped', 'overload', null, false)) v (i, o, r, d, s)",
        )
        .await
        .unwrap();
    for view in ["latency_5m", "latency_hourly", "latency_daily"] {
        let sql = format!(
            "select concat_ws(' ', samples, p50_us, p95_us, p99_us, min_us, max_us, avg_us, avg_connect_us, avg_tls_us) from {view}"
        );
        let text: String = row(&client, &sql, &[]).await.get(0);
        assert_eq!(
            text, "100 50000 95000 99000 1000 100000 50500 500",
            "{view}"
        );
    }
    for view in ["availability_hourly", "availability_daily"] {
        let sql = format!(
            "select concat_ws(' ', up, degraded, down, skipped, probed), availability from {view}"
        );
        let found = row(&client, &sql, &[]).await;
        assert_eq!(found.get::<_, String>(0), "91 10 1 1 102", "{view}");
        assert!((found.get::<_, f64>(1) - 101.0 / 102.0).abs() < 1e-9);
    }
    // 36 µs of a vCPU at 0.36 an hour: 3.6e-9; 1 kB out at 1 a GB: 1e-6; 9 kB in at 2: 1.8e-5; storage is free.
    client
        .batch_execute(
            "insert into rate_cards values (null, now() - interval '1 day', 0.36, 1, 2, 0, 'EUR'),
                ('elsewhere', now() - interval '1 hour', 99, 99, 99, 99, 'EUR'), (null, now() + interval '1 day', 99, 99, 99, 99, 'EUR')",
        )
        .await
        .unwrap();
    let found = row(
        &client,
        "select price_per_probe::float8, price_per_1000_probes::float8, price_per_month::float8, concat_ws(' ', endpoint_id, name, url, location, probes, currency)
         from unit_price_now",
        &[],
    )
    .await;
    let price = 3.6e-9 + 1e-6 + 1.8e-5;
    let near =
        |found: f64, wanted: f64| assert!((found / wanted - 1.0).abs() < 1e-9, "{found} {wanted}");
    near(found.get(0), price);
    near(found.get(1), price * 1_000.0);
    near(found.get(2), price * 262_800.0);
    assert_eq!(found.get::<_, String>(3), "1 one http://x/ lab 102 EUR");
    for view in ["cost_hourly", "cost_daily"] {
        let sql = format!(
            "select cost::float8, (cost_cpu + cost_traffic + cost_storage)::float8, probes from {view}"
        );
        let found = row(&client, &sql, &[]).await;
        near(found.get(0), price * 103.0);
        near(found.get(1), price * 103.0);
        assert_eq!(found.get::<_, i64>(2), 102);
    }
    // Storage: what a row takes, for as long as it is kept.
    client
        .batch_execute("update rate_cards set gb_month_stored = 1; update settings set raw_retention = interval '1460 hours'")
        .await
        .unwrap();
    let bytes: f64 = row(
        &client,
        "select bytes_stored_per_probe::float8 from unit_price_now",
        &[],
    )
    .await
    .get(0);
    assert!((100.0..250.0).contains(&bytes), "{bytes}");
    let with_storage: f64 = row(
        &client,
        "select price_per_probe::float8 from unit_price_now",
        &[],
    )
    .await
    .get(0);
    near(with_storage, price + bytes * 2.0 / 1e9);
}
