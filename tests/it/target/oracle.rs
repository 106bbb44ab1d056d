//! What the server tells about the requests it got.

use std::num::NonZeroUsize;

use serde_json::Value;
use watcher::target::{Target, TargetOptions};

use super::{body, get};
use crate::support::target::{target, target_with};

fn json(target: &Target, path: &str) -> Value {
    serde_json::from_str(body(&get(target, path))).unwrap()
}

#[test]
fn the_log_has_each_request_once_and_in_order() {
    let target = target();
    for path in ["/a", "/b?status=500", "/a"] {
        get(&target, path);
    }
    let log = get(&target, "/_log");
    let lines: Vec<Value> = body(&log)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let targets: Vec<_> = lines
        .iter()
        .map(|line| line["target"].as_str().unwrap())
        .collect();
    assert_eq!(targets, ["/a", "/b?status=500", "/a"]);
    let times: Vec<_> = lines
        .iter()
        .map(|line| line["time"].as_i64().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(lines[1]["index"], 1);
    assert_eq!(lines[1]["method"], "GET");
    assert_eq!(lines[1]["sni"], Value::Null);
    assert_eq!(body(&get(&target, "/_log?from=2")).lines().count(), 1);
    // The same through the library.
    assert_eq!(target.requests().len(), 3);
    assert_eq!(&*target.requests()[1].target, "/b?status=500");
}

#[test]
fn counts_are_per_path_and_query() {
    let target = target();
    for path in ["/a", "/b?status=500", "/a"] {
        get(&target, path);
    }
    let all = json(&target, "/_count");
    assert_eq!((&all["total"], &all["matching"]), (&3.into(), &3.into()));
    assert_eq!(all["paths"]["/a"], 2);
    assert_eq!(json(&target, "/_count?prefix=/b")["matching"], 1);
    assert_eq!((target.count("/a"), target.count("/")), (2, 3));
    get(&target, "/_reset");
    assert_eq!(json(&target, "/_count")["total"], 0);
}

#[test]
fn without_recording_arrivals_are_still_counted() {
    let target = target_with(TargetOptions {
        record_max: None,
        ..TargetOptions::default()
    });
    (0..5).for_each(|_| drop(get(&target, "/a")));
    let rate = json(&target, "/_rate");
    let counts = rate
        .as_array()
        .unwrap()
        .iter()
        .map(|second| second[1].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 5);
    assert_eq!((target.total(), target.count("/")), (5, 0));
    assert!(get(&target, "/_log").starts_with("HTTP/1.1 409"));
    assert!(get(&target, "/_nothing").starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn the_log_file_is_whole_after_a_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let target = Target::start(TargetOptions {
        log: Some(path.clone()),
        threads: NonZeroUsize::new(2).unwrap(),
        ..TargetOptions::default()
    });
    let target = target.await.unwrap();
    (0..20).for_each(|_| drop(get(&target, "/a")));
    target.shutdown().await.unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 20);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = Target::start(TargetOptions::default()).await.unwrap();
    for threads in [1, 2] {
        let options = TargetOptions {
            listen: first.addr(),
            threads: NonZeroUsize::new(threads).unwrap(),
            ..TargetOptions::default()
        };
        let error = Target::start(options).await.err().unwrap();
        assert_eq!(error.to_string(), format!("listen on {}", first.addr()));
    }
}
