//! A keeper takes batches from the buffer and sees them into the store: exactly once, or counted as lost.
//!
//! It never drops a write half way: closing the buffer ends it, nothing else does. What to do after a failure is
//! decided by [`next_step`], a plain function.

use std::collections::VecDeque;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::Gap;
use super::buffer::SampleBuffer;
use super::totals::Totals;
use crate::domain::{AgentIdentity, Backoff, Batch, Sample};
use crate::store::{GapReason, SampleStore, WriteError, WritePath};
use crate::telemetry::{self, DropReason};

/// Acknowledged batches younger than this are sent again after a reconnect: a standby that was promoted may lack them.
const RESEND_AGE: Duration = Duration::from_secs(60);
/// Rows kept for that at most: 32 MiB.
const RESEND_ROWS: usize = 32 * 1024 * 1024 / size_of::<Sample>();
/// While the store refuses to take anything, the log says so this often.
const REMIND: Duration = Duration::from_secs(60);

/// How batches are cut.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// Whose samples these are.
    pub agent: Arc<AgentIdentity>,
    /// Rows of a batch at most.
    pub batch_rows: usize,
    /// A sample waits no longer than this for its batch to fill.
    pub batch_age: Duration,
    /// After the buffer was closed, how long the store may be away before the rest is given up.
    pub drain_grace: Duration,
}

/// One keeper with its own connection.
pub struct Keeper<S> {
    options: Rc<KeeperOptions>,
    buffer: SampleBuffer,
    store: S,
    gaps: mpsc::UnboundedSender<Gap>,
    totals: Totals,
    recent: Recent,
    connected: bool,
    backoff: Backoff,
    trouble: Trouble,
    closed_since: Option<Instant>,
}

/// What follows a failed write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Tolerant,
    Reconnect,
    Bisect,
    SetAside,
    Wait,
}

fn next_step(error: &WriteError, rows: usize, path: WritePath) -> Next {
    match error {
        WriteError::Conflict if path == WritePath::Fast => Next::Tolerant,
        // The tolerant path passes over what is there: a conflict on it is nothing we know.
        WriteError::Conflict => Next::Wait,
        WriteError::Lost { .. } => Next::Reconnect,
        WriteError::Refused { .. } if rows > 1 => Next::Bisect,
        WriteError::Refused { .. } => Next::SetAside,
        WriteError::Hold { .. } => Next::Wait,
    }
}

impl<S: SampleStore> Keeper<S> {
    /// A keeper that writes what it takes from `buffer` to `store`, and reports lost rows to `gaps`.
    pub fn new(
        options: Rc<KeeperOptions>,
        buffer: SampleBuffer,
        store: S,
        gaps: mpsc::UnboundedSender<Gap>,
        totals: Totals,
    ) -> Self {
        Self {
            options,
            buffer,
            store,
            gaps,
            totals,
            recent: Recent::default(),
            connected: false,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            trouble: Trouble::default(),
            closed_since: None,
        }
    }

    /// Runs until the buffer is closed and empty. Returns how many samples could not be saved.
    pub async fn run(mut self) -> u64 {
        loop {
            // Closed is looked at first: what was pushed before is then in the queue.
            let closed = self.buffer.is_closed();
            let rows = self.buffer.rows();
            telemetry::buffered(rows);
            if rows == 0 && closed {
                return 0;
            }
            if rows < self.options.batch_rows && !closed {
                // Either a batch fills up, or what there is becomes old enough.
                let _ = timeout(self.options.batch_age, self.buffer.woken()).await;
            }
            let mut samples = Vec::with_capacity(self.buffer.rows().min(self.options.batch_rows));
            self.buffer.take(self.options.batch_rows, &mut samples);
            if samples.is_empty() {
                continue;
            }
            let batch = Batch {
                agent: self.options.agent.clone(),
                samples,
            };
            if let Err(unsaved) = self.deliver(batch).await {
                return self.give_up(unsaved);
            }
        }
    }

    /// Sees one batch into the store, however long it takes; `Err` with the rows in hand when the drain's grace ended.
    async fn deliver(&mut self, batch: Batch) -> Result<(), u64> {
        let mut path = WritePath::Fast;
        let mut pending = vec![batch];
        while let Some(batch) = pending.pop() {
            if !self.connected {
                path = WritePath::Tolerant;
                if let Err(error) = self.reconnect().await {
                    pending.push(batch);
                    self.wait(error, &pending).await?;
                    continue;
                }
            }
            let begun = Instant::now();
            match self.store.write(&batch, path).await {
                Ok(new_rows) => {
                    self.totals.stored(new_rows);
                    telemetry::batch_stored(batch.rows(), new_rows, begun.elapsed());
                    self.trouble.over();
                    self.backoff.reset();
                    self.recent.push(batch);
                }
                Err(error) => match next_step(&error, batch.rows(), path) {
                    Next::Tolerant => {
                        path = WritePath::Tolerant;
                        pending.push(batch);
                    }
                    Next::Bisect => {
                        telemetry::store_failed("refused");
                        // The halves keep the path: rows of a refused batch were not stored.
                        let (first, second) = batch.halves();
                        pending.push(second);
                        pending.push(first);
                    }
                    Next::SetAside => self.set_aside(&batch, &error),
                    Next::Reconnect => {
                        self.connected = false;
                        telemetry::store_connected(false);
                        pending.push(batch);
                        self.wait(error, &pending).await?;
                    }
                    Next::Wait => {
                        pending.push(batch);
                        self.wait(error, &pending).await?;
                    }
                },
            }
        }
        Ok(())
    }

    async fn reconnect(&mut self) -> Result<(), WriteError> {
        self.store.connect().await?;
        let mut repaired = 0;
        for batch in self.recent.batches() {
            repaired += self.store.write(batch, WritePath::Tolerant).await?;
        }
        if repaired > 0 {
            tracing::warn!(
                samples = repaired,
                "the store had lost samples that it had acknowledged; stored again"
            );
        }
        self.connected = true;
        telemetry::store_connected(true);
        Ok(())
    }

    /// Waits before the next try; `Err` when there will be none.
    async fn wait(&mut self, error: WriteError, pending: &[Batch]) -> Result<(), u64> {
        let kind = match &error {
            WriteError::Hold { .. } => "hold",
            _ => "lost",
        };
        telemetry::store_failed(kind);
        telemetry::buffered(self.buffer.rows());
        let rows: usize = pending.iter().map(Batch::rows).sum();
        self.trouble.note(&error, rows, self.buffer.rows());
        let mut pause = self.backoff.next(random());
        if self.buffer.is_closed() {
            let since = *self.closed_since.get_or_insert_with(Instant::now);
            let left = self.options.drain_grace.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(rows as u64);
            }
            pause = pause.min(left);
        }
        let closed = self.buffer.is_closed();
        tokio::select! {
            () = sleep(pause) => {}
            () = until_closed(&self.buffer), if !closed => {}
        }
        Ok(())
    }

    fn set_aside(&self, batch: &Batch, error: &WriteError) {
        let Some(sample) = batch.samples.first() else {
            return;
        };
        telemetry::samples_dropped(DropReason::Refused, 1);
        tracing::error!(
            endpoint = sample.endpoint.0,
            scheduled_us = sample.scheduled_at.as_micros(),
            cause = chain(error),
            "the store refuses this sample; it is lost"
        );
        let from = sample.scheduled_at;
        let to = from.plus(Duration::from_millis(1));
        // The ledger outlives the keepers.
        let _ = self.gaps.send(Gap {
            from,
            to,
            reason: GapReason::Refused,
            samples: Some(1),
        });
    }

    fn give_up(&self, in_hand: u64) -> u64 {
        let mut rest = Vec::new();
        self.buffer.take(usize::MAX, &mut rest);
        let unsaved = in_hand + rest.len() as u64;
        telemetry::samples_dropped(DropReason::Shutdown, unsaved);
        tracing::error!(
            samples = unsaved,
            "the store did not come back before the shutdown's end; samples are lost"
        );
        unsaved
    }
}

async fn until_closed(buffer: &SampleBuffer) {
    while !buffer.is_closed() {
        buffer.woken().await;
        // A full batch wakes too, and there may be many while the store is away.
        sleep(Duration::from_millis(20)).await;
    }
}

/// Acknowledged batches of the last minute.
#[derive(Default)]
struct Recent {
    batches: VecDeque<(Instant, Batch)>,
    rows: usize,
}

impl Recent {
    fn push(&mut self, batch: Batch) {
        self.rows += batch.rows();
        self.batches.push_back((Instant::now(), batch));
        while let Some((acknowledged, batch)) = self.batches.front()
            && (self.rows > RESEND_ROWS || acknowledged.elapsed() > RESEND_AGE)
        {
            self.rows -= batch.rows();
            self.batches.pop_front();
        }
    }

    fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches
            .iter()
            .filter(|(acknowledged, _)| acknowledged.elapsed() <= RESEND_AGE)
            .map(|(_, batch)| batch)
    }
}

/// Says once that the store is away, reminds, and says when it is back.
#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Trouble {
    fn note(&mut self, error: &WriteError, in_hand: usize, buffered: usize) {
        self.since.get_or_insert_with(Instant::now);
        if self.said.is_some_and(|said| said.elapsed() < REMIND) {
            return;
        }
        self.said = Some(Instant::now());
        let cause = chain(error);
        match error {
            WriteError::Hold { .. } => {
                tracing::error!(
                    in_hand,
                    buffered,
                    cause,
                    "the store does not take samples; holding them"
                );
            }
            _ => tracing::warn!(
                in_hand,
                buffered,
                cause,
                "the store is away; holding samples"
            ),
        }
    }

    fn over(&mut self) {
        self.said = None;
        if let Some(since) = self.since.take() {
            tracing::info!(
                away_ms = since.elapsed().as_millis() as u64,
                "the store takes samples again"
            );
        }
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Spreads agents that failed together; nothing depends on its quality.
pub(crate) fn random() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8) as u32
}

#[cfg(test)]
mod tests;
