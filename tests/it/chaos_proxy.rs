//! The proxy itself, with real connections through it: a harness whose faults do not happen proves nothing.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::support::chaos_proxy::{ChaosProxy, CommitFault, Then};
use crate::support::database::{TestDatabase, eventually, number};

/// An empty table, and a connection through a proxy.
async fn stage() -> (TestDatabase, ChaosProxy, Client) {
    let database = TestDatabase::empty().await;
    let proxy = ChaosProxy::start(database.address(), true);
    let client = through(&database, &proxy).await.unwrap();
    client
        .batch_execute("create table t (n int)")
        .await
        .unwrap();
    (database, proxy, client)
}

async fn through(
    database: &TestDatabase,
    proxy: &ChaosProxy,
) -> Result<Client, tokio_postgres::Error> {
    Ok(leaving(database, proxy).await?.0)
}

/// Likewise, with the task that drives it: aborted, the connection ends whatever it waits for.
async fn leaving(
    database: &TestDatabase,
    proxy: &ChaosProxy,
) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
    let url = database.url_through(proxy.address);
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok((client, task))
}

/// Copies one row, by itself or in a transaction.
async fn copy(client: &mut Client, in_transaction: bool) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "copy t from stdin";
    if in_transaction {
        let transaction = client.transaction().await?;
        finish(transaction.copy_in(SQL).await?).await?;
        transaction.commit().await
    } else {
        finish(client.copy_in(SQL).await?).await
    }
}

async fn finish(
    sink: tokio_postgres::CopyInSink<bytes::Bytes>,
) -> Result<(), tokio_postgres::Error> {
    let mut sink = std::pin::pin!(sink);
    futures_util::SinkExt::send(&mut sink, bytes::Bytes::from_static(b"1\n")).await?;
    sink.finish().await.map(drop)
}

async fn rows(database: &TestDatabase) -> i64 {
    number(&database.client().await, "select count(*) from t").await
}

#[tokio::test]
async fn a_swallowed_commit_is_made_and_never_heard_of() {
    let (database, proxy, mut client) = stage().await;
    for in_transaction in [false, true] {
        let before = rows(&database).await;
        copy(&mut client, in_transaction).await.unwrap();
        proxy.fault_next_commit(CommitFault::Swallow(Then::Cut));
        copy(&mut client, in_transaction).await.unwrap_err();
        assert_eq!(rows(&database).await, before + 2);
        client = through(&database, &proxy).await.unwrap();
    }
    let seen = proxy.seen();
    assert_eq!((seen.swallowed_copy, seen.swallowed_transaction), (1, 1));

    proxy.fault_next_commit(CommitFault::Swallow(Then::Hang));
    let hanging = tokio::time::timeout(Duration::from_secs(1), copy(&mut client, false));
    assert!(hanging.await.is_err(), "it is answered");
    assert_eq!(rows(&database).await, 5);
}

#[tokio::test]
async fn other_transactions_than_those_that_copy_are_left_alone() {
    let (_database, proxy, mut client) = stage().await;
    proxy.fault_next_commit(CommitFault::Swallow(Then::Cut));
    let transaction = client.transaction().await.unwrap();
    let insert = "insert into t values (1)";
    transaction.execute(insert, &[]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(proxy.faults_waiting(), 1);
    proxy.forget_faults();
    copy(&mut client, false).await.unwrap();
}

#[tokio::test]
async fn a_delayed_commit_lands_although_its_client_has_gone() {
    let (database, proxy, client) = stage().await;
    drop(client);
    for in_transaction in [false, true] {
        let before = rows(&database).await;
        let (mut client, task) = leaving(&database, &proxy).await.unwrap();
        let landed = proxy.seen().landed_late;
        proxy.fault_next_commit(CommitFault::Delay(Duration::from_millis(3_000)));
        let held = proxy.seen().delayed;
        tokio::select! {
            done = copy(&mut client, in_transaction) => panic!("it was not delayed: {done:?}"),
            () = eventually("it is held", async || proxy.seen().delayed == held + 1) => {}
        }
        task.abort();
        assert_eq!(rows(&database).await, before, "it landed at once");
        eventually("the commit lands", async || {
            proxy.seen().landed_late == landed + 1
        })
        .await;
        assert_eq!(rows(&database).await, before + 1);
    }
    assert_eq!(proxy.seen().delayed, 2);
}

#[tokio::test]
async fn connections_are_cut_reset_and_refused() {
    let (database, proxy, client) = stage().await;
    let ended = async |client: Client| {
        eventually("the connection ends", async || {
            client.is_closed() || client.simple_query("select 1").await.is_err()
        })
        .await;
    };
    proxy.drop_connections(true);
    ended(client).await;
    let client = through(&database, &proxy).await.unwrap();
    proxy.cut();
    ended(client).await;
    eventually("nobody listens", async || {
        through(&database, &proxy).await.is_err()
    })
    .await;
    proxy.heal();
    eventually("somebody listens", async || {
        through(&database, &proxy).await.is_ok()
    })
    .await;
    let seen = proxy.seen();
    assert!(seen.cut >= 2 && seen.reset == 1, "{seen:?}");
}

#[tokio::test]
async fn a_silent_connection_stays_open_and_says_nothing_for_good() {
    let (database, proxy, client) = stage().await;
    proxy.silence();
    eventually("the silence", async || proxy.seen().silenced == 1).await;
    let asked = tokio::time::timeout(Duration::from_secs(1), client.simple_query("select 1"));
    assert!(asked.await.is_err(), "it is answered");
    assert!(!client.is_closed());
    proxy.heal();
    let asked = tokio::time::timeout(Duration::from_secs(1), client.simple_query("select 1"));
    assert!(asked.await.is_err(), "it is answered after the silence");
    assert!(through(&database, &proxy).await.is_ok());
}

#[tokio::test]
async fn latency_and_slowness_are_felt() {
    let (_database, proxy, client) = stage().await;
    let took = async |sql: &str| {
        let begun = Instant::now();
        client.simple_query(sql).await.unwrap();
        begun.elapsed()
    };
    proxy.latency(Duration::from_millis(200));
    assert!(took("select 1").await >= Duration::from_millis(400));
    proxy.heal();
    proxy.slow(10_000);
    assert!(took("select repeat('x', 10000)").await >= Duration::from_secs(1));
}
