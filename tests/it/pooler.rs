//! PgBouncer in transaction mode: no session is one's own, and every row is stored once all the same.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_postgres::Client;
use watcher::domain::{AgentIdentity, Batch, EndpointId, Sample, Timestamp};
use watcher::store::timescale::{ChangeListener, MigrateError, SampleWriter, migrate};
use watcher::store::{SampleStore, WriteError, WritePath};

use crate::support::database::{TestDatabase, number, open};
use crate::support::login::Login;
use crate::support::pgbouncer::PgBouncer;
use crate::support::process::{Running, eventually, watcher};
use crate::support::target::target;

fn batch(ids: std::ops::Range<i64>) -> Batch {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let hour = Timestamp::from_millis(since.as_millis() as i64 / 3_600_000 * 3_600_000);
    Batch {
        agent: Arc::new(AgentIdentity {
            name: "a".into(),
            location: "l".into(),
        }),
        samples: ids.map(|id| Sample::new(EndpointId(id), hour)).collect(),
    }
}

async fn rows(client: &Client) -> i64 {
    number(client, "select count(*) from metrics").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_share_one_connection_of_the_server_on_both_paths() {
    let database = TestDatabase::migrated().await;
    let admin = database.client().await;
    let login = Login::new(&database, "pooled", "watcher_agent").await;
    let mut bouncer = PgBouncer::start(&database, 1, &[(&login.name, "pw")]);
    let store = open(&bouncer.url(&login.url()));
    let mut writers: Vec<_> = (0..3)
        .map(|_| SampleWriter::new(store.database().clone()))
        .collect();
    for (i, writer) in (0..).zip(&mut writers) {
        let batch = batch(i * 100..i * 100 + 100);
        assert_eq!(writer.write(&batch, WritePath::Fast).await.unwrap(), 100);
        let again = writer.write(&batch, WritePath::Fast).await;
        assert!(matches!(again, Err(WriteError::Conflict)), "{again:?}");
    }
    assert!(store.database().is_pooled());
    for writer in writers.iter_mut().rev() {
        // Half of it is there.
        assert_eq!(
            writer
                .write(&batch(0..150), WritePath::Tolerant)
                .await
                .unwrap(),
            0
        );
        assert_eq!(
            writer
                .write(&batch(200..300), WritePath::Tolerant)
                .await
                .unwrap(),
            0
        );
    }
    assert_eq!(
        writers[1]
            .write(&batch(250..350), WritePath::Tolerant)
            .await
            .unwrap(),
        50
    );

    bouncer.restart();
    for (i, writer) in (0..).zip(&mut writers) {
        let batch = batch(1_000 + i..1_001 + i);
        if let Err(error) = writer.write(&batch, WritePath::Tolerant).await {
            assert!(matches!(error, WriteError::Lost { .. }), "{error:?}");
            writer.write(&batch, WritePath::Tolerant).await.unwrap();
        }
    }
    assert_eq!(rows(&admin).await, 353);
    // No limit of ours was left in the session that others use.
    let left = open(&bouncer.url(&login.url()));
    left.clock_offset().await.unwrap();
    drop((store, left, writers));
    bouncer.kill();
    login.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_want_the_server_itself_and_say_so() {
    let database = TestDatabase::empty().await;
    let url = url::Url::parse(&database.url()).unwrap();
    let users = [(url.username(), url.password().unwrap_or_default())];
    let bouncer = PgBouncer::start(&database, 1, &users);
    let pooled = open(&bouncer.url(&database.url()));
    let refused = migrate(pooled.database(), &mut |_| {}).await.unwrap_err();
    assert!(
        matches!(refused, MigrateError::Pooled { .. }),
        "{refused:?}"
    );
    assert!(
        refused.to_string().contains("WATCHER_ADMIN_DATABASE_URL"),
        "{refused}"
    );
    migrate(database.open().database(), &mut |_| {})
        .await
        .unwrap();
    let current = migrate(pooled.database(), &mut |_| {}).await.unwrap();
    assert!(
        current.applied.is_empty() && current.notices.len() == 1,
        "{current:?}"
    );
    let mut listener = ChangeListener::new(pooled.database().clone());
    listener.wait_for_change(Duration::from_millis(200)).await;
    assert!(!listener.is_listening());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_line_runs_through_a_pooler_that_is_restarted() {
    let database = TestDatabase::migrated().await;
    let target = target();
    let admin = database.client().await;
    let url = target.http_url().to_string();
    let insert = "insert into endpoints (url, interval_s) select $1 || '/e/' || n, 5 from generate_series(1, $2::bigint) n";
    admin.execute(insert, &[&url, &200i64]).await.unwrap();
    let login = Login::new(&database, "line", "watcher_agent").await;
    // Two processes with two keepers, a pool and a listener each share two connections.
    let mut bouncer = PgBouncer::start(&database, 2, &[(&login.name, "pw")]);
    let mut up = Running::start(
        &["up", "--processes", "2", "--keepers", "2"],
        &[
            ("DATABASE_URL", &bouncer.url(&login.url())),
            ("WATCHER_ADMIN_DATABASE_URL", &database.url()),
        ],
    );
    up.ready().await;
    eventually("rows", async || (rows(&admin).await >= 200).then_some(())).await;
    bouncer.restart();
    let then = rows(&admin).await;
    eventually("rows after the restart", async || {
        (rows(&admin).await >= then + 300).then_some(())
    })
    .await;
    // Without notifications a new endpoint is found by looking.
    admin
        .execute(insert, &[&format!("{url}/new"), &10i64])
        .await
        .unwrap();
    eventually("rows of new endpoints", async || {
        let new = "select count(distinct endpoint_id) from metrics where endpoint_id > 200";
        (number(&admin, new).await == 10).then_some(())
    })
    .await;
    let beating = "select count(*) from agents where ended is null and last_seen > now() - interval '7 seconds'";
    eventually("heartbeats", async || {
        (number(&admin, beating).await == 2).then_some(())
    })
    .await;
    up.stop().await;
    let output = watcher()
        .args(["audit", "--json", "--since", "10m"])
        .env("DATABASE_URL", database.url())
        .output()
        .await
        .unwrap();
    let audit: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&audit["missing"], &audit["duplicates"]),
        (&0.into(), &0.into()),
        "{audit}\n{}",
        bouncer.log()
    );
    let stopped = "select count(*) from agents where end_reason = 'stopped'";
    assert_eq!(number(&admin, stopped).await, 2);
    drop(bouncer);
    login.remove().await;
}
