//! `endpoints` as its owners edit it: compare what a file wants with what is there, and write the difference.
//!
//! What is wanted is staged in a temporary table; the comparison and the writing are a few statements over it, so that
//! a million rows cost no more round trips than ten, and a run that changes nothing changes no row.

mod rows;

use std::pin::pin;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Transaction};

use crate::config::Definition;
use rows::{COLUMN_TYPES, StagedRow, stored};

/// Rows of one statement while writing: the statement-level triggers fire once for each, and progress moves.
const ROWS_PER_STATEMENT: i64 = 20_000;

/// What was being done when the database refused.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct EndpointsError {
    doing: &'static str,
    #[source]
    source: tokio_postgres::Error,
}

impl EndpointsError {
    /// The database's own words for a person, where it has any: the name of a CHECK, a key that is taken.
    pub fn server_message(&self) -> Option<String> {
        let error = self.source.as_db_error()?;
        Some(match error.detail() {
            Some(detail) => format!("{} ({detail})", error.message()),
            None => error.message().to_owned(),
        })
    }

    /// Whether the schema is not there: `watcher migrate` is the fix.
    pub fn is_missing_schema(&self) -> bool {
        let code = self
            .source
            .code()
            .map(tokio_postgres::error::SqlState::code);
        matches!(code, Some("42P01" | "42703"))
    }
}

fn doing(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> EndpointsError {
    move |source| EndpointsError { doing, source }
}

/// A row of `endpoints`.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored {
    /// `id`.
    pub id: i64,
    /// The other columns; its `id` is `id`.
    pub definition: Definition,
}

/// How the staged definitions and the table differ. Ordinals count the staged definitions from 0.
#[derive(Debug, Default)]
pub struct Difference {
    /// Not in the table yet.
    pub added: Vec<i64>,
    /// In the table, but otherwise: by what, and as it is now.
    pub changed: Vec<(i64, Stored)>,
    /// How many rows of the table nothing staged names.
    pub absent: i64,
}

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

/// Endpoints made by number, for load tests and demonstrations.
#[derive(Clone, Debug)]
pub struct Generated {
    /// How many.
    pub count: i64,
    /// Names are `prefix-000001`, ….
    pub prefix: String,
    /// `group_name`.
    pub group: Option<String>,
    /// URLs are `base_url/e/1`, …; without a slash at its end.
    pub base_url: String,
    /// The shortest and the longest interval, in seconds.
    pub interval_s: (i32, i32),
    /// `regex`.
    pub regex: Option<String>,
    /// Decides which endpoint gets which interval.
    pub seed: u32,
}

/// A problem of an endpoint, as agents reported it.
#[derive(Clone, PartialEq, Debug)]
pub struct Reported {
    /// Whose.
    pub endpoint: Stored,
    /// Where it is not probed for it.
    pub location: String,
    /// The column.
    pub field: String,
    /// What is wrong and how it is put right.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// One transaction over `endpoints`. Dropped without [`Editor::commit`], it leaves everything as it was.
pub struct Editor<'c> {
    transaction: Transaction<'c>,
    staged: i64,
}

impl<'c> Editor<'c> {
    /// Begins. With `writes`, others who edit wait until this ends.
    pub async fn begin(client: &'c mut Client, writes: bool) -> Result<Self, EndpointsError> {
        let begin = async {
            let transaction = client.transaction().await?;
            transaction
                .batch_execute(include_str!("endpoints/session.sql"))
                .await?;
            if writes {
                transaction
                    .batch_execute(include_str!("endpoints/lock.sql"))
                    .await?;
            }
            transaction
                .batch_execute(include_str!("endpoints/stage_table.sql"))
                .await?;
            Ok(transaction)
        };
        Ok(Self {
            transaction: begin.await.map_err(doing("begin to edit the endpoints"))?,
            staged: 0,
        })
    }

    /// Sends definitions to the staging table. `progress` is told how many are there now and then.
    pub async fn stage(
        &mut self,
        definitions: impl Iterator<Item = &Definition>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), EndpointsError> {
        let stage = async {
            let sink = self
                .transaction
                .copy_in(include_str!("endpoints/stage_copy.sql"))
                .await?;
            let mut writer = pin!(BinaryCopyInWriter::new(sink, COLUMN_TYPES));
            for definition in definitions {
                let row = StagedRow::new(self.staged, definition);
                writer.as_mut().write(&row.values()).await?;
                self.staged += 1;
                if self.staged % 4_096 == 0 {
                    progress(self.staged.unsigned_abs());
                }
            }
            writer.finish().await?;
            progress(self.staged.unsigned_abs());
            Ok(())
        };
        stage
            .await
            .map_err(doing("send the endpoints to the database"))
    }

    /// Makes definitions in the staging table. `progress` is told how many are there now and then.
    pub async fn stage_generated(
        &mut self,
        wanted: &Generated,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), EndpointsError> {
        let stage = async {
            let sql = include_str!("endpoints/stage_generated.sql");
            let statement = self.transaction.prepare(sql).await?;
            let mut first = 1;
            while first <= wanted.count {
                let last = wanted.count.min(first + 5 * ROWS_PER_STATEMENT - 1);
                let parameters: [&(dyn ToSql + Sync); 9] = [
                    &first,
                    &last,
                    &wanted.prefix,
                    &wanted.group,
                    &wanted.base_url,
                    &wanted.interval_s.0,
                    &wanted.interval_s.1,
                    &i64::from(wanted.seed >> 1),
                    &wanted.regex,
                ];
                self.transaction.execute(&statement, &parameters).await?;
                progress(last.unsigned_abs());
                first = last + 1;
            }
            self.staged = wanted.count + 1;
            Ok(())
        };
        stage.await.map_err(doing("generate the endpoints"))
    }

    /// Finds the row of each staged definition. Gives the ordinals of those that name an `id` that is not there, or a
    /// row that another names as well.
    pub async fn match_rows(&mut self) -> Result<Vec<(i64, String)>, EndpointsError> {
        let matching = async {
            let transaction = &self.transaction;
            transaction
                .batch_execute(include_str!("endpoints/stage_index.sql"))
                .await?;
            let unknown = transaction
                .query(include_str!("endpoints/stage_unknown_ids.sql"), &[])
                .await?;
            transaction
                .execute(include_str!("endpoints/stage_match.sql"), &[])
                .await?;
            transaction
                .batch_execute(include_str!("endpoints/stage_analyze.sql"))
                .await?;
            let same = transaction
                .query(include_str!("endpoints/stage_same_row.sql"), &[])
                .await?;
            let refused =
                |row: &Row, why: &str| (row.get(0), format!("{} {why}", row.get::<_, i64>(1)));
            let unknown = unknown.iter().map(|row| {
                refused(
                    row,
                    "is no endpoint of this database; leave id out and give it a name",
                )
            });
            let same = same.iter().map(|row| {
                refused(
                    row,
                    "is the endpoint that another item names too; remove one",
                )
            });
            Ok(unknown.chain(same).collect())
        };
        matching
            .await
            .map_err(doing("compare with the endpoints that are there"))
    }

    /// How the staged definitions and the table differ.
    pub async fn difference(&self) -> Result<Difference, EndpointsError> {
        let compare = async {
            let transaction = &self.transaction;
            let added = transaction
                .query(include_str!("endpoints/added.sql"), &[])
                .await?;
            let changed = transaction
                .query(include_str!("endpoints/changed.sql"), &[])
                .await?;
            let absent = transaction
                .query_one(include_str!("endpoints/absent_count.sql"), &[])
                .await?;
            Ok(Difference {
                added: added.iter().map(|row| row.get(0)).collect(),
                changed: changed
                    .iter()
                    .map(|row| (row.get(0), stored(row, 1)))
                    .collect(),
                absent: absent.get(0),
            })
        };
        compare
            .await
            .map_err(doing("compare with the endpoints that are there"))
    }

    /// The rows that nothing staged names.
    pub async fn absent(&self) -> Result<Vec<Stored>, EndpointsError> {
        let rows = self
            .transaction
            .query(include_str!("endpoints/absent.sql"), &[])
            .await;
        let rows = rows.map_err(doing("look for endpoints that are not wanted"))?;
        Ok(rows.iter().map(|row| stored(row, 0)).collect())
    }

    /// Writes the difference; rows that are as wanted are not touched. With `prune`, what nothing staged names is
    /// deleted. `progress` is told how many staged definitions are dealt with.
    pub async fn write(
        &self,
        prune: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Written, EndpointsError> {
        let write = async {
            let transaction = &self.transaction;
            let mut written = Written::default();
            if prune {
                let sql = include_str!("endpoints/delete_absent.sql");
                written.deleted = transaction.execute(sql, &[]).await?;
            }
            let update = transaction
                .prepare(include_str!("endpoints/update.sql"))
                .await?;
            let insert = transaction
                .prepare(include_str!("endpoints/insert.sql"))
                .await?;
            let mut first = 0;
            while first < self.staged {
                let last = self.staged.min(first + ROWS_PER_STATEMENT) - 1;
                written.updated += transaction.execute(&update, &[&first, &last]).await?;
                written.inserted += transaction.execute(&insert, &[&first, &last]).await?;
                first = last + 1;
                progress(first.unsigned_abs());
            }
            Ok(written)
        };
        write.await.map_err(doing("write the endpoints"))
    }

    /// Makes what was written visible, and tells the agents.
    pub async fn commit(self) -> Result<(), EndpointsError> {
        self.transaction
            .commit()
            .await
            .map_err(doing("commit the endpoints"))
    }
}

/// Every endpoint, by group and name, to `each`; ends early when `each` fails.
pub async fn for_each<E>(
    client: &mut Client,
    mut each: impl FnMut(Stored) -> Result<(), E>,
) -> Result<Result<(), E>, EndpointsError> {
    let read = async {
        let transaction = client.transaction().await?;
        transaction
            .batch_execute(include_str!("endpoints/session.sql"))
            .await?;
        let none: [&(dyn ToSql + Sync); 0] = [];
        let rows = transaction
            .query_raw(include_str!("endpoints/all.sql"), none)
            .await?;
        let mut rows = pin!(rows);
        while let Some(row) = rows.try_next().await? {
            if let Err(error) = each(stored(&row, 0)) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    };
    read.await.map_err(doing("read the endpoints"))
}

/// Every problem that agents have reported, by group and name of its endpoint.
pub async fn problems(client: &Client) -> Result<Vec<Reported>, EndpointsError> {
    let rows = client
        .query(include_str!("endpoints/problems.sql"), &[])
        .await;
    let rows = rows.map_err(doing("read the problems of endpoints"))?;
    Ok(rows
        .iter()
        .map(|row| Reported {
            endpoint: stored(row, 0),
            location: row.get("location"),
            field: row.get("field"),
            message: row.get("message"),
            since: row.get("since"),
        })
        .collect())
}

/// How many different problems endpoints have, for those that have any: (`id`, problems).
pub async fn problem_counts(client: &Client) -> Result<Vec<(i64, i64)>, EndpointsError> {
    let rows = client
        .query(include_str!("endpoints/problem_counts.sql"), &[])
        .await;
    let rows = rows.map_err(doing("count the problems of endpoints"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Which endpoints to remove.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Removal {
    /// By `id`.
    Id(i64),
    /// By name, where `*` stands for any text; in one group, or in any.
    Name {
        /// The name.
        name: String,
        /// The group.
        group: Option<String>,
    },
}

impl Editor<'_> {
    /// Deletes endpoints, and gives what was deleted.
    pub async fn remove(&self, removal: &Removal) -> Result<Vec<Stored>, EndpointsError> {
        let rows = match removal {
            Removal::Id(id) => {
                let sql = include_str!("endpoints/remove_by_id.sql");
                self.transaction.query(sql, &[id]).await
            }
            Removal::Name { name, group } => {
                let sql = include_str!("endpoints/remove_by_name.sql");
                self.transaction.query(sql, &[&like(name), group]).await
            }
        };
        let rows = rows.map_err(doing("remove endpoints"))?;
        Ok(rows.iter().map(|row| stored(row, 0)).collect())
    }
}

/// A LIKE pattern in which only `*` is special.
fn like(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '*' => pattern.push('%'),
            '%' | '_' | '\\' => pattern.extend(['\\', c]),
            c => pattern.push(c),
        }
    }
    pattern
}
