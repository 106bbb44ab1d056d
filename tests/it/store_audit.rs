//! The audit's arithmetic, on histories made by hand: minutes count from an instant half an hour ago.

use std::collections::BTreeMap;

use watcher::domain::Timestamp;
use watcher::store::timescale::{Audit, AuditWindow};

use crate::support::database::number;
use crate::support::scene::Scene;

mod arms;

/// Two endpoints every 10 s (so 6 ticks a minute each), known since an hour before minute 0.
impl Scene {
    async fn new() -> Self {
        let scene = Self::empty().await;
        scene
            .sql("insert into endpoints (id, url, interval_s) values (1, 'http://a/', 10), (2, 'http://b/', 10)")
            .await;
        scene
            .sql("update endpoint_schedules set valid = tstzrange(minute(-60), null)")
            .await;
        scene
    }

    /// An agent of share `index` of `count` that ran from minute `from`; `end` is `ended` and `end_reason`.
    async fn agent(
        &self,
        location: &str,
        index: i32,
        count: i32,
        from: f64,
        end: Option<(f64, &str)>,
    ) {
        let end = match end {
            Some((at, why)) => format!("minute({at}), '{why}'"),
            None => "null, null".to_owned(),
        };
        self.sql(&format!(
            "insert into agents (name, location, partition_index, partition_count, version, started, last_seen, ended, end_reason)
             values ('agent', '{location}', {index}, {count}, 'test', minute({from}), minute({from}), {end})"
        ))
        .await;
    }

    /// One row for each grid point of `endpoint` (of those that `filter` passes) between two minutes.
    async fn rows(&self, endpoint: i64, location: &str, from: f64, to: f64, filter: &str) {
        self.sql(&format!(
            "insert into metrics (time, endpoint_id, outcome, reason, location, agent)
             select t, {endpoint}, 'up', null, '{location}', 'agent' from generate_series(
                 grid_next({endpoint}, 10000, minute({from})), minute({to}) - interval '1 microsecond', interval '10 seconds')
                 with ordinality as tick (t, n)
             where {filter}"
        ))
        .await;
    }

    async fn audit(&self, from: i64, to: i64) -> Audit {
        let window = self.window(from * 60, to * 60);
        let audit = self.store.audit(window).await.expect("an audit");
        let (total, endpoints) = self.store.audit_endpoints(window).await.expect("an audit");
        assert_eq!(total, audit);
        let sum = |of: fn(&Audit) -> i64| endpoints.iter().map(|e| of(&e.audit)).sum::<i64>();
        assert_eq!(
            (
                sum(|a| a.due),
                sum(|a| a.stored),
                sum(|a| a.off),
                sum(|a| a.missing)
            ),
            (audit.due, audit.stored, audit.off, audit.missing)
        );
        assert_eq!(audit.due, audit.stored + audit.off + audit.missing);
        assert_eq!(
            audit.stored,
            audit.up + audit.degraded + audit.down + audit.skipped.values().sum::<i64>()
        );
        assert_eq!(audit.missing, audit.missing_by.values().sum::<i64>());
        audit
    }
}

fn reasons<const N: usize>(of: [(&str, i64); N]) -> BTreeMap<String, i64> {
    of.map(|(reason, count)| (reason.to_owned(), count)).into()
}

#[tokio::test]
async fn a_complete_run_is_clean_and_nothing_is_due_from_nobody() {
    let scene = Scene::new().await;
    // Nobody has ever been anywhere: no location, so nothing is due.
    assert_eq!(scene.audit(0, 10).await, Audit::default());

    scene.agent("lab", 0, 1, 0.0, None).await;
    for endpoint in [1, 2] {
        scene.rows(endpoint, "lab", 0.0, 10.0, "true").await;
    }
    let expected = Audit {
        due: 120,
        stored: 120,
        up: 120,
        ..Audit::default()
    };
    assert_eq!(scene.audit(0, 10).await, expected);
}

#[tokio::test]
async fn ticks_before_the_start_and_after_an_orderly_stop_are_off() {
    let scene = Scene::new().await;
    scene.agent("lab", 0, 1, 2.0, Some((7.0, "stopped"))).await;
    for endpoint in [1, 2] {
        scene.rows(endpoint, "lab", 2.0, 7.0, "true").await;
    }
    let audit = scene.audit(0, 10).await;
    assert_eq!((audit.due, audit.stored, audit.off), (120, 60, 60));
    assert_eq!(audit.missing, 0);
}

#[tokio::test]
async fn a_lost_row_is_missing_and_unexplained_unless_a_gap_of_that_share_and_place_names_it() {
    let scene = Scene::new().await;
    scene.agent("lab", 0, 1, 0.0, None).await;
    scene.rows(1, "lab", 0.0, 10.0, "true").await;
    scene
        .rows(2, "lab", 0.0, 10.0, "n not in (7, 31, 32)")
        .await;
    let audit = scene.audit(0, 10).await;
    assert_eq!(audit.missing_by, reasons([("unexplained", 3)]));

    // Another place's, another share's, and one that names two of the three ticks, twice over.
    scene
        .sql(
            "insert into gaps (agent, location, partition_index, partition_count, during, reason) values
                ('a', 'elsewhere', 0, 1, tstzrange(minute(0), minute(10)), 'paused'),
                ('a', 'lab', 1, 2, tstzrange(minute(0), minute(10)), 'paused'),
                ('a', 'lab', 0, 2, tstzrange(minute(4), minute(8)), 'agent_died'),
                ('a', 'lab', 0, 1, tstzrange(minute(5), minute(6)), 'buffer_full')",
        )
        .await;
    let audit = scene.audit(0, 10).await;
    assert_eq!(
        audit.missing_by,
        reasons([("buffer_full", 2), ("unexplained", 1)])
    );

    // The row was refused from a moment on that lies before the third.
    scene
        .sql(
            "insert into endpoint_problems (endpoint_id, location, field, message, agent, since) values
                (2, 'lab', 'regex', 'does not compile', 'a', minute(0)),
                (1, 'lab', 'regex', 'another endpoint', 'a', minute(0))",
        )
        .await;
    let audit = scene.audit(0, 10).await;
    assert_eq!(
        audit.missing_by,
        reasons([("buffer_full", 2), ("endpoint_problem", 1)])
    );
}

#[tokio::test]
async fn what_concerns_one_endpoint_explains_that_one_alone_also_after_it_has_passed() {
    let scene = Scene::new().await;
    scene.agent("lab", 0, 1, 0.0, None).await;
    // Both lack the ticks of minutes 1 to 4 and 8 to 9.
    for endpoint in [1, 2] {
        let filter = "n not between 7 and 24 and n not between 49 and 54";
        scene.rows(endpoint, "lab", 0.0, 10.0, filter).await;
    }
    scene
        .sql(
            "insert into endpoint_gaps (endpoint_id, location, during, reason, agent) values
                (1, 'lab', tstzrange(minute(1), minute(2)), 'catalog_behind', 'a'),
                (2, 'elsewhere', tstzrange(minute(1), minute(2)), 'catalog_behind', 'a');
             insert into gaps (agent, location, partition_index, partition_count, during, reason) values
                ('a', 'lab', 0, 1, tstzrange(minute(1.5), minute(3)), 'paused');
             insert into endpoint_problems (endpoint_id, location, field, message, agent, since) values
                (1, 'lab', 'regex', 'does not compile', 'a', minute(2)),
                (2, 'lab', 'regex', 'does not compile', 'a', minute(8));
             delete from endpoint_problems where endpoint_id = 1;
             update endpoint_gaps set during = tstzrange(minute(2), minute(4))
                where endpoint_id = 1 and reason = 'endpoint_problem'",
        )
        .await;
    let at = |minute: i64| Timestamp::from_micros(scene.zero_us + minute * 60_000_000);
    let window = AuditWindow {
        since: at(0),
        until: at(10),
    };
    let (total, endpoints) = scene.store.audit_endpoints(window).await.unwrap();
    let by: Vec<_> = endpoints
        .iter()
        .map(|e| (e.endpoint_id, e.audit.missing_by.clone()))
        .collect();
    assert_eq!(
        by,
        [
            (
                1,
                reasons([
                    ("catalog_behind", 3),
                    ("endpoint_problem", 6),
                    ("paused", 9),
                    ("unexplained", 6)
                ])
            ),
            (
                2,
                reasons([("endpoint_problem", 6), ("paused", 9), ("unexplained", 9)])
            ),
        ]
    );
    assert_eq!(total.missing, 48);
    // The death of somebody who has left no row is told from what is not known.
    scene
        .sql("update agents set ended = minute(8), end_reason = 'died'")
        .await;
    let audit = scene.audit(0, 10).await;
    assert_eq!(audit.missing_by["agent_died"], 12);
    assert_eq!(audit.missing_by["unexplained"], 9);
}

#[tokio::test]
async fn skipped_rows_are_stored_and_rows_off_the_grid_count_nowhere() {
    let scene = Scene::new().await;
    scene.agent("lab", 0, 1, 0.0, None).await;
    scene.rows(1, "lab", 0.0, 1.0, "true").await;
    scene.rows(2, "lab", 0.0, 1.0, "true").await;
    scene
        .sql(
            "update metrics set outcome = 'skipped', reason = 'overload' where endpoint_id = 2;
             update metrics set outcome = 'down', reason = 'dns_error' where time = (select max(time) from metrics where endpoint_id = 1);
             update metrics set outcome = 'degraded', reason = 'slow' where time = (select min(time) from metrics where endpoint_id = 1);
             insert into metrics (time, endpoint_id, outcome, location, agent)
                select time + interval '1 millisecond', endpoint_id, 'up', location, agent from metrics where endpoint_id = 1;
             insert into metrics (time, endpoint_id, outcome, location, agent)
                select time + interval '3 microseconds', endpoint_id, 'up', location, agent from metrics where endpoint_id = 2;
             insert into metrics (time, endpoint_id, outcome, location, agent) values (minute(0.5), 77, 'up', 'lab', 'x')",
        )
        .await;
    let audit = scene.audit(0, 1).await;
    assert_eq!(
        (audit.due, audit.up, audit.degraded, audit.down),
        (12, 4, 1, 1)
    );
    assert_eq!(audit.skipped, reasons([("overload", 6)]));
    assert_eq!((audit.missing, audit.duplicates), (0, 0));
}

#[tokio::test]
async fn after_a_change_of_the_interval_each_tick_is_judged_by_the_schedule_of_its_time() {
    let scene = Scene::new().await;
    scene.agent("lab", 0, 1, 0.0, None).await;
    scene.rows(2, "lab", 0.0, 10.0, "true").await;
    scene
        .sql(
            "update endpoint_schedules set valid = tstzrange(lower(valid), minute(5)) where endpoint_id = 1;
             insert into endpoint_schedules (endpoint_id, interval_ms, timeout_ms, valid)
             values (1, 30000, 10000, tstzrange(minute(5) + interval '3 seconds', null));
             insert into metrics (time, endpoint_id, outcome, location, agent)
             select t, 1, 'up', 'lab', 'agent' from generate_series(
                grid_next(1, 30000, minute(5) + interval '3 seconds'), minute(10), interval '30 seconds') t",
        )
        .await;
    // The old schedule's ticks, and those between the two, which are neither due nor missing.
    scene.rows(1, "lab", 0.0, 5.05, "true").await;
    let audit = scene.audit(0, 10).await;
    assert_eq!((audit.missing, audit.off), (0, 0));
    assert_eq!(audit.due, 60 + 30 + number(
        &scene.client,
        &format!(
            "select grid_points(1, 30000, timestamptz 'epoch' + interval '1 microsecond' * {0}::double precision, timestamptz 'epoch' + interval '1 microsecond' * {1}::double precision)",
            scene.zero_us + 303_000_000,
            scene.zero_us + 600_000_000
        ),
    ).await);
}

#[tokio::test]
async fn a_death_is_a_gap_until_the_successor_starts_and_a_stop_is_not() {
    let scene = Scene::new().await;
    scene.agent("lab", 0, 1, 0.0, Some((3.0, "died"))).await;
    scene.agent("lab", 0, 1, 4.0, Some((6.0, "stopped"))).await;
    scene.agent("lab", 0, 1, 8.0, None).await;
    for endpoint in [1, 2] {
        for (from, to) in [(0.0, 3.0), (4.0, 6.0), (8.0, 10.0)] {
            scene.rows(endpoint, "lab", from, to, "true").await;
        }
    }
    let audit = scene.audit(0, 10).await;
    assert_eq!(audit.missing_by, reasons([("agent_died", 12)]));
    assert_eq!(audit.off, 24);
}

#[tokio::test]
async fn shares_are_judged_each_by_its_own_sessions_also_when_their_number_changes() {
    let scene = Scene::new().await;
    // Share 1 of 2 (endpoint 1) stops at minute 3; share 0 (endpoint 2) goes on; at minute 5 one process takes both.
    scene.agent("lab", 0, 2, 0.0, Some((5.0, "stopped"))).await;
    scene.agent("lab", 1, 2, 0.0, Some((3.0, "stopped"))).await;
    scene.agent("lab", 0, 1, 5.0, None).await;
    scene.rows(2, "lab", 0.0, 10.0, "true").await;
    scene.rows(1, "lab", 0.0, 3.0, "true").await;
    scene.rows(1, "lab", 5.0, 10.0, "n <> 1").await;
    let audit = scene.audit(0, 10).await;
    assert_eq!(audit.off, 12);
    assert_eq!(audit.missing_by, reasons([("unexplained", 1)]));
}

#[tokio::test]
async fn each_location_is_due_by_itself_and_one_that_nobody_serves_is_off() {
    let scene = Scene::new().await;
    scene.agent("lab", 0, 1, 0.0, None).await;
    scene.agent("edge", 0, 1, 0.0, None).await;
    scene
        .sql("update endpoint_schedules set locations = '{lab,moon}' where endpoint_id = 2")
        .await;
    scene.rows(1, "lab", 0.0, 10.0, "true").await;
    scene.rows(1, "edge", 0.0, 10.0, "n > 2").await;
    scene.rows(2, "lab", 0.0, 10.0, "true").await;
    let audit = scene.audit(0, 10).await;
    assert_eq!((audit.due, audit.stored, audit.off), (240, 178, 60));
    assert_eq!(audit.missing_by, reasons([("unexplained", 2)]));
}

#[tokio::test]
async fn repeated_rows_are_counted() {
    let scene = Scene::new().await;
    scene.agent("lab", 0, 1, 0.0, None).await;
    // Impossible with the unique index; the audit does not take its word for it.
    scene.sql("drop index metrics_identity").await;
    scene.rows(1, "lab", 0.0, 10.0, "true").await;
    scene.rows(1, "lab", 0.0, 1.0, "true").await;
    scene.rows(1, "lab", 0.0, 1.0, "n = 1").await;
    let at = |minute: i64| Timestamp::from_micros(scene.zero_us + minute * 60_000_000);
    let window = AuditWindow {
        since: at(0),
        until: at(10),
    };
    assert_eq!(scene.store.audit(window).await.unwrap().duplicates, 7);
}

#[tokio::test]
async fn a_window_ends_where_timeouts_and_flushes_have_passed_or_now_when_nobody_is_alive() {
    let scene = Scene::new().await;
    // Seconds before the instant of the question.
    let ago = async || {
        let sql = "select extract(epoch from now() - until)::bigint from audit_horizon";
        number(&scene.client, sql).await
    };
    let horizon = scene.store.audit_horizon().await.unwrap();
    assert!(horizon.as_micros() > scene.zero_us + 29 * 60_000_000);
    assert_eq!(ago().await, 0);
    scene.agent("lab", 0, 1, 0.0, None).await;
    assert_eq!(ago().await, 0, "silent for half an hour");
    scene.sql("update agents set last_seen = now()").await;
    assert_eq!(ago().await, 13);
    scene.sql("update endpoints set timeout_ms = 2000").await;
    assert_eq!(ago().await, 5);
    scene
        .sql("update agents set ended = now(), end_reason = 'stopped'")
        .await;
    assert_eq!(ago().await, 0);
}

#[tokio::test]
async fn the_hourly_coverage_says_the_same_as_the_audit() {
    let scene = Scene::new().await;
    scene
        .agent("lab", 0, 1, -20.0, Some((8.0, "stopped")))
        .await;
    scene.rows(1, "lab", -20.0, 8.0, "true").await;
    scene.rows(2, "lab", -20.0, 8.0, "n not in (3, 4)").await;
    scene
        .sql("update metrics set outcome = 'skipped', reason = 'overload' where time = (select min(time) from metrics where endpoint_id = 1)")
        .await;
    let now = number(
        &scene.client,
        "select (extract(epoch from now()) * 1000000)::bigint",
    )
    .await;
    let audit = scene
        .store
        .audit(AuditWindow {
            since: Timestamp::from_micros(scene.zero_us - 3_600_000_000),
            until: Timestamp::from_micros(now),
        })
        .await
        .unwrap();
    let row = scene
        .client
        .query_one(
            "select sum(due)::bigint, sum(stored)::bigint, sum(skipped)::bigint, sum(missing)::bigint, sum(off)::bigint,
                count(*), bool_and(due = stored + missing + off) from coverage_hourly",
            &[],
        )
        .await
        .unwrap();
    let sums: Vec<i64> = (0..5).map(|i| row.get(i)).collect();
    // The view's window ends a moment later.
    assert!(
        (0..=2).contains(&(sums[0] - audit.due)),
        "{sums:?} {audit:?}"
    );
    assert_eq!(sums[1..4], [audit.stored, 1, 2]);
    assert!(
        row.get::<_, i64>(5) >= 4,
        "two hours or three, two endpoints"
    );
    assert!(row.get::<_, bool>(6));
    drop(scene.database);
}
