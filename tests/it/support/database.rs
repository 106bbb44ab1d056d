//! A database of one's own, with or without the schema, in the server that `WATCHER_TEST_DATABASE_URL` names.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};
use watcher::domain::Secret;
use watcher::store::timescale::{self, Timescale};

/// Dropped with its contents when the test ends.
pub(crate) struct TestDatabase {
    server: url::Url,
    name: String,
}

impl TestDatabase {
    /// Without schema and extension.
    pub(crate) async fn empty() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let url = std::env::var("WATCHER_TEST_DATABASE_URL").expect(
            "WATCHER_TEST_DATABASE_URL is not set: these tests need a real TimescaleDB, as a superuser. \
             scripts/test starts one; by hand: export WATCHER_TEST_DATABASE_URL=$(scripts/timescaledb url)",
        );
        let server = url::Url::parse(&url).expect("WATCHER_TEST_DATABASE_URL is a URL");
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("watcher_test_{}_{count}", std::process::id());
        let database = Self { server, name };
        let client = connect(database.server.as_str()).await;
        // A process of the same id may have died before it could clean up.
        for sql in [
            format!("drop database if exists {} with (force)", database.name),
            format!("create database {}", database.name),
        ] {
            client.batch_execute(&sql).await.expect(&sql);
        }
        database
    }

    /// With the schema.
    pub(crate) async fn migrated() -> Self {
        let database = Self::empty().await;
        let migrated = timescale::migrate(database.open().database(), &mut |_| {}).await;
        migrated.expect("the migrations apply to an empty database");
        database
    }

    /// The superuser's URL.
    pub(crate) fn url(&self) -> String {
        let mut url = self.server.clone();
        url.set_path(&self.name);
        url.into()
    }

    /// The URL of another user.
    pub(crate) fn url_as(&self, user: &str, password: &str) -> String {
        let mut url = url::Url::parse(&self.url()).expect("built from a URL");
        url.set_username(user).expect("a URL with a host");
        url.set_password(Some(password)).expect("a URL with a host");
        url.into()
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        let (host, port) = (
            self.server.host_str().unwrap(),
            self.server.port().unwrap_or(5432),
        );
        std::net::ToSocketAddrs::to_socket_addrs(&(host, port))
            .unwrap()
            .next()
            .unwrap()
    }

    /// The superuser's URL, by way of a proxy.
    pub(crate) fn url_through(&self, proxy: std::net::SocketAddr) -> String {
        let mut url = url::Url::parse(&self.url()).unwrap();
        url.set_ip_host(proxy.ip()).unwrap();
        url.set_port(Some(proxy.port())).unwrap();
        url.into()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What is tested.
    pub(crate) fn open(&self) -> Timescale {
        open(&self.url())
    }

    /// A plain connection, for looking at what was done.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.url()).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (url, name) = (self.server.to_string(), self.name.clone());
        // The test's runtime is ending, perhaps in a panic; this one is our own.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let client = connect(&url).await;
                let sql = format!("drop database if exists {name} with (force)");
                client.batch_execute(&sql).await.expect(&sql);
            });
        });
        if dropped.join().is_err() {
            eprintln!("database {} is left over", self.name);
        }
    }
}

pub(crate) fn open(url: &str) -> Timescale {
    Timescale::open(&Secret::new(url)).expect("a URL that can be used")
}

/// A plain connection; its task ends with it.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("connect to the test database");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

/// The only row of a query.
pub(crate) async fn row(client: &Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Row {
    client
        .query_one(sql, parameters)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
}

/// The first column of the only row.
pub(crate) async fn number(client: &Client, sql: &str) -> i64 {
    row(client, sql, &[]).await.get(0)
}

/// The SQLSTATE and the message that a statement is refused with.
pub(crate) async fn refusal(client: &Client, sql: &str) -> (String, String) {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let error = error.as_db_error().expect("an answer of the server");
    (error.code().code().to_owned(), error.message().to_owned())
}

/// Waits until `holds`, for at most ten seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "never came true: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
