//! Bodies and patterns end to end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use watcher::domain::{EndpointId, Pattern};
use watcher::probe::matcher::{Matcher, MatcherOptions, Verdict};

/// The customer's pattern.
const CUSTOMER: &str = r"(?=^.*you.*welcome)(?!.*forbidden).*\b(?:[a-zA-Z]{3,6}\s?){2,4}\b(?<=\b[a-zA-Z]+\b)\s\d{1,3}(?<!100|200)\s(?:at|on)\s[0-9]{2}:[0-9]{2}(?=\s(?:AM|PM)$)";

fn pattern(text: &str) -> Arc<Pattern> {
    Arc::new(Pattern::compile(text).expect(text))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
        .block_on(future)
}

#[test]
fn the_customers_pattern_matches_and_does_not() {
    let (matcher, thread) = Matcher::start(MatcherOptions::default()).expect("a thread");
    let customer = pattern(CUSTOMER);
    let judge = |body: &str| {
        block_on(matcher.judge(
            EndpointId(1),
            Some(&customer),
            None,
            body.as_bytes().to_vec(),
        ))
    };
    let hit = "hello you are welcome to stay with us, see you there 42 at 10:30 PM";
    assert_eq!(judge(hit), Verdict::Matched);
    assert_eq!(
        judge(&hit.replace("stay", "forbidden")),
        Verdict::NotMatched
    );
    assert_eq!(judge(&hit.replace("42", "100")), Verdict::NotMatched);
    // `.` ends at the line, and `$` is the end of the text.
    assert_eq!(judge(&format!("{hit}\n")), Verdict::NotMatched);
    assert_eq!(judge(&format!("first line\n{hit}")), Verdict::NotMatched);
    assert_eq!(
        judge(&format!("you are welcome\n{hit}")),
        Verdict::NotMatched
    );
    thread.stop();
}

#[test]
fn a_pattern_built_to_backtrack_ends_within_its_budget() {
    let (matcher, _thread) = Matcher::start(MatcherOptions::default()).expect("a thread");
    let hostile = pattern(r"(?s)(?:(?!.*Z)x)*y");
    let started = Instant::now();
    let verdict =
        block_on(matcher.judge(EndpointId(1), Some(&hostile), None, vec![b'x'; 64 << 10]));
    let took = started.elapsed();
    assert!(
        matches!(verdict, Verdict::TimedOut | Verdict::NotMatched),
        "{verdict:?}"
    );
    assert!(took < Duration::from_millis(60), "{took:?}");
}
