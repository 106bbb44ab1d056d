//! Samples that the database refuses, kept with the reason: in the table `refused_samples`, else in a file.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use tokio_postgres::{Client, Error as PgError};

use super::sessions::instant;
use crate::domain::{AgentIdentity, Batch, Sample, Timestamp};
use crate::store::{WriteError, sample_json};

const INSERT_SQL: &str = include_str!("refused_insert.sql");
/// As the table has it.
const REASON_BYTES_MAX: usize = 1024;
/// Some ten thousand samples. Who has not looked by then has more to lose by a full disk.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A sample and why it was refused.
pub(super) struct Refusal<'a> {
    agent: &'a AgentIdentity,
    sample: &'a Sample,
    sqlstate: Option<String>,
    reason: String,
}

/// Neither the table nor the file took a sample.
#[derive(Debug, thiserror::Error)]
#[error("put a refused sample aside; the table takes none ({table}), and the file")]
pub(super) struct NeitherTableNorFile {
    pub(super) table: Box<dyn std::error::Error + Send + Sync>,
    #[source]
    pub(super) source: io::Error,
}

impl<'a> Refusal<'a> {
    /// One for each sample of a batch.
    pub(super) fn of(batch: &'a Batch, why: &WriteError) -> Vec<Self> {
        let source = std::error::Error::source(why);
        let database = source
            .and_then(|source| source.downcast_ref::<PgError>())
            .and_then(PgError::as_db_error);
        let (sqlstate, mut reason) = match (database, source) {
            // The message only: a detail may quote the row.
            (Some(said), _) => (
                Some(said.code().code().to_owned()),
                said.message().to_owned(),
            ),
            (None, Some(source)) => (None, source.to_string()),
            (None, None) => (None, why.to_string()),
        };
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        // Text of the database knows no NUL.
        let reason = reason.replace('\0', "\u{fffd}");
        let refusal = |sample| Self {
            agent: &batch.agent,
            sample,
            sqlstate: sqlstate.clone(),
            reason: reason.clone(),
        };
        batch.samples.iter().map(refusal).collect()
    }

    fn row(&self) -> Json {
        let AgentIdentity { name, location } = self.agent;
        sample_json::row(self.sample, location, Some(name))
    }
}

/// All or none: one statement each, and a batch that is set aside has one row.
pub(super) async fn insert(client: &Client, refusals: &[Refusal<'_>]) -> Result<(), PgError> {
    for refusal in refusals {
        let row = refusal.row().to_string();
        client
            .execute(
                INSERT_SQL,
                &[
                    &instant(refusal.sample.scheduled_at),
                    &refusal.sample.endpoint.0,
                    &&*refusal.agent.location,
                    &&*refusal.agent.name,
                    &refusal.sqlstate,
                    &refusal.reason,
                    &row,
                ],
            )
            .await?;
    }
    Ok(())
}

/// A file of JSON lines for refused samples, capped.
#[derive(Clone, Debug)]
pub struct RefusedFile {
    path: PathBuf,
    bytes_max: u64,
}

impl RefusedFile {
    /// A file that is made when first needed.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            bytes_max: FILE_BYTES_MAX,
        }
    }

    /// With another cap.
    pub fn with_bytes_max(mut self, bytes_max: u64) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// Adds a line for each sample, whole or not at all. The disk may be slow: off the thread that probes or keeps.
    pub(super) async fn append(&self, refusals: &[Refusal<'_>]) -> io::Result<()> {
        let mut lines = String::new();
        for refusal in refusals {
            let line = json!({
                "recorded_at": sample_json::instant(now()),
                "sqlstate": refusal.sqlstate,
                "reason": refusal.reason,
                "sample": refusal.row(),
            });
            lines.push_str(&line.to_string());
            lines.push('\n');
        }
        let Self { path, bytes_max } = self.clone();
        tokio::task::spawn_blocking(move || append(&path, bytes_max, lines.as_bytes()))
            .await
            .map_err(io::Error::other)?
    }
}

fn append(path: &Path, bytes_max: u64, lines: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let before = file.metadata()?.len();
    if before + lines.len() as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "{} has {before} bytes, and may have {bytes_max}",
                path.display()
            ),
        ));
    }
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if written.is_err() {
        // A torn line would make the next one unreadable.
        let _ = file.set_len(before);
    }
    written
}

fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::default().plus(since_epoch)
}
