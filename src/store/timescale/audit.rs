//! The audit: every due tick of a window left a row, or why it did not.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use serde::Serialize;
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Error as PgError, IsolationLevel, Row};

use super::sessions::instant;
use super::{Error, Timescale};
use crate::domain::Timestamp;

/// For a day of a large installation. Measured: 600 000 ticks of 10 000 endpoints take 2 s.
const AUDIT_DEADLINE: Duration = Duration::from_secs(600);

/// What is audited: ticks at or after `since` and before `until`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuditWindow {
    /// First instant.
    pub since: Timestamp,
    /// First instant after it.
    pub until: Timestamp,
}

/// What due ticks came to: `due = stored + off + missing`, `stored = up + degraded + down + the sum of skipped`.
/// Ticks that the history does not name (the 3 s after a change of an endpoint) are neither due nor missing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Audit {
    /// Grid points.
    pub due: i64,
    /// Rows on them.
    pub stored: i64,
    /// Rows by outcome.
    pub up: i64,
    /// Rows by outcome.
    pub degraded: i64,
    /// Rows by outcome.
    pub down: i64,
    /// Skipped rows by reason.
    pub skipped: BTreeMap<String, i64>,
    /// Without a row, and nobody had to probe: no agent there yet, or stopped in an orderly way.
    pub off: i64,
    /// Without a row, though somebody answered for it.
    pub missing: i64,
    /// Why they are missing; `endpoint_problem` when the row is refused, `unexplained` when nothing says so.
    pub missing_by: BTreeMap<String, i64>,
    /// Rows beyond the first of one endpoint, location and time, on a due tick or not.
    pub duplicates: i64,
}

/// The audit of one endpoint at one location. `duplicates` is not counted here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EndpointAudit {
    /// `endpoints.id`.
    pub endpoint_id: i64,
    /// The location.
    pub location: String,
    /// Its ticks.
    #[serde(flatten)]
    pub audit: Audit,
}

impl Timescale {
    /// The end of the last window that can be judged: the last tick whose timeout and flush have passed; now, when no
    /// agent is alive.
    pub async fn audit_horizon(&self) -> Result<Timestamp, Error> {
        self.run("look how far the agents are", async |client| {
            let sql = include_str!("audit_horizon.sql");
            let row = client.query_one(sql, &[]).await?;
            row.try_get(0).map(Timestamp::from_micros)
        })
        .await
    }

    /// Audits a window. Needs the right to read `metrics`, which an agent's role does not have.
    pub async fn audit(&self, window: AuditWindow) -> Result<Audit, Error> {
        let mut total = Audit::default();
        self.run_audit(window, false, &mut |_, audit| total = audit)
            .await?;
        Ok(total)
    }

    /// Audits a window, and each endpoint and location in it that was due.
    pub async fn audit_endpoints(
        &self,
        window: AuditWindow,
    ) -> Result<(Audit, Vec<EndpointAudit>), Error> {
        let mut total = Audit::default();
        let mut endpoints = Vec::new();
        self.run_audit(window, true, &mut |place, audit| match place {
            Some((endpoint_id, location)) => endpoints.push(EndpointAudit {
                endpoint_id,
                location,
                audit,
            }),
            None => total = audit,
        })
        .await?;
        endpoints.sort_by(|a, b| (a.endpoint_id, &a.location).cmp(&(b.endpoint_id, &b.location)));
        Ok((total, endpoints))
    }

    async fn run_audit(
        &self,
        window: AuditWindow,
        endpoints: bool,
        each: &mut dyn FnMut(Option<(i64, String)>, Audit),
    ) -> Result<(), Error> {
        let (since, until) = (instant(window.since), instant(window.until));
        self.run_within(AUDIT_DEADLINE, "audit the window", async |client| {
            // One snapshot for all of the arithmetic; it is one statement anyway.
            let transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await?;
            transaction
                .batch_execute(include_str!("audit_session.sql"))
                .await?;
            let parameters: [&(dyn ToSql + Sync); 3] = [&since, &until, &endpoints];
            let rows = transaction.query_raw(include_str!("audit.sql"), parameters);
            let mut rows = pin!(rows.await?);
            while let Some(row) = rows.try_next().await? {
                each(place(&row)?, counts(&row)?);
            }
            transaction.commit().await
        })
        .await
    }
}

fn place(row: &Row) -> Result<Option<(i64, String)>, PgError> {
    match row.try_get(0)? {
        Some(endpoint) => Ok(Some((endpoint, row.try_get(1)?))),
        None => Ok(None),
    }
}

fn counts(row: &Row) -> Result<Audit, PgError> {
    Ok(Audit {
        due: row.try_get(2)?,
        stored: row.try_get(3)?,
        up: row.try_get(4)?,
        degraded: row.try_get(5)?,
        down: row.try_get(6)?,
        skipped: row.try_get::<_, Json<_>>(7)?.0,
        off: row.try_get(8)?,
        missing: row.try_get(9)?,
        missing_by: row.try_get::<_, Json<_>>(10)?.0,
        duplicates: row.try_get(11)?,
    })
}
