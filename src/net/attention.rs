//! Looks at how well the calling thread is served: by the turns of its runtime, and by the time that the kernel says it
//! has waited for a core (`/proc/thread-self/schedstat`). What follows from it is said in `domain::attention`.
//!
//! One watch per thread, since that is what it looks at. A thread that is not watched knows nothing, and samples taken
//! on it say so (`error_us` is absent).
//!
//! Cost: two looks at the monotonic clock a turn, and one read of `schedstat` (0.4 µs) after a sleep above 250 µs: many where
//! there is little to do, none where there is much.
//!
//! Under a CPU quota of 20 % with hogs beside, time that a spinning thread did not get and time that `schedstat` said it
//! waited were 2.375 and 2.396 s of 3 s: it sees throttling as well as neighbours.

use std::cell::RefCell;
use std::fs::File;
use std::future::poll_fn;
use std::os::unix::fs::FileExt;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::task::yield_now;

use crate::domain::attention::{Account, Lost, Turns};

pub use crate::domain::attention::Arrival;

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

struct Watch {
    base: Instant,
    turns: Turns,
    schedstat: Option<File>,
    /// Those that let a turn pass.
    waiting: Vec<Waker>,
}

impl Watch {
    fn start() -> Self {
        let schedstat = File::open("/proc/thread-self/schedstat")
            .inspect_err(|error| {
                tracing::warn!(
                    %error,
                    "the kernel does not tell how long a thread waits for a core: starvation is not seen"
                );
            })
            .ok();
        let mut watch = Self {
            base: Instant::now(),
            turns: Turns::default(),
            schedstat,
            waiting: Vec::new(),
        };
        let waited = waited(watch.schedstat.as_ref());
        watch.turns.begin(Duration::ZERO, waited);
        watch
    }
}

/// Time on the CPU, time waiting for one, slices: all of the thread's life.
fn waited(schedstat: Option<&File>) -> Option<Duration> {
    let mut text = [0; 80];
    let length = schedstat?.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    let nanos = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

fn with<T>(look: impl FnOnce(&mut Watch) -> T) -> Option<T> {
    WATCH.with_borrow_mut(|watch| watch.as_mut().map(look))
}

/// Watches the thread that will run this runtime.
pub fn watch(runtime: &mut Builder) -> &mut Builder {
    runtime
        .on_thread_park(|| {
            let mut waiting = WATCH.with_borrow_mut(|watch| {
                let watch = watch.get_or_insert_with(Watch::start);
                watch.turns.park(watch.base.elapsed());
                std::mem::take(&mut watch.waiting)
            });
            // With somebody woken the runtime asks for events without waiting for any.
            waiting.drain(..).for_each(Waker::wake);
            with(|watch| watch.waiting = waiting);
        })
        .on_thread_unpark(|| {
            with(|watch| {
                let schedstat = watch.schedstat.as_ref();
                watch
                    .turns
                    .unpark(watch.base.elapsed(), || waited(schedstat));
            });
        })
}

/// Lets all others have their turn, and the kernel be asked for events, before the caller goes on. That is
/// [`yield_now`], except that there the runtime asks without a word to its callbacks: the watch would take many turns
/// for one, and any event in them for as old as the first.
pub async fn turn() {
    let Some(from) = turn_number() else {
        return yield_now().await;
    };
    poll_fn(|cx| {
        let waits = with(|watch| {
            let waits = watch.turns.number() == from;
            if waits {
                watch.waiting.push(cx.waker().clone());
            }
            waits
        });
        match waits {
            Some(true) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    })
    .await;
}

/// Which turn of the thread this is; `None` where it is not watched.
pub fn turn_number() -> Option<u64> {
    with(|watch| watch.turns.number())
}

/// This thread should run again at `by`, at the latest; `None` when nothing will wake it.
pub fn wake_by(by: Option<Instant>) {
    with(|watch| {
        let base = watch.base;
        let by = by.map(|by| by.saturating_duration_since(base));
        watch.turns.wake_by(by);
    });
}

/// Whether this thread may have woken later for this turn than the kernel's account shows.
pub fn slept_long() -> bool {
    with(|watch| watch.turns.slept_long()).unwrap_or(false)
}

/// How long ago something may have happened that this thread sees now; zero where it is not watched.
pub fn unsure() -> Duration {
    with(|watch| watch.turns.unsure(watch.base.elapsed())).unwrap_or_default()
}

/// What the thread has lost so far, by the last reading. `None` where it is not watched.
pub fn lost() -> Option<Lost> {
    with(|watch| watch.turns.lost())
}

/// Likewise, read now.
pub fn lost_now() -> Option<Lost> {
    with(|watch| {
        let schedstat = watch.schedstat.as_ref();
        watch.turns.read(|| waited(schedstat));
        watch.turns.lost()
    })
}

/// What this thread may have added to a question that was asked in turn `asked` and passed through tasks that are not
/// watched. `None` where the thread is not.
pub fn unseen(asked: u64) -> Option<Duration> {
    with(|watch| watch.turns.unseen(asked, watch.base.elapsed()))
}

/// Whether the kernel tells this thread's run delay: without it there is no bound on what it adds.
pub fn is_bounded() -> bool {
    with(|watch| watch.schedstat.is_some()).unwrap_or(false)
}

/// One probe's account of how late its thread was. Costs nothing where the thread is not watched.
#[derive(Clone, Copy, Default, Debug)]
pub struct Lateness(Option<Account>);

impl Lateness {
    /// From now on.
    pub fn from_now() -> Self {
        Self(with(|watch| {
            Account::open(&watch.turns, watch.base.elapsed())
        }))
    }

    /// A poll of the probe ended at `now`.
    pub fn polled(&mut self, now: Instant) {
        if let Some(account) = &mut self.0 {
            with(|watch| {
                let now = now.saturating_duration_since(watch.base);
                account.polled(&watch.turns, now);
            });
        }
    }

    /// What is seen at `now` came `late` ago.
    pub fn noticed(&mut self, now: Instant, late: Duration) {
        if let Some(account) = &mut self.0 {
            with(|watch| {
                let now = now.saturating_duration_since(watch.base);
                account.noticed(&watch.turns, now, late);
            });
        }
    }

    /// Bytes were read at `now`, of this age by the kernel's stamp; `None` where the thread is not watched.
    pub fn arrived(&mut self, now: Instant, age: Option<Duration>) -> Option<Arrival> {
        let account = self.0.as_mut()?;
        with(|watch| {
            let now = now.saturating_duration_since(watch.base);
            account.arrived(&watch.turns, now, age)
        })
    }

    /// Upper bound on what the agent has added so far; `None` where the thread was not watched.
    pub fn error(&self) -> Option<Duration> {
        self.0.map(|account| account.error())
    }
}
