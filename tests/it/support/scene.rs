//! A history made by hand, in a database of its own: instants count from one half an hour ago.

use tokio_postgres::Client;
use watcher::domain::Timestamp;
use watcher::store::timescale::{AuditWindow, Timescale};

use super::database::{TestDatabase, number};

/// What the tests of audit and comparison play on; each adds what it needs.
pub(crate) struct Scene {
    pub(crate) database: TestDatabase,
    pub(crate) client: Client,
    pub(crate) store: Timescale,
    pub(crate) zero_us: i64,
}

impl Scene {
    /// A migrated database without a row.
    pub(crate) async fn empty() -> Self {
        let database = TestDatabase::migrated().await;
        let client = database.client().await;
        let store = database.open();
        let sql = "select (extract(epoch from date_trunc('minute', now() - interval '30 minutes')) * 1000000)::bigint";
        let zero_us = number(&client, sql).await;
        Self {
            database,
            client,
            store,
            zero_us,
        }
    }

    /// Runs SQL in which `minute(n)` and `second(n)` stand for an instant.
    pub(crate) async fn sql(&self, sql: &str) {
        let mut text = String::new();
        for unit in ["minute", "second"] {
            text.push_str(&format!(
                "create or replace function pg_temp.{unit}(n numeric) returns timestamptz language sql immutable
                 return timestamptz 'epoch' + interval '1 microsecond' * {}::double precision + n * interval '1 {unit}';",
                self.zero_us
            ));
        }
        text.push_str(
            &sql.replace("minute(", "pg_temp.minute(")
                .replace("second(", "pg_temp.second("),
        );
        self.client
            .batch_execute(&text)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// From one second to another.
    pub(crate) fn window(&self, from: i64, to: i64) -> AuditWindow {
        let at = |second: i64| Timestamp::from_micros(self.zero_us + second * 1_000_000);
        AuditWindow {
            since: at(from),
            until: at(to),
        }
    }
}
