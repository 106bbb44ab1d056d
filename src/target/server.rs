//! What all connections of one server share: the oracle, the scripts read so far, the turns; and the answers about them
//! at `/_log`, `/_count`, `/_rate`, `/_reset` and `/_keys`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::json;

use super::answer::{Answer, Request};
use super::http1;
use super::keys::key_list;
use super::record::{Recorder, lock};
use super::script::{Script, ScriptError};
use super::value;

/// Scripts kept, by query; all are forgotten when it is reached. Runs use a handful; 4 096 of them are a few MB.
const PLANS_MAX: usize = 4_096;
/// Constant answers up to this size are kept as bytes.
const READY_MAX: u64 = 64 << 10;
/// Paths whose turns are counted; all start again when it is reached.
const TURNS_MAX: usize = 100_000;

/// A script and, where it always gives the same bytes, these.
pub(super) struct Plan {
    pub(super) script: Script,
    /// The whole HTTP/1.1 answer to a GET.
    pub(super) ready: Option<Bytes>,
}

/// Shared by the threads of one server.
pub(super) struct Server {
    pub(super) recorder: Recorder,
    plain: Arc<Plan>,
    plans: Mutex<HashMap<Box<str>, Arc<Plan>>>,
    turns: Mutex<HashMap<Box<str>, u64>>,
}

impl Server {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self {
            recorder,
            plain: Arc::new(Plan::of(Script::default())),
            plans: Mutex::default(),
            turns: Mutex::default(),
        }
    }

    /// The plan for a target, from its query.
    pub(super) fn plan(&self, target: &str) -> Result<Arc<Plan>, ScriptError> {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        if query.is_empty() {
            return Ok(Arc::clone(&self.plain));
        }
        if let Some(plan) = lock(&self.plans).get(query) {
            return Ok(Arc::clone(plan));
        }
        // Read outside the lock: encoding a large body takes a while.
        let plan = Arc::new(Plan::of(Script::parse(query)?));
        let mut plans = lock(&self.plans);
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.insert(query.into(), Arc::clone(&plan));
        Ok(plan)
    }

    /// The script that holds for this request, which counts for the turns of its target.
    pub(super) fn script_for_turn(&self, plan: &Plan, target: &str) -> Script {
        if plan.script.turns.is_empty() {
            return plan.script.clone();
        }
        let mut turns = lock(&self.turns);
        if turns.len() >= TURNS_MAX && !turns.contains_key(target) {
            turns.clear();
        }
        let count = turns.entry(target.into()).or_default();
        let turn = *count;
        *count += 1;
        if plan.script.is_up(turn) {
            plan.script.up()
        } else {
            plan.script.down()
        }
    }

    /// The answer to a target that begins with `/_`; those are not recorded. `None` for any other.
    pub(super) fn about(&self, request: &Request) -> Option<Answer> {
        let (path, query) = request
            .target
            .split_once('?')
            .unwrap_or((&request.target, ""));
        if !path.starts_with("/_") {
            return None;
        }
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let (_, raw) = pairs.find(|(key, _)| *key == name)?;
            Some(String::from_utf8_lossy(&value::percent_decoded(raw)).into_owned())
        };
        Some(match path {
            "/_log" if self.recorder.is_recording() => {
                let from = parameter("from").and_then(|from| from.parse().ok());
                self.log(from.unwrap_or(0))
            }
            "/_log" => Answer::text(409, "recording is off; start the target with --record\n"),
            "/_count" => Answer::json(
                &self
                    .recorder
                    .counts(&parameter("prefix").unwrap_or_default()),
            ),
            "/_rate" => Answer::json(&json!(self.recorder.rate())),
            "/_reset" => {
                self.recorder.reset();
                lock(&self.turns).clear();
                Answer::text(200, "forgotten\n")
            }
            "/_keys" => Answer::text(200, key_list()),
            _ => Answer::text(
                404,
                "there are /_log?from=, /_count?prefix=, /_rate, /_reset and /_keys\n",
            ),
        })
    }

    fn log(&self, from: u64) -> Answer {
        let records = self.recorder.since(from);
        let mut lines = String::with_capacity(records.len() * 128);
        for record in records {
            lines.push_str(&record.to_json());
            lines.push('\n');
        }
        Answer::of_type(200, "application/jsonl", lines.into())
    }
}

impl Plan {
    fn of(script: Script) -> Self {
        let ready = script.is_constant().then(|| {
            let answer = Answer::scripted(&script, &Request::default(), None, 0);
            let is_short = answer.payload.left().is_some_and(|left| left <= READY_MAX);
            (is_short && answer.has_body()).then(|| http1::rendered(answer))
        });
        Self {
            ready: ready.flatten(),
            script,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server::new(Recorder::new(Some(10), None).unwrap())
    }

    #[test]
    fn only_what_is_constant_is_kept_as_bytes() {
        let server = server();
        let is_ready = |target: &str| server.plan(target).unwrap().ready.is_some();
        for target in [
            "/",
            "/e/1?status=503",
            "/?size=1k&encoding=gzip",
            "/?headers=3",
        ] {
            assert!(is_ready(target), "{target}");
        }
        for target in [
            "/?echo=1",
            "/?latency=1ms",
            "/?flap=1",
            "/?size=1m",
            "/?status=204",
            "/?hops=1",
        ] {
            assert!(!is_ready(target), "{target}");
        }
    }

    #[test]
    fn turns_are_counted_per_target() {
        let server = server();
        let status = |target: &str| {
            let plan = server.plan(target).unwrap();
            server.script_for_turn(&plan, target).status
        };
        assert_eq!(
            [(); 3].map(|()| status("/a?flap=1")),
            [None, Some(503), None]
        );
        assert_eq!(status("/b?flap=1"), None);
    }
}
