//! The catalog as an agent reads it: everything once, then each change once, in whatever order it was committed; and
//! what an agent writes about itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::Client;
use watcher::config::{EndpointRow, Problem};
use watcher::domain::{AgentIdentity, Arm, EndpointId, Partition, Timestamp};
use watcher::store::timescale::{
    ChangeListener, Changes, ConnectError, Cursor, Database, EndpointProblem, Gap, Timescale,
    Usage, wait_until_ready,
};
use watcher::store::{CatalogChange, GapReason, Session};

use crate::support::database::{TestDatabase, eventually, number, open, row};

/// An agent's view: what it has been told, and from where it looks on.
struct View {
    store: Timescale,
    partition: Partition,
    location: &'static str,
    cursor: Cursor,
    endpoints: BTreeMap<i64, EndpointRow>,
    told: usize,
}

impl View {
    async fn load(store: &Timescale, partition: Partition, location: &'static str) -> Self {
        let mut endpoints = BTreeMap::new();
        let mut each = |change| match change {
            CatalogChange::Upsert(row) => assert_eq!(endpoints.insert(row.id.0, *row), None),
            CatalogChange::Remove(id) => panic!("a load removes nothing, but {id}"),
        };
        let cursor = store
            .load_catalog(partition, location, &mut each)
            .await
            .unwrap();
        Self {
            store: store.clone(),
            partition,
            location,
            cursor,
            endpoints,
            told: 0,
        }
    }

    async fn look(&mut self) -> Vec<i64> {
        let mut changes = Vec::new();
        let mut each = |change| changes.push(change);
        let seen = self
            .store
            .catalog_changes(self.partition, self.location, &self.cursor, &mut each)
            .await;
        match seen.unwrap() {
            Changes::UpTo(cursor) => self.cursor = cursor,
            Changes::Reload => panic!("the database did not go back"),
        }
        self.told += changes.len();
        let mut ids: Vec<i64> = Vec::new();
        for change in changes {
            ids.push(match change {
                CatalogChange::Upsert(row) => {
                    let id = row.id.0;
                    self.endpoints.insert(id, *row);
                    id
                }
                CatalogChange::Remove(id) => {
                    self.endpoints.remove(&id.0);
                    -id.0
                }
            });
        }
        ids.sort_unstable();
        ids
    }

    fn ids(&self) -> Vec<i64> {
        self.endpoints.keys().copied().collect()
    }
}

async fn sql(client: &Client, sql: &str) {
    client
        .batch_execute(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
}

#[tokio::test]
async fn a_load_gives_the_enabled_rows_of_the_share_and_location_whole() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    sql(
        &client,
        "insert into endpoints (id, url, interval_s, timeout_ms, degraded_after_ms, cert_warn_days, regex, regex_not, settings) values
            (-3, 'http://m/', 60, null, null, null, null, null, '{}'),
            (1, 'http://a/', 5, 4000, 200, 14, 'yes', 'no', '{\"method\": \"HEAD\"}');
         insert into endpoints (id, url, locations, enabled) values
            (2, 'http://b/', '{lab}', true), (3, 'http://c/', '{edge,lab}', true), (4, 'http://d/', '{edge}', true), (5, 'http://e/', null, false)",
    )
    .await;
    let store = database.open();
    let all = View::load(&store, Partition::ALL, "lab").await;
    assert_eq!(all.ids(), [-3, 1, 2, 3]);
    let expected = EndpointRow {
        id: EndpointId(1),
        kind: "http".into(),
        url: "http://a/".into(),
        interval_s: 5,
        timeout_ms: Some(4_000),
        degraded_after_ms: Some(200),
        cert_warn_days: Some(14),
        regex: Some("yes".into()),
        regex_not: Some("no".into()),
        settings: Some(r#"{"method": "HEAD"}"#.into()),
        changed_at: all.endpoints[&1].changed_at,
    };
    assert_eq!(all.endpoints[&1], expected);
    assert_eq!(all.endpoints[&2].settings, None);
    let half = |i| Partition::new(i, 2).unwrap();
    assert_eq!(View::load(&store, half(0), "lab").await.ids(), [2]);
    assert_eq!(View::load(&store, half(1), "lab").await.ids(), [-3, 1, 3]);
}

#[tokio::test]
async fn changes_are_told_once_also_when_commits_come_out_of_order() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    sql(
        &client,
        "insert into endpoints (id, url) select i, 'http://x/' from generate_series(1, 9) i",
    )
    .await;
    let mut view = View::load(&database.open(), Partition::ALL, "lab").await;
    assert_eq!(view.look().await, [] as [i64; 0]);

    let (early, late) = (database.client().await, database.client().await);
    sql(
        &early,
        "begin; update endpoints set url = 'http://early/' where id = 1",
    )
    .await;
    sql(
        &late,
        "begin; update endpoints set url = 'http://late/' where id = 2; commit",
    )
    .await;
    assert_eq!(view.look().await, [2]);
    assert_eq!(
        view.look().await,
        [] as [i64; 0],
        "while the other is still open"
    );
    sql(&early, "commit").await;
    assert_eq!(view.look().await, [1]);
    assert_eq!(view.endpoints[&1].url, "http://early/");
    assert_eq!(view.look().await, [] as [i64; 0]);

    // Disabled, deleted, moved elsewhere: gone. What an agent does not act on is not told.
    sql(
        &client,
        "update endpoints set enabled = false where id = 3; delete from endpoints where id = 4;
         update endpoints set locations = '{moon}' where id = 5; update endpoints set name = 'n' || id, tags = '{t}' where id = 6;
         update endpoints set interval_s = interval_s where id = 7; insert into endpoints (id, url) values (10, 'http://new/')",
    )
    .await;
    assert_eq!(view.look().await, [-5, -4, -3, 10]);
    assert_eq!(view.ids(), [1, 2, 6, 7, 8, 9, 10]);
    sql(
        &client,
        "begin; update endpoints set interval_s = 7; rollback",
    )
    .await;
    assert_eq!(view.look().await, [] as [i64; 0]);
    sql(&client, "truncate endpoints").await;
    view.look().await;
    assert_eq!(view.ids(), [] as [i64; 0]);
}

#[tokio::test]
async fn many_writers_at_once_leave_a_view_that_equals_a_load() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    sql(
        &client,
        "insert into endpoints (id, url) select i, 'http://x/' from generate_series(1, 40) i",
    )
    .await;
    let mut view = View::load(&database.open(), Partition::ALL, "lab").await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let client = database.client().await;
        writers.spawn(async move {
            for turn in 0..25 {
                let id = 1 + (writer * 7 + turn * 3) % 40;
                // Open for a while, so that snapshots see it half way.
                let text = format!(
                    "begin; update endpoints set interval_s = {} where id = {id}; select pg_sleep(0.00{}); commit",
                    5 + (writer * 25 + turn) % 290,
                    1 + turn % 9
                );
                sql(&client, &text).await;
            }
        });
    }
    while !writers.is_empty() {
        view.look().await;
        while writers.try_join_next().is_some_and(|done| done.is_ok()) {}
        tokio::task::yield_now().await;
    }
    view.look().await;
    let fresh = View::load(&database.open(), Partition::ALL, "lab").await;
    assert_eq!(view.endpoints, fresh.endpoints);
    assert!(
        view.told <= 100,
        "100 transactions of one row each, told {}",
        view.told
    );
}

#[tokio::test]
async fn a_database_that_went_back_asks_for_a_reload() {
    let database = TestDatabase::migrated().await;
    let store = database.open();
    // A cursor from the future of this cluster, as after a failover that lost commits.
    let ahead = Cursor::from_text("900000000:900000000:");
    let seen = store
        .catalog_changes(Partition::ALL, "lab", &ahead, &mut |_| {})
        .await
        .unwrap();
    assert_eq!(seen, Changes::Reload);
}

#[tokio::test]
async fn a_notification_wakes_the_listener_and_without_one_it_polls() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let mut listener = ChangeListener::new(database.open().database().clone());
    let long = Duration::from_secs(60);
    // The first return is for having connected.
    listener.wait_for_change(long).await;
    assert!(listener.is_listening());

    let started = Instant::now();
    sql(&client, "insert into endpoints (url) values ('http://x/')").await;
    listener.wait_for_change(long).await;
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );

    // A notification while nobody waits is kept; a wait given up in the middle loses nothing.
    sql(&client, "update endpoints set interval_s = 5").await;
    for _ in 0..3 {
        let _ =
            tokio::time::timeout(Duration::from_millis(5), listener.wait_for_change(long)).await;
    }
    listener.wait_for_change(long).await;

    let started = Instant::now();
    listener.wait_for_change(Duration::from_millis(300)).await;
    assert!(started.elapsed() >= Duration::from_millis(300));

    // Cut off, it is woken to look, and listens again.
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and query like 'listen watcher_endpoints%'";
    assert_eq!(number(&client, cut).await, 1);
    eventually("listening again", async || {
        listener.wait_for_change(Duration::from_millis(500)).await;
        listener.is_listening()
    })
    .await;
    sql(&client, "update endpoints set interval_s = 6").await;
    let started = Instant::now();
    listener.wait_for_change(long).await;
    assert!(started.elapsed() < Duration::from_secs(2));
}

fn identity(name: &str) -> Arc<AgentIdentity> {
    Arc::new(AgentIdentity {
        name: name.into(),
        location: "lab".into(),
    })
}

/// A session that began `ago` seconds before now.
fn session(name: &str, partition: Partition, ago: u64) -> Session {
    Session {
        agent: identity(name),
        arm: Arm::label("default"),
        partition,
        started: before(ago),
    }
}

fn before(seconds: u64) -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    Timestamp::default()
        .plus(since)
        .minus(Duration::from_secs(seconds))
}

/// `agents` in order of start: name, how it ended, seconds from start to end.
async fn sessions(client: &Client) -> Vec<String> {
    let rows = client
        .query(
            "select concat_ws(' ', name, partition_index || '/' || partition_count, coalesce(end_reason, 'runs'),
                round(extract(epoch from ended - started))) from agents order by started, partition_index",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// `gaps`: share, seconds before now of both ends.
async fn gaps(client: &Client) -> Vec<String> {
    let rows = client
        .query(
            "select concat_ws(' ', agent, partition_index || '/' || partition_count, reason,
                round(extract(epoch from now() - lower(during)), -1), round(extract(epoch from now() - upper(during)), -1))
             from gaps order by lower(during), agent",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_session_ends_in_order_or_is_found_dead_by_its_successor() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let store = database.open();
    let horizon = Duration::from_secs(30);

    let first = store
        .start_session(&session("a", Partition::ALL, 1_000), horizon, false)
        .await
        .unwrap();
    store.heartbeat(first, before(900), None).await.unwrap();
    store.end_session(first, before(800)).await.unwrap();
    let second = store
        .start_session(&session("b", Partition::ALL, 700), horizon, false)
        .await
        .unwrap();
    assert_eq!(gaps(&client).await, [] as [&str; 0]);

    // Killed; last heard of at 600; another starts at 500, and says so twice.
    store.heartbeat(second, before(600), None).await.unwrap();
    let third = session("c", Partition::ALL, 500);
    let id = store.start_session(&third, horizon, false).await.unwrap();
    assert_eq!(
        store.start_session(&third, horizon, false).await.unwrap(),
        id
    );
    assert_eq!(
        sessions(&client).await,
        ["a 0/1 stopped 200", "b 0/1 died 100", "c 0/1 runs"]
    );
    assert_eq!(gaps(&client).await, ["b 0/1 agent_died 630 500"]);

    // Only silent, not dead: it lives again.
    store.heartbeat(second, before(450), None).await.unwrap();
    assert_eq!(sessions(&client).await[1], "b 0/1 runs");
}

#[tokio::test]
async fn a_death_that_the_supervisor_saw_is_closed_by_the_successor() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let store = database.open();
    let horizon = Duration::from_secs(30);
    let share = Partition::new(1, 2).unwrap();
    store
        .start_session(&session("a", share, 1_000), horizon, false)
        .await
        .unwrap();
    assert!(
        store
            .mark_died(&identity("a"), share, before(800), None, horizon)
            .await
            .unwrap()
    );
    assert!(
        !store
            .mark_died(&identity("a"), share, before(790), None, horizon)
            .await
            .unwrap()
    );
    store
        .start_session(&session("a", share, 700), horizon, false)
        .await
        .unwrap();
    assert_eq!(sessions(&client).await, ["a 1/2 died 200", "a 1/2 runs"]);
    assert_eq!(
        gaps(&client).await,
        ["a 1/2 agent_died 830 800", "a 1/2 agent_died 800 700"]
    );
}

#[tokio::test]
async fn what_a_death_took_begins_where_it_was_said_to() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let store = database.open();
    let horizon = Duration::from_secs(30);
    let start = async |name: &str, ago| {
        let session = session(name, Partition::ALL, ago);
        store.start_session(&session, horizon, false).await.unwrap()
    };
    // Told by a heartbeat; found by the successor.
    let first = start("a", 1_000).await;
    let said = Some(before(905));
    store.heartbeat(first, before(900), said).await.unwrap();
    // Told by its supervisor, later than by its heartbeat.
    let second = start("b", 800).await;
    let said = Some(before(705));
    store.heartbeat(second, before(700), said).await.unwrap();
    let share = Partition::ALL;
    let died = async |name: &str, at, said: Option<u64>| {
        let said = said.map(before);
        let at = before(at);
        store
            .mark_died(&identity(name), share, at, said, horizon)
            .await
            .unwrap()
    };
    assert!(died("b", 600, Some(602)).await);
    // Told nobody.
    start("c", 500).await;
    assert!(died("c", 400, None).await);
    let sql = "select string_agg(concat(round(extract(epoch from now() - lower(during))), '-', round(extract(epoch from now() - upper(during)))), ' ' order by lower(during)) from gaps";
    let said: String = row(&client, sql, &[]).await.get(0);
    let near = |text: &str| -> Vec<i64> {
        text.split([' ', '-'])
            .map(|n| n.parse::<i64>().unwrap() / 5 * 5)
            .collect()
    };
    // The first's loss and death until the second; the second's loss, its death until the third; the third's loss.
    assert_eq!(
        near(&said),
        near("905-800 602-600 600-500 430-400"),
        "{said}"
    );
}

#[tokio::test]
async fn a_session_told_long_after_it_began_takes_nobody_else_for_dead() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let store = database.open();
    let half = |index| Partition::new(index, 2).unwrap();
    let start = async |name: &str, share, ago, late| {
        let session = session(name, share, ago);
        store
            .start_session(&session, Duration::ZERO, late)
            .await
            .unwrap()
    };
    // The sibling could not say that it lives either.
    start("b", half(1), 1_000, false).await;
    start("a", half(0), 500, true).await;
    assert_eq!(sessions(&client).await, ["b 1/2 runs", "a 0/2 runs"]);
    assert_eq!(gaps(&client).await, [] as [&str; 0]);
    // A run with another number of processes has taken their place.
    start("c", Partition::ALL, 400, true).await;
    assert_eq!(
        sessions(&client).await,
        ["b 1/2 died 0", "a 0/2 died 0", "c 0/1 runs"]
    );
}

#[tokio::test]
async fn gaps_of_endpoints_and_problems_that_have_passed_are_kept_once() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let store = database.open();
    let (from, to) = (before(100), before(90));
    let gap = |id| Gap {
        endpoint: Some(EndpointId(id)),
        from,
        to,
        reason: GapReason::CatalogBehind,
        samples: None,
        detail: None,
    };
    let whole = Gap {
        endpoint: None,
        ..gap(0)
    };
    for _ in 0..2 {
        store
            .record_gaps(
                &session("a", Partition::ALL, 200),
                &[gap(1), whole.clone(), gap(2)],
            )
            .await
            .unwrap();
        client.batch_execute("delete from gaps").await.unwrap();
    }
    let text = async || -> String {
        let sql = "select coalesce(string_agg(concat_ws(' ', endpoint_id, reason, upper_inf(during)), '; ' order by endpoint_id, lower(during)), '') from endpoint_gaps";
        row(&client, sql, &[]).await.get(0)
    };
    assert_eq!(text().await, "1 catalog_behind f; 2 catalog_behind f");

    let agent = identity("a");
    let set = async |problems: &[Problem]| {
        store
            .set_problems(&agent, EndpointId(7), before(60), problems)
            .await
            .unwrap();
    };
    client
        .batch_execute("delete from endpoint_gaps")
        .await
        .unwrap();
    set(&[Problem::of("url", "bad")]).await;
    // Another problem of the same row is the same span.
    set(&[Problem::of("regex", "bad")]).await;
    assert_eq!(text().await, "7 endpoint_problem t");
    set(&[]).await;
    assert_eq!(text().await, "7 endpoint_problem f");
    let length =
        "select extract(epoch from upper(during) - lower(during))::bigint from endpoint_gaps";
    let length = number(&client, length).await;
    assert!((60..120).contains(&length), "{length}");
    store
        .set_problems(
            &agent,
            EndpointId(7),
            before(1),
            &[Problem::of("url", "bad")],
        )
        .await
        .unwrap();
    assert_eq!(text().await, "7 endpoint_problem f; 7 endpoint_problem t");
    store
        .replace_problems(&agent, Partition::ALL, &[])
        .await
        .unwrap();
    assert_eq!(text().await, "7 endpoint_problem f; 7 endpoint_problem f");
}

#[tokio::test]
async fn a_held_removal_stands_in_sql_and_a_confirmation_is_of_that_one_only() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let store = database.open();
    let agent = identity("a");
    let now = before(0);
    let held = |since, endpoints| watcher::store::HeldRemoval {
        endpoints,
        of: 100,
        since: now.minus(Duration::from_secs(since)),
        until: now,
    };
    let hold = async |since, endpoints| {
        let held = held(since, endpoints);
        store
            .hold_removal(&agent, Partition::ALL, &held)
            .await
            .unwrap()
    };
    assert!(!hold(60, 50).await);
    client
        .batch_execute("update held_removals set confirmed = true")
        .await
        .unwrap();
    assert!(hold(60, 51).await);
    assert!(!hold(30, 51).await);
    store.release_removal(&agent, Partition::ALL).await.unwrap();
    assert_eq!(
        number(&client, "select count(*) from held_removals").await,
        0
    );

    client
        .batch_execute("insert into endpoints (id, url, enabled) values (1, 'http://a/', false), (2, 'http://b/', true)")
        .await
        .unwrap();
    let ids = [1, 2, 3].map(EndpointId);
    let mut present = store.endpoints_present(&ids).await.unwrap();
    present.sort_unstable();
    assert_eq!(present, ids[..2]);
}

#[tokio::test]
async fn silent_sessions_of_other_shares_are_found_dead_when_the_number_of_processes_changes() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let store = database.open();
    let half = |i| Partition::new(i, 2).unwrap();
    for i in 0..2 {
        store
            .start_session(&session("a", half(i), 1_000), Duration::ZERO, false)
            .await
            .unwrap();
    }
    // A third, elsewhere in the same location, is alive and stays so.
    let alive = Partition::new(2, 3).unwrap();
    let id = store
        .start_session(&session("z", alive, 990), Duration::ZERO, false)
        .await
        .unwrap();
    store.heartbeat(id, before(501), None).await.unwrap();
    client
        .batch_execute("update agents set ended = null, end_reason = null; delete from gaps")
        .await
        .unwrap();
    store
        .start_session(&session("b", Partition::ALL, 500), Duration::ZERO, false)
        .await
        .unwrap();
    assert_eq!(
        sessions(&client).await,
        ["a 0/2 died 0", "a 1/2 died 0", "z 2/3 runs", "b 0/1 runs"]
    );
    assert_eq!(
        gaps(&client).await,
        ["a 0/2 agent_died 1000 500", "a 1/2 agent_died 1000 500"]
    );
}

#[tokio::test]
async fn gaps_usage_and_the_clock_are_recorded() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let store = database.open();
    let all = [
        GapReason::Paused,
        GapReason::ClockStep,
        GapReason::AgentDied,
        GapReason::BufferFull,
        GapReason::CatalogBehind,
        GapReason::Refused,
    ];
    let gap = |reason: GapReason| Gap {
        endpoint: None,
        from: before(100),
        to: before(90),
        reason,
        samples: Some(7),
        detail: Some("why".into()),
    };
    store
        .record_gaps(&session("a", Partition::ALL, 200), &all.map(gap))
        .await
        .unwrap();
    assert_eq!(
        number(
            &client,
            "select count(distinct reason) from gaps where samples = 7"
        )
        .await,
        6
    );

    let usage = Usage {
        cpu_us: 1,
        rss_bytes: 2,
        probes: 3,
        ..Usage::default()
    };
    for _ in 0..2 {
        store
            .record_usage(&identity("a"), before(100), &usage)
            .await
            .unwrap();
    }
    assert_eq!(
        number(
            &client,
            "select count(*) from agent_usage where extract(second from time) = 0"
        )
        .await,
        1
    );

    let offset = store.clock_offset().await.unwrap();
    assert!(
        offset.seconds.abs() < 1.0 && offset.error < Duration::from_secs(1),
        "{offset:?}"
    );
}

#[tokio::test]
async fn problems_are_replaced_and_those_that_stay_keep_their_since() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let store = database.open();
    let agent = identity("a");
    let text = async || -> String {
        let sql = "select coalesce(string_agg(concat_ws(' ', endpoint_id, location, field, message), '; ' order by endpoint_id, field), '') from endpoint_problems";
        row(&client, sql, &[]).await.get(0)
    };
    let long = "ü".repeat(5_000);
    store
        .set_problems(
            &agent,
            EndpointId(7),
            before(60),
            &[Problem::of("url", "no host\0"), Problem::of("regex", "bad")],
        )
        .await
        .unwrap();
    assert_eq!(text().await, "7 lab regex bad; 7 lab url no host\\u{0}");
    let since = row(
        &client,
        "select since::text from endpoint_problems where field = 'regex'",
        &[],
    )
    .await;
    store
        .set_problems(
            &agent,
            EndpointId(7),
            before(60),
            &[Problem::of("regex", "bad"), Problem::of("url", long)],
        )
        .await
        .unwrap();
    let still = row(
        &client,
        "select since::text from endpoint_problems where field = 'regex'",
        &[],
    )
    .await;
    assert_eq!(since.get::<_, String>(0), still.get::<_, String>(0));

    let of = |id, field: &str| EndpointProblem {
        endpoint: EndpointId(id),
        problem: Problem::of(field, "bad"),
        since: before(30),
    };
    let half = Partition::new(1, 2).unwrap();
    store
        .set_problems(
            &agent,
            EndpointId(8),
            before(60),
            &[Problem::of("url", "another share's")],
        )
        .await
        .unwrap();
    store
        .replace_problems(&agent, half, &[of(7, "regex"), of(9, "url"), of(9, "url")])
        .await
        .unwrap();
    assert_eq!(
        text().await,
        "7 lab regex bad; 8 lab url another share's; 9 lab url bad"
    );
    store
        .set_problems(&agent, EndpointId(7), before(60), &[])
        .await
        .unwrap();
    store.replace_problems(&agent, half, &[]).await.unwrap();
    assert_eq!(text().await, "8 lab url another share's");
}

#[tokio::test]
async fn what_is_wrong_with_the_database_is_said_in_one_line_without_the_password() {
    let database = TestDatabase::migrated().await;
    let refused = database.url_as("nobody_there", "hunter2");
    let missing = database.url().replace(database.name(), "not_there");
    let wordless = refused
        .replace(":pw@", "@")
        .replace("nobody_there:hunter2", "nobody_there");
    let cases: [(&str, &str); 5] = [
        (&wordless, "refuses user nobody_there"),
        (&refused, "refuses user nobody_there"),
        (&missing, "has no database not_there"),
        (
            "postgres://u:hunter2@127.0.0.1:1/d",
            "cannot reach the database at 127.0.0.1:1",
        ),
        (
            "postgres://u:hunter2@does-not-exist.invalid/d",
            "cannot reach the database at does-not-exist.invalid:5432",
        ),
    ];
    for (url, words) in cases {
        let store = open(url);
        let error = store.database().connect().await.err().expect(url);
        let chain = chain(&error);
        assert!(chain.contains(words), "{chain}");
        assert!(
            !chain.contains("hunter2") && !chain.contains('\n'),
            "{chain}"
        );
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn waiting_ends_when_the_database_is_there_or_the_time_is_over() {
    let database = TestDatabase::empty().await;
    let later = database
        .url()
        .replace(database.name(), &format!("{}_later", database.name()));
    let target: Arc<Database> = open(&later).database().clone();
    let error = wait_until_ready(&target, Some(Duration::from_secs(3)), &mut |_, _| {})
        .await
        .unwrap_err();
    assert!(
        matches!(error.last, ConnectError::UnknownDatabase { .. }),
        "{error:?}"
    );

    let client = database.client().await;
    let mut heard = 0;
    let mut progress = |_: &ConnectError, _| heard += 1;
    let create = format!("create database {}_later", database.name());
    let (waited, ()) = tokio::join!(
        wait_until_ready(&target, Some(Duration::from_secs(30)), &mut progress),
        async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            sql(&client, &create).await;
        }
    );
    waited.unwrap();
    assert!(heard > 0);
    sql(
        &client,
        &format!("drop database {}_later with (force)", database.name()),
    )
    .await;
}
