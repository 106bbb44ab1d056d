//! What `watcher compare` reads, on histories made by hand: a window of 400 s, ten seconds a tick.

use tokio_postgres::Client;
use watcher::domain::Timestamp;
use watcher::domain::compare::{Side, bin_middle, quantiles, ratio};
use watcher::store::timescale::{AuditWindow, CompareQuery, Compared, Probes, Timescale};

use crate::support::database::{TestDatabase, number};

struct Scene {
    _database: TestDatabase,
    client: Client,
    store: Timescale,
    zero_us: i64,
}

impl Scene {
    async fn new() -> Self {
        let database = TestDatabase::migrated().await;
        let client = database.client().await;
        let store = database.open();
        let sql = "select (extract(epoch from date_trunc('minute', now() - interval '30 minutes')) * 1000000)::bigint";
        let zero_us = number(&client, sql).await;
        Self {
            _database: database,
            client,
            store,
            zero_us,
        }
    }

    /// Runs SQL in which `second(n)` stands for an instant.
    async fn sql(&self, sql: &str) {
        let second = format!(
            "create or replace function pg_temp.second(n numeric) returns timestamptz language sql immutable
             return timestamptz 'epoch' + interval '1 microsecond' * {}::double precision + n * interval '1 second'",
            self.zero_us
        );
        let sql = sql.replace("second(", "pg_temp.second(");
        self.client
            .batch_execute(&format!("{second}; {sql}"))
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// A session of `arm` of (a, b), as agent `n/arm`.
    async fn session(&self, arm: &str, share: &str, from: i64, to: i64) {
        self.sql(&format!(
            "insert into agents (name, location, arm, arms, partition_index, partition_count, version, started, last_seen, ended, end_reason)
             values ('n/{arm}', 'lab', '{arm}', '{{a,b}}', {share}, 'test', second({from}), second({to}), second({to}), 'stopped')"
        ))
        .await;
    }

    /// Rows of `agent`: of these endpoints every ten seconds from `from` on, `duration` an expression of e and t.
    async fn rows(&self, agent: &str, endpoints: &str, from: i64, to: i64, duration: &str) {
        self.sql(&format!(
            "insert into metrics (time, endpoint_id, outcome, duration_us, cpu_us, location, agent)
             select second(t), e, 'up', {duration}, 100, 'lab', '{agent}'
             from generate_series({from}, {to} - 1, 10) t, {endpoints} e"
        ))
        .await;
    }

    async fn compare(&self) -> Compared {
        let at = |second: i64| Timestamp::from_micros(self.zero_us + second * 1_000_000);
        let window = AuditWindow {
            since: at(-100),
            until: at(500),
        };
        let query = CompareQuery {
            arms: ["a", "b"],
            window,
            location: None,
            metric: "duration",
        };
        self.store.compare(query).await.unwrap()
    }
}

fn weight(compared: &Compared, side: Side) -> f64 {
    let of_side = compared.masses.iter().filter(|mass| mass.side == side);
    of_side.map(|mass| mass.weight).sum()
}

#[tokio::test]
async fn endpoints_weigh_the_same_in_both_arms_and_each_is_measured_from_its_own_middle() {
    let scene = Scene::new().await;
    for arm in ["a", "b"] {
        scene.session(arm, "0, 1", 0, 400).await;
    }
    // Ten endpoints that take 10, 20 … 100 ms, and half a second more in b; a jitter of 0 to 4 µs.
    let of = |more: i64| format!("e * 10000 + {more} + (t / 10) % 5");
    scene
        .rows("n/a", "generate_series(1, 10)", 0, 400, &of(0))
        .await;
    scene
        .rows("n/b", "generate_series(1, 10)", 5, 400, &of(500_000))
        .await;
    // Of the slow ones a has lost three quarters of its rows; one endpoint was probed by a alone.
    scene
        .sql("delete from metrics where agent = 'n/a' and endpoint_id > 5 and extract(epoch from time)::bigint / 10 % 4 <> 0")
        .await;
    scene
        .rows("n/a", "generate_series(11, 11)", 0, 400, "1")
        .await;
    let compared = scene.compare().await;
    assert_eq!(compared.endpoints, 10);
    assert_eq!(compared.block.as_secs(), 10);
    assert!((weight(&compared, Side::A) - weight(&compared, Side::B)).abs() < 1e-6);
    assert_eq!(
        (compared.rows[0].lower_at, compared.rows[1].lower_at),
        (10, 0)
    );
    let [median, ..] = quantiles(&compared.masses);
    let median = median.unwrap();
    // A bin at half that distance is 1/256 of it wide.
    assert!(
        (median.difference() - 500_000.0).abs() < 2_500.0,
        "{median:?}"
    );
    assert!(
        median.is_clear() && median.high - median.low < 10_000.0,
        "{median:?}"
    );
}

#[tokio::test]
async fn a_bin_in_sql_is_the_one_in_rust() {
    let scene = Scene::new().await;
    for arm in ["a", "b"] {
        scene.session(arm, "0, 1", 0, 400).await;
    }
    // The middle is 1 s; distances of both signs from 1 µs to some 900 ms.
    scene
        .rows("n/a", "generate_series(1, 1)", 0, 400, "1000000")
        .await;
    scene
        .rows(
            "n/b",
            "generate_series(1, 1)",
            5,
            405,
            "1000000 + ((t / 10) % 2 * 2 - 1) * power(1.41, t / 10)::int",
        )
        .await;
    let compared = scene.compare().await;
    let mut found: Vec<f64> = compared
        .masses
        .iter()
        .filter(|mass| mass.side == Side::B)
        .map(|mass| bin_middle(mass.bin).0)
        .collect();
    found.sort_by(f64::total_cmp);
    let mut expected: Vec<f64> = (0..40)
        .map(|n| f64::from(n % 2 * 2 - 1) * 1.41f64.powi(n).round())
        .collect();
    expected.sort_by(f64::total_cmp);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        let width = (expected.abs() / 256.0).max(1.0);
        assert!((found - expected).abs() <= width, "{found} for {expected}");
    }
}

#[tokio::test]
async fn only_the_time_counts_in_which_both_arms_were_to_probe_the_endpoint() {
    let scene = Scene::new().await;
    // One process of a; of b two, one of which comes later and one of which stops earlier.
    scene.session("a", "0, 1", 0, 400).await;
    scene.session("b", "0, 2", 200, 400).await;
    scene.session("b", "1, 2", 0, 300).await;
    scene
        .sql("update agents set name = 'n/b2' where partition_index = 1")
        .await;
    // Rows of a before and after are there, and none of them is like the others.
    scene
        .rows(
            "n/a",
            "generate_series(1, 2)",
            0,
            400,
            "case when e = 1 and t < 300 or e = 2 and t >= 200 then 1000 else 9000000 end",
        )
        .await;
    scene
        .rows("n/b", "generate_series(2, 2)", 205, 400, "2000")
        .await;
    scene
        .rows("n/b2", "generate_series(1, 1)", 5, 300, "2000")
        .await;
    // Somebody else's rows, in no arm; failures, skipped and suspect ones are counted and not measured.
    scene
        .rows("stranger", "generate_series(1, 2)", 7, 400, "1")
        .await;
    scene
        .sql("update metrics set outcome = 'down', reason = 'dns_error' where agent = 'n/b' and time < second(230);
              update metrics set outcome = 'skipped', reason = 'overload' where agent = 'n/b' and time >= second(380);
              update metrics set suspect = true, duration_us = 7000000 where agent = 'n/b' and time >= second(360) and time < second(380)")
        .await;
    let compared = scene.compare().await;
    assert_eq!(compared.endpoints, 2);
    let [a, b] = &compared.rows;
    assert_eq!((a.usable, a.suspect), (50, 0));
    assert_eq!(
        (
            b.outcomes["up"],
            b.outcomes["down"],
            b.outcomes["skipped"],
            b.suspect,
            b.usable
        ),
        (45, 3, 2, 2, 45 - 2)
    );
    let [median, ..] = quantiles(&compared.masses);
    let median = median.unwrap();
    // To the width of a bin.
    assert!((median.difference() - 1_000.0).abs() < 5.0, "{median:?}");
    let down = ratio(
        &compared
            .probes
            .iter()
            .map(Probes::failures)
            .collect::<Vec<_>>(),
    )
    .unwrap();
    assert!(down.a == 0.0 && (0.05..0.08).contains(&down.b), "{down:?}");
    let cost = ratio(&compared.probes.iter().map(Probes::cost).collect::<Vec<_>>()).unwrap();
    assert!((cost.a - 100.0).abs() < 1e-6 && (cost.b - 100.0).abs() < 1e-6);
    // Labels alone divide nothing.
    scene.sql("update agents set arms = null").await;
    assert_eq!(scene.compare().await, Compared::default());
}
