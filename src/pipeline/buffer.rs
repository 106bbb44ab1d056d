//! Where the probe thread and the keeper thread meet: a bounded lock-free queue of samples.
//!
//! Full means that the store has been away for long: the sample is given back, and the worker counts it, says so and
//! records the gap. Nothing waits here on the probe side.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

use crate::domain::{Sample, Timestamp};

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
    taken: AtomicU64,
    unsaved: Mutex<Unsaved>,
}

/// What is known of the samples that are neither stored nor spooled. Touched twice a second and once a batch, never per
/// sample.
#[derive(Default)]
struct Unsaved {
    /// What is pushed after so many samples was due at or after that instant. Oldest first.
    floors: VecDeque<(u64, Timestamp)>,
    /// Oldest samples of batches in hand.
    in_hand: Vec<(u64, Timestamp)>,
    next: u64,
}

/// Floors kept. When there are more, every other one goes: it then reaches back further than it must.
const FLOORS_MAX: usize = 1_024;

/// A batch that was taken and is not saved yet. Dropped when it is stored or spooled.
pub struct InHand {
    inner: Arc<Inner>,
    key: u64,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.inner
            .unsaved()
            .in_hand
            .retain(|(key, _)| *key != self.key);
    }
}

impl Inner {
    fn unsaved(&self) -> MutexGuard<'_, Unsaved> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            taken: AtomicU64::new(0),
            unsaved: Mutex::default(),
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
        let before = into.len();
        while into.len() < limit
            && let Some(sample) = self.0.queue.pop()
        {
            into.push(sample);
        }
        let taken = (into.len() - before) as u64;
        self.0.taken.fetch_add(taken, Ordering::Relaxed);
    }

    /// The producer says: whatever it pushes from now on was due at `floor` or later.
    pub fn floor(&self, floor: Timestamp) {
        let pushed = self.0.pushed.load(Ordering::Relaxed);
        let mut unsaved = self.0.unsaved();
        unsaved.floors.push_back((pushed, floor));
        if unsaved.floors.len() > FLOORS_MAX {
            let mut keep = false;
            unsaved.floors.retain(|_| {
                keep = !keep;
                keep
            });
            // The newest says what is true now.
            unsaved.floors.push_back((pushed, floor));
        }
    }

    /// Samples that were taken are unsaved until the answer is dropped. Call it before anything waits.
    pub fn in_hand(&self, samples: &[Sample]) -> InHand {
        let oldest = samples.iter().map(|sample| sample.scheduled_at).min();
        let mut unsaved = self.0.unsaved();
        let key = unsaved.next;
        unsaved.next += 1;
        if let Some(oldest) = oldest {
            unsaved.in_hand.push((key, oldest));
        }
        InHand {
            inner: self.0.clone(),
            key,
        }
    }

    /// Samples were put back at the end: those behind are not the youngest any more.
    pub fn put_back(&self, oldest: Timestamp) {
        for (_, floor) in &mut self.0.unsaved().floors {
            *floor = oldest.min(*floor);
        }
    }

    /// Every sample that was due before this instant is stored or spooled. `None` until the producer has said something.
    pub fn unsaved_since(&self) -> Option<Timestamp> {
        let taken = self.0.taken.load(Ordering::Relaxed);
        let mut unsaved = self.0.unsaved();
        // All pushed before the second were taken: the first says nothing any more.
        while unsaved.floors.len() > 1 && unsaved.floors[1].0 <= taken {
            unsaved.floors.pop_front();
        }
        let queued = unsaved.floors.front().map(|(_, floor)| *floor)?;
        let in_hand = unsaved.in_hand.iter().map(|(_, oldest)| *oldest).min();
        Some(in_hand.map_or(queued, |oldest| oldest.min(queued)))
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

    fn due(id: i64, at: i64) -> Sample {
        Sample::new(EndpointId(id), Timestamp::from_millis(at))
    }

    #[test]
    fn what_is_unsaved_begins_with_what_is_queued_or_in_hand() {
        let buffer = SampleBuffer::new(100, 10);
        let unsaved = || buffer.unsaved_since().map(Timestamp::as_millis);
        assert_eq!(unsaved(), None);
        let take = |limit| {
            let mut taken = Vec::new();
            buffer.take(limit, &mut taken);
            buffer.in_hand(&taken)
        };
        buffer.floor(Timestamp::from_millis(10));
        for at in [15, 12, 14] {
            buffer.push(due(1, at)).unwrap();
        }
        buffer.floor(Timestamp::from_millis(20));
        buffer.push(due(1, 21)).unwrap();
        assert_eq!(unsaved(), Some(10));
        let first = take(2);
        assert_eq!(unsaved(), Some(10), "one of before the floor is queued");
        let second = take(1);
        assert_eq!(unsaved(), Some(12), "in hand");
        drop(first);
        assert_eq!(unsaved(), Some(14));
        drop(second);
        assert_eq!(unsaved(), Some(20));
        drop(take(10));
        buffer.floor(Timestamp::from_millis(30));
        assert_eq!(unsaved(), Some(30));
        buffer.put_back(Timestamp::from_millis(5));
        assert_eq!(unsaved(), Some(5));
        buffer.floor(Timestamp::from_millis(40));
        assert_eq!(unsaved(), Some(40));
    }

    #[test]
    fn floors_are_bounded_and_never_too_late() {
        let buffer = SampleBuffer::new(10_000, 10);
        let mut oldest = std::collections::VecDeque::new();
        for at in 0..5_000 {
            buffer.floor(Timestamp::from_millis(at));
            buffer.push(due(1, at)).unwrap();
            oldest.push_back(at);
        }
        while let Some(at) = oldest.pop_front() {
            let unsaved = buffer.unsaved_since().unwrap().as_millis();
            assert!(unsaved <= at, "{unsaved} {at}");
            buffer.take(1, &mut Vec::new());
        }
        assert!(buffer.0.unsaved().floors.len() <= FLOORS_MAX + 1);
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
