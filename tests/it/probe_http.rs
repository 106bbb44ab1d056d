//! The HTTP probe against a real server: what is measured, what is sent, what is judged.

use std::io::Write;
use std::time::Duration;

use http::{HeaderValue, Method};
use watcher::domain::{
    Auth, Failure, HttpCheck, HttpVersion, IpFamily, PinnedAddress, Reason, Secret, StatusRanges,
};
use watcher::net::policy::PolicyOptions;

use crate::support::prober::{
    Rig, closed_port, down, endpoint, endpoint_with, here, pattern, read_head, serving, up, within,
};
use crate::support::target::target;

mod names;
mod redirects;
mod reuse;

#[test]
fn a_plain_probe_measures_what_happened_and_nothing_else() {
    let (rig, target) = (Rig::new(), target());
    let sample = rig.get(&format!("{}/a?latency=30ms&size=1000", target.http_url()));
    up(&sample);
    let phases = sample.phases;
    assert_eq!((phases.resolve_us, phases.tls_us), (None, None));
    let processing = phases.processing_us.unwrap();
    assert!((30_000..1_000_000).contains(&processing), "{processing}");
    let sum = phases.connect_us.unwrap() + processing + phases.transfer_us.unwrap();
    let duration = sample.duration_us.unwrap();
    assert!(
        sum <= duration && duration < sum + 100_000,
        "{sum} {duration}"
    );
    assert_eq!(sample.lag_us, Some(7_000));
    assert_eq!(sample.status_code, Some(200));
    assert_eq!(sample.http_version, Some(11));
    assert_eq!(sample.remote_ip, Some([127, 0, 0, 1].into()));
    assert_eq!((sample.hops, sample.matched), (0, None));
    assert_eq!((sample.tls_not_after, sample.detail), (None, None));
    assert!(
        (50..500).contains(&sample.bytes_sent),
        "{}",
        sample.bytes_sent
    );
    assert!((1_000..1_600).contains(&sample.bytes_received));
    assert!((1..50_000).contains(&sample.cpu_us), "{}", sample.cpu_us);
    assert_eq!(target.count("/a"), 1);
}

/// Probes `echo`, which must contain each of `expected` and none of `absent`.
fn sends(change: impl Fn(&mut HttpCheck), expected: &[&str], absent: &[&str]) {
    let (rig, target) = (Rig::new(), target());
    let url = format!("{}/p/q?echo=1", target.http_url());
    let probe = |text: &str| {
        rig.probe(&endpoint_with(&url, |check| {
            change(check);
            check.must_match = pattern(&regex::escape(text));
        }))
    };
    for text in expected {
        up(&probe(text));
    }
    for text in absent {
        down(&probe(text), Failure::BodyMismatch);
    }
}

#[test]
fn a_request_says_who_asks_and_that_it_will_not_ask_again() {
    let host = "\"host\",\"127.0.0.1:";
    let agent = concat!(
        "\"user-agent\",\"watcher/",
        env!("CARGO_PKG_VERSION_MAJOR"),
        ".",
        env!("CARGO_PKG_VERSION_MINOR"),
        "\""
    );
    sends(
        |_| (),
        &[
            host,
            agent,
            "\"accept\",\"*/*\"",
            "\"connection\",\"close\"",
            "\"accept-encoding\",\"gzip, deflate, br, zstd\"",
            "\"method\":\"GET\"",
        ],
        &["authorization", "content-length"],
    );
}

#[test]
fn without_a_pattern_no_encoding_is_asked_for() {
    let (sent, received) = std::sync::mpsc::channel();
    let address = serving(move |mut stream| {
        let mut head = [0; 2_000];
        let len = std::io::Read::read(&mut stream, &mut head).unwrap();
        sent.send(head[..len].to_ascii_lowercase()).unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    up(&Rig::new().get(&format!("http://{address}/")));
    let head = String::from_utf8(received.recv().unwrap()).unwrap();
    assert!(head.starts_with("get / http/1.1\r\n"), "{head}");
    assert!(!head.contains("accept-encoding"), "{head}");
}

#[test]
fn the_users_headers_come_before_our_own() {
    sends(
        |check| {
            check
                .headers
                .insert("user-agent", HeaderValue::from_static("mine/1"));
            check
                .headers
                .insert("host", HeaderValue::from_static("other.test"));
            check
                .headers
                .insert("accept-encoding", HeaderValue::from_static("identity"));
            check
                .headers
                .insert("x-thing", HeaderValue::from_static("yes"));
        },
        &[
            "\"user-agent\",\"mine/1\"",
            "\"host\",\"other.test\"",
            "\"accept-encoding\",\"identity\"",
            "\"x-thing\",\"yes\"",
        ],
        &["watcher/", "gzip"],
    );
}

#[test]
fn credentials_and_bodies_are_sent() {
    sends(
        |check| {
            check.method = Method::POST;
            check.body = Box::from(*b"ping=pong");
            check.auth = Some(Auth::Basic {
                user: "u".into(),
                password: Secret::new("p"),
            });
        },
        &[
            "\"method\":\"POST\"",
            "ping=pong",
            "\"content-length\",\"9\"",
            "\"authorization\",\"Basic dTpw\"",
        ],
        &[],
    );
    sends(
        |check| check.auth = Some(Auth::Bearer(Secret::new("t0ken"))),
        &["\"authorization\",\"Bearer t0ken\""],
        &[],
    );
    sends(
        |check| check.method = Method::POST,
        &["\"content-length\",\"0\""],
        &[],
    );
}

#[test]
fn a_head_request_has_no_body_to_wait_for() {
    let (rig, target) = (Rig::new(), target());
    let url = format!("{}/h?size=1000", target.http_url());
    let sample = rig.probe(&endpoint_with(&url, |check| check.method = Method::HEAD));
    up(&sample);
    assert!(sample.bytes_received < 600);
}

#[test]
fn the_status_is_judged_before_the_body() {
    let (rig, target) = (Rig::new(), target());
    let url = |query: &str| format!("{}/s?{query}", target.http_url());
    down(&rig.get(&url("status=503")), Failure::StatusMismatch);
    let sample = rig.probe(&endpoint_with(&url("status=404&body=x"), |check| {
        check.must_match = pattern("y");
    }));
    down(&sample, Failure::StatusMismatch);
    assert_eq!((sample.status_code, sample.matched), (Some(404), None));
    let sample = rig.probe(&endpoint_with(&url("status=404"), |check| {
        check.expected_status = StatusRanges(Box::new([(200, 299), (404, 404)]));
    }));
    up(&sample);
    // Nor does it matter then what becomes of the body.
    for fault in ["lie=length", "reset=body", "encoding=br&truncate=1"] {
        let sample = rig.get(&url(&format!("status=500&{fault}")));
        down(&sample, Failure::StatusMismatch);
    }
    let late = endpoint(&url("status=500&drip=1b/100ms&size=1000"));
    down(&rig.probe(&within(300, late)), Failure::StatusMismatch);
}

#[test]
fn patterns_judge_the_decoded_body() {
    let (rig, target) = (Rig::new(), target());
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let url = format!(
            "{}/e?encoding={encoding}&size=20000&body=needle",
            target.http_url()
        );
        let sample = rig.probe(&endpoint_with(&url, |check| {
            check.must_match = pattern("^needle");
            check.must_not_match = pattern("haystack");
        }));
        up(&sample);
        assert_eq!(sample.matched, Some(true), "{encoding}");
        let sample = rig.probe(&endpoint_with(&url, |check| {
            check.must_not_match = pattern("need[l]e");
        }));
        down(&sample, Failure::BodyForbidden);
        assert_eq!(sample.matched, Some(false), "{encoding}");
    }
    let url = format!("{}/e?body=x", target.http_url());
    let sample = rig.probe(&endpoint_with(&url, |check| {
        check.must_match = pattern("y")
    }));
    down(&sample, Failure::BodyMismatch);
    assert_eq!(sample.matched, Some(false));
}

#[test]
fn bodies_that_cannot_be_decoded_are_told() {
    let (rig, target) = (Rig::new(), target());
    let probe = |query: &str| {
        let url = format!("{}/d?{query}", target.http_url());
        rig.probe(&endpoint_with(&url, |check| {
            check.must_match = pattern("x")
        }))
    };
    down(
        &probe("header=content-encoding:snappy"),
        Failure::DecodeError,
    );
    down(
        &probe("header=content-encoding:gzip&body=plain"),
        Failure::DecodeError,
    );
    down(
        &probe("encoding=gzip&truncate=1&size=9000"),
        Failure::DecodeError,
    );
    // Without a pattern nobody looks.
    up(&rig.get(&format!(
        "{}/d?header=content-encoding:snappy",
        target.http_url()
    )));
}

#[test]
fn a_body_is_read_up_to_the_cap() {
    let (rig, target) = (Rig::new(), target());
    let url = format!("{}/c?size=20m", target.http_url());
    let sample = rig.probe(&endpoint_with(&url, |check| check.body_bytes_max = 100_000));
    up(&sample);
    assert!((100_000..1_000_000).contains(&sample.bytes_received));
    let sample = rig.probe(&endpoint_with(&url, |check| {
        check.body_bytes_max = 30 << 20
    }));
    up(&sample);
    assert!(sample.bytes_received > 20_000_000);
}

#[test]
fn a_passing_probe_may_be_slow() {
    let (rig, target) = (Rig::new(), target());
    let mut slow = endpoint(&format!("{}/?latency=50ms", target.http_url()));
    slow.degraded_after = Some(Duration::from_millis(40));
    assert_eq!(rig.probe(&slow).reason, Some(Reason::Slow));
    slow.degraded_after = Some(Duration::from_secs(4));
    up(&rig.probe(&slow));
}

#[test]
fn http_2_is_spoken_where_it_is_wanted() {
    let (rig, target) = (Rig::new(), target());
    let url = format!("{}/two?echo=1", target.http_url());
    let sample = rig.probe(&endpoint_with(&url, |check| {
        check.http_version = HttpVersion::Http2;
        check.method = Method::POST;
        check.body = Box::from(*b"ping");
        check
            .headers
            .insert("host", HeaderValue::from_static("name.test"));
        check.must_match = pattern("ping");
    }));
    up(&sample);
    assert_eq!(sample.http_version, Some(20));
    // A server of HTTP/1 alone.
    let address = serving(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let sample = rig.probe(&endpoint_with(&format!("http://{address}/"), |check| {
        check.http_version = HttpVersion::Http2;
    }));
    down(&sample, Failure::ProcessingProtocol);
}

#[test]
fn http_1_0_is_understood() {
    let address = serving(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end");
    });
    let sample = Rig::new().probe(&endpoint_with(&format!("http://{address}/"), |check| {
        check.must_match = pattern("^until the end$");
    }));
    up(&sample);
    assert_eq!(sample.http_version, Some(10));
}

#[test]
fn a_pinned_address_is_dialled_whatever_the_name() {
    let (rig, target) = (Rig::new(), target());
    let url = format!("http://nowhere.invalid:{}/pin?echo=1", target.addr().port());
    let sample = rig.probe(&endpoint_with(&url, |check| {
        check.connect_to = here();
        check.must_match = pattern("nowhere.invalid:");
    }));
    up(&sample);
    assert_eq!(sample.phases.resolve_us, None);
    let sample = rig.probe(&endpoint_with("http://nowhere.invalid/", |check| {
        check.connect_to = Some(PinnedAddress {
            ip: [127, 0, 0, 1].into(),
            port: Some(target.addr().port()),
        });
    }));
    up(&sample);
    let sample = rig.probe(&endpoint_with(&url, |check| {
        check.connect_to = here();
        check.ip_family = IpFamily::V6;
    }));
    down(&sample, Failure::DnsNotFound);
}

#[test]
fn what_does_not_connect_is_told_apart() {
    let rig = Rig::new();
    let refused = rig.get(&format!("http://{}/", closed_port()));
    down(&refused, Failure::ConnectRefused);
    assert!(refused.phases.connect_us.is_some() && refused.duration_us.is_some());
    assert_eq!(refused.remote_ip, Some([127, 0, 0, 1].into()));
    // The kernel refuses to connect to a broadcast address and sends nothing.
    let unreachable = rig.get("http://255.255.255.255/");
    down(&unreachable, Failure::ConnectUnreachable);
}

#[test]
fn denied_addresses_are_never_dialled() {
    let rig = Rig::new();
    for host in [
        "169.254.169.254",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "100.100.100.200",
        // Odd notations, which the URL parser makes plain.
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
    ] {
        let sample = rig.get(&format!("http://{host}/latest/meta-data"));
        down(&sample, Failure::AddressDenied);
        assert_eq!(sample.remote_ip, None, "{host}");
    }
    let target = target();
    let closed = Rig::with_policy(PolicyOptions {
        deny_private: true,
        ..PolicyOptions::default()
    });
    down(&closed.get(&target.http_url()), Failure::AddressDenied);
    let pinned = endpoint_with("http://nowhere.invalid/", |check| {
        check.connect_to = here();
    });
    down(&closed.probe(&pinned), Failure::AddressDenied);
    assert_eq!(target.total(), 0);
}

#[test]
fn a_dropped_probe_closes_what_it_opened() {
    let (rig, target) = (Rig::new(), target());
    let hang = endpoint(&format!("{}/?hang=head", target.http_url()));
    let now = crate::support::prober::now();
    rig.run(async {
        let probe = rig.prober.probe(&hang, now, now);
        let cut = tokio::time::timeout(Duration::from_millis(200), probe).await;
        assert!(cut.is_err());
        tokio::task::yield_now().await;
    });
    up(&rig.get(&target.http_url()));
}

#[test]
fn reuse_is_off_by_default() {
    let (rig, target) = (Rig::new(), target());
    let plain = endpoint(&target.http_url());
    for _ in 0..3 {
        up(&rig.probe(&plain));
    }
    let ports: std::collections::HashSet<_> = target.requests().iter().map(|r| r.port).collect();
    assert_eq!(ports.len(), 3);
}
