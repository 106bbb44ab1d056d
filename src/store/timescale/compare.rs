//! What two arms measured at the same endpoints.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error as PgError, IsolationLevel, Row};

use super::audit::AuditWindow;
use super::sessions::instant;
use super::{Error, Timescale};
use crate::domain::Timestamp;
use crate::domain::compare::{BLOCK_S_MIN, CLUSTERS_MAX, Cell, Paired, Side};

/// Reads every row of the window once and sorts it by endpoint: as long as an audit may take.
const DEADLINE: Duration = Duration::from_secs(600);

/// What is compared, and where.
#[derive(Clone, Copy, Debug)]
pub struct CompareQuery<'a> {
    /// The two arms.
    pub arms: [&'a str; 2],
    /// From when until when.
    pub window: AuditWindow,
    /// Where; everywhere when not set.
    pub location: Option<&'a str>,
    /// Which column of `metrics`, without its unit: `duration`, `connect`, …
    pub metric: &'a str,
}

/// Rows of one arm by what they say.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ArmRows {
    /// By outcome.
    pub outcomes: BTreeMap<&'static str, i64>,
    /// To which the agent may have added too much.
    pub suspect: i64,
    /// That have a value of the metric, passed, and are not suspect.
    pub usable: i64,
}

impl ArmRows {
    /// All that was not skipped.
    pub fn probed(&self) -> i64 {
        let probed = |(outcome, rows): (&&str, &i64)| (*outcome != "skipped").then_some(*rows);
        self.outcomes.iter().filter_map(probed).sum()
    }
}

/// What two arms measured at the same endpoints in the same time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Compared {
    /// Each arm's rows, also of endpoints that the other has none of.
    pub rows: [ArmRows; 2],
    /// The endpoints that both arms probed.
    pub paired: Paired,
    /// Length of a block of time.
    pub block: Duration,
    /// From when until when both arms ran, though perhaps not all of it.
    pub ran: Option<(Timestamp, Timestamp)>,
}

impl Timescale {
    /// The arms that ran in a window, each with those that it divided the ticks with (none: it owned all ticks).
    pub async fn arms_that_ran(
        &self,
        window: AuditWindow,
        location: Option<&str>,
    ) -> Result<Vec<(String, Vec<String>)>, Error> {
        let (since, until) = (instant(window.since), instant(window.until));
        self.run("look which arms ran", async |client| {
            let sql = include_str!("compare_arms.sql");
            let rows = client.query(sql, &[&since, &until, &location]).await?;
            rows.iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect()
        })
        .await
    }

    /// What two arms measured. Needs the right to read `metrics`, which an agent's role does not have.
    pub async fn compare(&self, query: CompareQuery<'_>) -> Result<Compared, Error> {
        let CompareQuery {
            arms: [a, b],
            window,
            location,
            metric,
        } = query;
        let (since, until) = (instant(window.since), instant(window.until));
        let clusters = CLUSTERS_MAX as i32;
        self.run_within(DEADLINE, "compare the arms", async |client| {
            let transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await?;
            transaction
                .batch_execute(include_str!("compare_session.sql"))
                .await?;
            let parameters: [&(dyn ToSql + Sync); 8] = [
                &a,
                &b,
                &since,
                &until,
                &location,
                &metric,
                &clusters,
                &BLOCK_S_MIN,
            ];
            let rows = transaction.query_raw(include_str!("compare.sql"), parameters);
            let mut rows = pin!(rows.await?);
            let mut compared = Compared::default();
            // One endpoint at a time: what all of them measured need not fit into memory.
            let mut endpoint = None;
            let mut cells = Vec::new();
            while let Some(row) = rows.try_next().await? {
                compared.take_extent(&row)?;
                let Some(id) = row.try_get::<_, Option<i64>>(3)? else {
                    break;
                };
                let next = Some((id, row.try_get::<_, i32>(4)?));
                if endpoint != next {
                    compared.paired.add(&cells);
                    cells.clear();
                    endpoint = next;
                }
                cells.push(compared.take_cell(&row)?);
            }
            compared.paired.add(&cells);
            compared.paired.finish();
            transaction.commit().await?;
            Ok(compared)
        })
        .await
    }
}

impl Compared {
    fn take_extent(&mut self, row: &Row) -> Result<(), PgError> {
        let at = |column| row.try_get(column).map(Timestamp::from_micros);
        self.ran = Some((at(0)?, at(1)?));
        self.block = Duration::from_secs_f64(row.try_get(2)?);
        Ok(())
    }

    fn take_cell(&mut self, row: &Row) -> Result<Cell, PgError> {
        let side = match row.try_get::<_, i32>(5)? {
            0 => Side::A,
            _ => Side::B,
        };
        let values: Vec<i32> = row.try_get(13)?;
        let arm = &mut self.rows[side as usize];
        let mut count = |column, outcome| -> Result<f64, PgError> {
            let rows: i64 = row.try_get(column)?;
            if rows > 0 {
                *arm.outcomes.entry(outcome).or_default() += rows;
            }
            Ok(rows as f64)
        };
        let (up, degraded, down) = (count(7, "up")?, count(8, "degraded")?, count(9, "down")?);
        count(10, "skipped")?;
        arm.suspect += row.try_get::<_, i64>(11)?;
        arm.usable += values.len() as i64;
        Ok(Cell {
            side,
            block: row.try_get::<_, i32>(6)?.cast_unsigned(),
            probed: up + degraded + down,
            down,
            cpu_us: row.try_get::<_, i64>(12)? as f64,
            values,
        })
    }
}
