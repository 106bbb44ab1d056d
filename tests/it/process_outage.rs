//! Starts, deaths and stops while the database is away; endpoints that go by mistake; schemas that do not fit. The real
//! binary against a real database behind a proxy that can be cut.

use std::path::Path;

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use watcher::target::Target;

use crate::support::chaos_proxy::ChaosProxy;
use crate::support::database::{TestDatabase, number};
use crate::support::process::{Running, eventually, get, watcher};
use crate::support::target::target;

/// A migrated database with endpoints every 5 s on a target, behind a proxy; and a folder for the spool.
struct Scene {
    database: TestDatabase,
    target: Target,
    proxy: ChaosProxy,
    url: String,
    folder: TempDir,
}

impl Scene {
    async fn new(endpoints: i64) -> Self {
        let database = TestDatabase::migrated().await;
        let target = target();
        let proxy = ChaosProxy::start(database.address(), true);
        let url = database.url_through(proxy.address);
        let scene = Self {
            database,
            target,
            proxy,
            url,
            folder: tempfile::tempdir().unwrap(),
        };
        scene.add(endpoints).await;
        scene
    }

    async fn add(&self, endpoints: i64) {
        let insert = "insert into endpoints (url, interval_s) select $1 || '/e/' || n, 5 from generate_series(1, $2::bigint) n";
        let url = self.target.http_url().to_string();
        let client = self.database.client().await;
        client.execute(insert, &[&url, &endpoints]).await.unwrap();
    }

    fn start(&self, processes: &str, more: &[(&str, &str)]) -> Running {
        let folder = self.folder.path().to_str().unwrap();
        let mut env = vec![
            ("DATABASE_URL", self.url.as_str()),
            ("WATCHER_SPOOL_DIR", folder),
        ];
        env.extend(more);
        Running::start(&["up", "--processes", processes], &env)
    }

    async fn sql(&self, sql: &str) {
        let client = self.database.client().await;
        client.batch_execute(sql).await.expect(sql);
    }

    async fn count(&self, sql: &str) -> i64 {
        number(&self.database.client().await, sql).await
    }

    /// Waits for so many more rows.
    async fn stored(&self, more: i64) {
        let sql = "select count(*) from metrics";
        let before = self.count(sql).await;
        eventually("rows", async || {
            (self.count(sql).await >= before + more).then_some(())
        })
        .await;
    }

    /// Waits for so many more probes, as the target sees them.
    async fn probed(&self, more: u64) {
        let before = self.target.count("/e/");
        eventually("probes", async || {
            (self.target.count("/e/") >= before + more).then_some(())
        })
        .await;
    }

    /// Waits until a snapshot of so many endpoints lies there, for each of `places`.
    async fn snapshots(&self, places: u32, endpoints: usize) {
        eventually("the snapshots", async || {
            let rows = |index| {
                let path = self.folder.path().join(format!("catalog-{index}.snapshot"));
                let text = std::fs::read_to_string(path).ok()?;
                text.contains("\n= ").then(|| text.matches("\n+ ").count())
            };
            let sum: Option<usize> = (0..places).map(rows).sum();
            (sum? >= endpoints).then_some(())
        })
        .await;
    }

    async fn drained(&self, up: &Running) {
        eventually("an empty spool", async || {
            let metrics = get(up.listen, "/metrics").await?.1;
            let mut rows = metrics
                .lines()
                .filter(|line| line.starts_with("watcher_spool_rows{"))
                .peekable();
            rows.peek()?;
            rows.all(|line| line.ends_with(" 0")).then_some(())
        })
        .await;
    }

    async fn audit(&self, arguments: &[&str]) -> Value {
        let output = watcher()
            .args(["audit", "--json", "--since", "10m"])
            .args(arguments)
            .env("DATABASE_URL", self.database.url())
            .output()
            .await
            .unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Everything that the target served is stored once.
    async fn assert_served_is_stored(&self) {
        let sql = "select count(*) from metrics where outcome <> 'skipped'";
        let (served, stored) = (self.target.count("/e/") as i64, self.count(sql).await);
        // A death may take what was not saved yet, never the other way round.
        assert!(stored <= served, "{stored} {served}");
    }
}

fn missing(audit: &Value, reason: &str) -> i64 {
    audit["missing_by"][reason].as_i64().unwrap_or(0)
}

async fn ends_of_sessions(scene: &Scene) -> String {
    let sql = "select string_agg(coalesce(end_reason, 'runs'), ' ' order by started, session_id) from agents";
    let client = scene.database.client().await;
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Kills a supervisor and its agents, which would stop in order when it alone is gone.
async fn kill(mut up: Running) {
    let agents = up.children();
    up.signal(Signal::STOP);
    for &agent in &agents {
        kill_process(agent, Signal::KILL).unwrap();
    }
    up.signal(Signal::KILL);
    up.ended().await;
    eventually("no agent", async || {
        let alive = |pid: &rustix::process::Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        (!agents.iter().any(alive)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_runs_without_the_database_is_told_when_it_is_back() {
    let scene = Scene::new(60).await;
    let mut up = scene.start("2", &[]);
    up.ready().await;
    scene.stored(60).await;
    scene.snapshots(2, 60).await;
    let metrics = get(up.listen, "/metrics").await.unwrap().1;
    assert!(
        metrics.contains("watcher_catalog_snapshot_age_seconds{"),
        "{metrics}"
    );
    scene.proxy.cut();
    scene.probed(30).await;
    // The first run stops in order; the second and the third begin without the database, and are killed.
    up.stop().await;
    for _ in 0..2 {
        let mut up = scene.start("2", &[]);
        up.ready().await;
        assert!(
            up.log().contains("probing from the snapshot"),
            "{}",
            up.log()
        );
        scene.probed(90).await;
        kill(up).await;
    }
    // The fourth sees the database come back.
    let mut up = scene.start("2", &[]);
    up.ready().await;
    scene.probed(60).await;
    assert_eq!(ends_of_sessions(&scene).await, "runs runs");
    scene.proxy.heal();
    eventually("four runs of two", async || {
        (scene.count("select count(*) from agents").await == 8).then_some(())
    })
    .await;
    scene.drained(&up).await;
    scene.stored(30).await;
    up.stop().await;

    assert_eq!(
        ends_of_sessions(&scene).await,
        "stopped stopped died died died died stopped stopped"
    );
    let left: Vec<_> = std::fs::read_dir(scene.folder.path())
        .unwrap()
        .filter_map(|file| file.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with("sessions-"))
        .collect();
    assert_eq!(left, [] as [&str; 0]);
    let audit = scene.audit(&[]).await;
    assert_eq!(audit["duplicates"], 0, "{audit}");
    // Only what the kills took, and the time until the next start, is missing, and it says so.
    assert_eq!(
        audit["missing"].as_i64().unwrap(),
        missing(&audit, "agent_died"),
        "{audit}"
    );
    assert!(audit["off"].as_i64() > Some(0), "{audit}");
    scene.assert_served_is_stored().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_during_an_outage_goes_on_from_the_snapshot() {
    let scene = Scene::new(60).await;
    let mut up = scene.start("1", &[]);
    up.ready().await;
    scene.stored(60).await;
    scene.snapshots(1, 60).await;
    scene.proxy.cut();
    scene.probed(60).await;
    let [first] = up.children()[..] else {
        panic!("{:?}", up.children())
    };
    kill_process(first, Signal::KILL).unwrap();
    scene.probed(120).await;
    // Changes that the outage hid, one of which is new.
    scene
        .sql("delete from endpoints where id = 1; update endpoints set interval_s = 6 where id = 2")
        .await;
    scene.add(1).await;
    // Some of its ticks come due and are not probed.
    scene.probed(180).await;
    scene.proxy.heal();
    scene.stored(60).await;
    scene.drained(&up).await;
    up.stop().await;
    let audit = scene.audit(&["--endpoints"]).await;
    assert_eq!(audit["duplicates"], 0, "{audit}");
    let (died, behind) = (
        missing(&audit, "agent_died"),
        missing(&audit, "catalog_behind"),
    );
    assert_eq!(audit["missing"], died + behind, "{audit}");
    assert!(behind > 0, "{audit}");
    // It is of those two alone.
    let of = |id: i64| -> &Value {
        let all = audit["endpoints"].as_array().unwrap();
        all.iter().find(|e| e["endpoint_id"] == id).unwrap()
    };
    assert_eq!(
        missing(of(2), "catalog_behind") + missing(of(61), "catalog_behind"),
        behind,
        "{audit}"
    );
    assert_eq!(ends_of_sessions(&scene).await, "died stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_ends_before_it_hears_of_a_change_leaves_its_ticks_with_their_reason() {
    let scene = Scene::new(20).await;
    let mut up = scene.start("1", &[]);
    up.ready().await;
    scene.stored(20).await;
    scene.snapshots(1, 20).await;
    scene.proxy.cut();
    scene.add(20).await;
    // Ten seconds of ticks of forty, of which it probes twenty.
    scene.probed(40).await;
    up.stop().await;
    // Of the next run, too, which is killed.
    let mut up = scene.start("1", &[]);
    up.ready().await;
    scene.probed(60).await;
    kill(up).await;
    scene.proxy.heal();
    let mut up = scene.start("1", &[]);
    up.ready().await;
    scene.stored(80).await;
    scene.drained(&up).await;
    up.stop().await;
    let audit = scene.audit(&["--endpoints"]).await;
    let (died, behind) = (
        missing(&audit, "agent_died"),
        missing(&audit, "catalog_behind"),
    );
    assert_eq!(audit["missing"], died + behind, "{audit}");
    assert!(behind >= 40, "{audit}");
    let of_old = audit["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|endpoint| endpoint["endpoint_id"].as_i64() <= Some(20));
    assert_eq!(of_old.map(|e| missing(e, "catalog_behind")).sum::<i64>(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_used_is_named_and_the_database_is_waited_for() {
    let scene = Scene::new(20).await;
    let path = scene.folder.path().join("catalog-0.snapshot");
    let mut up = scene.start("1", &[]);
    up.ready().await;
    scene.snapshots(1, 20).await;
    up.stop().await;
    let whole = std::fs::read(&path).unwrap();
    scene.proxy.cut();

    let refused = async |scene: &Scene, env: &[(&str, &str)], reason: &str| {
        let up = scene.start("1", env);
        eventually("it says why", async || {
            let log = up.log();
            (log.contains("catalog-0.snapshot") && log.contains(reason)).then_some(())
        })
        .await;
        let served = scene.target.count("/e/");
        eventually("not ready", async || {
            matches!(get(up.listen, "/ready").await, Some((503, _))).then_some(())
        })
        .await;
        assert_eq!(get(up.listen, "/live").await.unwrap().0, 200);
        assert_eq!(scene.target.count("/e/"), served);
        up.stop().await;
    };
    refused(
        &scene,
        &[("WATCHER_LOCATION", "elsewhere")],
        "not of share 0/1",
    )
    .await;
    refused(
        &scene,
        &[("WATCHER_CATALOG_SNAPSHOT_MAX_AGE", "1us")],
        "s ago",
    )
    .await;
    let middle = whole.len() / 2;
    let mut damaged = whole.clone();
    damaged[middle] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    refused(&scene, &[], "damaged").await;
    std::fs::write(&path, "").unwrap();
    refused(&scene, &[], "it has no head").await;

    // Off: not even a good one.
    std::fs::write(&path, &whole).unwrap();
    let off = [("WATCHER_CATALOG_SNAPSHOT", "off")];
    refused_quietly(&scene, &off).await;

    // A good one, and the database comes back later.
    let mut up = scene.start("1", &[]);
    up.ready().await;
    scene.probed(20).await;
    scene.proxy.heal();
    scene.stored(20).await;
    // A stop leaves in the spool what has not been sent again by then: the next start sends it.
    scene.drained(&up).await;
    up.stop().await;
    let audit = scene.audit(&[]).await;
    assert_eq!(
        (&audit["missing"], &audit["duplicates"]),
        (&0.into(), &0.into()),
        "{audit}"
    );
}

async fn refused_quietly(scene: &Scene, env: &[(&str, &str)]) {
    let up = scene.start("1", env);
    eventually("it waits", async || {
        up.log().contains("waiting for the database").then_some(())
    })
    .await;
    assert!(matches!(get(up.listen, "/ready").await, Some((503, _))));
    assert!(!up.log().contains("snapshot"), "{}", up.log());
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_the_table_deleted_by_mistake_is_probed_until_the_grace_is_over_or_it_was_meant() {
    let scene = Scene::new(40).await;
    let mut up = scene.start("1", &[]);
    up.ready().await;
    scene.stored(40).await;
    scene.snapshots(1, 40).await;
    scene.sql("delete from endpoints where id <= 30").await;
    eventually("held", async || {
        let sql = "select coalesce(sum(endpoints), 0)::bigint from held_removals";
        (scene.count(sql).await == 30).then_some(())
    })
    .await;
    assert!(up.log().contains("deleted at once"), "{}", up.log());
    let metrics = get(up.listen, "/metrics").await.unwrap().1;
    assert!(
        metrics.contains("watcher_endpoints_held{partition=\"0\"} 30"),
        "{metrics}"
    );
    let held = async |id: i64, what: &str| {
        let before = scene.target.count(&format!("/e/{id}"));
        eventually(what, async || {
            (scene.target.count(&format!("/e/{id}")) > before).then_some(())
        })
        .await;
    };
    held(7, "a deleted endpoint is probed").await;
    // A restart does not forget them.
    up.stop().await;
    let mut up = scene.start("1", &[]);
    up.ready().await;
    held(8, "a deleted endpoint is probed by the next run").await;
    // One that is disabled goes at once, whatever is held.
    scene
        .sql("update endpoints set enabled = false where id = 31")
        .await;
    scene.sql("update held_removals set confirmed = true").await;
    eventually("released", async || {
        (scene.count("select count(*) from held_removals").await == 0).then_some(())
    })
    .await;
    let gauge = "watcher_endpoints{partition=\"0\"} 9";
    eventually("nine are probed", async || {
        get(up.listen, "/metrics")
            .await?
            .1
            .contains(gauge)
            .then_some(())
    })
    .await;
    up.stop().await;

    // The same with a grace that passes, and with one that is off.
    for (grace, is_held) in [("2s", true), ("0", false)] {
        scene.add(90).await;
        let mut up = scene.start("1", &[("WATCHER_MASS_REMOVAL_GRACE", grace)]);
        up.ready().await;
        scene.sql("truncate endpoints").await;
        eventually("none is probed", async || {
            let metrics = get(up.listen, "/metrics").await?.1;
            metrics
                .contains("watcher_endpoints{partition=\"0\"} 0")
                .then_some(())
        })
        .await;
        assert_eq!(
            up.log().contains("deleted at once"),
            is_held,
            "{}",
            up.log()
        );
        up.stop().await;
    }
    let audit = scene.audit(&[]).await;
    assert_eq!(
        (&audit["missing"], &audit["duplicates"]),
        (&0.into(), &0.into()),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_or_a_privilege_that_does_not_fit_stops_the_sending_and_nothing_is_lost() {
    let scene = Scene::new(60).await;
    let mut up = scene.start("1", &[]);
    up.ready().await;
    scene.stored(60).await;
    let role = format!("agent_of_{}", scene.database.name());
    let faults = [
        (
            "alter table metrics rename column outcome to was_outcome",
            "alter table metrics rename column was_outcome to outcome",
            "outcome",
        ),
        (
            "alter table metrics rename to was_metrics",
            "alter table was_metrics rename to metrics",
            "metrics",
        ),
    ];
    for (break_it, mend_it, named) in faults {
        let before = up.log().matches("does not take samples").count();
        scene.sql(break_it).await;
        eventually("it says so", async || {
            let log = up.log();
            let said = log
                .lines()
                .filter(|line| line.contains("does not take samples"))
                .nth(before)?
                .to_owned();
            said.contains(named).then_some(())
        })
        .await;
        scene.probed(120).await;
        scene.sql(mend_it).await;
        scene.stored(60).await;
        scene.drained(&up).await;
    }
    up.stop().await;

    // An agent whose role loses the right to insert.
    scene
        .sql(&format!(
            "create role {role} login password 'p'; grant watcher_agent to {role}"
        ))
        .await;
    let mut url = url::Url::parse(&scene.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("p")).unwrap();
    let admin = scene.url.clone();
    let env = [
        ("DATABASE_URL", url.as_str()),
        ("WATCHER_ADMIN_DATABASE_URL", admin.as_str()),
    ];
    let mut up = scene.start("1", &env);
    up.ready().await;
    scene.stored(60).await;
    scene
        .sql("revoke insert on metrics from watcher_agent")
        .await;
    eventually("it says so", async || {
        let log = up.log();
        (log.contains("does not take samples") && log.contains("permission denied")).then_some(())
    })
    .await;
    scene.probed(60).await;
    scene.sql("grant insert on metrics to watcher_agent").await;
    scene.stored(60).await;
    scene.drained(&up).await;
    up.stop().await;
    let audit = scene.audit(&[]).await;
    let sql = format!("drop owned by {role}; drop role {role}");
    scene.sql(&sql).await;
    assert_eq!(
        (&audit["missing"], &audit["duplicates"]),
        (&0.into(), &0.into()),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_a_newer_release_is_refused_at_the_start_and_spooled_for_later() {
    let scene = Scene::new(20).await;
    let mut up = scene.start("1", &[]);
    up.ready().await;
    scene.snapshots(1, 20).await;
    up.stop().await;
    let newer = "insert into refinery_schema_history select 999, 'newer', applied_on, checksum from refinery_schema_history where version = 1";
    let again = "delete from refinery_schema_history where version = 999";
    scene.sql(newer).await;
    let mut up = scene.start("1", &[]);
    assert!(!up.ended().await.success());
    let log = up.log();
    assert!(
        log.contains("version 999") && log.contains("newer release"),
        "{log}"
    );

    // It is found out after agents have started without the database: they go on, and it says so.
    scene.proxy.cut();
    let mut up = scene.start("1", &[]);
    up.ready().await;
    scene.probed(20).await;
    scene.proxy.heal();
    eventually("it says so", async || {
        let log = up.log();
        log.contains("not as this release needs it").then_some(())
    })
    .await;
    scene.probed(20).await;
    scene.sql(again).await;
    scene.stored(20).await;
    scene.drained(&up).await;
    up.stop().await;
    let audit = scene.audit(&[]).await;
    assert_eq!(
        (&audit["missing"], &audit["duplicates"]),
        (&0.into(), &0.into()),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_that_is_lost_is_made_up_for_by_polling() {
    let scene = Scene::new(5).await;
    let mut up = scene.start("1", &[]);
    up.ready().await;
    // Nobody is told of anything any more.
    scene
        .sql(
            "create or replace function pg_temp.gone() returns void language sql as '';
             do $$ begin
                 execute replace(pg_get_functiondef('endpoints_committed'::regproc),
                     'perform pg_notify(''watcher_endpoints'', '''');', '');
             end $$",
        )
        .await;
    scene.add(20).await;
    let gauge = "watcher_endpoints{partition=\"0\"} 25";
    eventually("they are probed", async || {
        get(up.listen, "/metrics")
            .await?
            .1
            .contains(gauge)
            .then_some(())
    })
    .await;
    up.stop().await;
    let audit = scene.audit(&[]).await;
    assert_eq!(
        (&audit["missing"], &audit["duplicates"]),
        (&0.into(), &0.into()),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_updates_costs_few_looks() {
    let scene = Scene::new(20).await;
    let mut up = scene.start("1", &[]);
    up.ready().await;
    let begun = tokio::time::Instant::now();
    let client = scene.database.client().await;
    for n in 0..1_000 {
        let sql = "update endpoints set timeout_ms = 1000 + $1::int where id = $2::int % 20 + 1";
        client.execute(sql, &[&n, &n]).await.unwrap();
    }
    let applied = "select count(*) from endpoints where timeout_ms >= 1980";
    assert_eq!(scene.count(applied).await, 20);
    scene.stored(20).await;
    // Each look that finds something is a line in the log.
    let looks = up.log().matches("endpoints changed").count();
    let seconds = begun.elapsed().as_secs_f64();
    assert!(looks >= 1, "{}", up.log());
    assert!(
        (looks as f64) < seconds * 5.0 + 5.0,
        "{looks} looks in {seconds} s"
    );
    up.stop().await;
    let audit = scene.audit(&[]).await;
    assert_eq!(
        (&audit["missing"], &audit["duplicates"]),
        (&0.into(), &0.into()),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_holds_references_and_no_secret() {
    let scene = Scene::new(1).await;
    let secret = "c4n4ry-5ecret";
    let settings = r#"{"auth": {"bearer": {"secret_ref": "env:CANARY"}}}"#;
    scene
        .sql(&format!("update endpoints set settings = '{settings}'"))
        .await;
    let mut up = scene.start("1", &[("CANARY", secret)]);
    up.ready().await;
    scene.snapshots(1, 1).await;
    scene.probed(1).await;
    up.stop().await;
    let files = |folder: &Path| -> Vec<Vec<u8>> {
        let files = std::fs::read_dir(folder).unwrap();
        files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect()
    };
    let contains =
        |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    let all = files(scene.folder.path());
    assert!(all.iter().any(|file| contains(file, "env:CANARY")));
    assert!(!all.iter().any(|file| contains(file, secret)));
    let password = url::Url::parse(&scene.url).unwrap();
    if let Some(password) = password.password().filter(|p| p.len() > 3) {
        assert!(!all.iter().any(|file| contains(file, password)));
    }
}
