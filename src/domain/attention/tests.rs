//! Stories of a thread, told in milliseconds.

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A thread and its run delay.
#[derive(Default)]
struct Thread {
    turns: Turns,
    waited: Duration,
}

impl Thread {
    /// Asks for events at `from` and has them at `to`, having waited for a core for `waited` of it.
    fn sleeps(&mut self, from: u64, to: u64, waited: u64) {
        self.waited += ms(waited);
        self.turns.park(ms(from));
        self.turns.unpark(ms(to), || Some(self.waited));
    }

    fn lost(&mut self) -> Lost {
        self.turns.read(|| Some(self.waited));
        self.turns.lost()
    }
}

#[test]
fn a_quiet_thread_adds_its_own_work_alone() {
    let mut thread = Thread::default();
    thread.turns.wake_by(Some(ms(500)));
    let mut account = Account::open(&thread.turns, ms(0));
    account.polled(&thread.turns, ms(1));
    thread.sleeps(1, 101, 0);
    account.polled(&thread.turns, ms(102));
    // 1 ms until it slept, 1 ms after it woke.
    assert_eq!(account.error(), ms(2));
    assert_eq!(thread.lost(), Lost::default());
}

#[test]
fn waiting_for_a_core_is_in_the_error_of_those_who_were_woken() {
    let mut thread = Thread::default();
    thread.turns.wake_by(Some(ms(500)));
    let mut woken = Account::open(&thread.turns, ms(0));
    let mut another = Account::open(&thread.turns, ms(0));
    thread.sleeps(0, 100, 70);
    woken.polled(&thread.turns, ms(100));
    assert_eq!(thread.lost().starved, ms(70));
    assert_eq!(woken.error(), ms(70));
    thread.sleeps(100, 150, 0);
    another.polled(&thread.turns, ms(150));
    assert_eq!(another.error(), ms(0));
}

#[test]
fn what_the_kernel_knows_of_an_event_is_the_error() {
    let mut thread = Thread::default();
    thread.turns.wake_by(Some(ms(500)));
    assert!(!thread.turns.slept_long());
    let open = Account::open(&thread.turns, ms(0));
    thread.sleeps(0, 100, 2);
    assert!(thread.turns.slept_long());
    // Late by more than it waited for a core, by less, and by more than can be.
    let us = Duration::from_micros;
    for (late, error) in [(30, us(30_001)), (1, us(1_001)), (1_000, ms(101))] {
        let mut account = open;
        account.noticed(&thread.turns, ms(101), ms(late));
        assert_eq!(account.error(), error);
        account.polled(&thread.turns, ms(102));
        assert_eq!(account.error(), error + ms(1));
    }
}

#[test]
fn what_is_seen_now_may_have_happened_while_the_thread_was_away() {
    let mut thread = Thread::default();
    thread.sleeps(0, 10, 0);
    assert_eq!(thread.turns.unsure(ms(11)), ms(1), "the event woke it");
    thread.sleeps(15, 15, 0);
    // All of the work before, and what this turn has taken so far.
    assert_eq!(thread.turns.unsure(ms(17)), ms(7));
}

#[test]
fn an_event_that_came_while_the_thread_was_at_work_waited_for_all_of_it() {
    let mut thread = Thread::default();
    thread.sleeps(0, 10, 0);
    let mut account = Account::open(&thread.turns, ms(10));
    // 8 ms of work for others, and no sleep: the event was there already.
    thread.sleeps(18, 18, 0);
    account.polled(&thread.turns, ms(18));
    assert_eq!(account.error(), ms(8));
}

#[test]
fn work_before_the_probe_began_is_not_counted() {
    let mut thread = Thread::default();
    thread.sleeps(0, 10, 0);
    let mut account = Account::open(&thread.turns, ms(17));
    thread.sleeps(18, 18, 0);
    account.polled(&thread.turns, ms(18));
    assert_eq!(account.error(), ms(1));
}

#[test]
fn a_stop_is_told_from_starvation() {
    let mut thread = Thread::default();
    thread.turns.wake_by(Some(ms(20)));
    thread.sleeps(0, 3_020, 0);
    let lost = thread.lost();
    assert_eq!((lost.paused, lost.starved), (ms(3_000), ms(0)));
    assert_eq!(lost.reason(), SkipReason::Paused);

    let mut thread = Thread::default();
    thread.turns.wake_by(Some(ms(20)));
    thread.sleeps(0, 3_020, 3_000);
    let lost = thread.lost();
    assert_eq!((lost.paused, lost.starved), (ms(0), ms(3_000)));
    assert_eq!(lost.reason(), SkipReason::Starved);
}

#[test]
fn a_long_sleep_with_nothing_due_is_not_lost() {
    let mut thread = Thread::default();
    thread.turns.wake_by(Some(ms(500)));
    thread.sleeps(0, 501, 0);
    thread.turns.wake_by(None);
    thread.sleeps(501, 60_000, 0);
    assert_eq!(thread.lost(), Lost::default());
}

#[test]
fn one_long_piece_of_work_is_lost_time() {
    let mut thread = Thread::default();
    thread.sleeps(0, 10, 0);
    thread.sleeps(210, 211, 50);
    assert_eq!(thread.lost().held_up, ms(150));
    assert_eq!(thread.lost().total(), ms(200));
}

#[test]
fn a_timeout_is_doubted_from_a_twentieth_of_it_on_and_from_50_ms() {
    let lost = |lost| Lost {
        starved: ms(lost),
        ..Lost::default()
    };
    for (timeout, fine, doubted) in [(100, 50, 51), (1_000, 50, 51), (5_000, 250, 251)] {
        assert!(!lost(fine).excuses_timeout(ms(timeout)), "{timeout}");
        assert!(lost(doubted).excuses_timeout(ms(timeout)), "{timeout}");
    }
    assert!(!lost(499).excuses_silence() && lost(500).excuses_silence());
}

#[test]
fn without_run_delay_a_stop_is_still_found() {
    let mut turns = Turns::default();
    turns.wake_by(Some(ms(20)));
    turns.park(ms(0));
    turns.unpark(ms(900), || None);
    assert_eq!(turns.lost().paused, ms(880));
}

#[test]
fn a_stamp_says_when_bytes_came_while_the_thread_was_at_work() {
    let mut thread = Thread::default();
    thread.sleeps(0, 10, 0);
    let mut account = Account::open(&thread.turns, ms(10));
    account.polled(&thread.turns, ms(11));
    thread.sleeps(19, 19, 0);
    let arrival = account.arrived(&thread.turns, ms(20), Some(ms(3)));
    assert_eq!((arrival.age, arrival.error), (ms(3), ms(1)));
    account.polled(&thread.turns, ms(22));
    assert_eq!(account.error(), ms(1 + 3 + 2));
}

#[test]
fn a_stamp_is_not_believed_beyond_the_last_look() {
    let opened = |thread: &mut Thread| {
        thread.sleeps(0, 10, 0);
        let mut account = Account::open(&thread.turns, ms(10));
        account.polled(&thread.turns, ms(11));
        thread.sleeps(12, 50, 0);
        account
    };
    // It may have come since the probe was last polled, or while it was.
    let mut thread = Thread::default();
    let mut account = opened(&mut thread);
    let arrival = account.arrived(&thread.turns, ms(51), Some(ms(41)));
    assert_eq!((arrival.age, arrival.error), (ms(40), ms(1)));
    assert_eq!(account.error(), ms(41));
    // By the stamp it came before the probe began: another clock, and nothing is known but what the thread did.
    let mut thread = Thread::default();
    let mut account = opened(&mut thread);
    let arrival = account.arrived(&thread.turns, ms(51), Some(ms(60_000)));
    assert_eq!((arrival.age, arrival.error), (ms(0), ms(1 + 1 + 1)));
    assert_eq!(account.error(), ms(3));
    // By what the thread knows it woke in time; the stamp says that it woke 5 ms late.
    let mut late = Account::open(&thread.turns, ms(51));
    thread.sleeps(52, 90, 0);
    let arrival = late.arrived(&thread.turns, ms(90), Some(ms(5)));
    assert_eq!((arrival.age, late.error()), (ms(5), ms(5)));
}

#[test]
fn what_passes_through_tasks_may_wait_for_the_first_turns_and_the_last() {
    let mut thread = Thread::default();
    thread.sleeps(0, 10, 0);
    let asked = thread.turns.number();
    // Ten turns of 1, 2, ... 10 ms of work, each followed by 20 ms of sleep.
    let mut now = 10;
    for work in 1..=10 {
        thread.sleeps(now + work, now + work + 20, 0);
        now += work + 20;
    }
    // The first two, the last three, and what was done of this one.
    assert_eq!(
        thread.turns.unseen(asked, ms(now + 4)),
        ms(1 + 2 + 8 + 9 + 10 + 4)
    );
    let later = thread.turns.number() - 4;
    assert_eq!(thread.turns.unseen(later, ms(now)), ms(7 + 8 + 9 + 10));
    assert_eq!(
        thread.turns.unseen(thread.turns.number(), ms(now + 3)),
        ms(3)
    );
    // Those that are forgotten count as much as the longest that is not.
    for _ in 0..1_000 {
        thread.sleeps(now + 2, now + 20, 0);
        now += 20;
    }
    assert_eq!(thread.turns.unseen(asked, ms(now)), ms(5 * 2));
}

#[test]
fn bytes_without_a_stamp_came_when_they_were_read_or_up_to_the_error_earlier() {
    let mut thread = Thread::default();
    thread.sleeps(0, 10, 0);
    let mut account = Account::open(&thread.turns, ms(10));
    thread.sleeps(14, 14, 0);
    let arrival = account.arrived(&thread.turns, ms(15), None);
    assert_eq!((arrival.age, arrival.error), (ms(0), ms(5)));
    assert_eq!(account.error(), ms(5));
}
