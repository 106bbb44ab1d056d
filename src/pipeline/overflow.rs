//! Where samples go while the store cannot take them: the spool, seen from the keeper.
//!
//! Live samples go first; what is in the spool goes to the store beside them, at a bounded rate. What the spool had to
//! drop is a gap with its rows counted, never silence.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::Gap;
use super::buffer::SampleBuffer;
use super::keeper::chain;
use crate::config::args::SpoolMode;
use crate::domain::{AgentIdentity, Batch};
use crate::spool::{DropCause, Dropped, Spool, SpoolError, SpoolId};
use crate::store::GapReason;
use crate::telemetry::{self, DropReason};

/// Rows of backlog sent to the store in a second at most, beside the live ones: a tenth of what one connection takes
/// on the tolerant path (LIMITS: 124 000–221 000 rows/s).
const REPLAY_ROWS_PER_S: f64 = 20_000.0;
/// How often a buffer that fills up while the keeper is busy is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often the log says that samples are being lost.
const REMIND: Duration = Duration::from_secs(10);

/// The spool of a process, and those that an earlier run with more processes left behind. One for each keeper; the
/// spool behind it is shared.
pub struct Overflow {
    own: Spool,
    left_behind: Vec<Spool>,
    mode: SpoolMode,
    gaps: mpsc::UnboundedSender<Gap>,
    next_replay: Instant,
    said: Option<Instant>,
}

/// A batch from a spool, to be settled there.
pub struct Replayed {
    pub(super) batch: Batch,
    spool: Spool,
    id: SpoolId,
}

impl Overflow {
    /// Puts into `own`, and replays from all.
    pub fn new(
        own: Spool,
        left_behind: Vec<Spool>,
        mode: SpoolMode,
        gaps: mpsc::UnboundedSender<Gap>,
    ) -> Self {
        Self {
            own,
            left_behind,
            mode,
            gaps,
            next_replay: Instant::now(),
            said: None,
        }
    }

    /// Whether a batch goes to the spool before it goes to the store.
    pub fn is_always(&self) -> bool {
        self.mode == SpoolMode::Always
    }

    /// Whether batches wait in a spool.
    pub fn has_backlog(&self) -> bool {
        self.spools().any(|spool| {
            let stats = spool.stats();
            stats.batches > stats.handed_out + stats.unreadable
        })
    }

    /// Puts a batch into the spool, in parts where it is too large for one.
    pub async fn put(&mut self, batch: &Batch) -> Result<Vec<SpoolId>, SpoolError> {
        let mut ids = Vec::new();
        let mut parts = Vec::new();
        let mut part = Some(batch);
        // Borrowed once, owned from the first split on.
        loop {
            let owned: Batch;
            let next = match part.take() {
                Some(batch) => batch,
                None => match parts.pop() {
                    Some(batch) => {
                        owned = batch;
                        &owned
                    }
                    None => return Ok(ids),
                },
            };
            match self.own.put(next).await {
                Ok(stored) => {
                    self.note(stored.dropped);
                    ids.push(stored.id);
                    telemetry::samples_spooled(next.rows() as u64);
                }
                Err(SpoolError::TooLarge { .. }) if next.rows() > 1 => {
                    let (first, second) = next.clone().halves();
                    parts.extend([second, first]);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The oldest batch that waits, unless the bound on the rate says to wait.
    pub async fn take(&mut self) -> Option<Replayed> {
        if Instant::now() < self.next_replay {
            return None;
        }
        let spools: Vec<Spool> = self.spools().cloned().collect();
        for spool in spools {
            let taken = spool.oldest(1).await;
            let dropped = spool.take_dropped();
            self.note(dropped);
            match taken {
                Ok(batches) => {
                    if let Some((id, batch)) = batches.into_iter().next() {
                        return Some(Replayed { batch, spool, id });
                    }
                }
                Err(error) => {
                    tracing::warn!(cause = chain(&error), "the spool cannot be read");
                    self.next_replay = Instant::now() + Duration::from_secs(1);
                }
            }
        }
        None
    }

    /// When the next batch may be replayed.
    pub fn next_replay(&self) -> Instant {
        self.next_replay
    }

    /// The store has it.
    pub async fn settle(&mut self, spool: &Spool, id: SpoolId, rows: usize) {
        self.next_replay =
            Instant::now() + Duration::from_secs_f64(rows as f64 / REPLAY_ROWS_PER_S);
        if let Err(error) = spool.remove(&[id]).await {
            // It comes again later, on the tolerant path.
            tracing::warn!(
                cause = chain(&error),
                "a stored batch could not be removed from the spool"
            );
            spool.return_to_queue(&[id]);
        }
    }

    /// The store has what `put` answered with.
    pub async fn settle_own(&mut self, ids: &[SpoolId]) {
        if let Err(error) = self.own.remove(ids).await {
            tracing::warn!(
                cause = chain(&error),
                "a stored batch could not be removed from the spool"
            );
        }
    }

    /// Waits until so much is in the buffer that it must be relieved.
    pub async fn pressed(buffer: &SampleBuffer) {
        while buffer.rows() * 2 < buffer.capacity() {
            sleep(LOOK).await;
        }
    }

    /// Moves what is in the buffer to the spool, down to one batch; in a small buffer further, or one that presses
    /// might hold nothing to be moved.
    pub async fn relieve(
        &mut self,
        buffer: &SampleBuffer,
        agent: &std::sync::Arc<AgentIdentity>,
        batch_rows: usize,
    ) {
        let keep = batch_rows.min(buffer.capacity() / 4);
        while buffer.rows() > keep {
            let mut samples = Vec::with_capacity(batch_rows);
            buffer.take(batch_rows, &mut samples);
            let _unsaved = buffer.in_hand(&samples);
            let batch = Batch {
                agent: agent.clone(),
                samples,
            };
            if let Err(error) = self.put(&batch).await {
                self.complain(&error, batch.rows());
                self.give_back(buffer, batch);
                sleep(LOOK).await;
                return;
            }
        }
    }

    /// Says now and then that the spool does not take batches.
    pub fn complain(&mut self, error: &SpoolError, rows: usize) {
        if self.said.is_none_or(|said| said.elapsed() >= REMIND) {
            self.said = Some(Instant::now());
            tracing::error!(
                rows,
                cause = chain(error),
                "the spool takes no samples; they stay in memory"
            );
        }
    }

    /// What the spools hold, for the metrics.
    pub fn report(&self) {
        let stats = self.own.stats();
        telemetry::spool(stats.bytes, stats.rows);
    }

    fn give_back(&mut self, buffer: &SampleBuffer, batch: Batch) {
        let mut lost = Vec::new();
        let oldest = batch.samples.iter().map(|sample| sample.scheduled_at).min();
        if let Some(oldest) = oldest {
            buffer.put_back(oldest);
        }
        for sample in batch.samples {
            if let Err(sample) = buffer.push(sample) {
                lost.push(sample.scheduled_at);
            }
        }
        if let (Some(&from), Some(&to)) = (lost.iter().min(), lost.iter().max()) {
            telemetry::samples_dropped(DropReason::BufferFull, lost.len() as u64);
            let to = to.plus(Duration::from_millis(1));
            let samples = Some(lost.len() as u64);
            let _ = self.gaps.send(Gap {
                endpoint: None,
                from,
                to,
                reason: GapReason::BufferFull,
                samples,
            });
        }
    }

    fn note(&mut self, dropped: Vec<Dropped>) {
        for dropped in dropped {
            let (drop_reason, reason) = match dropped.cause {
                DropCause::Full => (DropReason::SpoolFull, GapReason::SpoolFull),
                DropCause::Damaged => (DropReason::SpoolDamaged, GapReason::SpoolDamaged),
            };
            telemetry::samples_dropped(drop_reason, dropped.rows);
            tracing::error!(
                samples = dropped.rows,
                reason = reason.label(),
                agent = &*dropped.agent.name,
                "the spool had to drop samples; they are lost"
            );
            let to = dropped.to.plus(Duration::from_millis(1));
            let _ = self.gaps.send(Gap {
                endpoint: None,
                from: dropped.from,
                to,
                reason,
                samples: Some(dropped.rows),
            });
        }
    }

    fn spools(&self) -> impl Iterator<Item = &Spool> {
        std::iter::once(&self.own).chain(&self.left_behind)
    }
}

impl Replayed {
    /// Batch, and what settles it.
    pub(super) fn parts(self) -> (Batch, Spool, SpoolId) {
        (self.batch, self.spool, self.id)
    }
}
