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
use crate::domain::compare::{BLOCK_S_MIN, CLUSTERS_MAX, Mass, Part, Side};

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
    pub outcomes: BTreeMap<String, i64>,
    /// To which the agent may have added too much.
    pub suspect: i64,
    /// That have a value of the metric, passed, and are not suspect.
    pub usable: i64,
    /// Endpoints at which this arm has the lower median.
    pub lower_at: i64,
}

/// What two arms measured at the same endpoints in the same time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Compared {
    /// Each arm's rows.
    pub rows: [ArmRows; 2],
    /// The metric, for quantiles.
    pub masses: Vec<Mass>,
    /// Probes, those that were down, and their CPU time in µs.
    pub probes: Vec<Probes>,
    /// Endpoints (at a location) that both arms probed.
    pub endpoints: i64,
    /// Length of a block of time.
    pub block: Duration,
    /// The median of the endpoints' medians, µs.
    pub middle: f64,
    /// From when until when both arms ran, though perhaps not all of it.
    pub ran: Option<(Timestamp, Timestamp)>,
}

/// Probes of one side, of a group of endpoints in a block of time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Probes {
    group: u32,
    block: u32,
    side: Side,
    probed: f64,
    down: f64,
    cpu_us: f64,
}

impl Probes {
    /// For the share that is down.
    pub fn failures(&self) -> Part {
        self.part(self.down)
    }

    /// For the mean CPU time.
    pub fn cost(&self) -> Part {
        self.part(self.cpu_us)
    }

    fn part(&self, sum: f64) -> Part {
        Part {
            group: self.group,
            block: self.block,
            side: self.side,
            sum,
            of: self.probed,
        }
    }
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
            let parameters: [&(dyn ToSql + Sync); 9] = [
                &a,
                &b,
                &since,
                &until,
                &location,
                &metric,
                &clusters,
                &clusters,
                &BLOCK_S_MIN,
            ];
            let rows = transaction.query_raw(include_str!("compare.sql"), parameters);
            let mut rows = pin!(rows.await?);
            let mut compared = Compared::default();
            while let Some(row) = rows.try_next().await? {
                compared.take(&row)?;
            }
            transaction.commit().await?;
            Ok(compared)
        })
        .await
    }
}

impl Compared {
    fn take(&mut self, row: &Row) -> Result<(), PgError> {
        let number = |at| row.try_get::<_, i32>(at).map(i32::cast_unsigned);
        let (group, block) = (number(1)?, number(2)?);
        let side = match row.try_get::<_, i32>(3)? {
            0 => Side::A,
            _ => Side::B,
        };
        let bin = row.try_get(4)?;
        let x: f64 = row.try_get(5)?;
        let y = || Ok::<f64, PgError>(row.try_get::<_, Option<f64>>(6)?.unwrap_or_default());
        let z = || Ok::<f64, PgError>(row.try_get::<_, Option<f64>>(7)?.unwrap_or_default());
        let label =
            || Ok::<String, PgError>(row.try_get::<_, Option<String>>(8)?.unwrap_or_default());
        let arm = &mut self.rows[side as usize];
        match row.try_get::<_, i32>(0)? {
            0 => {
                arm.outcomes.insert(label()?, x as i64);
                arm.suspect += y()? as i64;
                arm.usable += z()? as i64;
            }
            1 => self.masses.push(Mass {
                group,
                block,
                side,
                bin,
                weight: x,
            }),
            2 => self.probes.push(Probes {
                group,
                block,
                side,
                probed: x,
                down: y()?,
                cpu_us: z()?,
            }),
            3 => {
                self.endpoints = x as i64;
                self.block = Duration::from_secs_f64(y()?);
                self.middle = z()?;
                let label = label()?;
                let mut ends = label.split(' ').filter_map(|us| us.parse().ok());
                self.ran = ends.next().zip(ends.next()).map(|(since, until)| {
                    (Timestamp::from_micros(since), Timestamp::from_micros(until))
                });
            }
            _ => arm.lower_at = x as i64,
        }
        Ok(())
    }
}
