//! A row of `endpoints`, with any content in any column → an endpoint that may be probed, or problems that a person
//! can read, each with its column.
#![no_main]

use std::cell::RefCell;
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use watcher::config::{CheckCache, EndpointRow, endpoint};
use watcher::domain::{EndpointId, Timestamp};
use watcher_fuzz::{CANARY, Canaries};

#[derive(Arbitrary, Debug)]
struct Input {
    id: i64,
    kind: Option<String>,
    url: Option<String>,
    interval_s: i32,
    timeout_ms: Option<i32>,
    degraded_after_ms: Option<i32>,
    cert_warn_days: Option<i32>,
    regex: Option<String>,
    regex_not: Option<String>,
    settings: Option<String>,
}

thread_local! {
    static CACHE: RefCell<CheckCache> = RefCell::default();
}

fuzz_target!(|input: Input| {
    let row = EndpointRow {
        id: EndpointId(input.id),
        kind: input.kind.unwrap_or_else(|| "http".to_owned()),
        url: input.url.unwrap_or_else(|| "http://127.0.0.1/".to_owned()),
        interval_s: input.interval_s,
        timeout_ms: input.timeout_ms,
        degraded_after_ms: input.degraded_after_ms,
        cert_warn_days: input.cert_warn_days,
        regex: input.regex,
        regex_not: input.regex_not,
        settings: input.settings,
        changed_at: Timestamp::default(),
    };
    match CACHE.with_borrow_mut(|cache| endpoint(&row, cache, &Canaries)) {
        Ok(endpoint) => {
            let interval = endpoint.interval.duration();
            assert!((5..=300).contains(&interval.as_secs()));
            assert!(endpoint.timeout > Duration::ZERO && endpoint.timeout <= interval);
            assert!(endpoint.target.port > 0);
            assert!(!format!("{endpoint:?}").contains(CANARY), "{endpoint:?}");
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(
                    !problem.field.is_empty() && !problem.message.is_empty(),
                    "{problem:?}"
                );
                assert!(problem.field.len() <= 512, "{}", problem.field.len());
                assert!(
                    !problem.to_string().contains('\0'),
                    "PostgreSQL takes none: {problem:?}"
                );
                assert!(!problem.message.contains(CANARY), "{problem:?}");
            }
        }
    }
});
