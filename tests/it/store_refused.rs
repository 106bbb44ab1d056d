//! Samples that the database refuses: the others of the batch are stored, and these can be found and put back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::sync::mpsc;
use watcher::domain::{AgentIdentity, Batch, EndpointId, Sample, Timestamp};
use watcher::pipeline::Gap;
use watcher::pipeline::buffer::SampleBuffer;
use watcher::pipeline::keeper::{Keeper, KeeperOptions};
use watcher::pipeline::totals::Totals;
use watcher::store::timescale::{RefusedFile, SampleWriter};
use watcher::store::{Aside, GapReason, SampleStore, WriteError, WritePath};

use crate::support::database::{TestDatabase, number, refusal, row};
use crate::support::login::Login;
use crate::support::process::{Running, eventually};
use crate::support::target::target;

/// As README has it.
const PUT_BACK: &str = "with back as (delete from refused_samples where sqlstate = '23514' returning sample)
    insert into metrics select (json_populate_record(null::metrics, sample)).* from back on conflict do nothing";

fn agent() -> Arc<AgentIdentity> {
    Arc::new(AgentIdentity {
        name: "host/0".into(),
        location: "lab".into(),
    })
}

fn samples(count: i64) -> Vec<Sample> {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let at = Timestamp::from_millis(since.as_millis() as i64);
    (0..count)
        .map(|id| Sample::new(EndpointId(id), at))
        .collect()
}

/// Runs a keeper over `samples` to its end; the gaps that it reported.
async fn keep(writer: SampleWriter, samples: Vec<Sample>) -> Vec<Gap> {
    let options = KeeperOptions {
        agent: agent(),
        batch_rows: 1_000,
        batch_age: Duration::from_secs(1),
        drain_grace: Duration::from_secs(20),
    };
    let buffer = SampleBuffer::new(10_000, 1_000);
    for sample in samples {
        buffer.push(sample).unwrap();
    }
    buffer.close();
    let (sender, mut gaps) = mpsc::unbounded_channel();
    let keeper = Keeper::new(
        Rc::new(options),
        buffer,
        writer,
        None,
        sender,
        Totals::default(),
    );
    assert_eq!(keeper.run().await, 0);
    std::iter::from_fn(|| gaps.try_recv().ok()).collect()
}

#[tokio::test]
async fn what_a_constraint_refuses_is_set_aside_with_its_reason_and_can_be_put_back() {
    let database = TestDatabase::migrated().await;
    let admin = database.client().await;
    admin
        .batch_execute("alter table metrics add constraint no_teapots check (status_code <> 418)")
        .await
        .unwrap();
    let login = Login::new(&database, "aside", "watcher_agent").await;
    let writer = SampleWriter::new(login.store().database().clone());
    let mut all = samples(200);
    for teapot in [17, 18, 150] {
        all[teapot].status_code = Some(418);
        all[teapot].remote_ip = Some("2001:db8::1".parse().unwrap());
        all[teapot].detail = Some("\u{1b}[31m'; drop table metrics; -- \u{10ffff}".into());
    }
    all[99].detail = Some("a NUL \0 in the text".into());
    all[100].detail = Some("x".repeat(1 << 20).into());
    let gaps = keep(writer, all.clone()).await;

    assert_eq!(number(&admin, "select count(*) from metrics").await, 196);
    let long = "select max(length(detail)) from metrics";
    assert_eq!(
        row(&admin, long, &[]).await.get::<_, Option<i32>>(0),
        Some(1 << 20)
    );
    let aside = "select endpoint_id, sqlstate, reason, sample::text, agent from refused_samples order by endpoint_id";
    let aside = admin.query(aside, &[]).await.unwrap();
    let of =
        |i: usize| -> (i64, String, String) { (aside[i].get(0), aside[i].get(1), aside[i].get(2)) };
    let ids: Vec<i64> = aside.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids, [17, 18, 99, 150]);
    assert_eq!((of(0).1.as_str(), of(2).1.as_str()), ("23514", "22021"));
    assert!(of(0).2.contains("no_teapots"), "{}", of(0).2);
    let nul: Value = serde_json::from_str(aside[2].get(3)).unwrap();
    assert_eq!(nul["detail"], "a NUL \0 in the text");
    assert_eq!(gaps.len(), 4);
    assert!(gaps.iter().all(|gap| gap.reason == GapReason::Refused));

    admin
        .batch_execute("alter table metrics drop constraint no_teapots")
        .await
        .unwrap();
    assert_eq!(admin.execute(PUT_BACK, &[]).await.unwrap(), 3);
    let back =
        "select count(*) from metrics where status_code = 418 and host(remote_ip) = '2001:db8::1'
        and detail = $1 and agent = 'host/0' and location = 'lab' and outcome = 'up'";
    let detail = all[17].detail.as_deref();
    assert_eq!(row(&admin, back, &[&detail]).await.get::<_, i64>(0), 3);
    assert_eq!(
        number(&admin, "select count(*) from refused_samples").await,
        1
    );
    login.remove().await;
}

#[tokio::test]
async fn agents_add_refused_samples_and_readers_read_them() {
    let database = TestDatabase::migrated().await;
    let agent_role = Login::new(&database, "agent", "watcher_agent").await;
    let reader = Login::new(&database, "reader", "watcher_reader").await;
    let (as_agent, as_reader) = (agent_role.client().await, reader.client().await);
    let insert = "insert into refused_samples (time, endpoint_id, location, agent, reason, sample) values (now(), 1, 'l', 'a', 'r', '{}')";
    as_agent.batch_execute(insert).await.unwrap();
    assert_eq!(
        number(&as_reader, "select count(*) from refused_samples").await,
        1
    );
    for (client, sql) in [
        (&as_agent, "select count(*) from refused_samples"),
        (&as_agent, "delete from refused_samples"),
        (&as_reader, "delete from refused_samples"),
        (&as_reader, insert),
        // In another's name.
        (
            &as_agent,
            "insert into refused_samples (time, endpoint_id, location, agent, reason, sample, db_role) values (now(), 2, 'l', 'a', 'r', '{}', 'postgres')",
        ),
    ] {
        assert_eq!(refusal(client, sql).await.0, "42501", "{sql}");
    }
    drop((as_agent, as_reader));
    agent_role.remove().await;
    reader.remove().await;
}

#[tokio::test]
async fn where_the_table_takes_nothing_a_file_does_until_it_is_full() {
    let database = TestDatabase::migrated().await;
    let admin = database.client().await;
    admin
        .batch_execute("drop table refused_samples")
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("refused-0.jsonl");
    let file = RefusedFile::at(&path).with_bytes_max(2_000);
    let mut writer = SampleWriter::new(database.open().database().clone()).keeping_refused_in(file);
    let mut bad = samples(1);
    bad[0].detail = Some("\0".into());
    let batch = Batch {
        agent: agent(),
        samples: bad,
    };
    let why = writer.write(&batch, WritePath::Tolerant).await.unwrap_err();
    assert_eq!(writer.set_aside(&batch, &why).await.unwrap(), Aside::File);
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(
        (&line["sqlstate"], &line["sample"]["detail"]),
        (&"22021".into(), &"\0".into())
    );

    let full = loop {
        match writer.set_aside(&batch, &why).await {
            Ok(aside) => assert_eq!(aside, Aside::File),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, WriteError::Hold { .. }), "{full:?}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.len() <= 2_000 && text.ends_with('\n'));
    for line in text.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    // What is refused does not stop what is not.
    let good = Batch {
        agent: agent(),
        samples: samples(5),
    };
    assert_eq!(writer.write(&good, WritePath::Tolerant).await.unwrap(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failover_lost_of_sessions_and_gaps_is_told_again() {
    let database = TestDatabase::migrated().await;
    let target = target();
    let admin = database.client().await;
    let url = target.http_url().to_string();
    let insert = "insert into endpoints (url, interval_s) select $1 || '/e/' || n || case when n = 1 then '?status=418' else '' end, 5 from generate_series(1, 20) n";
    admin.execute(insert, &[&url]).await.unwrap();
    admin
        .batch_execute("alter table metrics add constraint no_teapots check (status_code <> 418)")
        .await
        .unwrap();
    let mut up = Running::start(
        &["up", "--processes", "1"],
        &[("DATABASE_URL", &database.url())],
    );
    up.ready().await;
    let gaps = async || {
        number(
            &admin,
            "select count(*) from endpoint_gaps where reason = 'refused'",
        )
        .await
    };
    eventually("a gap", async || (gaps().await > 0).then_some(())).await;
    let session = "select extract(epoch from started)::text from agents";
    let before: String = row(&admin, session, &[]).await.get(0);
    // What a standby that was behind has not got.
    let lost = gaps().await;
    admin
        .batch_execute("delete from agents; delete from endpoint_gaps")
        .await
        .unwrap();
    eventually("the session again", async || {
        (number(&admin, "select count(*) from agents").await == 1).then_some(())
    })
    .await;
    eventually("the gaps again", async || {
        (gaps().await >= lost).then_some(())
    })
    .await;
    let after: String = row(&admin, session, &[]).await.get(0);
    assert_eq!(after, before, "the session answers from where it began");
    up.stop().await;
    let ended = "select count(*) from agents where end_reason = 'stopped'";
    assert_eq!(number(&admin, ended).await, 1);
    let twice =
        "select count(*) - count(distinct (endpoint_id, reason, during)) from endpoint_gaps";
    assert_eq!(number(&admin, twice).await, 0);
    assert!(number(&admin, "select count(*) from refused_samples").await > 0);
}
