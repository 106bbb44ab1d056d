//! How well the probe thread was served, and what of a sample that puts in doubt. The rules; `net::attention` looks.
//!
//! A probe sees an event when its thread runs. The event may have happened while the thread was at other work, waited
//! for a core, or was stopped: what lies between is the agent's, not the target's. Two questions follow.
//!
//! * By how much may a measured duration be too long? [`Account::error`].
//! * Did a probe fail because of us? [`Lost::excuses_timeout`] and [`Lost::excuses_silence`].

use std::time::Duration;

use super::sample::{Failure, SkipReason};

/// A deadline that passed is doubted from here on, whatever the timeout: the shortest stall that a person would call
/// one. A thread on an ordinary busy machine loses less than 10 ms at a time.
const LOST_MIN: Duration = Duration::from_millis(50);
/// Likewise, as a part of the timeout: who answers 95 % of the timeout late is as good as timed out.
const LOST_PART: u32 = 20;
/// A peer that closed the connection is doubted when we were away this long. Servers give a silent client seconds (10 to
/// 60 by default in nginx, Apache and HAProxy; the strictest advise 1 s), none in use less than this.
const SILENCE_MIN: Duration = Duration::from_millis(500);

/// Time in which the thread was not there for its probes, over a span.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Lost {
    /// Ready to run, but another had the core, or the group's quota was used up.
    pub starved: Duration,
    /// Stopped (SIGSTOP, a freezer, a virtual machine that stood still): late, without having waited for a core.
    pub paused: Duration,
    /// At one piece of work of its own for too long.
    pub held_up: Duration,
}

impl Lost {
    /// All of it.
    pub fn total(self) -> Duration {
        self.starved + self.paused + self.held_up
    }

    /// What was lost since `earlier`, both counted from one point.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            starved: self.starved.saturating_sub(earlier.starved),
            paused: self.paused.saturating_sub(earlier.paused),
            held_up: self.held_up.saturating_sub(earlier.held_up),
        }
    }

    /// Whether so much was lost of a probe with this timeout that its passing may be our doing.
    pub fn excuses_timeout(self, timeout: Duration) -> bool {
        self.total() > LOST_MIN.max(timeout / LOST_PART)
    }

    /// Whether the peer may have closed the connection because nothing came from us.
    pub fn excuses_silence(self) -> bool {
        self.total() >= SILENCE_MIN
    }

    /// Why a probe that lost so much is not made at all.
    pub fn reason(self) -> SkipReason {
        if self.paused > self.total() / 2 {
            SkipReason::Paused
        } else {
            SkipReason::Starved
        }
    }
}

/// How a failure depends on our having been there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dependence {
    /// It would have been the same.
    None,
    /// It is a wait that ended.
    Time,
    /// The peer closed, perhaps for want of patience.
    Silence,
}

/// How `failure` depends on our having been there.
pub const fn dependence(failure: Failure) -> Dependence {
    use Failure::{
        ConnectTimeout, DnsTimeout, ProcessingClosed, ProcessingTimeout, TlsHandshake, TlsTimeout,
        TransferError, TransferTimeout,
    };
    match failure {
        DnsTimeout | ConnectTimeout | TlsTimeout | ProcessingTimeout | TransferTimeout => {
            Dependence::Time
        }
        ProcessingClosed | TlsHandshake | TransferError => Dependence::Silence,
        _ => Dependence::None,
    }
}

/// Later than this is late: tokio's timer ticks every millisecond, and fires up to one after.
const LATE: Duration = Duration::from_millis(3);
/// Work that keeps the thread for longer is time lost for its probes.
const HELD_UP: Duration = Duration::from_millis(10);
/// After a sleep longer than this the run delay is read; a shorter one counts as late waking, all of it. A reading takes
/// about 1 µs, so this costs at most 0.4 % of a core, and nothing where turns follow each other faster. A probe has
/// three or four turns: the slack stays below 1 ms.
const SLEEP_UNREAD_MAX: Duration = Duration::from_micros(250);
/// A turn that slept less than this hardly slept: its events may have been handed on by the turn before.
const NAP: Duration = Duration::from_micros(100);

/// An answer may come while the poll that sent the question goes on.
const STAMP_SLACK: Duration = Duration::from_millis(1);
/// The kernel's figure for a TCP handshake is the difference of two clocks in whole microseconds.
const KERNEL_ROUNDING: Duration = Duration::from_micros(1);
/// Turns remembered: the answer of a name server is seldom more of them away.
const LATE_TURNS: usize = 256;
/// What is asked through tasks of somebody else leaves some turns after it was asked for...
const TURNS_TO_ASK: u64 = 2;
/// ...and its answer is handed on through so many: the task that reads it, the one that waits for that, the probe.
const TURNS_TO_HEAR: u64 = 3;

/// The turns of one thread's loop, fed by its callbacks. A turn begins when events come in, and ends when the thread
/// asks for more, which takes as long as there are none. All times are since a fixed point of the monotonic clock.
#[derive(Clone, Debug)]
pub struct Turns {
    turn: u64,
    began: Duration,
    asked: Duration,
    /// Work of the turn before.
    worked: Duration,
    /// How much of the sleep before this turn the thread may have slept too long, as far as the guest's kernel knows: the
    /// time in which a virtual machine's idle core is woken is not in it.
    overslept: Duration,
    /// All of that sleep.
    asleep: Duration,
    /// Work before and what was overslept, of the last turns, each at its number modulo their count.
    late: [Duration; LATE_TURNS],
    /// The thread should run again at this time, at the latest.
    wake_by: Option<Duration>,
    lost: Lost,
    waited: Duration,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            turn: 0,
            began: Duration::ZERO,
            asked: Duration::ZERO,
            worked: Duration::ZERO,
            overslept: Duration::ZERO,
            asleep: Duration::ZERO,
            late: [Duration::ZERO; LATE_TURNS],
            wake_by: None,
            lost: Lost::default(),
            waited: Duration::ZERO,
        }
    }
}

impl Turns {
    /// From `now` on. `waited` is how long the thread has waited for a core in its life.
    pub fn begin(&mut self, now: Duration, waited: Option<Duration>) {
        self.began = now;
        self.asked = now;
        self.waited = waited.unwrap_or_default();
    }

    /// The thread asks the kernel for events now.
    pub fn park(&mut self, now: Duration) {
        self.asked = now;
    }

    /// It has them. `waited` tells how long the thread has waited for a core in its life, if the kernel says so.
    pub fn unpark(&mut self, now: Duration, waited: impl FnOnce() -> Option<Duration>) {
        let asleep = now.saturating_sub(self.asked);
        let worked = self.asked.saturating_sub(self.began);
        let due = self.wake_by.map(|by| by.max(self.asked));
        let late = due.map_or(Duration::ZERO, |due| now.saturating_sub(due));
        let was_held_up = worked > HELD_UP;
        let mut overslept = asleep;
        if late > LATE || was_held_up || asleep > SLEEP_UNREAD_MAX {
            let starved = self.read(waited);
            let stopped = late.saturating_sub(starved);
            if stopped > LATE {
                // It may have been stopped right after it fell asleep: all of the sleep is in doubt.
                self.lost.paused += stopped;
            } else {
                overslept = starved.min(asleep);
            }
            if was_held_up {
                let meanwhile = starved.saturating_sub(late);
                self.lost.held_up += worked.saturating_sub(meanwhile);
            }
        }
        let late = worked + overslept;
        if asleep < NAP {
            overslept += self.overslept;
        }
        self.asleep = if asleep < NAP {
            asleep + self.asleep
        } else {
            asleep
        };
        self.overslept = overslept;
        self.worked = worked;
        self.turn += 1;
        self.late[self.turn as usize % LATE_TURNS] = late;
        self.began = now;
    }

    /// Takes the run delay in. Returns what is new in it.
    pub fn read(&mut self, waited: impl FnOnce() -> Option<Duration>) -> Duration {
        let Some(waited) = waited() else {
            return Duration::ZERO;
        };
        let new = waited.saturating_sub(self.waited);
        self.waited = waited;
        self.lost.starved += new;
        new
    }

    /// The thread should run again at `by`, at the latest; `None` when nothing will wake it.
    pub fn wake_by(&mut self, by: Option<Duration>) {
        self.wake_by = by;
    }

    /// All that was lost so far, as far as it was read.
    pub const fn lost(&self) -> Lost {
        self.lost
    }

    /// What the agent may have added, up to `now`, to a question that was asked in turn `asked` and passed through tasks that
    /// nobody watched, as did its answer: the turns that each may have waited for. Between them the answer was awaited.
    pub fn unseen(&self, asked: u64, now: Duration) -> Duration {
        let heard = self.turn.saturating_sub(TURNS_TO_HEAR).max(asked);
        let left = (asked + TURNS_TO_ASK).min(heard);
        let oldest = self.turn.saturating_sub(LATE_TURNS as u64 - 1);
        let longest = || self.late.iter().max().copied().unwrap_or_default();
        let late = |turn: u64| match turn < oldest {
            true => longest(),
            false => self.late[turn as usize % LATE_TURNS],
        };
        let asking: Duration = (asked + 1..=left).map(late).sum();
        let hearing: Duration = (heard + 1..=self.turn).map(late).sum();
        asking + hearing + now.saturating_sub(self.began)
    }

    /// Whether the sleep before this turn was so long that the thread may have woken later than the kernel knows of: of a
    /// shorter one all counts as late.
    pub fn slept_long(&self) -> bool {
        self.asleep > SLEEP_UNREAD_MAX
    }

    /// How long ago, at `now`, something may have happened that is seen in this turn.
    pub fn unsure(&self, now: Duration) -> Duration {
        self.worked + self.overslept + now.saturating_sub(self.began)
    }

    /// Which turn this is.
    pub const fn number(&self) -> u64 {
        self.turn
    }
}

/// Bytes from a peer, as far as is known of them when they are read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Arrival {
    /// How long ago they came; zero where the kernel did not say.
    pub age: Duration,
    /// Upper bound on what the agent had added to the probe's duration when they came.
    pub error: Duration,
}

/// One probe's account of the turns in which it was polled; lives with the probe.
#[derive(Clone, Copy, Default, Debug)]
pub struct Account {
    turn: u64,
    until: Duration,
    error: Duration,
}

impl Account {
    /// Opened at `now`, in the turn under way: what was before is not this probe's.
    pub const fn open(turns: &Turns, now: Duration) -> Self {
        Self {
            turn: turns.turn,
            until: now,
            error: Duration::ZERO,
        }
    }

    /// The probe was polled until `now`.
    pub fn polled(&mut self, turns: &Turns, now: Duration) {
        self.error += self.added(turns, now);
        self.turn = turns.turn;
        self.until = now;
    }

    /// Bytes were read at `now` that had come `age` ago by the kernel's stamp, where there is one. They came after the
    /// events of the turn before were asked for, and after the probe was last polled: a stamp that says otherwise is of
    /// another clock than ours, and not believed.
    pub fn arrived(&mut self, turns: &Turns, now: Duration, age: Option<Duration>) -> Arrival {
        let before = self.error;
        let passed = now.saturating_sub(self.until);
        self.polled(turns, now);
        let asked = turns.worked + turns.asleep + now.saturating_sub(turns.began);
        let oldest = asked.min(passed);
        let Some(age) = age.filter(|&age| age <= oldest + STAMP_SLACK) else {
            return Arrival {
                age: Duration::ZERO,
                error: self.error,
            };
        };
        let age = age.min(oldest);
        self.error = before + age;
        Arrival { age, error: before }
    }

    /// The event that is seen `now` came `late` ago, as the kernel knows.
    pub fn noticed(&mut self, turns: &Turns, now: Duration, late: Duration) {
        let passed = now.saturating_sub(self.until);
        let before = self.error;
        self.polled(turns, now);
        self.error = before + (late + KERNEL_ROUNDING).min(passed);
    }

    /// What the agent may have added between the last poll and `now`.
    fn added(&self, turns: &Turns, now: Duration) -> Duration {
        if self.turn == turns.turn {
            return now.saturating_sub(self.until);
        }
        // No more than has passed since the last poll: the work before may have begun before the probe did, or be
        // counted up to there.
        let worked = turns.asked.saturating_sub(self.until);
        let passed = turns.began.saturating_sub(self.until);
        let late = (turns.worked.min(worked) + turns.overslept).min(passed);
        late + now.saturating_sub(turns.began)
    }

    /// An upper bound on what the agent has added to the probe's duration: an event that came while the thread was at
    /// work waited for the rest of that work; one that came while it slept woke it, and the thread waited for a core;
    /// then others had their turn before the probe.
    ///
    /// Bytes that the kernel has stamped are late by what the stamp says ([`Self::arrived`]), a connection by what the kernel's
    /// own figure leaves ([`Self::noticed`]), where it was asked for.
    ///
    /// Holds for what this thread sees. Not in it: a peer that itself was late because of us (its turn begins when our
    /// request arrives), and a hypervisor that takes the core away without saying so for less than a tick.
    pub const fn error(&self) -> Duration {
        self.error
    }
}

#[cfg(test)]
mod tests;
