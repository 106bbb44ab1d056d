//! A keeper's connection: batches into `metrics`.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::future::join;
use tokio_postgres::{Error as PgError, Statement, Transaction};

use super::connect::{ConnectError, Connection, Database};
use super::copy::RowEncoder;
use super::refused::{self, Refusal, RefusedFile};
use super::server::{self, ServerId};
use super::sqlstate::write_error;
use crate::domain::{Batch, Timestamp};
use crate::store::{Aside, BoxFuture, SampleStore, WriteError, WritePath};

const COPY_SQL: &str = include_str!("copy.sql");
const STAGE_TABLE_SQL: &str = include_str!("stage_table.sql");
const STAGE_SQL: &str = include_str!("stage.sql");
const UNSTAGE_SQL: &str = include_str!("unstage.sql");
const POOLED_SQL: &str = include_str!("pooled.sql");
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
    refused: Option<RefusedFile>,
}

/// A connection with what it has prepared.
struct Ready {
    connection: Connection,
    copy: Statement,
    staging: Option<Staging>,
    /// Behind a pooler: the server that answered first, to notice when another one does. A connection of one's own
    /// ends with its server.
    pooled: Option<ServerId>,
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

/// What was acknowledged may be missing: as after a lost connection.
#[derive(Debug, thiserror::Error)]
#[error("another server answers behind the pooler")]
struct AnotherServer;

/// What can go wrong inside a transaction.
enum Failure {
    Database(PgError),
    AnotherServer,
}

impl From<PgError> for Failure {
    fn from(source: PgError) -> Self {
        Self::Database(source)
    }
}

impl SampleWriter {
    /// A writer that is not connected yet.
    pub fn new(database: Arc<Database>) -> Self {
        Self {
            database,
            deadline: WRITE_DEADLINE,
            connection: None,
            encoder: RowEncoder::default(),
            refused: None,
        }
    }

    /// Keeps refused samples in a file where the database takes them in no table either.
    pub fn keeping_refused_in(mut self, file: RefusedFile) -> Self {
        self.refused = Some(file);
        self
    }

    /// The same writer, that waits no longer than `deadline` for a batch.
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    async fn ready(&mut self) -> Result<(), WriteError> {
        if self.is_connected() {
            return Ok(());
        }
        self.connection = None;
        let connection = self.database.connect().await.map_err(no_connection)?;
        let is_pooled = self.database.is_pooled();
        let (copy, pooled) = in_time(self.deadline, 0, async {
            let client = &connection.client;
            let copy = client.prepare(COPY_SQL).await?;
            let pooled = match is_pooled {
                true => Some(server::look(client).await?.server),
                false => {
                    let patience = server_patience(self.deadline);
                    client
                        .execute(WRITE_PATIENCE_SQL, &[&patience, &false])
                        .await?;
                    None
                }
            };
            Ok((copy, pooled))
        })
        .await?;
        self.connection = Some(Ready {
            connection,
            copy,
            staging: None,
            pooled,
        });
        Ok(())
    }

    async fn write_batch(
        &mut self,
        batch: &Batch,
        path: WritePath,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<u64, WriteError> {
        if batch.samples.is_empty() {
            return Ok(0);
        }
        let rows = batch.rows();
        refuse_insane(batch)?;
        let ended = |ready: &mut Ready| ready.connection.client.is_closed();
        if self.connection.take_if(ended).is_some() {
            // Not mended here: the server may be another one by now, and lack what the last one acknowledged. Whoever
            // hears of the loss sends that again.
            return Err(WriteError::Lost {
                rows,
                source: "the connection ended since the last batch".into(),
            });
        }
        self.ready().await?;
        // Out of self while in use: a caller who drops this future drops the connection with it, in the middle of
        // whatever it was doing.
        let Some(mut ready) = self.connection.take() else {
            return Err(WriteError::Hold {
                source: "not connected".into(),
            });
        };
        let pieces = self.encoder.pieces(batch);
        let written = match path {
            WritePath::Fast => {
                let work = ready.write_fast(pieces, meanwhile, self.deadline);
                in_time(self.deadline, rows, work).await
            }
            WritePath::Tolerant => {
                let work = ready.write_tolerant(pieces, meanwhile, self.deadline);
                in_time(self.deadline, rows, work).await
            }
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

impl SampleWriter {
    /// Into the table; where that is refused as well, into the file.
    async fn set_aside_sample(
        &mut self,
        batch: &Batch,
        why: &WriteError,
    ) -> Result<Aside, WriteError> {
        let refusals = Refusal::of(batch, why);
        let inserted = match self.ready().await {
            Ok(()) => match self.connection.take() {
                Some(ready) => {
                    let work = refused::insert(&ready.connection.client, &refusals);
                    let inserted =
                        in_time(self.deadline, batch.rows(), async { Ok(work.await?) }).await;
                    // No transaction is left open by a single statement.
                    if inserted.is_ok() || matches!(inserted, Err(WriteError::Refused { .. })) {
                        self.connection = Some(ready);
                    }
                    inserted
                }
                None => Ok(()),
            },
            Err(error) => Err(error),
        };
        match (inserted, &self.refused) {
            (Ok(()), _) => Ok(Aside::Store),
            // It is refused again when the store is back.
            (Err(error @ WriteError::Lost { .. }), _) | (Err(error), None) => Err(error),
            (Err(error), Some(file)) => match file.append(&refusals).await {
                Ok(()) => Ok(Aside::File),
                Err(source) => {
                    let source = refused::NeitherTableNorFile {
                        table: error.into(),
                        source,
                    };
                    Err(WriteError::Hold {
                        source: Box::new(source),
                    })
                }
            },
        }
    }
}

impl Ready {
    /// In a transaction, although it is one statement: a COPY by itself is reported complete before its commit, and
    /// only the answer to a COMMIT says that the rows are stored.
    async fn write_fast(
        &mut self,
        pieces: impl Iterator<Item = Bytes>,
        meanwhile: &mut dyn FnMut(),
        deadline: Duration,
    ) -> Result<u64, Failure> {
        if let Some(server) = &self.pooled {
            let transaction = self.connection.client.transaction().await?;
            limit(&transaction, server, deadline).await?;
            let new = send(transaction.copy_in(&self.copy).await?, pieces, meanwhile).await?;
            transaction.commit().await?;
            return Ok(new);
        }
        // Nobody else's session: BEGIN goes with the COPY and not a round trip before it, 1 % of a batch's time.
        let client = &self.connection.client;
        let copied = async {
            let (begun, sink) =
                join(client.batch_execute("BEGIN"), client.copy_in(&self.copy)).await;
            begun?;
            send(sink?, pieces, meanwhile).await
        };
        match copied.await {
            Ok(new) => {
                client.batch_execute("COMMIT").await?;
                Ok(new)
            }
            Err(why) => {
                // Where that fails as well the connection has ended, as the next one to use it finds.
                let _ = client.batch_execute("ROLLBACK").await;
                Err(why.into())
            }
        }
    }

    async fn write_tolerant(
        &mut self,
        pieces: impl Iterator<Item = Bytes>,
        meanwhile: &mut dyn FnMut(),
        deadline: Duration,
    ) -> Result<u64, Failure> {
        let transaction = self.connection.client.transaction().await?;
        if let Some(server) = &self.pooled {
            limit(&transaction, server, deadline).await?;
        }
        transaction.batch_execute(STAGE_TABLE_SQL).await?;
        let staging = match &self.staging {
            Some(staging) => staging,
            None => self.staging.insert(Staging {
                copy: transaction.prepare(STAGE_SQL).await?,
                insert: transaction.prepare(UNSTAGE_SQL).await?,
            }),
        };
        send(transaction.copy_in(&staging.copy).await?, pieces, meanwhile).await?;
        let new = transaction.execute(&staging.insert, &[]).await?;
        transaction.commit().await?;
        Ok(new)
    }
}

/// Begins a transaction in a session that may be anybody's.
async fn limit(
    transaction: &Transaction<'_>,
    server: &ServerId,
    deadline: Duration,
) -> Result<(), Failure> {
    transaction.batch_execute(POOLED_SQL).await?;
    transaction
        .execute(WRITE_PATIENCE_SQL, &[&server_patience(deadline), &true])
        .await?;
    let seen = server::look(transaction).await?;
    if seen.server == *server {
        Ok(())
    } else {
        Err(Failure::AnotherServer)
    }
}

impl SampleStore for SampleWriter {
    fn connect(&mut self) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(self.ready())
    }

    fn is_connected(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|ready| !ready.connection.client.is_closed())
    }

    fn write_meanwhile<'a>(
        &'a mut self,
        batch: &'a Batch,
        path: WritePath,
        meanwhile: &'a mut dyn FnMut(),
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        Box::pin(self.write_batch(batch, path, meanwhile))
    }

    fn set_aside<'a>(
        &'a mut self,
        batch: &'a Batch,
        why: &'a WriteError,
    ) -> BoxFuture<'a, Result<Aside, WriteError>> {
        Box::pin(self.set_aside_sample(batch, why))
    }
}

async fn send(
    sink: tokio_postgres::CopyInSink<Bytes>,
    pieces: impl Iterator<Item = Bytes>,
    meanwhile: &mut dyn FnMut(),
) -> Result<u64, PgError> {
    let mut sink = std::pin::pin!(sink);
    for piece in pieces {
        sink.send(piece).await?;
    }
    // Most of a batch is still in the kernel's buffers: the server is at work for some 25 ms more.
    meanwhile();
    sink.finish().await
}

/// The server's `statement_timeout`: below our deadline, since its own error says more and leaves no doubt.
fn server_patience(deadline: Duration) -> String {
    format!("{}ms", (deadline * 3 / 4).as_millis())
}

async fn in_time<T>(
    deadline: Duration,
    rows: usize,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, WriteError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => done.map_err(|failure| match failure {
            Failure::Database(source) => write_error(rows, source),
            Failure::AnotherServer => WriteError::Lost {
                rows,
                source: Box::new(AnotherServer),
            },
        }),
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
