//! The endpoints of a share: all of them once, then what changed since the last look.

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error as PgError, IsolationLevel, Row};

use super::server::{self, ServerId};
use super::{Error, Timescale};
use crate::config::EndpointRow;
use crate::domain::{EndpointId, Partition, Timestamp};
use crate::store::CatalogChange;

const LOAD_SQL: &str = include_str!("catalog_load.sql");
const CHANGES_SQL: &str = include_str!("catalog_changes.sql");
const SNAPSHOT_SQL: &str = include_str!("catalog_snapshot.sql");

/// For a load on a slow machine; measured: 1 000 000 rows in 6 s by an unoptimised build.
const LOAD_DEADLINE: Duration = Duration::from_secs(120);

/// What a look has seen: a snapshot of the database, and of which server. The next look begins there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor {
    snapshot: String,
    server: Option<ServerId>,
}

impl Cursor {
    /// From PostgreSQL's text of a `pg_snapshot`, of whichever server answers.
    pub fn from_text(snapshot: impl Into<String>) -> Self {
        Self {
            snapshot: snapshot.into(),
            server: None,
        }
    }
}

/// The outcome of [`Timescale::catalog_changes`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changes {
    /// All changes were given; the next look begins here.
    UpTo(Cursor),
    /// The database may be behind what was seen before (a failover that lost commits, a restore): load everything anew.
    Reload,
}

impl Timescale {
    /// Gives every endpoint of `partition` and `location` to `each`, as [`CatalogChange::Upsert`], in no order. What
    /// the caller has and is not given is gone. Rows are streamed: memory does not grow with their number.
    pub async fn load_catalog(
        &self,
        partition: Partition,
        location: &str,
        each: &mut dyn FnMut(CatalogChange),
    ) -> Result<Cursor, Error> {
        self.run_within(LOAD_DEADLINE, "load the endpoints", async |client| {
            let transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await?;
            transaction
                .batch_execute(include_str!("catalog_patience.sql"))
                .await?;
            let server = server::look(&*transaction).await?.server;
            let snapshot: String = transaction.query_one(SNAPSHOT_SQL, &[]).await?.try_get(0)?;
            let (index, count) = share(partition);
            let parameters: [&(dyn ToSql + Sync); 3] = [&index, &count, &location];
            let mut rows = pin!(transaction.query_raw(LOAD_SQL, parameters).await?);
            while let Some(row) = rows.try_next().await? {
                each(CatalogChange::Upsert(Box::new(endpoint(&row, 0)?)));
            }
            transaction.commit().await?;
            Ok(Cursor {
                snapshot,
                server: Some(server),
            })
        })
        .await
    }

    /// Gives what changed since `since` to `each`: every change exactly once, in whatever order the changes were
    /// committed. A removal may be of an endpoint that the caller never had.
    pub async fn catalog_changes(
        &self,
        partition: Partition,
        location: &str,
        since: &Cursor,
        each: &mut dyn FnMut(CatalogChange),
    ) -> Result<Changes, Error> {
        self.run("look for changed endpoints", async |client| {
            // Before the look: a failover in between is seen by the next one.
            if let Some(before) = &since.server
                && server::look_again(client).await?.may_lack_what(before)
            {
                return Ok(Changes::Reload);
            }
            let statement = client.prepare_cached(CHANGES_SQL).await?;
            let (index, count) = share(partition);
            let parameters: [&(dyn ToSql + Sync); 4] = [&index, &count, &location, &since.snapshot];
            let mut rows = pin!(client.query_raw(&statement, parameters).await?);
            let mut cursor = since.clone();
            while let Some(row) = rows.try_next().await? {
                if row.try_get(1)? {
                    return Ok(Changes::Reload);
                }
                cursor.snapshot = row.try_get(0)?;
                let Some(id) = row.try_get(2)? else { continue };
                each(match row.try_get::<_, Option<i64>>(3)? {
                    Some(_) => CatalogChange::Upsert(Box::new(endpoint(&row, 3)?)),
                    None => CatalogChange::Remove(EndpointId(id)),
                });
            }
            Ok(Changes::UpTo(cursor))
        })
        .await
    }
}

fn share(partition: Partition) -> (i64, i64) {
    (partition.index().into(), partition.count().into())
}

/// The columns of an endpoint, from column `at` on.
fn endpoint(row: &Row, at: usize) -> Result<EndpointRow, PgError> {
    Ok(EndpointRow {
        id: EndpointId(row.try_get(at)?),
        kind: row.try_get(at + 1)?,
        url: row.try_get(at + 2)?,
        interval_s: row.try_get(at + 3)?,
        timeout_ms: row.try_get(at + 4)?,
        degraded_after_ms: row.try_get(at + 5)?,
        cert_warn_days: row.try_get(at + 6)?,
        regex: row.try_get(at + 7)?,
        regex_not: row.try_get(at + 8)?,
        settings: row.try_get(at + 9)?,
        changed_at: Timestamp::from_micros(row.try_get(at + 10)?),
    })
}
