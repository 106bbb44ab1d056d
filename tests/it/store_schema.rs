//! The schema by itself: defaults, constraints, the history that the triggers write, migrations.

use std::time::Instant;

use tokio_postgres::Client;
use watcher::domain::{EndpointId, Grid, Interval, Timestamp};
use watcher::store::timescale::{MigrateError, MigrateStep, migrate, schema_state};

use crate::support::database::{TestDatabase, number, open, refusal, row};

#[tokio::test]
async fn a_url_alone_makes_an_endpoint() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    client
        .batch_execute(
            "insert into endpoints (url, interval_s, regex) values ('http://x/', 30, 'ok')",
        )
        .await
        .unwrap();
    client
        .batch_execute("insert into endpoints (url) values ('http://x/')")
        .await
        .unwrap();
    let text: String = row(
        &client,
        "select string_agg(concat_ws(' ', id, kind, interval_s, tags, enabled, settings, regex, timeout_ms, locations), '; ' order by id) from endpoints",
        &[],
    )
    .await
    .get(0);
    assert_eq!(text, "1 http 30 {} t {} ok; 2 http 60 {} t {}");
}

#[tokio::test]
async fn a_bad_endpoint_is_refused_by_a_constraint_whose_name_says_why() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let long = "x".repeat(8_193);
    let table = [
        ("interval_s", "4", "endpoints_interval_s_between_5_and_300"),
        (
            "interval_s",
            "301",
            "endpoints_interval_s_between_5_and_300",
        ),
        (
            "timeout_ms",
            "0",
            "endpoints_timeout_ms_above_0_and_at_most_the_interval",
        ),
        (
            "timeout_ms",
            "60001",
            "endpoints_timeout_ms_above_0_and_at_most_the_interval",
        ),
        (
            "degraded_after_ms",
            "0",
            "endpoints_degraded_after_ms_above_0",
        ),
        (
            "cert_warn_days",
            "-1",
            "endpoints_cert_warn_days_not_negative",
        ),
        (
            "url",
            "''",
            "endpoints_url_not_empty_and_at_most_8192_bytes",
        ),
        (
            "url",
            &format!("'{long}'"),
            "endpoints_url_not_empty_and_at_most_8192_bytes",
        ),
        ("kind", "''", "endpoints_kind_not_empty"),
        (
            "name",
            "''",
            "endpoints_name_not_empty_and_at_most_255_characters",
        ),
        (
            "group_name",
            "''",
            "endpoints_group_name_not_empty_and_at_most_255_characters",
        ),
        ("tags", "'{a,null}'", "endpoints_tags_without_null"),
        (
            "locations",
            "'{}'",
            "endpoints_locations_not_empty_use_null_for_everywhere",
        ),
        (
            "locations",
            "'{null}'",
            "endpoints_locations_not_empty_use_null_for_everywhere",
        ),
        ("settings", "'[]'", "endpoints_settings_is_an_object"),
        (
            "regex",
            "repeat('x', 65537)",
            "endpoints_regex_at_most_64_kib",
        ),
        (
            "regex_not",
            "repeat('x', 65537)",
            "endpoints_regex_not_at_most_64_kib",
        ),
    ];
    for (column, value, constraint) in table {
        let url = if column == "url" { "" } else { "url, " };
        let url_value = if column == "url" { "" } else { "'http://x/', " };
        let sql = format!("insert into endpoints ({url}{column}) values ({url_value}{value})");
        let (state, message) = refusal(&client, &sql).await;
        assert_eq!(state, "23514", "{column} = {value}: {message}");
        assert!(
            message.contains(constraint),
            "{column} = {value}: {message}"
        );
    }
    assert_eq!(number(&client, "select count(*) from endpoints").await, 0);
}

#[tokio::test]
async fn names_are_unique_in_their_group_and_urls_are_not() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let insert = |group: &str, name: &str| {
        format!(
            "insert into endpoints (url, group_name, name) values ('http://x/', {group}, {name})"
        )
    };
    for (group, name) in [
        ("null", "'a'"),
        ("'g'", "'a'"),
        ("null", "null"),
        ("null", "null"),
        ("'g'", "null"),
        ("'g'", "null"),
    ] {
        client.batch_execute(&insert(group, name)).await.unwrap();
    }
    for group in ["null", "'g'"] {
        let (state, message) = refusal(&client, &insert(group, "'a'")).await;
        assert_eq!(state, "23505");
        assert!(
            message.contains("endpoints_name_unique_in_its_group"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn the_grid_is_the_same_in_sql_and_in_rust() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let ids = [
        0,
        1,
        2,
        3,
        1_000_000,
        2_147_483_647,
        2_147_483_648,
        9_007_199_254_740_993,
        i64::MAX,
        -1,
        i64::MIN,
    ];
    for id in ids {
        for seconds in [5, 7, 60, 299, 300] {
            let grid = Grid::new(EndpointId(id), Interval::from_secs(seconds).unwrap());
            let interval = i32::try_from(seconds * 1_000).unwrap();
            let phase: i32 = row(&client, "select grid_phase_ms($1, $2)", &[&id, &interval])
                .await
                .get(0);
            assert_eq!(
                phase.cast_unsigned(),
                grid.phase_ms(),
                "id {id}, {seconds} s"
            );
            for at_us in [
                1_780_000_000_000_000,
                1_780_000_000_000_001,
                1_780_000_012_345_678,
            ] {
                let next_ms = grid.at_or_after(Timestamp::from_micros(at_us));
                let sql = "
                    with given (id, interval_ms, since, tick) as (select $1::bigint, $2::integer,
                        timestamptz 'epoch' + $3::bigint * interval '1 microsecond',
                        timestamptz 'epoch' + $4::bigint * interval '1 millisecond')
                    select grid_next(id, interval_ms, since) = tick, grid_holds(id, interval_ms, tick),
                        grid_holds(id, interval_ms, tick + interval '1 microsecond'),
                        grid_points(id, interval_ms, since, tick), grid_points(id, interval_ms, tick, tick),
                        grid_points(id, interval_ms, since, tick + interval '1 microsecond'),
                        grid_points(id, interval_ms, tick, tick + 10 * interval_ms * interval '1 millisecond')
                    from given";
                let found = row(&client, sql, &[&id, &interval, &at_us, &next_ms]).await;
                assert_eq!(
                    [found.get::<_, bool>(0), found.get(1), found.get(2)],
                    [true, true, false],
                    "id {id}, {seconds} s"
                );
                let points: Vec<i64> = (3..7).map(|i| found.get(i)).collect();
                assert_eq!(points, [0, 0, 1, 10], "id {id}, {seconds} s, {at_us}");
            }
        }
    }
}

/// The history of endpoint 1: interval, seconds from `now()` to start and end (null: open).
async fn history(client: &Client) -> Vec<(i32, Option<String>, f64, Option<f64>)> {
    let rows = client
        .query(
            "select interval_ms, locations::text, extract(epoch from lower(valid) - clock_timestamp())::float8,
                extract(epoch from upper(valid) - clock_timestamp())::float8
             from endpoint_schedules where endpoint_id = 1 order by lower(valid)",
            &[],
        )
        .await
        .unwrap();
    rows.iter()
        .map(|r| (r.get(0), r.get(1), r.get(2), r.get(3)))
        .collect()
}

async fn settle(client: &Client) {
    // As if the endpoint had been there for a minute.
    client
        .batch_execute("update endpoint_schedules set valid = tstzrange(lower(valid) - interval '1 minute', upper(valid) - interval '1 minute')")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_change_ends_the_old_schedule_at_the_commit_and_starts_the_new_one_three_seconds_later() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    client
        .batch_execute("insert into endpoints (id, url) values (1, 'http://x/')")
        .await
        .unwrap();
    let new = history(&client).await;
    assert!(
        matches!(new[..], [(60_000, None, start, None)] if (1.0..=3.5).contains(&start)),
        "{new:?}"
    );
    settle(&client).await;

    // What agents do not schedule by leaves the history alone.
    client
        .batch_execute(
            "update endpoints set url = 'http://y/', timeout_ms = 7000, name = 'n', tags = '{t}'",
        )
        .await
        .unwrap();
    assert_eq!(history(&client).await.len(), 1);
    assert_eq!(
        number(&client, "select timeout_ms::bigint from endpoint_schedules").await,
        7_000
    );

    // Dated by the commit, not by the statement.
    client
        .batch_execute("begin; update endpoints set interval_s = 10; select pg_sleep(1.2); commit")
        .await
        .unwrap();
    let two = history(&client).await;
    assert!(
        matches!(two[..], [(60_000, _, _, Some(end)), (10_000, _, start, None)] if end > -1.0 && (3.0..3.5).contains(&(start - end))),
        "{two:?}"
    );

    // Disabled: over. Enabled again: a new one. Deleted: over, and the history stays.
    settle(&client).await;
    client
        .batch_execute("update endpoints set enabled = false")
        .await
        .unwrap();
    assert!(matches!(
        history(&client).await[..],
        [_, (10_000, _, _, Some(_))]
    ));
    client
        .batch_execute("update endpoints set enabled = true, locations = '{lab}'")
        .await
        .unwrap();
    settle(&client).await;
    client.batch_execute("delete from endpoints").await.unwrap();
    let all = history(&client).await;
    assert!(
        matches!(&all[..], [_, _, (10_000, Some(place), _, Some(_))] if place == "{lab}"),
        "{all:?}"
    );
}

#[tokio::test]
async fn many_changes_at_once_leave_no_overlap_and_nothing_empty() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    client
        .batch_execute("insert into endpoints (id, url) values (1, 'http://x/')")
        .await
        .unwrap();
    settle(&client).await;
    // Several in one transaction are one change; back to where it was is none.
    client
        .batch_execute("begin; update endpoints set interval_s = 10; update endpoints set interval_s = 20; commit;
            begin; update endpoints set interval_s = 30; update endpoints set interval_s = 20; commit")
        .await
        .unwrap();
    assert!(matches!(
        history(&client).await[..],
        [(60_000, _, _, Some(_)), (20_000, _, _, None)]
    ));
    // Several within the three seconds: only the last ever starts.
    for interval in [30, 40, 50] {
        client
            .batch_execute(&format!("update endpoints set interval_s = {interval}"))
            .await
            .unwrap();
    }
    assert!(matches!(
        history(&client).await[..],
        [(60_000, _, _, Some(_)), (50_000, _, _, None)]
    ));
    client
        .batch_execute("begin; delete from endpoints; insert into endpoints (id, url, interval_s) values (1, 'http://z/', 50); commit;
            update endpoints set id = 2; update endpoints set id = 1; truncate endpoints; insert into endpoints (id, url) values (1, 'http://z/')")
        .await
        .unwrap();
    let bad = "select count(*) from endpoint_schedules a join endpoint_schedules b
        on a.endpoint_id = b.endpoint_id and a.ctid <> b.ctid and a.valid && b.valid";
    assert_eq!(number(&client, bad).await, 0);
    assert_eq!(
        number(
            &client,
            "select count(*) from endpoint_schedules where isempty(valid)"
        )
        .await,
        0
    );
    assert_eq!(
        number(
            &client,
            "select count(*) from endpoint_schedules where upper_inf(valid)"
        )
        .await,
        1
    );
    assert_eq!(
        number(&client, "select count(*) from endpoint_change_transactions").await,
        0
    );
}

#[tokio::test]
async fn a_hundred_thousand_rows_in_one_statement_take_seconds() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let started = Instant::now();
    client
        .batch_execute("insert into endpoints (url, interval_s) select 'http://127.0.0.1/' || i, 60 + i % 241 from generate_series(1, 100000) i")
        .await
        .unwrap();
    println!("100 000 endpoints in one insert: {:?}", started.elapsed());
    settle(&client).await;
    let started = Instant::now();
    client
        .batch_execute("update endpoints set interval_s = 30")
        .await
        .unwrap();
    println!("100 000 intervals in one update: {:?}", started.elapsed());
    assert_eq!(
        number(&client, "select count(*) from endpoint_schedules").await,
        200_000
    );
    assert_eq!(
        number(
            &client,
            "select count(*) from endpoint_schedules where upper_inf(valid)"
        )
        .await,
        100_000
    );
}

#[tokio::test]
async fn metrics_is_a_hypertable_whose_identity_is_unique() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let sql = "select time_interval::text from timescaledb_information.dimensions where hypertable_name = 'metrics'";
    assert_eq!(row(&client, sql, &[]).await.get::<_, String>(0), "06:00:00");
    let insert = "insert into metrics (time, endpoint_id, outcome, location, agent) values ('2026-11-20', 1, 'up', 'lab', 'a')";
    client.batch_execute(insert).await.unwrap();
    assert_eq!(refusal(&client, insert).await.0, "23505");
}

#[tokio::test]
async fn raw_rows_past_their_retention_are_dropped_and_the_setting_is_heeded() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    client
        .batch_execute(
            "insert into metrics (time, endpoint_id, outcome, location, agent)
                select now() - d * interval '1 day', 1, 'up', 'lab', 'a' from unnest(array[0, 10, 29, 32, 90]) d;
             insert into endpoint_gaps (endpoint_id, location, during, reason, agent) values
                (1, 'lab', tstzrange(now() - interval '99 days', now() - interval '98 days'), 'refused', 'a'),
                (1, 'lab', tstzrange(now() - interval '99 days', null), 'endpoint_problem', 'a')",
        )
        .await
        .unwrap();
    let store = database.open();
    assert_eq!(store.apply_retention().await.unwrap(), Some(2));
    let standing = "select count(*) from endpoint_gaps where upper_inf(during)";
    assert_eq!(number(&client, standing).await, 1);
    let all = "select count(*) from endpoint_gaps";
    assert_eq!(number(&client, all).await, 1);
    assert_eq!(store.apply_retention().await.unwrap(), Some(0));
    client
        .batch_execute("update settings set raw_retention = null")
        .await
        .unwrap();
    assert_eq!(store.apply_retention().await.unwrap(), Some(0));
    client
        .batch_execute("update settings set raw_retention = '5 days'")
        .await
        .unwrap();
    assert_eq!(store.apply_retention().await.unwrap(), Some(2));
    assert_eq!(number(&client, "select count(*) from metrics").await, 1);
    let (_, message) = refusal(&client, "update settings set raw_retention = '1 hour'").await;
    assert!(
        message.contains("settings_raw_retention_at_least_1_day"),
        "{message}"
    );
}

#[tokio::test]
async fn migrating_many_times_at_once_is_migrating_once() {
    let database = TestDatabase::empty().await;
    let stores = [
        database.open(),
        database.open(),
        database.open(),
        database.open(),
    ];
    let state = schema_state(stores[0].database()).await.unwrap();
    assert_eq!(state.found, None);
    let mut applied = 0;
    let mut steps = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    let [a, b, c, d] = &mut steps;
    let (mut a, mut b, mut c, mut d) = (|s| a.push(s), |s| b.push(s), |s| c.push(s), |s| d.push(s));
    let all = tokio::join!(
        migrate(stores[0].database(), &mut a),
        migrate(stores[1].database(), &mut b),
        migrate(stores[2].database(), &mut c),
        migrate(stores[3].database(), &mut d),
    );
    for migrated in [all.0, all.1, all.2, all.3] {
        let migrated = migrated.unwrap();
        assert_eq!(migrated.version, state.known);
        applied += migrated.applied.len();
    }
    // Numbers may be left out.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let files = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(applied, files);
    let applying = steps
        .iter()
        .flatten()
        .filter(|s| matches!(s, MigrateStep::Applying { .. }))
        .count();
    assert_eq!(applying, files);
    assert!(
        schema_state(stores[0].database())
            .await
            .unwrap()
            .is_current()
    );
}

#[tokio::test]
async fn a_schema_of_a_newer_release_is_refused() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    client
        .batch_execute("insert into refinery_schema_history select 9999, name, applied_on, checksum from refinery_schema_history where version = 1")
        .await
        .unwrap();
    let error = migrate(database.open().database(), &mut |_| {})
        .await
        .unwrap_err();
    assert!(
        matches!(error, MigrateError::Newer { found: 9_999, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_role_that_may_not_create_the_extension_or_the_tables_is_told_what_to_do() {
    let database = TestDatabase::empty().await;
    let client = database.client().await;
    let user = format!("{}_stranger", database.name());
    client
        .batch_execute(&format!("create role {user} login password 'pw'"))
        .await
        .unwrap();
    let stranger = open(&database.url_as(&user, "pw"));
    // The extension is trusted, so that the right to create in the database is enough for it; this role has not got it.
    let error = migrate(stranger.database(), &mut |_| {}).await.unwrap_err();
    assert!(
        error.to_string().contains("CREATE EXTENSION timescaledb"),
        "{error}"
    );
    client
        .batch_execute("create extension timescaledb")
        .await
        .unwrap();
    let error = migrate(stranger.database(), &mut |_| {}).await.unwrap_err();
    assert!(
        error.to_string().contains("WATCHER_ADMIN_DATABASE_URL"),
        "{error:?}"
    );
    // Once the schema is there, it may ask for a migration that has nothing to do.
    migrate(database.open().database(), &mut |_| {})
        .await
        .unwrap();
    client
        .batch_execute(&format!("grant watcher_agent to {user}"))
        .await
        .unwrap();
    let migrated = migrate(stranger.database(), &mut |_| {}).await.unwrap();
    assert_eq!(migrated.applied, Vec::<String>::new());
    client
        .batch_execute(&format!("drop owned by {user}; drop role {user}"))
        .await
        .unwrap();
}

#[tokio::test]
async fn every_reason_of_a_gap_has_a_place_in_the_table() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    for reason in watcher::store::GapReason::ALL {
        let insert =
            "insert into gaps (agent, location, partition_index, partition_count, during, reason)
            values ('a', 'l', 0, 1, '[2026-01-01,2026-01-02)', $1)";
        client.execute(insert, &[&reason.label()]).await.unwrap();
    }
}
