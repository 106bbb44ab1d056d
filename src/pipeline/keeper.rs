//! A keeper takes batches from the buffer and sees them into the store: exactly once, or counted as lost.
//!
//! It never drops a write half way: closing the buffer ends it, nothing else does. What to do after a failure is
//! decided by [`next_step`], a plain function. While the store is away, batches go to the spool where there is one,
//! and are held in memory where there is none.

mod aside;
mod recent;
mod trouble;

use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::aside::AsideLog;
use self::recent::Recent;
use self::trouble::Trouble;
use super::Gap;
use super::buffer::{InHand, SampleBuffer};
use super::overflow::Overflow;
use super::totals::Totals;
use crate::domain::{AgentIdentity, Backoff, Batch};
use crate::store::{GapReason, SampleStore, WriteError, WritePath};
use crate::telemetry::{self, DropReason};

/// How long a process that is to end waits for a store that does not answer, where there is a spool.
const END_WITHIN: Duration = Duration::from_secs(2);
/// A backlog is written in batches so much larger: what a commit costs beside its rows is paid less often.
const BACKLOG_BATCHES: usize = 3;
/// As long as the store takes no longer than this for a batch: one that is too large for its deadline never gets there.
const SOON: Duration = Duration::from_secs(1);

/// How batches are cut.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// Whose samples these are.
    pub agent: Arc<AgentIdentity>,
    /// A batch is written as soon as so many rows wait. It is larger only where more wait, up to three times as large,
    /// and only as long as the store keeps up.
    pub batch_rows: usize,
    /// A sample waits no longer than this for its batch to fill.
    pub batch_age: Duration,
    /// After the buffer was closed, how long the store may be away before what no spool holds is given up.
    pub drain_grace: Duration,
}

/// One keeper with its own connection.
pub struct Keeper<S> {
    options: Rc<KeeperOptions>,
    buffer: SampleBuffer,
    store: S,
    overflow: Option<Overflow>,
    gaps: mpsc::UnboundedSender<Gap>,
    totals: Totals,
    recent: Recent,
    /// Taken while the store was at work on the batch before.
    ahead: Option<Taken>,
    connected: bool,
    /// Rows of the next batch at most.
    rows_max: usize,
    backoff: Backoff,
    /// No try to reach the store before this.
    retry_at: Instant,
    trouble: Trouble,
    aside: AsideLog,
    closed_since: Option<Instant>,
}

/// A batch on its way from the buffer to the store.
struct Taken {
    batch: Batch,
    /// Until it is stored or spooled.
    _unsaved: InHand,
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

/// What came of a try to store a batch.
enum Tried {
    /// Every row is stored or was set aside.
    Done,
    /// The store cannot be reached or takes nothing; these parts of the batch are not known to be stored.
    Away(WriteError, Vec<Batch>),
}

impl<S: SampleStore> Keeper<S> {
    /// A keeper that writes what it takes from `buffer` to `store`, and reports lost rows to `gaps`.
    pub fn new(
        options: Rc<KeeperOptions>,
        buffer: SampleBuffer,
        store: S,
        overflow: Option<Overflow>,
        gaps: mpsc::UnboundedSender<Gap>,
        totals: Totals,
    ) -> Self {
        Self {
            rows_max: options.batch_rows,
            options,
            buffer,
            store,
            overflow,
            gaps,
            totals,
            recent: Recent::default(),
            ahead: None,
            connected: false,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            retry_at: Instant::now(),
            trouble: Trouble::default(),
            aside: AsideLog::default(),
            closed_since: None,
        }
    }

    /// Runs until the buffer is closed and empty. Returns how many samples could not be saved. A backlog in the spool is
    /// left to the next run.
    pub async fn run(mut self) -> u64 {
        loop {
            // Closed is looked at first: what was pushed before is then in the queue.
            let closed = self.buffer.is_closed();
            let rows = self.buffer.rows();
            telemetry::buffered(rows);
            if let Some(overflow) = &self.overflow {
                overflow.report();
            }
            self.repair().await;
            if rows == 0 && closed && self.ahead.is_none() {
                return 0;
            }
            if rows < self.options.batch_rows && !closed && self.ahead.is_none() {
                self.until_a_batch().await;
            }
            let ahead = self.ahead.take();
            let Some(taken) = ahead.or_else(|| take(&self.buffer, &self.options, self.rows_max))
            else {
                continue;
            };
            if let Err(unsaved) = self.deliver(taken.batch).await {
                return self.give_up(unsaved);
            }
        }
    }

    /// Waits until a batch fills up, or what there is becomes old enough; sends backlog meanwhile.
    async fn until_a_batch(&mut self) {
        let flush_at = Instant::now() + self.options.batch_age;
        loop {
            let replayed = self.replay_one().await;
            let is_full = self.buffer.rows() >= self.options.batch_rows || self.ahead.is_some();
            if is_full || replayed && Instant::now() >= flush_at {
                return;
            }
            if !replayed {
                break;
            }
        }
        let wake_at = self.next_backlog().map_or(flush_at, |at| at.min(flush_at));
        let _ = timeout(
            wake_at.saturating_duration_since(Instant::now()),
            self.buffer.woken(),
        )
        .await;
    }

    /// When there is backlog to be sent, and from when on it may be.
    fn next_backlog(&self) -> Option<Instant> {
        let overflow = self
            .overflow
            .as_ref()
            .filter(|overflow| overflow.has_backlog())?;
        let next = overflow.next_replay();
        // Never at once: what could not be taken a moment ago is not worth spinning for.
        Some(
            if self.connected {
                next
            } else {
                next.max(self.retry_at)
            }
            .max(Instant::now() + Duration::from_millis(5)),
        )
    }

    /// Sends one batch of the backlog to the store, where there is one and it may go; whether there was.
    async fn replay_one(&mut self) -> bool {
        let Some(overflow) = self
            .overflow
            .as_mut()
            .filter(|overflow| overflow.has_backlog())
        else {
            return false;
        };
        if !self.connected && Instant::now() < self.retry_at {
            return false;
        }
        let Some(replayed) = overflow.take().await else {
            return false;
        };
        let (batch, spool, id) = replayed.parts();
        let rows = batch.rows();
        match self.store(batch, WritePath::Tolerant).await {
            Tried::Done => {
                if let Some(overflow) = &mut self.overflow {
                    overflow.settle(&spool, id, rows).await;
                }
                true
            }
            Tried::Away(error, _) => {
                spool.return_to_queue(&[id]);
                self.away(&error, rows);
                false
            }
        }
    }

    /// Sees one batch into the store or the spool; `Err` with the rows in hand when the drain's grace ended.
    async fn deliver(&mut self, batch: Batch) -> Result<(), u64> {
        let mut ids = Vec::new();
        if let Some(overflow) = self
            .overflow
            .as_mut()
            .filter(|overflow| overflow.is_always())
        {
            match overflow.put(&batch).await {
                Ok(put) => ids = put,
                Err(error) => overflow.complain(&error, batch.rows()),
            }
        }
        // One that was taken ahead may be larger than what the store is given by now.
        let mut pending = Vec::new();
        parts(batch, self.rows_max, &mut pending);
        while let Some(batch) = pending.pop() {
            if !self.connected && !self.may_try() {
                pending.push(batch);
            } else {
                match self.store(batch, WritePath::Fast).await {
                    Tried::Done => continue,
                    Tried::Away(error, rest) => {
                        pending.extend(rest);
                        self.away(&error, pending.iter().map(Batch::rows).sum());
                    }
                }
            }
            if !ids.is_empty() {
                // It is in the spool already, and is replayed from there.
                return Ok(());
            }
            if self.spool(&mut pending).await {
                return Ok(());
            }
            self.hold(&pending).await?;
        }
        if let Some(overflow) = self.overflow.as_mut().filter(|_| !ids.is_empty()) {
            overflow.settle_own(&ids).await;
        }
        Ok(())
    }

    /// Whether the store is worth a try now. Not while it rests after a failure; nor, when the process is to end and
    /// there is a spool, while it is known to be away.
    fn may_try(&self) -> bool {
        let ending = self.buffer.is_closed() && self.overflow.is_some() && self.trouble.is_on();
        !ending && Instant::now() >= self.retry_at
    }

    /// Puts what is in hand into the spool; whether all of it is there.
    async fn spool(&mut self, pending: &mut Vec<Batch>) -> bool {
        let Some(overflow) = &mut self.overflow else {
            return false;
        };
        while let Some(batch) = pending.pop() {
            if let Err(error) = overflow.put(&batch).await {
                overflow.complain(&error, batch.rows());
                pending.push(batch);
                return false;
            }
        }
        true
    }

    /// Tries to store a batch, on a connection that is made where there is none.
    async fn store(&mut self, batch: Batch, mut path: WritePath) -> Tried {
        if !self.connected {
            if let Err(error) = self.reconnect().await {
                return Tried::Away(error, vec![batch]);
            }
            path = WritePath::Tolerant;
        }
        let mut pending = vec![batch];
        while let Some(batch) = pending.pop() {
            let begun = Instant::now();
            let Self {
                store,
                overflow,
                buffer,
                options,
                ahead,
                rows_max,
                ..
            } = self;
            let take_ahead = &mut || {
                if ahead.is_none() && buffer.rows() >= options.batch_rows {
                    *ahead = take(buffer, options, *rows_max);
                }
            };
            match beside(
                store.write_meanwhile(&batch, path, take_ahead),
                overflow.as_mut(),
                buffer,
                options,
            )
            .await
            {
                Ok(_) => {
                    // Those too whose first commit was made and never heard of: each sample is counted once, here.
                    self.totals.stored(batch.rows() as u64);
                    let took = begun.elapsed();
                    telemetry::batch_stored(batch.rows(), took);
                    self.rows_max = self.rows_after(took);
                    self.trouble.over();
                    self.backoff.reset();
                    // Sent again, if ever, to a server that may be slower.
                    let mut stored = Vec::new();
                    parts(batch, self.options.batch_rows, &mut stored);
                    stored
                        .into_iter()
                        .rev()
                        .for_each(|part| self.recent.push(part));
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
                    Next::SetAside => {
                        if let Err(away) = self.set_aside(&batch, &error).await {
                            self.connected = false;
                            telemetry::store_connected(false);
                            pending.push(batch);
                            return Tried::Away(away, pending);
                        }
                    }
                    Next::Reconnect => {
                        self.connected = false;
                        telemetry::store_connected(false);
                        parts(batch, self.options.batch_rows, &mut pending);
                        return Tried::Away(error, pending);
                    }
                    Next::Wait => {
                        parts(batch, self.options.batch_rows, &mut pending);
                        return Tried::Away(error, pending);
                    }
                },
            }
        }
        Tried::Done
    }

    /// How large the next batch may be, when the store took so long for the last one.
    fn rows_after(&self, took: Duration) -> usize {
        // In the spool a batch is what it was.
        let is_spooled = self.overflow.as_ref().is_some_and(Overflow::is_always);
        match took < SOON && !is_spooled {
            true => self.options.batch_rows.saturating_mul(BACKLOG_BATCHES),
            false => self.options.batch_rows,
        }
    }

    /// A connection that broke while there was nothing to write may have been a failover's: what was acknowledged is
    /// sent again without waiting for the next batch.
    async fn repair(&mut self) {
        if self.connected && !self.store.is_connected() {
            self.connected = false;
            telemetry::store_connected(false);
        }
        if self.connected || self.recent.is_empty() || !self.may_try() {
            return;
        }
        if let Err(error) = self.reconnect().await {
            self.away(&error, 0);
        } else {
            self.trouble.over();
            self.backoff.reset();
        }
    }

    async fn reconnect(&mut self) -> Result<(), WriteError> {
        let Self {
            store,
            overflow,
            buffer,
            options,
            ..
        } = self;
        beside(store.connect(), overflow.as_mut(), buffer, options).await?;
        let mut repaired = 0;
        for batch in self.recent.batches() {
            let write = self.store.write(batch, WritePath::Tolerant);
            repaired += beside(write, self.overflow.as_mut(), &self.buffer, &self.options).await?;
        }
        if repaired > 0 {
            tracing::warn!(
                samples = repaired,
                "the store had lost samples that it had acknowledged; stored again"
            );
        }
        self.recent.acknowledged_again();
        self.connected = true;
        telemetry::store_connected(true);
        Ok(())
    }

    /// The store is away: counted, said, and not tried again for a while.
    fn away(&mut self, error: &WriteError, rows: usize) {
        let kind = match error {
            WriteError::Hold { .. } => "hold",
            _ => "lost",
        };
        telemetry::store_failed(kind);
        telemetry::buffered(self.buffer.rows());
        self.trouble.note(error, rows, self.buffer.rows());
        // A store that answers but takes nothing is not tried for each batch either.
        self.connected = false;
        self.rows_max = self.options.batch_rows;
        self.retry_at = Instant::now() + self.backoff.next(random());
    }

    /// Holds what is in hand until the next try; `Err` when there will be none.
    async fn hold(&mut self, pending: &[Batch]) -> Result<(), u64> {
        let mut until = self.retry_at;
        let closed = self.buffer.is_closed();
        if closed {
            let since = *self.closed_since.get_or_insert_with(Instant::now);
            let given_up_at = since + self.options.drain_grace;
            if Instant::now() >= given_up_at {
                return Err(pending.iter().map(Batch::rows).sum::<usize>() as u64);
            }
            until = until.min(given_up_at);
        }
        tokio::select! {
            () = sleep_until(until) => {}
            () = until_closed(&self.buffer), if !closed => {}
        }
        Ok(())
    }

    /// Keeps a refused sample where a person finds it, and names its tick. `Err` when the store went away meanwhile:
    /// the sample is refused again when it is back.
    async fn set_aside(&mut self, batch: &Batch, why: &WriteError) -> Result<(), WriteError> {
        let Self {
            store,
            overflow,
            buffer,
            options,
            ..
        } = self;
        let kept = store.set_aside(batch, why);
        let kept = match beside(kept, overflow.as_mut(), buffer, options).await {
            Err(error @ WriteError::Lost { .. }) => return Err(error),
            kept => kept,
        };
        for sample in &batch.samples {
            telemetry::samples_dropped(DropReason::Refused, 1);
            self.aside.note(sample, why, &kept);
            let from = sample.scheduled_at;
            // The ledger outlives the keepers.
            let _ = self.gaps.send(Gap {
                endpoint: Some(sample.endpoint),
                from,
                to: from.plus(Duration::from_millis(1)),
                reason: GapReason::Refused,
                samples: Some(1),
            });
        }
        Ok(())
    }

    fn give_up(&self, in_hand: u64) -> u64 {
        let mut rest = Vec::new();
        self.buffer.take(usize::MAX, &mut rest);
        let ahead = self.ahead.as_ref().map_or(0, |taken| taken.batch.rows());
        let unsaved = in_hand + (ahead + rest.len()) as u64;
        telemetry::samples_dropped(DropReason::Shutdown, unsaved);
        tracing::error!(
            samples = unsaved,
            "the store did not come back before the shutdown's end; samples are lost"
        );
        unsaved
    }
}

/// The next batch, where there are samples.
fn take(buffer: &SampleBuffer, options: &KeeperOptions, rows_max: usize) -> Option<Taken> {
    let mut samples = Vec::with_capacity(buffer.rows().min(rows_max));
    buffer.take(rows_max, &mut samples);
    if samples.is_empty() {
        return None;
    }
    let _unsaved = buffer.in_hand(&samples);
    let agent = options.agent.clone();
    let batch = Batch { agent, samples };
    Some(Taken { batch, _unsaved })
}

/// What is tried again is no larger than usual: a larger batch may have been too much for its deadline.
fn parts(batch: Batch, rows_max: usize, into: &mut Vec<Batch>) {
    if batch.rows() <= rows_max {
        into.push(batch);
    } else {
        let (first, second) = batch.halves();
        parts(second, rows_max, into);
        parts(first, rows_max, into);
    }
}

/// Waits for the store without letting the buffer overflow meanwhile, where there is a spool; nor longer than
/// [`END_WITHIN`] when the process is to end: the batch is safe in the spool, whatever becomes of the write.
async fn beside<T>(
    work: impl Future<Output = Result<T, WriteError>>,
    overflow: Option<&mut Overflow>,
    buffer: &SampleBuffer,
    options: &KeeperOptions,
) -> Result<T, WriteError> {
    let Some(overflow) = overflow else {
        return work.await;
    };
    let mut work = std::pin::pin!(work);
    let mut ending = std::pin::pin!(async {
        until_closed(buffer).await;
        sleep(END_WITHIN).await;
    });
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            () = Overflow::pressed(buffer) => {}
            () = &mut ending => {
                let source = "no answer before the end of the process".into();
                return Err(WriteError::Lost { rows: 0, source });
            }
        }
        overflow
            .relieve(buffer, &options.agent, options.batch_rows)
            .await;
    }
}

async fn until_closed(buffer: &SampleBuffer) {
    while !buffer.is_closed() {
        buffer.woken().await;
        // A full batch wakes too, and there may be many while the store is away.
        sleep(Duration::from_millis(20)).await;
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
mod model;
#[cfg(test)]
mod tests;
