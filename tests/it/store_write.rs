//! Both paths into `metrics`: what is written is read back, exactly once, and one bad row is found.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio_postgres::Client;
use watcher::domain::{
    AgentIdentity, Batch, EndpointId, Failure, Outcome, Phases, Reason, Sample, SkipReason,
    Timestamp,
};
use watcher::store::timescale::SampleWriter;
use watcher::store::{SampleStore, WriteError, WritePath};

use crate::support::database::{TestDatabase, number, row};

fn batch(samples: Vec<Sample>) -> Batch {
    let agent = AgentIdentity {
        name: "host-0".into(),
        location: "lab".into(),
    };
    Batch {
        agent: Arc::new(agent),
        samples,
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("a clock after 1970").as_millis() as i64
}

fn ups(count: i64) -> Vec<Sample> {
    let at = Timestamp::from_millis(now_ms());
    (0..count)
        .map(|id| Sample::new(EndpointId(id), at))
        .collect()
}

fn writer(database: &TestDatabase) -> SampleWriter {
    SampleWriter::new(database.open().database().clone())
}

#[tokio::test]
async fn a_batch_lands_once_by_either_path_and_a_replay_adds_nothing() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let mut writer = writer(&database);
    let first = batch(ups(500));
    assert_eq!(writer.write(&first, WritePath::Fast).await.unwrap(), 500);
    let again = writer.write(&first, WritePath::Fast).await;
    assert!(matches!(again, Err(WriteError::Conflict)), "{again:?}");
    assert_eq!(writer.write(&first, WritePath::Tolerant).await.unwrap(), 0);

    // Half known, half new, one of the new ones twice in the same batch.
    let mut samples = ups(1_000);
    for (sample, known) in samples.iter_mut().zip(&first.samples) {
        sample.scheduled_at = known.scheduled_at;
    }
    samples.push(samples[999].clone());
    assert_eq!(
        writer
            .write(&batch(samples), WritePath::Tolerant)
            .await
            .unwrap(),
        500
    );
    assert_eq!(number(&client, "select count(*) from metrics").await, 1_000);

    // The fast path works again on the same connection.
    let mut more = ups(10);
    for sample in &mut more {
        sample.scheduled_at = Timestamp::from_millis(now_ms() + 5_000);
    }
    assert_eq!(
        writer.write(&batch(more), WritePath::Fast).await.unwrap(),
        10
    );
}

#[tokio::test]
async fn an_empty_batch_is_written_without_a_database() {
    let store = crate::support::database::open("postgres://nobody@127.0.0.1:1/none");
    let mut writer = SampleWriter::new(store.database().clone());
    assert_eq!(
        writer.write(&batch(vec![]), WritePath::Fast).await.unwrap(),
        0
    );
}

#[tokio::test]
async fn a_row_that_the_database_refuses_is_found_by_halving() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let mut writer = writer(&database);
    let mut samples = ups(64);
    samples[37].detail = Some("a NUL \0 in the text".into());
    for path in [WritePath::Fast, WritePath::Tolerant] {
        let mut left = batch(samples.clone());
        while left.rows() > 1 {
            let whole = writer.write(&left, path).await;
            assert!(
                matches!(whole, Err(WriteError::Refused { .. })),
                "{whole:?}"
            );
            let (first, second) = left.halves();
            let (good, bad) = if first.samples.iter().any(|s| s.detail.is_some()) {
                (second, first)
            } else {
                (first, second)
            };
            writer.write(&good, WritePath::Tolerant).await.unwrap();
            left = bad;
        }
        assert_eq!(left.samples[0].endpoint, EndpointId(37));
        assert_eq!(number(&client, "select count(*) from metrics").await, 63);
    }
}

#[tokio::test]
async fn a_sample_from_an_impossible_time_is_refused() {
    let database = TestDatabase::migrated().await;
    let mut writer = writer(&database);
    for at in [0, now_ms() + 2 * 86_400_000] {
        let sample = Sample::new(EndpointId(1), Timestamp::from_millis(at));
        let written = writer.write(&batch(vec![sample]), WritePath::Fast).await;
        assert!(
            matches!(written, Err(WriteError::Refused { rows: 1, .. })),
            "{written:?}"
        );
    }
}

#[tokio::test]
async fn a_missing_table_holds_the_batch_and_a_cut_connection_is_lost_and_made_anew() {
    let database = TestDatabase::empty().await;
    let mut writer = writer(&database);
    let held = writer.write(&batch(ups(1)), WritePath::Fast).await;
    assert!(matches!(held, Err(WriteError::Hold { .. })), "{held:?}");

    watcher::store::timescale::migrate(database.open().database(), &mut |_| {})
        .await
        .unwrap();
    assert_eq!(
        writer.write(&batch(ups(1)), WritePath::Fast).await.unwrap(),
        1
    );
    let client = database.client().await;
    row(
        &client,
        "select count(pg_terminate_backend(pid)) from pg_stat_activity
         where datname = current_database() and application_name like 'watcher/%'",
        &[],
    )
    .await;
    let cut = writer.write(&batch(ups(2)), WritePath::Tolerant).await;
    match cut {
        // Either the cut was noticed before, and the connection made anew, or in the middle.
        Ok(_) => {}
        Err(WriteError::Lost { .. }) => {
            writer
                .write(&batch(ups(2)), WritePath::Tolerant)
                .await
                .unwrap();
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nobody_listening_is_lost() {
    let store = crate::support::database::open("postgres://nobody@127.0.0.1:1/none");
    let mut writer = SampleWriter::new(store.database().clone());
    let lost = writer.connect().await;
    assert!(matches!(lost, Err(WriteError::Lost { .. })), "{lost:?}");
}

#[tokio::test]
async fn a_dropped_write_drops_its_connection() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let mut writer = writer(&database);
    writer.connect().await.unwrap();
    // Locked out, so that the write waits; then its future is dropped.
    client
        .batch_execute("begin; lock table metrics in access exclusive mode")
        .await
        .unwrap();
    let small = batch(ups(1));
    let write = writer.write(&small, WritePath::Fast);
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(300), write)
            .await
            .is_err()
    );
    client.batch_execute("rollback").await.unwrap();
    assert!(writer.write(&small, WritePath::Tolerant).await.is_ok());
}

prop_compose! {
    fn phases()(p in prop::array::uniform5(prop::option::of(0u32..2_000_000_000))) -> Phases {
        Phases { resolve_us: p[0], connect_us: p[1], tls_us: p[2], processing_us: p[3], transfer_us: p[4] }
    }
}

prop_compose! {
    fn sample()(
        endpoint in any::<i64>(),
        at in 0i64..3_600_000,
        reason in prop::option::of(prop::sample::select(Reason::all().collect::<Vec<_>>())),
        (status_code, matched, http_version) in (prop::option::of(100u16..1000), any::<Option<bool>>(), any::<Option<u8>>()),
        (lag_us, duration_us, error_us) in (any::<Option<u32>>(), any::<Option<u32>>(), any::<Option<u32>>()),
        phases in phases(),
        (suspect, hops) in (any::<bool>(), any::<u8>()),
        remote_ip in any::<Option<IpAddr>>(),
        (bytes_sent, bytes_received, cpu_us) in (any::<u32>(), any::<u32>(), any::<u32>()),
        tls_not_after in prop::option::of(-1_000_000_000_000i64..4_000_000_000_000),
        detail in prop::option::of("[^\0]{0,40}"),
    ) -> Sample {
        let mut sample = Sample::new(EndpointId(endpoint), Timestamp::from_millis(now_ms() / 3_600_000 * 3_600_000 - at));
        sample.reason = reason;
        sample.status_code = status_code;
        sample.matched = matched;
        sample.http_version = http_version;
        sample.lag_us = lag_us;
        sample.duration_us = duration_us;
        sample.error_us = error_us;
        sample.phases = phases;
        sample.suspect = suspect;
        sample.hops = hops;
        sample.remote_ip = remote_ip;
        sample.bytes_sent = bytes_sent;
        sample.bytes_received = bytes_received;
        sample.cpu_us = cpu_us;
        sample.tls_not_after = tls_not_after.map(Timestamp::from_millis);
        sample.detail = detail.map(Into::into);
        sample
    }
}

/// Reads a row back as text, column by column.
async fn stored(client: &Client, sample: &Sample) -> Vec<Option<String>> {
    let row = row(
        client,
        "select outcome::text, reason::text, status_code::text, matched::text, lag_us::text, resolve_us::text,
            connect_us::text, tls_us::text, processing_us::text, transfer_us::text, duration_us::text, error_us::text,
            suspect::text, host(remote_ip), http_version::text, hops::text, bytes_sent::text, bytes_received::text,
            cpu_us::text, ((extract(epoch from tls_not_after)) * 1000000)::bigint::text, location, agent, detail
         from metrics where endpoint_id = $1 and ((extract(epoch from time)) * 1000000)::bigint = $2",
        &[&sample.endpoint.0, &sample.scheduled_at.as_micros()],
    )
    .await;
    (0..row.len()).map(|i| row.get(i)).collect()
}

fn expected(sample: &Sample) -> Vec<Option<String>> {
    let int = |value: Option<u32>| value.map(|v| v.min(i32::MAX as u32).to_string());
    let text = |value: &dyn ToString| Some(value.to_string());
    vec![
        text(&sample.outcome().label()),
        sample.reason.map(|r| r.label().to_owned()),
        sample.status_code.map(|v| v.to_string()),
        sample.matched.map(|v| v.to_string()),
        int(sample.lag_us),
        int(sample.phases.resolve_us),
        int(sample.phases.connect_us),
        int(sample.phases.tls_us),
        int(sample.phases.processing_us),
        int(sample.phases.transfer_us),
        int(sample.duration_us),
        int(sample.error_us),
        text(&sample.suspect),
        sample.remote_ip.map(|v| v.to_string()),
        sample.http_version.map(|v| v.to_string()),
        text(&sample.hops),
        int(Some(sample.bytes_sent)),
        int(Some(sample.bytes_received)),
        int(Some(sample.cpu_us)),
        sample.tls_not_after.map(|t| t.as_micros().to_string()),
        text(&"lab"),
        text(&"host-0"),
        sample.detail.as_deref().map(str::to_owned),
    ]
}

#[tokio::test]
async fn any_sample_is_read_back_as_it_was_written() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let mut writer = writer(&database);
    let mut runner = TestRunner::deterministic();
    let mut samples: Vec<Sample> = (0..200)
        .map(|_| sample().new_tree(&mut runner).expect("a sample").current())
        .collect();
    // The corners, for certain.
    samples[0].remote_ip = Some("2001:db8::1".parse().unwrap());
    samples[1].remote_ip = Some("::ffff:192.0.2.1".parse().unwrap());
    samples[2].reason = Some(Reason::Failed(Failure::DnsNotFound));
    samples[3].reason = Some(Reason::Skipped(SkipReason::AgentError));
    samples[4].endpoint = EndpointId(i64::MIN);
    samples[5].detail = Some("'; drop table metrics; -- \u{1b}[31m \u{10ffff} \\N \t\n".into());
    let (fast, tolerant) = samples.split_at(100);
    assert_eq!(
        writer
            .write(&batch(fast.to_vec()), WritePath::Fast)
            .await
            .unwrap(),
        100
    );
    assert_eq!(
        writer
            .write(&batch(tolerant.to_vec()), WritePath::Tolerant)
            .await
            .unwrap(),
        100
    );
    for sample in &samples {
        assert_eq!(
            stored(&client, sample).await,
            expected(sample),
            "{sample:?}"
        );
    }
}

#[tokio::test]
async fn every_outcome_and_reason_has_its_label_in_the_database() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    let labels = async |name: &str| -> Vec<String> {
        let rows = client
            .query(
                "select enumlabel from pg_enum where enumtypid = $1::text::regtype order by enumsortorder",
                &[&name],
            )
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let reasons: Vec<_> = Reason::all().map(Reason::label).collect();
    assert_eq!(labels("probe_reason").await, reasons);
    let outcomes: Vec<_> = Outcome::ALL.iter().map(|o| o.label()).collect();
    assert_eq!(labels("probe_outcome").await, outcomes);
}
