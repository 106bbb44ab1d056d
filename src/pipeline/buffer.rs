//! Where the probe thread and the keeper thread meet: a bounded lock-free queue of samples.
//!
//! Full means that the store has been away for long: the sample is given back, and the worker counts it, says so and
//! records the gap. Nothing waits here on the probe side.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

use crate::domain::Sample;

/// Default capacity: 131 072 samples, some 25 MB. At the 2 000 probes/s that one process is sized for, that is 65 s
/// of an absent store.
pub const DEFAULT_ROWS: usize = 131_072;

/// A handle to the buffer; clones share it.
#[derive(Clone)]
pub struct SampleBuffer(Arc<Inner>);

struct Inner {
    queue: ArrayQueue<Sample>,
    /// A keeper is woken early when so many wait.
    wake_rows: usize,
    wake: Notify,
    closed: AtomicBool,
    pushed: AtomicU64,
}

impl SampleBuffer {
    /// Room for `rows` samples. Keepers are woken when `wake_rows` wait.
    pub fn new(rows: usize, wake_rows: usize) -> Self {
        Self(Arc::new(Inner {
            queue: ArrayQueue::new(rows.max(1)),
            wake_rows: wake_rows.clamp(1, rows.max(1)),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
            pushed: AtomicU64::new(0),
        }))
    }

    /// Adds a sample; gives it back when there is no room.
    #[expect(clippy::result_large_err, reason = "the sample is moved either way")]
    pub fn push(&self, sample: Sample) -> Result<(), Sample> {
        self.0.queue.push(sample)?;
        // A wake per batch, not per sample: `len` walks two cache lines that the keeper writes.
        let pushed = self.0.pushed.fetch_add(1, Ordering::Relaxed) + 1;
        if pushed.is_multiple_of(self.0.wake_rows as u64) {
            self.0.wake.notify_one();
        }
        Ok(())
    }

    /// Moves up to `limit` samples into `into`, oldest first.
    pub fn take(&self, limit: usize, into: &mut Vec<Sample>) {
        while into.len() < limit
            && let Some(sample) = self.0.queue.pop()
        {
            into.push(sample);
        }
    }

    /// Room, in samples.
    pub fn capacity(&self) -> usize {
        self.0.queue.capacity()
    }

    /// Samples waiting.
    pub fn rows(&self) -> usize {
        self.0.queue.len()
    }

    /// No sample will be added: keepers drain what is left and end.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.wake.notify_waiters();
        // One that is not waiting yet finds the permit.
        self.0.wake.notify_one();
    }

    /// Whether `close` was called. Look at this before looking for samples: what was pushed before is then visible.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// Waits until a batch is full or the buffer is closed. May wake for nothing.
    pub async fn woken(&self) {
        let woken = self.0.wake.notified();
        if !self.is_closed() {
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EndpointId, Timestamp};

    fn sample(id: i64) -> Sample {
        Sample::new(EndpointId(id), Timestamp::default())
    }

    #[test]
    fn a_full_buffer_gives_the_sample_back() {
        let buffer = SampleBuffer::new(2, 1);
        assert!(buffer.push(sample(1)).is_ok() && buffer.push(sample(2)).is_ok());
        assert_eq!(
            buffer.push(sample(3)).map_err(|s| s.endpoint),
            Err(EndpointId(3))
        );
        let mut taken = Vec::new();
        buffer.take(10, &mut taken);
        assert_eq!(
            taken.iter().map(|s| s.endpoint.0).collect::<Vec<_>>(),
            [1, 2]
        );
    }

    #[tokio::test]
    async fn a_keeper_wakes_for_a_full_batch_and_for_the_end() {
        let buffer = SampleBuffer::new(10, 2);
        let waiter = buffer.clone();
        let producer = async {
            buffer.push(sample(1)).unwrap();
            buffer.push(sample(2)).unwrap();
        };
        tokio::join!(waiter.woken(), producer);
        buffer.close();
        waiter.woken().await;
        waiter.woken().await;
    }
}
