//! Work that takes CPU, a little of it in each turn of the loop: patterns, after what decoding has left.
//!
//! Completions bunch. Were each body judged where it ended, those behind it would be read later, and the starts later
//! still, which bunches them again: from 80 % load on the reported latency is then wrong by tens of milliseconds. So
//! between two pieces of work the kernel is asked for events, and bytes that came meanwhile are read first.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::net::attention;

/// Work of one turn; the piece that passes it is the turn's last. As long as three or four starts take.
const WORK_PER_TURN: Duration = Duration::from_micros(100);
/// So many in the line are a crowd, with which no more than it sheds should come in. Their durations are measured; what
/// waits is memory. Were a shorter line enough to hold up the starts, these would bunch, and so would the next line.
const CROWD: usize = 256;

/// The line of those who have work. One per probe thread.
#[derive(Debug)]
pub(super) struct Pace {
    line: Semaphore,
    waiting: Cell<usize>,
    turn: Cell<Option<u64>>,
    worked: Cell<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            line: Semaphore::new(1),
            waiting: Cell::default(),
            turn: Cell::default(),
            worked: Cell::default(),
        }
    }
}

/// One in the line; leaves it however it ends.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Pace {
    /// Does `work` in this turn, or in a later one, after those who came before. On a thread that is not watched, at once.
    pub(super) async fn work<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.waiting.get() == 0 && self.has_room() {
            return self.timed(work);
        }
        let _waiting = Waiting::new(&self.waiting);
        // Never closed; were it, the work would be done all the same.
        let _first = self.line.acquire().await;
        while !self.has_room() {
            attention::turn().await;
        }
        self.timed(work)
    }

    /// Does `work` at once, which leaves less of this turn to those in the line: for what the probe's deadline waits for.
    pub(super) fn work_now<T>(&self, work: impl FnOnce() -> T) -> T {
        self.has_room();
        self.timed(work)
    }

    /// Whether so much work waits that few new probes should be started.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.get() >= CROWD
    }

    /// Whether this turn may have more work; a new one begins with none.
    fn has_room(&self) -> bool {
        let turn = attention::turn_number();
        if turn.is_none() || turn != self.turn.get() {
            self.turn.set(turn);
            self.worked.set(Duration::ZERO);
        }
        self.worked.get() < WORK_PER_TURN
    }

    fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        self.worked.set(self.worked.get() + began.elapsed());
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::task::Poll;

    use tokio::runtime::Builder;
    use tokio::task::{JoinSet, LocalSet};

    /// In which turn each of `count` pieces of work was done, each as long as a turn may have.
    fn turns_of(count: usize) -> Vec<u64> {
        let runtime = attention::watch(&mut Builder::new_current_thread())
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(LocalSet::new().run_until(async {
            // The watch begins with the first sleep.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let pace = Rc::new(Pace::default());
            let done = Rc::new(RefCell::new(Vec::new()));
            let mut tasks = JoinSet::new();
            for _ in 0..count {
                let (pace, done) = (Rc::clone(&pace), Rc::clone(&done));
                tasks.spawn_local(async move {
                    let work = || {
                        let until = Instant::now() + WORK_PER_TURN;
                        while Instant::now() < until {}
                        attention::turn_number().unwrap()
                    };
                    let turn = pace.work(work).await;
                    done.borrow_mut().push(turn);
                });
            }
            while tasks.join_next().await.is_some() {}
            assert!(!pace.is_crowded());
            done.take()
        }))
    }

    #[test]
    fn each_piece_has_a_turn_of_its_own() {
        let turns = turns_of(20);
        assert_eq!(turns.len(), 20);
        for pair in turns.windows(2) {
            assert!(pair[0] < pair[1], "{turns:?}");
        }
    }

    #[tokio::test]
    async fn on_a_thread_that_is_not_watched_it_is_done_at_once() {
        let pace = Pace::default();
        for _ in 0..10 {
            let mut work = std::pin::pin!(pace.work(|| std::thread::sleep(WORK_PER_TURN)));
            let polled = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
            assert!(polled.is_ready());
        }
    }

    #[tokio::test]
    async fn who_leaves_the_line_is_not_waited_for() {
        let pace = Pace::default();
        pace.worked.set(WORK_PER_TURN);
        pace.waiting.set(CROWD - 1);
        assert!(!pace.is_crowded());
        let held = pace.line.acquire().await.unwrap();
        {
            let mut work = std::pin::pin!(pace.work(|| ()));
            let polled = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
            assert!(polled.is_pending() && pace.is_crowded());
        }
        assert!(!pace.is_crowded());
        drop(held);
    }
}
