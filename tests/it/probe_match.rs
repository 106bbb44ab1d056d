//! Bodies judged by patterns: verdicts, the budget, and what one endpoint's hostile pattern does to the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use watcher::domain::{EndpointId, Pattern};
use watcher::probe::matcher::{MatchThread, Matcher, MatcherOptions, Verdict};

const CUSTOMER: &str = r"(?=^.*you.*welcome)(?!.*forbidden).*\b(?:[a-zA-Z]{3,6}\s?){2,4}\b(?<=\b[a-zA-Z]+\b)\s\d{1,3}(?<!100|200)\s(?:at|on)\s[0-9]{2}:[0-9]{2}(?=\s(?:AM|PM)$)";

/// Settings under which a busy machine does not decide a test.
fn options(budget_ms: u64) -> MatcherOptions {
    MatcherOptions {
        budget: Duration::from_millis(budget_ms),
        cpu_share_min: 0.0,
        ..MatcherOptions::default()
    }
}

/// Never found, and quadratic from each of its starts.
const HOSTILE: &str = r"(?s)(?:(?!.*Z)x)*y(?<!y)";

const PASSING: EndpointId = EndpointId(1);
const FAILING: EndpointId = EndpointId(2);

fn pattern(text: &str) -> Arc<Pattern> {
    Arc::new(Pattern::compile(text).expect(text))
}

fn start(options: MatcherOptions) -> (Matcher, MatchThread) {
    Matcher::start(options).expect("a thread")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
        .block_on(future)
}

fn hostile_body() -> Vec<u8> {
    [&vec![b'x'; 64 << 10][..], b"y"].concat()
}

#[test]
fn the_customers_pattern_matches_its_text_and_nothing_near_it() {
    let (matcher, thread) = start(options(10_000));
    let customer = pattern(CUSTOMER);
    let judge = |body: &str| {
        block_on(matcher.judge(PASSING, Some(&customer), None, body.as_bytes().to_vec()))
    };
    let hit = "hello you are welcome to stay with us, see you there 42 at 10:30 PM";
    assert_eq!(judge(hit), Verdict::Matched);
    assert_eq!(
        judge(&format!("{}{hit}", "hello you ".repeat(6_000))),
        Verdict::Matched
    );
    for miss in [
        hit.replace("stay", "forbidden"),
        hit.replace("welcome", "here"),
        hit.replace("42", "100"),
        hit.replace("42", "4242"),
        hit.replace("PM", "pm"),
        hit.replace("there 42", "there, 42"),
        // `$` is the end of the text, and `.` stays on its line.
        format!("{hit}\n"),
        format!("first line\n{hit}"),
        format!("you are welcome\n{}", hit.replace("welcome", "here")),
        String::new(),
    ] {
        assert_eq!(judge(&miss), Verdict::NotMatched, "{miss:?}");
    }
    thread.stop();
}

#[test]
fn a_miss_that_needs_no_look_around_needs_no_budget() {
    let (matcher, _thread) = start(options(10_000));
    let tempered = pattern(r"(?s)(?:(?!.*Z)x)*y");
    let judge = |body| block_on(matcher.judge(PASSING, Some(&tempered), None, body));
    assert_eq!(judge(vec![b'x'; 64 << 10]), Verdict::NotMatched);
}

#[test]
fn both_patterns_have_their_say() {
    let (matcher, _thread) = start(options(10_000));
    let (hello, error) = (pattern("hello"), pattern("(?i)error"));
    let judge = |must, must_not, body: &[u8]| {
        block_on(matcher.judge(PASSING, must, must_not, body.to_vec()))
    };
    assert_eq!(judge(None, None, b""), Verdict::Matched);
    assert_eq!(
        judge(Some(&hello), Some(&error), b"hello"),
        Verdict::Matched
    );
    assert_eq!(
        judge(Some(&hello), Some(&error), b"hello ERROR"),
        Verdict::Forbidden
    );
    assert_eq!(
        judge(Some(&hello), Some(&error), b"error"),
        Verdict::NotMatched
    );
    assert_eq!(judge(None, Some(&error), b"error"), Verdict::Forbidden);
    assert_eq!(
        matcher.counts().queued,
        0,
        "short bodies stay on the probe thread"
    );
    let long = vec![b'h'; 4 << 20];
    assert_eq!(judge(Some(&hello), None, &long), Verdict::NotMatched);
    assert_eq!(matcher.counts().queued, 1, "long bodies do not");
}

#[test]
fn an_endpoint_that_is_never_decided_rests_until_it_is_edited() {
    let (matcher, _thread) = start(options(5));
    let hostile = pattern(HOSTILE);
    let judge = || block_on(matcher.judge(FAILING, Some(&hostile), None, hostile_body()));
    for _ in 0..3 {
        assert!(!matcher.is_quarantined(FAILING));
        assert_eq!(judge(), Verdict::TimedOut);
    }
    assert!(matcher.is_quarantined(FAILING));
    assert_eq!(judge(), Verdict::Quarantined);
    assert!(!matcher.is_quarantined(PASSING));
    matcher.forget(FAILING);
    assert_eq!(judge(), Verdict::TimedOut);
    let counts = matcher.counts();
    assert_eq!((counts.timed_out, counts.quarantined), (4, 1));
}

#[test]
fn a_full_queue_refuses_and_a_stopped_thread_answers() {
    let (matcher, thread) = start(MatcherOptions {
        queued_jobs_max: 1,
        ..options(300)
    });
    let hostile = pattern(HOSTILE);
    block_on(async {
        let judge = |id| matcher.judge(EndpointId(id), Some(&hostile), None, hostile_body());
        // At most one runs and one waits, so of four at least two are refused.
        let verdicts = futures_util::future::join4(judge(1), judge(2), judge(3), judge(4)).await;
        let verdicts = [verdicts.0, verdicts.1, verdicts.2, verdicts.3];
        let refused = verdicts
            .iter()
            .filter(|v| **v == Verdict::Overloaded)
            .count();
        assert!(refused >= 2, "{verdicts:?}");
        assert!(verdicts.contains(&Verdict::TimedOut), "{verdicts:?}");
    });
    thread.stop();
    let verdict = block_on(matcher.judge(PASSING, Some(&hostile), None, hostile_body()));
    assert_eq!(verdict, Verdict::Overloaded);
}

#[test]
fn one_hostile_endpoint_costs_the_others_a_budget_at_most() {
    let (matcher, _thread) = start(options(500));
    let (hostile, customer) = (pattern(HOSTILE), pattern(CUSTOMER));
    block_on(async {
        let others = async {
            let mut undecided = 0;
            for id in 0..1_000 {
                let body = b"you are welcome to stay, see you there 42 at 10:30 PM".to_vec();
                let verdict = matcher
                    .judge(EndpointId(100 + id), Some(&customer), None, body)
                    .await;
                undecided += u32::from(verdict != Verdict::Matched);
            }
            undecided
        };
        let hostile = async {
            let mut quarantined = 0;
            for _ in 0..50 {
                let verdict = matcher
                    .judge(FAILING, Some(&hostile), None, hostile_body())
                    .await;
                quarantined += u32::from(verdict == Verdict::Quarantined);
            }
            quarantined
        };
        let (undecided, quarantined) = futures_util::future::join(others, hostile).await;
        assert_eq!((undecided, quarantined), (0, 47));
    });
}

#[test]
fn the_match_thread_gives_way_to_the_probe_thread() {
    let (matcher, _thread) = start(options(10_000));
    // Judged there, so it has come up.
    let conditional = pattern("a(?=b)");
    let verdict = block_on(matcher.judge(PASSING, Some(&conditional), None, b"ab".to_vec()));
    assert_eq!(verdict, Verdict::Matched);
    // The 19th field of proc_pid_stat(5); the second, in parentheses, is the name.
    let nice = |stat: &str| -> Option<i32> {
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(16)?
            .parse()
            .ok()
    };
    let own = std::fs::read_to_string("/proc/thread-self/stat").expect("procfs");
    let others: Vec<i32> = std::fs::read_dir("/proc/self/task")
        .expect("procfs")
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok())
        .filter(|stat| stat.contains("(match)"))
        .filter_map(|stat| nice(&stat))
        .collect();
    let lower = nice(&own).map(|nice| (nice + 10).min(19));
    assert!(
        lower.is_some_and(|lower| others.contains(&lower)),
        "{lower:?} {others:?}"
    );
}

#[test]
fn a_starved_match_thread_blames_nobody() {
    let (matcher, _thread) = start(MatcherOptions {
        // More than there is: every match is starved.
        cpu_share_min: f64::INFINITY,
        ..options(5)
    });
    let hostile = pattern(HOSTILE);
    for _ in 0..5 {
        let verdict = block_on(matcher.judge(FAILING, Some(&hostile), None, hostile_body()));
        assert_eq!(verdict, Verdict::Overloaded);
    }
    assert!(!matcher.is_quarantined(FAILING));
    assert_eq!(matcher.counts().starved, 5);
}

#[test]
fn a_pattern_built_to_backtrack_ends_soon_after_its_budget() {
    let (matcher, _thread) = start(options(50));
    let hostile = pattern(HOSTILE);
    // Without a budget it takes minutes; how soon after the budget it ends is benches/body_match.rs's matter.
    let mut best = Duration::MAX;
    for id in 0..5 {
        let started = Instant::now();
        let verdict = block_on(matcher.judge(EndpointId(id), Some(&hostile), None, hostile_body()));
        best = best.min(started.elapsed());
        assert_eq!(verdict, Verdict::TimedOut);
    }
    assert!(best < Duration::from_secs(2), "{best:?}");
}
