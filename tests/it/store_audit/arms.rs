//! The audit where arms divide the ticks: each tick is put down to the arm that owned it.

use std::sync::Arc;
use std::time::Duration;

use watcher::config::Problem;
use watcher::domain::{AgentIdentity, Arm, EndpointId, Grid, Interval, Partition};
use watcher::store::timescale::Gap;
use watcher::store::{GapReason, Session};

use super::*;
use crate::support::database::{TestDatabase, row};

impl Scene {
    /// A session of `arm` of `arms` (none: of every tick), of the share `index` of `count`.
    async fn session(&self, share: (i32, i32), arm: &str, arms: &str, from: f64, end: End) {
        let (index, count) = share;
        let end = match end {
            Some((at, why)) => format!("minute({at}), '{why}'"),
            None => "null, null".to_owned(),
        };
        let arms = match arms {
            "" => "null".to_owned(),
            arms => format!("'{{{arms}}}'"),
        };
        self.sql(&format!(
            "insert into agents (name, location, arm, arms, partition_index, partition_count, version, started, last_seen, ended, end_reason)
             values ((select 'agent/' || count(*) from agents), 'lab', '{arm}', {arms}, {index}, {count}, 'test', minute({from}), minute({from}), {end})"
        ))
        .await;
    }

    fn at(&self, minute: f64) -> Timestamp {
        Timestamp::from_micros(self.zero_us + (minute * 60e6) as i64)
    }

    /// The ticks of an endpoint between two minutes.
    fn ticks(&self, endpoint: i64, from: f64, to: f64) -> Vec<Timestamp> {
        let mut ticks = Vec::new();
        let mut next = grid(endpoint).at_or_after(self.at(from));
        while next * 1_000 < self.at(to).as_micros() {
            ticks.push(Timestamp::from_millis(next));
            next += 10_000;
        }
        ticks
    }

    /// Rows at these instants.
    async fn rows_at(&self, endpoint: i64, ticks: &[Timestamp]) {
        let ticks: Vec<i64> = ticks.iter().map(|tick| tick.as_micros()).collect();
        self.client
            .execute(
                "insert into metrics (time, endpoint_id, outcome, location, agent)
                 select timestamptz 'epoch' + tick * interval '1 microsecond', $1, 'up', 'lab', 'agent'
                 from unnest($2::bigint[]) as tick",
                &[&endpoint, &ticks],
            )
            .await
            .unwrap();
    }

    /// Rows on the ticks of an arm alone.
    async fn rows_of(&self, arm: &str, arms: &str, from: f64, to: f64) {
        for endpoint in [1, 2] {
            let mut ticks = self.ticks(endpoint, from, to);
            ticks.retain(|tick| owns(arm, arms, endpoint, *tick));
            self.rows_at(endpoint, &ticks).await;
        }
    }

    /// The same totals by the hour, for a window that ends at the horizon.
    async fn coverage(&self) -> [i64; 4] {
        let sql = "select sum(due)::bigint, sum(stored)::bigint, sum(missing)::bigint, sum(off)::bigint from coverage_hourly";
        let row = row(&self.client, sql, &[]).await;
        [0, 1, 2, 3].map(|i| row.get(i))
    }
}

type End = Option<(f64, &'static str)>;

fn grid(endpoint: i64) -> Grid {
    Grid::new(EndpointId(endpoint), Interval::from_secs(10).unwrap())
}

fn arm(name: &str, arms: &str) -> Arm {
    let arms: Vec<String> = match arms {
        "" => Vec::new(),
        arms => arms.split(',').map(str::to_owned).collect(),
    };
    Arm::new(name, &arms).unwrap()
}

fn owns(name: &str, arms: &str, endpoint: i64, tick: Timestamp) -> bool {
    let interval = Interval::from_secs(10).unwrap();
    arm(name, arms)
        .share()
        .owns(EndpointId(endpoint), interval, tick)
}

#[tokio::test]
async fn the_owner_of_a_tick_is_the_same_in_sql_and_in_rust() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let ids = [0, 1, 2, 7, 2_147_483_648, i64::MAX, -1, -5, i64::MIN];
    for id in ids {
        for (seconds, count) in [(5, 2), (7, 3), (60, 8), (299, 7), (300, 1)] {
            let interval = Interval::from_secs(seconds).unwrap();
            let grid = Grid::new(EndpointId(id), interval);
            let arms: Vec<String> = (0..count).map(|i| format!("arm{i}")).collect();
            let since_us = 1_780_000_012_345_678_i64;
            let first_ms = grid.at_or_after(Timestamp::from_micros(since_us));
            for n in 0..2 * count {
                let tick_ms = first_ms + n * seconds * 1_000;
                let tick = Timestamp::from_millis(tick_ms);
                let owner = arms.iter().position(|name| {
                    let arms = if count > 1 { &arms[..] } else { &[] };
                    let share = Arm::new(name, arms).unwrap().share();
                    share.owns(EndpointId(id), interval, tick)
                });
                let owner = owner.unwrap() as i32;
                let sql = "
                    with given (id, interval_ms, arms, since, tick) as (
                        select $1::bigint, $2::integer, $3::integer, timestamptz 'epoch' + $4::bigint * interval '1 microsecond',
                            timestamptz 'epoch' + $5::bigint * interval '1 millisecond')
                    select grid_tick(id, interval_ms, tick), tick_arm(id, grid_tick(id, interval_ms, tick), arms),
                        -- Of each arm, how many from `since` up to this tick, and with it.
                        array(select arm_ticks(id, grid_tick(id, interval_ms, since), grid_tick(id, interval_ms, tick), a, arms)
                            from generate_series(0, arms - 1) a),
                        array(select arm_ticks(id, grid_tick(id, interval_ms, since),
                            grid_tick(id, interval_ms, tick + interval '1 microsecond'), a, arms) from generate_series(0, arms - 1) a)
                    from given";
                let (interval_ms, count) = (interval.millis() as i32, count as i32);
                let found = row(
                    &client,
                    sql,
                    &[&id, &interval_ms, &count, &since_us, &tick_ms],
                )
                .await;
                assert_eq!(
                    (found.get(0), found.get(1)),
                    (grid.tick(tick), owner),
                    "id {id}, {seconds} s, {count} arms"
                );
                let before: Vec<i64> = found.get(2);
                let mut with: Vec<i64> = found.get(3);
                assert_eq!(before.iter().sum::<i64>(), n);
                with[owner as usize] -= 1;
                assert_eq!(before, with, "id {id}, {seconds} s, {count} arms, {n}");
            }
        }
    }
}

#[tokio::test]
async fn of_an_arm_that_died_or_stopped_its_own_ticks_alone_are_missing_or_off() {
    let scene = Scene::new().await;
    scene.session((0, 1), "a", "a,b", 0.0, None).await;
    scene
        .session((0, 1), "b", "a,b", 0.0, Some((4.0, "died")))
        .await;
    scene.rows_of("a", "a,b", 0.0, 10.0).await;
    scene.rows_of("b", "a,b", 0.0, 4.0).await;
    let of_b = |from, to| -> i64 {
        [1, 2]
            .map(|id| {
                let ticks = scene.ticks(id, from, to);
                ticks.iter().filter(|t| owns("b", "a,b", id, **t)).count() as i64
            })
            .iter()
            .sum()
    };
    let audit = scene.audit(0, 10).await;
    assert_eq!((audit.due, audit.off), (120, 0));
    assert_eq!(
        audit.missing_by,
        reasons([("agent_died", of_b(4.0, 10.0))]),
        "{audit:?}"
    );
    // Stopped instead: nobody had to take them.
    scene
        .sql("update agents set end_reason = 'stopped' where arm = 'b'")
        .await;
    let audit = scene.audit(0, 10).await;
    assert_eq!((audit.missing, audit.off), (0, of_b(4.0, 10.0)));
    // It died, and a successor came at minute 6.
    scene
        .sql("update agents set end_reason = 'died' where arm = 'b'")
        .await;
    scene.session((0, 1), "b", "a,b", 6.0, None).await;
    scene.rows_of("b", "a,b", 6.0, 10.0).await;
    let audit = scene.audit(0, 10).await;
    assert_eq!(audit.off, 0);
    assert_eq!(audit.missing_by, reasons([("agent_died", of_b(4.0, 6.0))]));
}

#[tokio::test]
async fn a_gap_of_one_arm_explains_its_ticks_and_no_other() {
    let scene = Scene::new().await;
    for arm in ["a", "b"] {
        scene.session((0, 1), arm, "a,b", 0.0, None).await;
    }
    // Of minute 2 and of minute 4 nobody has a row.
    for arm in ["a", "b"] {
        for (from, to) in [(0.0, 2.0), (3.0, 4.0), (5.0, 10.0)] {
            scene.rows_of(arm, "a,b", from, to).await;
        }
    }
    let session = |name: &str| Session {
        agent: Arc::new(AgentIdentity {
            name: format!("agent/{name}").into(),
            location: "lab".into(),
        }),
        arm: arm(name, "a,b"),
        partition: Partition::ALL,
        started: scene.at(0.0),
    };
    let gap = |endpoint: Option<i64>, reason, from, to| Gap {
        endpoint: endpoint.map(EndpointId),
        from: scene.at(from),
        to: scene.at(to),
        reason,
        samples: None,
        detail: None,
    };
    let of_a = [
        gap(None, GapReason::Paused, 2.0, 3.0),
        gap(Some(1), GapReason::CatalogBehind, 4.0, 5.0),
    ];
    // The same span of the same endpoint by the other arm is a gap of its own.
    let of_b = [gap(Some(1), GapReason::CatalogBehind, 4.0, 5.0)];
    for _ in 0..2 {
        scene.store.record_gaps(&session("a"), &of_a).await.unwrap();
    }
    assert_eq!(
        scene.audit(0, 10).await.missing_by,
        reasons([("catalog_behind", 3), ("paused", 6), ("unexplained", 15)])
    );
    scene.store.record_gaps(&session("b"), &of_b).await.unwrap();
    assert_eq!(
        scene.audit(0, 10).await.missing_by,
        reasons([("catalog_behind", 6), ("paused", 6), ("unexplained", 12)])
    );
}

#[tokio::test]
async fn arms_beside_a_session_of_all_ticks_are_answered_for_by_whoever_runs() {
    let scene = Scene::new().await;
    // One of all ticks until minute 5; the arms take over from minute 4, of which b comes at minute 6 only.
    scene
        .session((0, 1), "default", "", 0.0, Some((5.0, "stopped")))
        .await;
    scene.session((0, 1), "a", "a,b", 4.0, None).await;
    scene.session((0, 1), "b", "a,b", 6.0, None).await;
    for endpoint in [1, 2] {
        scene.rows(endpoint, "lab", 0.0, 5.0, "true").await;
    }
    scene.rows_of("a", "a,b", 5.0, 10.0).await;
    scene.rows_of("b", "a,b", 6.0, 10.0).await;
    let audit = scene.audit(0, 10).await;
    assert_eq!((audit.due, audit.off, audit.missing), (120, 6, 0));
}

#[tokio::test]
async fn two_arms_of_one_share_are_no_predecessors_of_each_other() {
    let scene = Scene::new().await;
    let session = |host: &str, name: &str, arms: &str, minute| Session {
        agent: Arc::new(AgentIdentity {
            name: format!("{host}/0/{name}").into(),
            location: "lab".into(),
        }),
        arm: arm(name, arms),
        partition: Partition::ALL,
        started: scene.at(minute),
    };
    let start = async |session: &Session| {
        let started = scene
            .store
            .start_session(session, Duration::from_secs(30), false);
        started.await.unwrap()
    };
    let a = start(&session("h", "a", "a,b", 0.0)).await;
    start(&session("h", "b", "a,b", 0.2)).await;
    let text = async || -> String {
        let sql = "select string_agg(concat_ws(' ', arm, coalesce(arms::text, '-'), arm_index || '/' || arm_count, coalesce(end_reason, 'runs')), '; ' order by started) from agents";
        row(&scene.client, sql, &[]).await.get(0)
    };
    assert_eq!(text().await, "a {a,b} 0/2 runs; b {a,b} 1/2 runs");
    // On another machine, but of the same arm: a's successor. b has been silent for a minute: dead.
    scene.store.heartbeat(a, scene.at(0.9), None).await.unwrap();
    start(&session("i", "a", "a,b", 1.2)).await;
    assert_eq!(
        text().await,
        "a {a,b} 0/2 died; b {a,b} 1/2 died; a {a,b} 0/2 runs"
    );
    // What each left is a gap of its own ticks.
    let sql = "select string_agg(concat_ws(' ', agent, arm_index || '/' || arm_count), '; ' order by agent) from gaps";
    let gaps: String = row(&scene.client, sql, &[]).await.get(0);
    assert_eq!(gaps, "h/0/a 0/2; h/0/b 1/2");
    // Found dead by its supervisor: likewise.
    let died = session("i", "a", "a,b", 1.2);
    scene
        .store
        .mark_died(
            &died.agent,
            Partition::ALL,
            scene.at(2.0),
            None,
            Duration::from_secs(30),
        )
        .await
        .unwrap();
    let gaps: String = row(&scene.client, sql, &[]).await.get(0);
    assert_eq!(gaps, "h/0/a 0/2; h/0/b 1/2; i/0/a 0/2");
    // A change that the arm never heard of.
    scene
        .store
        .note_unheard(
            &session("i", "b", "a,b", -61.0),
            scene.at(-60.5),
            scene.at(9.0),
        )
        .await
        .unwrap();
    let sql = "select string_agg(distinct concat_ws(' ', agent, reason, arm_index || '/' || arm_count), '; ') from endpoint_gaps";
    let unheard: String = row(&scene.client, sql, &[]).await.get(0);
    assert_eq!(unheard, "i/0/b catalog_behind 1/2");
}

#[tokio::test]
async fn what_one_arm_found_wrong_with_an_endpoint_is_not_cleared_by_the_other_while_it_lives() {
    let scene = Scene::new().await;
    let session = |name: &str| Session {
        agent: Arc::new(AgentIdentity {
            name: format!("h/0/{name}").into(),
            location: "lab".into(),
        }),
        arm: arm(name, "a,b"),
        partition: Partition::ALL,
        // Half an hour and a moment after minute 0 is now.
        started: scene.at(30.0),
    };
    let (a, b) = (session("a"), session("b"));
    let mut ids = Vec::new();
    for session in [&a, &b] {
        let started = scene.store.start_session(session, Duration::ZERO, false);
        ids.push(started.await.unwrap());
        scene.sql("update agents set last_seen = now()").await;
    }
    // The token is not in the environment of b.
    let id = EndpointId(1);
    let problem = Problem::of("auth", "NO_SUCH_TOKEN is not set");
    let store = &scene.store;
    store
        .set_problems(&b.agent, id, scene.at(30.0), &[problem])
        .await
        .unwrap();
    let clear = async |session: &Session| {
        let agent = &session.agent;
        let since = scene.at(30.0);
        store.set_problems(agent, id, since, &[]).await.unwrap();
        store
            .replace_problems(agent, Partition::ALL, &[])
            .await
            .unwrap();
        number(&scene.client, "select count(*) from endpoint_problems").await
    };
    assert_eq!(clear(&a).await, 1);
    store.end_session(ids[1], scene.at(31.0)).await.unwrap();
    assert_eq!(clear(&a).await, 0);
}

/// A sequence of numbers that is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

struct Run {
    share: (i64, i64),
    arm: Arm,
    from_us: i64,
    end: Option<(i64, bool)>,
}

/// Whether somebody answered for a tick, by the definition and one session at a time.
fn answered(runs: &[Run], endpoint: i64, tick: Timestamp) -> bool {
    let interval = Interval::from_secs(10).unwrap();
    let owns = |run: &&Run| {
        endpoint.rem_euclid(run.share.1) == run.share.0
            && run.arm.share().owns(EndpointId(endpoint), interval, tick)
            && run.from_us <= tick.as_micros()
    };
    let mut last = None;
    for run in runs.iter().filter(owns) {
        match run.end {
            Some((end, died)) if end <= tick.as_micros() => {
                // A death and a stop in one instant: a death, unless who stopped had come only then.
                last = last.max(Some((end.max(run.from_us + 1), died)));
            }
            _ => return true,
        }
    }
    last.is_some_and(|(_, died)| died)
}

#[tokio::test]
async fn whatever_sessions_overlap_the_books_agree_with_each_tick_looked_at_by_itself() {
    let scene = Scene::new().await;
    // Compiling the view takes longer than running it on so few rows.
    scene.sql("set jit = off").await;
    for seed in 0..25 {
        scene
            .sql(
                "delete from agents; delete from metrics;
                 update endpoint_schedules set valid = tstzrange(minute(-60), null)",
            )
            .await;
        let mut numbers = Numbers(seed);
        let mut runs = Vec::new();
        for _ in 0..1 + numbers.below(7) {
            let count = 1 + numbers.below(2) as i64;
            let share = (numbers.below(count as u64) as i64, count);
            let (name, arms) = [
                ("x", ""),
                ("a", "a,b"),
                ("b", "a,b"),
                ("a", "a,b,c"),
                ("c", "a,b,c"),
            ][numbers.below(5) as usize];
            let from = numbers.below(9) as f64;
            let end: End = match numbers.below(3) {
                0 => None,
                1 => Some((from + numbers.below(4) as f64, "died")),
                _ => Some((from + numbers.below(4) as f64, "stopped")),
            };
            scene
                .session((share.0 as i32, share.1 as i32), name, arms, from, end)
                .await;
            runs.push(Run {
                share,
                arm: arm(name, arms),
                from_us: scene.at(from).as_micros(),
                end: end.map(|(at, why)| (scene.at(at).as_micros(), why == "died")),
            });
        }
        let (mut off, mut missing) = (0, 0);
        for endpoint in [1, 2] {
            let (stored, absent): (Vec<_>, Vec<_>) = scene
                .ticks(endpoint, -60.0, 12.0)
                .into_iter()
                .partition(|tick| *tick >= scene.at(0.0) && numbers.below(4) > 0);
            scene.rows_at(endpoint, &stored).await;
            let (answered, left): (Vec<_>, Vec<_>) = absent
                .into_iter()
                .partition(|tick| answered(&runs, endpoint, *tick));
            off += left.len() as i64;
            missing += answered.len() as i64;
        }
        // As if it were minute 12 now.
        let audit = scene.audit(-60, 12).await;
        assert_eq!((audit.off, audit.missing), (off, missing), "seed {seed}");
        scene
            .sql("update endpoint_schedules set valid = tstzrange(minute(-60), minute(12))")
            .await;
        assert_eq!(
            scene.coverage().await,
            [audit.due, audit.stored, missing, off],
            "seed {seed}"
        );
    }
}
