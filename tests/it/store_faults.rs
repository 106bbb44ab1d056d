//! The writer when the connection fails it: in doubt, in time, and exactly once.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use watcher::domain::{AgentIdentity, Batch, EndpointId, Sample, Timestamp};
use watcher::store::timescale::SampleWriter;
use watcher::store::{SampleStore, WriteError, WritePath};

use crate::support::chaos_proxy::{ChaosProxy, CommitFault, Then};
use crate::support::database::{TestDatabase, eventually, number, open};

/// The writer's deadline here.
const DEADLINE: Duration = Duration::from_secs(4);
/// What a deadline may be exceeded by on a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(8);

fn batch(count: i64) -> Batch {
    let agent = AgentIdentity {
        name: "host-0".into(),
        location: "lab".into(),
    };
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let at = Timestamp::from_millis(since.unwrap().as_millis() as i64);
    Batch {
        agent: Arc::new(agent),
        samples: (0..count)
            .map(|id| Sample::new(EndpointId(id), at))
            .collect(),
    }
}

async fn stage() -> (TestDatabase, ChaosProxy, SampleWriter) {
    let database = TestDatabase::migrated().await;
    let proxy = ChaosProxy::start(database.address(), true);
    let store = open(&database.url_through(proxy.address));
    let writer = SampleWriter::new(store.database().clone()).within(DEADLINE);
    (database, proxy, writer)
}

async fn rows(database: &TestDatabase) -> i64 {
    number(&database.client().await, "select count(*) from metrics").await
}

/// Connecting has deadlines too, which a busy machine may miss.
async fn connect(writer: &mut SampleWriter) {
    eventually("a connection", async || writer.connect().await.is_ok()).await;
}

fn is_lost<T>(written: &Result<T, WriteError>) -> bool {
    matches!(written, Err(WriteError::Lost { .. }))
}

/// Sends a batch as a keeper does, until it is known to be stored. The new rows of the last try.
async fn deliver(writer: &mut SampleWriter, batch: &Batch) -> u64 {
    let begun = Instant::now();
    loop {
        match writer.write(batch, WritePath::Tolerant).await {
            Ok(new) => return new,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_commit_whose_reply_is_swallowed_is_in_doubt_and_its_replay_adds_nothing() {
    let (database, proxy, mut writer) = stage().await;
    for (round, path) in [WritePath::Fast, WritePath::Tolerant]
        .into_iter()
        .enumerate()
    {
        for then in [Then::Cut, Then::Hang] {
            let batch = batch(100);
            let before = rows(&database).await;
            connect(&mut writer).await;
            let swallowed = proxy.seen().swallowed();
            proxy.fault_next_commit(CommitFault::Swallow(then));
            let begun = Instant::now();
            let doubtful = writer.write(&batch, path).await;
            assert!(is_lost(&doubtful), "{round} {then:?}: {doubtful:?}");
            assert!(begun.elapsed() < DEADLINE + SLACK);
            assert_eq!(proxy.seen().swallowed(), swallowed + 1);
            assert_eq!(deliver(&mut writer, &batch).await, 0);
            assert_eq!(rows(&database).await, before + 100);
        }
    }
}

#[tokio::test]
async fn a_commit_that_lands_after_the_deadline_is_not_doubled_by_the_replay() {
    let (database, proxy, mut writer) = stage().await;
    for path in [WritePath::Fast, WritePath::Tolerant] {
        let batch = batch(100);
        let before = rows(&database).await;
        let settled = |proxy: &ChaosProxy| proxy.seen().landed_late + proxy.seen().refused_late;
        let earlier = settled(&proxy);
        connect(&mut writer).await;
        proxy.fault_next_commit(CommitFault::Delay(DEADLINE * 2));
        let begun = Instant::now();
        let gave_up = writer.write(&batch, path).await;
        assert!(is_lost(&gave_up), "{gave_up:?}");
        assert!(begun.elapsed() < DEADLINE + SLACK);
        deliver(&mut writer, &batch).await;
        eventually("the late commit", async || settled(&proxy) > earlier).await;
        assert_eq!(rows(&database).await, before + 100);
    }
    assert!(proxy.seen().landed_late > 0, "{:?}", proxy.seen());
}

#[tokio::test]
async fn a_write_into_a_silent_connection_ends_by_its_deadline() {
    let (database, proxy, mut writer) = stage().await;
    let batch = batch(100);
    for path in [WritePath::Fast, WritePath::Tolerant] {
        connect(&mut writer).await;
        let silenced = proxy.seen().silenced;
        proxy.silence();
        eventually("the silence", async || proxy.seen().silenced > silenced).await;
        let begun = Instant::now();
        let written = writer.write(&batch, path).await;
        assert!(is_lost(&written), "{written:?}");
        assert!(begun.elapsed() < DEADLINE + SLACK);
        // Connecting has its own deadline.
        let begun = Instant::now();
        let connected = writer.connect().await;
        assert!(is_lost(&connected), "{connected:?}");
        assert!(begun.elapsed() < Duration::from_secs(15) + SLACK);
        proxy.heal();
    }
    assert_eq!(deliver(&mut writer, &batch).await, 100);
    assert_eq!(rows(&database).await, 100);
}

#[tokio::test]
async fn a_connection_that_ended_between_two_batches_is_not_made_anew_in_silence() {
    let (database, proxy, mut writer) = stage().await;
    for path in [WritePath::Fast, WritePath::Tolerant] {
        connect(&mut writer).await;
        deliver(&mut writer, &batch(10)).await;
        let cut = proxy.seen().cut;
        proxy.drop_connections(false);
        eventually("the cut", async || {
            // Time for the connection's task to notice, too.
            rows(&database).await > 0 && proxy.seen().cut > cut
        })
        .await;
        let next = batch(10);
        let written = writer.write(&next, path).await;
        assert!(is_lost(&written), "{written:?}");
        assert_eq!(deliver(&mut writer, &next).await, 10);
    }
}

#[tokio::test]
async fn the_server_ends_a_transaction_that_its_writer_left_open() {
    let (database, proxy, mut writer) = stage().await;
    connect(&mut writer).await;
    // Far beyond all deadlines: what frees the session is the server.
    proxy.fault_next_commit(CommitFault::Delay(Duration::from_secs(600)));
    let written = writer.write(&batch(10), WritePath::Tolerant).await;
    assert!(is_lost(&written), "{written:?}");
    let client = database.client().await;
    let open = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name like 'watcher/%' and xact_start is not null";
    assert_eq!(number(&client, open).await, 1);
    let begun = Instant::now();
    while number(&client, open).await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(15) + SLACK);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_server_gives_a_statement_three_quarters_of_the_deadline() {
    let (database, _proxy, mut writer) = stage().await;
    let client = database.client().await;
    client
        .batch_execute("begin; lock table metrics in access exclusive mode")
        .await
        .unwrap();
    // Its own error comes first, and leaves no doubt: nothing was stored.
    let written = writer.write(&batch(1), WritePath::Fast).await;
    assert!(
        matches!(written, Err(WriteError::Hold { .. })),
        "{written:?}"
    );
}
