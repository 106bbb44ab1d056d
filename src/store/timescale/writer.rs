//! A keeper's connection: batches into `metrics`.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::{Client, Error as PgError, Statement};

use super::connect::{ConnectError, Connection, Database};
use super::copy::RowEncoder;
use super::sqlstate::write_error;
use crate::domain::{Batch, Timestamp};
use crate::store::{BoxFuture, SampleStore, WriteError, WritePath};

const COPY_SQL: &str = include_str!("copy.sql");
const STAGE_TABLE_SQL: &str = include_str!("stage_table.sql");
const STAGE_SQL: &str = include_str!("stage.sql");
const UNSTAGE_SQL: &str = include_str!("unstage.sql");

const WRITE_PATIENCE_SQL: &str = include_str!("write_patience.sql");

/// How long one batch may take, its commit included, unless [`SampleWriter::within`] says otherwise.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// Samples from further ahead are refused: a clock that is wrong by a day would make chunks that retention never drops.
const FUTURE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Samples from further back are refused: no spool holds a year.
const PAST_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// Writes samples over a connection of its own, which it makes when asked to and drops after any doubt.
pub struct SampleWriter {
    database: Arc<Database>,
    deadline: Duration,
    connection: Option<Ready>,
    encoder: RowEncoder,
}

/// A connection with what it has prepared.
struct Ready {
    connection: Connection,
    copy: Statement,
    staging: Option<Staging>,
}

/// The tolerant path, prepared when first needed.
struct Staging {
    copy: Statement,
    insert: Statement,
}

/// A sample from a time that no schedule has.
#[derive(Debug, thiserror::Error)]
#[error("a sample is from {0:?}, too far from now; check this machine's clock")]
struct Insane(Timestamp);

/// No answer in time: whether the batch is stored is not known.
#[derive(Debug, thiserror::Error)]
#[error("no answer from the database within {:?}", .0)]
struct Silence(Duration);

impl SampleWriter {
    /// A writer that is not connected yet.
    pub fn new(database: Arc<Database>) -> Self {
        Self {
            database,
            deadline: WRITE_DEADLINE,
            connection: None,
            encoder: RowEncoder::default(),
        }
    }

    /// The same writer, that waits no longer than `deadline` for a batch.
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    async fn ready(&mut self) -> Result<(), WriteError> {
        if self
            .connection
            .as_ref()
            .is_some_and(|c| !c.connection.client.is_closed())
        {
            return Ok(());
        }
        self.connection = None;
        let connection = self.database.connect().await.map_err(no_connection)?;
        let prepared = async {
            let client = &connection.client;
            client
                .execute(WRITE_PATIENCE_SQL, &[&server_patience(self.deadline)])
                .await?;
            client.prepare(COPY_SQL).await
        };
        let copy = in_time(self.deadline, 0, prepared).await?;
        self.connection = Some(Ready {
            connection,
            copy,
            staging: None,
        });
        Ok(())
    }

    async fn write_batch(&mut self, batch: &Batch, path: WritePath) -> Result<u64, WriteError> {
        if batch.samples.is_empty() {
            return Ok(0);
        }
        let rows = batch.rows();
        refuse_insane(batch)?;
        self.ready().await?;
        let bytes = self.encoder.encode(batch).bytes;
        // Out of self while in use: a caller who drops this future drops the connection with it, in the middle of
        // whatever it was doing.
        let Some(mut ready) = self.connection.take() else {
            return Err(WriteError::Hold {
                source: "not connected".into(),
            });
        };
        let written = match path {
            WritePath::Fast => {
                let work = copy(&ready.connection.client, &ready.copy, bytes);
                in_time(self.deadline, rows, work).await
            }
            WritePath::Tolerant => in_time(self.deadline, rows, ready.write_tolerant(bytes)).await,
        };
        // After these the server has rolled back and waits for the next command; anything else leaves a doubt.
        if matches!(
            written,
            Ok(_) | Err(WriteError::Conflict | WriteError::Refused { .. })
        ) {
            self.connection = Some(ready);
        }
        written
    }
}

impl Ready {
    async fn write_tolerant(&mut self, bytes: Bytes) -> Result<u64, PgError> {
        if self.staging.is_none() {
            let client = &self.connection.client;
            client.batch_execute(STAGE_TABLE_SQL).await?;
            self.staging = Some(Staging {
                copy: client.prepare(STAGE_SQL).await?,
                insert: client.prepare(UNSTAGE_SQL).await?,
            });
        }
        let Some(staging) = &self.staging else {
            return Ok(0);
        };
        let transaction = self.connection.client.transaction().await?;
        let sink = transaction.copy_in(&staging.copy).await?;
        send(sink, bytes).await?;
        let new = transaction.execute(&staging.insert, &[]).await?;
        transaction.commit().await?;
        Ok(new)
    }
}

impl SampleStore for SampleWriter {
    fn connect(&mut self) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(self.ready())
    }

    fn write<'a>(
        &'a mut self,
        batch: &'a Batch,
        path: WritePath,
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        Box::pin(self.write_batch(batch, path))
    }
}

async fn copy(client: &Client, statement: &Statement, bytes: Bytes) -> Result<u64, PgError> {
    send(client.copy_in(statement).await?, bytes).await
}

async fn send(sink: tokio_postgres::CopyInSink<Bytes>, bytes: Bytes) -> Result<u64, PgError> {
    let mut sink = std::pin::pin!(sink);
    sink.send(bytes).await?;
    sink.finish().await
}

/// The server's `statement_timeout`: below our deadline, since its own error says more and leaves no doubt.
fn server_patience(deadline: Duration) -> String {
    format!("{}ms", (deadline * 3 / 4).as_millis())
}

async fn in_time<T>(
    deadline: Duration,
    rows: usize,
    work: impl Future<Output = Result<T, PgError>>,
) -> Result<T, WriteError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => done.map_err(|source| write_error(rows, source)),
        Err(_) => Err(WriteError::Lost {
            rows,
            source: Box::new(Silence(deadline)),
        }),
    }
}

/// Wrong credentials and the like are for a person to mend; what merely is not there comes back.
fn no_connection(error: ConnectError) -> WriteError {
    match error {
        ConnectError::Unreachable { .. }
        | ConnectError::Timeout { .. }
        | ConnectError::Busy { .. } => WriteError::Lost {
            rows: 0,
            source: Box::new(error),
        },
        _ => WriteError::Hold {
            source: Box::new(error),
        },
    }
}

/// A sample's time is its identity and never mended: one from an impossible time is refused here, since the database
/// would make a chunk for it.
fn refuse_insane(batch: &Batch) -> Result<(), WriteError> {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = Timestamp::default().plus(since_epoch);
    let sane = now.minus(PAST_MAX)..now.plus(FUTURE_MAX);
    match batch
        .samples
        .iter()
        .find(|s| !sane.contains(&s.scheduled_at))
    {
        Some(sample) => Err(WriteError::Refused {
            rows: batch.rows(),
            source: Box::new(Insane(sample.scheduled_at)),
        }),
        None => Ok(()),
    }
}
