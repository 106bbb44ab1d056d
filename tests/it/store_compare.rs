//! What `watcher compare` reads, on histories made by hand: a window of 400 s, ten seconds a tick.

use watcher::domain::compare::{Probes, Side, quantiles, ratio};
use watcher::store::timescale::{CompareQuery, Compared};

use crate::support::scene::Scene;

impl Scene {
    /// A session of `arm` of (a, b), as agent `n/arm`.
    async fn arm(&self, arm: &str, share: &str, from: i64, to: i64) {
        self.sql(&format!(
            "insert into agents (name, location, arm, arms, partition_index, partition_count, version, started, last_seen, ended, end_reason)
             values ('n/{arm}', 'lab', '{arm}', '{{a,b}}', {share}, 'test', second({from}), second({to}), second({to}), 'stopped')"
        ))
        .await;
    }

    /// Rows of `agent`: of these endpoints every ten seconds from `from` on, `duration` an expression of e and t.
    async fn took(&self, agent: &str, endpoints: &str, from: i64, to: i64, duration: &str) {
        self.sql(&format!(
            "insert into metrics (time, endpoint_id, outcome, duration_us, cpu_us, location, agent)
             select second(t), e, 'up', {duration}, 100, 'lab', '{agent}'
             from generate_series({from}, {to} - 1, 10) t, {endpoints} e"
        ))
        .await;
    }

    async fn compare(&self) -> Compared {
        let query = CompareQuery {
            arms: ["a", "b"],
            window: self.window(-100, 500),
            location: None,
            metric: "duration",
        };
        self.store.compare(query).await.unwrap()
    }
}

fn weight(compared: &Compared, side: Side) -> f64 {
    let of_side = compared
        .paired
        .masses
        .iter()
        .filter(|mass| mass.side == side);
    of_side.map(|mass| mass.weight).sum()
}

#[tokio::test]
async fn endpoints_weigh_the_same_in_both_arms_and_each_is_measured_from_its_own_middle() {
    let scene = Scene::empty().await;
    for arm in ["a", "b"] {
        scene.arm(arm, "0, 1", 0, 400).await;
    }
    // Ten endpoints that take 10, 20 … 100 ms, and half a second more in b; a jitter of 0 to 4 µs.
    let of = |more: i64| format!("e * 10000 + {more} + (t / 10) % 5");
    scene
        .took("n/a", "generate_series(1, 10)", 0, 400, &of(0))
        .await;
    scene
        .took("n/b", "generate_series(1, 10)", 5, 400, &of(500_000))
        .await;
    // Of the slow ones a has lost three quarters of its rows; one endpoint was probed by a alone.
    scene
        .sql("delete from metrics where agent = 'n/a' and endpoint_id > 5 and extract(epoch from time)::bigint / 10 % 4 <> 0")
        .await;
    scene
        .took("n/a", "generate_series(11, 11)", 0, 400, "1")
        .await;
    let compared = scene.compare().await;
    assert_eq!(compared.paired.endpoints, 10);
    assert_eq!(compared.block.as_secs(), 10);
    assert!((weight(&compared, Side::A) - weight(&compared, Side::B)).abs() < 1e-6);
    assert_eq!(compared.paired.lower_at, [10, 0]);
    let [median, ..] = quantiles(&compared.paired.masses);
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
async fn only_the_time_counts_in_which_both_arms_were_to_probe_the_endpoint() {
    let scene = Scene::empty().await;
    // One process of a; of b two, one of which comes later and one of which stops earlier.
    scene.arm("a", "0, 1", 0, 400).await;
    scene.arm("b", "0, 2", 200, 400).await;
    scene.arm("b", "1, 2", 0, 300).await;
    scene
        .sql("update agents set name = 'n/b2' where partition_index = 1")
        .await;
    // Rows of a before and after are there, and none of them is like the others.
    scene
        .took(
            "n/a",
            "generate_series(1, 2)",
            0,
            400,
            "case when e = 1 and t < 300 or e = 2 and t >= 200 then 1000 else 9000000 end",
        )
        .await;
    scene
        .took("n/b", "generate_series(2, 2)", 205, 400, "2000")
        .await;
    scene
        .took("n/b2", "generate_series(1, 1)", 5, 300, "2000")
        .await;
    // Somebody else's rows, in no arm; failures, skipped and suspect ones are counted and not measured.
    scene
        .took("stranger", "generate_series(1, 2)", 7, 400, "1")
        .await;
    scene
        .sql("update metrics set outcome = 'down', reason = 'dns_error' where agent = 'n/b' and time < second(230);
              update metrics set outcome = 'skipped', reason = 'overload' where agent = 'n/b' and time >= second(380);
              update metrics set suspect = true, duration_us = 7000000 where agent = 'n/b' and time >= second(360) and time < second(380)")
        .await;
    let compared = scene.compare().await;
    assert_eq!(compared.paired.endpoints, 2);
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
    let [median, ..] = quantiles(&compared.paired.masses);
    let median = median.unwrap();
    // To the width of a bin.
    assert!((median.difference() - 1_000.0).abs() < 5.0, "{median:?}");
    let down = ratio(
        &compared
            .paired
            .probes
            .iter()
            .map(Probes::failures)
            .collect::<Vec<_>>(),
    )
    .unwrap();
    assert!(down.a == 0.0 && (0.05..0.08).contains(&down.b), "{down:?}");
    let cost = ratio(
        &compared
            .paired
            .probes
            .iter()
            .map(Probes::cost)
            .collect::<Vec<_>>(),
    )
    .unwrap();
    assert!((cost.a - 100.0).abs() < 1e-6 && (cost.b - 100.0).abs() < 1e-6);
    // Labels alone divide nothing.
    scene.sql("update agents set arms = null").await;
    assert_eq!(scene.compare().await, Compared::default());
}

#[tokio::test]
async fn locations_are_not_mixed_up_and_large_ids_are_ids() {
    let scene = Scene::empty().await;
    for arm in ["a", "b"] {
        scene.arm(arm, "0, 1", 0, 400).await;
    }
    let large = "unnest(array[9223372036854775807, -9223372036854775807, 7])";
    for (agent, from, value) in [("n/a", 0, "1000"), ("n/b", 5, "3000")] {
        scene.took(agent, large, from, 400, value).await;
    }
    // The same agents and endpoints at another location, where b is the faster one.
    scene
        .sql("insert into agents (name, location, arm, arms, partition_index, partition_count, version, started, last_seen, ended, end_reason)
              select name, 'attic', arm, arms, partition_index, partition_count, version, started, last_seen, ended, end_reason from agents;
              insert into metrics (time, endpoint_id, outcome, duration_us, cpu_us, location, agent)
              select time, endpoint_id, 'up', 5000 - duration_us, 100, 'attic', agent from metrics where endpoint_id = 7")
        .await;
    let compared = scene.compare().await;
    assert_eq!(compared.paired.endpoints, 4);
    assert_eq!(compared.paired.lower_at, [3, 1]);
    assert_eq!(compared.paired.middle, 2_000.0);
}

#[tokio::test]
async fn an_arm_without_a_row_leaves_nothing_to_compare_and_says_when_it_ran() {
    let scene = Scene::empty().await;
    for arm in ["a", "b"] {
        scene.arm(arm, "0, 1", 0, 400).await;
    }
    let silent = scene.compare().await;
    assert_eq!(
        (silent.rows.clone(), silent.paired.endpoints),
        Default::default()
    );
    assert_eq!(silent.block.as_secs(), 10);
    let (since, until) = silent.ran.unwrap();
    assert_eq!(until.as_micros() - since.as_micros(), 400_000_000);
    scene
        .took("n/a", "generate_series(1, 3)", 0, 400, "1")
        .await;
    // All of them failed, and have no time.
    scene
        .took("n/b", "generate_series(3, 3)", 5, 400, "null")
        .await;
    scene
        .sql("update metrics set outcome = 'down', reason = 'connect_refused' where agent = 'n/b'")
        .await;
    let compared = scene.compare().await;
    assert_eq!(compared.paired.endpoints, 1);
    assert_eq!((compared.rows[0].usable, compared.rows[1].usable), (120, 0));
    assert!(
        quantiles(&compared.paired.masses)
            .iter()
            .all(Result::is_err)
    );
}
