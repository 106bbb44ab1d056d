//! Targets that do their worst: each ends in time, in its class, and leaves the agent whole.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use watcher::domain::{Endpoint, Failure, HttpVersion, Reason, Sample, SkipReason};

use crate::support::prober::{
    Rig, down, endpoint, endpoint_with, full_backlog, here, pattern, read_head, serving, skipped,
    up, within,
};
use crate::support::target::target;

/// The deadline of these probes. The machine may be busy: what matters is that they end soon after it.
const TIMEOUT: Duration = Duration::from_millis(500);

fn probe(rig: &Rig, endpoint: Endpoint) -> Sample {
    let start = Instant::now();
    let sample = rig.probe(&within(TIMEOUT.as_millis() as u64, endpoint));
    let took = start.elapsed();
    assert!(took < TIMEOUT + Duration::from_secs(1), "{took:?}");
    sample
}

fn fails(rig: &Rig, url: &str, failure: Failure) -> Sample {
    let sample = probe(rig, endpoint(url));
    down(&sample, failure);
    assert!(sample.detail.as_ref().is_none_or(|d| d.len() <= 200));
    sample
}

#[test]
fn silence_ends_at_the_deadline_in_the_phase_it_began() {
    let (rig, target) = (Rig::new(), target());
    let url = target.http_url();
    for (query, failure) in [
        ("hang=accept", Failure::ProcessingTimeout),
        ("hang=head", Failure::ProcessingTimeout),
        ("hang=body&size=100", Failure::TransferTimeout),
        ("latency=60s", Failure::ProcessingTimeout),
        ("slow_head=100ms", Failure::ProcessingTimeout),
        ("drip=1b/100ms&size=1m", Failure::TransferTimeout),
    ] {
        let sample = fails(&rig, &format!("{url}/?{query}"), failure);
        let duration = Duration::from_micros(sample.duration_us.unwrap().into());
        assert!(duration >= TIMEOUT, "{query}: {duration:?}");
        let transfer = sample.phases.transfer_us.is_some();
        assert_eq!(transfer, failure == Failure::TransferTimeout, "{query}");
        assert!(sample.phases.connect_us.is_some() && sample.phases.processing_us.is_some());
    }
}

#[test]
fn a_connection_that_is_never_accepted_times_out() {
    let full = full_backlog(([127, 0, 0, 1], 0).into());
    let rig = Rig::new();
    let sample = fails(
        &rig,
        &format!("http://{}/", full.address),
        Failure::ConnectTimeout,
    );
    assert!(sample.phases.connect_us.unwrap() >= 490_000);
    assert_eq!(sample.phases.processing_us, None);
}

#[test]
fn connections_that_end_early_are_told_from_bodies_that_do() {
    let (rig, target) = (Rig::new(), target());
    let url = target.http_url();
    for (query, failure) in [
        ("reset=accept", Failure::ProcessingClosed),
        ("reset=head", Failure::ProcessingClosed),
        ("reset=body&size=1000", Failure::TransferError),
        ("close=accept", Failure::ProcessingClosed),
        ("close=head", Failure::ProcessingClosed),
        ("close=body&size=1000", Failure::TransferError),
        ("lie=length", Failure::TransferError),
    ] {
        fails(&rig, &format!("{url}/?{query}"), failure);
    }
}

#[test]
fn what_is_not_http_is_told() {
    let (rig, target) = (Rig::new(), target());
    let url = target.http_url();
    for query in [
        "garbage=1",
        "http09=1",
        "headers=5000",
        "header_bytes=1m",
        "headers=90&header_bytes=70k",
    ] {
        fails(
            &rig,
            &format!("{url}/?{query}"),
            Failure::ProcessingProtocol,
        );
    }
    // As large as browsers take it.
    let url = format!("{url}/?headers=60&header_bytes=40k");
    up(&probe(&rig, endpoint(&url)));
}

#[test]
fn heads_that_cannot_be_right_are_refused() {
    let rig = Rig::new();
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/3.7 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad\u{1}name: x\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2p1\r\n",
    ] {
        let address = answering(head.as_bytes().to_vec());
        fails(
            &rig,
            &format!("http://{address}/"),
            Failure::ProcessingProtocol,
        );
    }
}

#[test]
fn bodies_that_cannot_be_right_are_refused() {
    let rig = Rig::new();
    for body in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffffff\r\n",
        "5\r\nhelloXX0\r\n\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        let address = answering(answer.into_bytes());
        fails(&rig, &format!("http://{address}/"), Failure::TransferError);
    }
}

/// Answers each request with these bytes, and waits for the peer to leave.
fn answering(bytes: Vec<u8>) -> SocketAddr {
    serving(move |mut stream| {
        let bytes = bytes.clone();
        std::thread::spawn(move || {
            read_head(&mut stream);
            let _ = stream.write_all(&bytes);
            read_head(&mut stream);
        });
    })
}

/// Sends `head`, then `piece` again and again for as long as the peer takes it.
fn flooding(head: &'static [u8], piece: &'static [u8]) -> SocketAddr {
    serving(move |mut stream: TcpStream| {
        std::thread::spawn(move || {
            read_head(&mut stream);
            let _ = stream.write_all(head);
            let pieces = piece.repeat(64 * 1024 / piece.len());
            while stream.write_all(&pieces).is_ok() {}
        });
    })
}

#[test]
fn floods_end_at_a_bound_or_at_the_deadline() {
    let (rig, target) = (Rig::new(), target());
    let ok = b"HTTP/1.1 200 OK\r\n";
    // A head without an end.
    let head = flooding(ok, b"x-filler: 0123456789\r\n");
    let sample = fails(
        &rig,
        &format!("http://{head}/"),
        Failure::ProcessingProtocol,
    );
    assert!(sample.bytes_received < 200_000, "{}", sample.bytes_received);
    let line = flooding(b"HTTP/1.1 200 ", b"O");
    let sample = fails(
        &rig,
        &format!("http://{line}/"),
        Failure::ProcessingProtocol,
    );
    assert!(sample.bytes_received < 200_000, "{}", sample.bytes_received);
    // Answers before the answer.
    let early = flooding(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n");
    let sample = fails(
        &rig,
        &format!("http://{early}/"),
        Failure::ProcessingProtocol,
    );
    assert!(
        sample.bytes_received < 1_000_000,
        "{}",
        sample.bytes_received
    );
    // A body without an end is read up to the cap, and has passed by then.
    let url = format!("{}/?endless=1", target.http_url());
    let sample = probe(
        &rig,
        endpoint_with(&url, |check| check.body_bytes_max = 50_000),
    );
    up(&sample);
    assert!((50_000..1_000_000).contains(&sample.bytes_received));
    // Chunks of one byte with long extensions.
    let chunks = flooding(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"1;ext=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n",
    );
    let sample = probe(&rig, endpoint(&format!("http://{chunks}/")));
    assert!(sample.bytes_received < 100 << 20, "{sample:?}");
}

#[test]
fn a_few_early_answers_are_no_fault() {
    let (rig, target) = (Rig::new(), target());
    up(&probe(
        &rig,
        endpoint(&format!("{}/?continue=3", target.http_url())),
    ));
}

#[test]
fn bombs_are_decoded_up_to_the_cap() {
    let (rig, target) = (Rig::new(), target());
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let url = format!("{}/?bomb={encoding}", target.http_url());
        let sample = rig.probe(&endpoint_with(&url, |check| {
            check.body_bytes_max = 1 << 20;
            check.must_not_match = pattern("[^\\x00]");
        }));
        up(&sample);
        assert!(sample.bytes_received < 4 << 20, "{encoding}");
    }
}

#[test]
fn a_body_and_pattern_built_to_backtrack_end_within_their_budget() {
    let rig = Rig::new();
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 65536\r\n\r\n".to_vec();
    answer.resize(answer.len() + 65_536, b'x');
    let url = format!("http://{}/", answering(answer));
    let hostile = endpoint_with(&url, |check| {
        check.must_match = pattern("(?s)(?:(?!.*Z)x)*y")
    });
    let sample = probe(&rig, hostile);
    let reason = sample.reason;
    let undecided = reason == Some(Reason::Failed(Failure::RegexTimeout));
    assert!(
        undecided || reason == Some(Reason::Failed(Failure::BodyMismatch)),
        "{sample:?}"
    );
    // The time was the agent's, not the target's.
    assert!(sample.duration_us.unwrap() < 400_000, "{sample:?}");
}

#[test]
fn http_2_storms_are_told() {
    let (rig, target) = (Rig::new(), target());
    for storm in ["goaway", "reset"] {
        let url = format!("{}/?h2={storm}", target.http_url());
        let sample = probe(
            &rig,
            endpoint_with(&url, |check| check.http_version = HttpVersion::Http2),
        );
        down(&sample, Failure::ProcessingClosed);
    }
    let h2 = |address: SocketAddr| {
        endpoint_with(&format!("http://{address}/"), |check| {
            check.http_version = HttpVersion::Http2;
        })
    };
    // Pings without end, each to be answered; a settings frame first.
    let pings = flooding_at_once(b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x08\x06\0\0\0\0\0pingpong");
    let sample = probe(&rig, h2(pings));
    assert!(sample.reason.is_some(), "{sample:?}");
    // Settings without end.
    let settings = flooding_at_once(b"", b"\0\0\0\x04\0\0\0\0\0");
    assert!(probe(&rig, h2(settings)).reason.is_some());
    // A head that goes on and on.
    let headers = flooding_at_once(
        b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x88",
        b"\0\0\x04\x09\0\0\0\0\x01\0\x01a\0",
    );
    let sample = probe(&rig, h2(headers));
    assert!(sample.reason.is_some(), "{sample:?}");
    up(&rig.get(&target.http_url()));
}

/// A HEADERS frame on stream 1 that ends the head but not the stream: `:status: 200`, and `block`.
fn h2_head(block: &[u8]) -> Vec<u8> {
    let len = block.len() as u32 + 1;
    let mut frame = b"\0\0\0\x04\0\0\0\0\0".to_vec();
    frame.extend(&len.to_be_bytes()[1..]);
    frame.extend(b"\x01\x04\0\0\0\x01\x88");
    frame.extend(block);
    frame
}

#[test]
fn http_2_frames_without_end_or_use_end_at_a_bound() {
    let (rig, target) = (Rig::new(), target());
    let settings: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    let head: &[u8] = h2_head(b"").leak();
    // One field of 4 000 bytes, named ten thousand times from the table: forty megabytes in fourteen kilobytes.
    let mut bomb = b"\x40\x01a\x7f\xa1\x1e".to_vec();
    bomb.resize(bomb.len() + 4_000, b'b');
    bomb.resize(bomb.len() + 10_000, 0xbe);
    let bomb: &[u8] = h2_head(&bomb).leak();
    for (what, start, piece) in [
        (
            "window updates",
            settings,
            &b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01"[..],
        ),
        (
            "priorities",
            settings,
            b"\0\0\x05\x02\0\0\0\0\x03\0\0\0\0\x10",
        ),
        ("frames of no known type", settings, b"\0\0\0\xee\0\0\0\0\0"),
        ("resets", settings, b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08"),
        (
            "farewells",
            settings,
            b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0",
        ),
        (
            "pushes",
            settings,
            b"\0\0\x05\x05\x04\0\0\0\x01\0\0\0\x02\x82",
        ),
        (
            "heads without end",
            b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x88",
            b"\0\0\0\x09\0\0\0\0\x01",
        ),
        (
            "a head that unpacks to forty megabytes",
            bomb,
            b"\0\0\0\x04\x01\0\0\0\0",
        ),
        ("bodies of nothing", head, b"\0\0\0\0\0\0\0\0\x01"),
        (
            "padding",
            head,
            b"\0\0\x09\0\x08\0\0\0\x01\x08\0\0\0\0\0\0\0\0",
        ),
    ] {
        let address = flooding_at_once(start, piece);
        let endpoint = endpoint_with(&format!("http://{address}/"), |check| {
            check.http_version = HttpVersion::Http2;
            check.body_bytes_max = 1_000;
        });
        let sample = probe(&rig, endpoint);
        assert!(sample.reason.is_some(), "{what}: {sample:?}");
        assert!(sample.bytes_received < 8 << 20, "{what}: {sample:?}");
    }
    up(&rig.get(&target.http_url()));
}

fn flooding_at_once(head: &'static [u8], piece: &'static [u8]) -> SocketAddr {
    serving(move |mut stream: TcpStream| {
        std::thread::spawn(move || {
            let _ = stream.write_all(head);
            let pieces = piece.repeat(64 * 1024 / piece.len());
            let mut reader = stream.try_clone().unwrap();
            std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
            while stream.write_all(&pieces).is_ok() {}
        });
    })
}

#[test]
fn a_hostile_tls_server_ends_in_time() {
    let (rig, target) = (Rig::new(), target());
    for (name, failure) in [
        ("hang.test", Failure::TlsTimeout),
        ("closed.test", Failure::TlsHandshake),
        ("garbage.test", Failure::TlsHandshake),
    ] {
        let url = target.https_url(name);
        let sample = probe(&rig, endpoint_with(&url, |check| check.connect_to = here()));
        down(&sample, failure);
    }
}

#[test]
fn details_hold_no_control_characters() {
    let rig = Rig::new();
    let address = answering(b"HTTP/1.1 302 Found\r\nlocation: \x1b[31m:\x07//x\r\n\r\n".to_vec());
    let sample = probe(&rig, endpoint(&format!("http://{address}/")));
    assert!(sample.reason.is_some());
    let detail = sample.detail.unwrap();
    assert!(!detail.chars().any(char::is_control), "{detail:?}");
}

#[test]
fn hostile_targets_do_not_hold_up_others() {
    let (rig, target) = (Rig::new(), target());
    let flood = flooding(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n");
    let bad = within(800, endpoint(&format!("http://{flood}/")));
    let hang = within(800, endpoint(&format!("{}/?hang=head", target.http_url())));
    let good = endpoint(&format!("{}/good", target.http_url()));
    let now = crate::support::prober::now();
    rig.run(async {
        let hostile = async {
            tokio::join!(
                rig.prober.probe(&bad, now, now),
                rig.prober.probe(&hang, now, now)
            )
        };
        let others = async {
            for _ in 0..20 {
                up(&rig.prober.probe(&good, now, now).await);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let (hostile, ()) = tokio::join!(hostile, others);
        down(&hostile.0, Failure::ProcessingProtocol);
        down(&hostile.1, Failure::ProcessingTimeout);
    });
    assert_eq!(target.count("/good"), 20);
}

/// Runs in a process of its own: a limit of descriptors holds for all of it.
#[test]
fn without_descriptors_probes_are_skipped() {
    const CHILD: &str = "WATCHER_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        return without_descriptors();
    }
    let name = "probe_hostile::without_descriptors_probes_are_skipped";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

fn without_descriptors() {
    let (rig, target) = (Rig::new(), target());
    up(&rig.get(&target.http_url()));
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
        if taken.len() > 200_000 {
            panic!("no limit of descriptors");
        }
    }
    skipped(&rig.get(&target.http_url()), SkipReason::DescriptorLimit);
    taken.clear();
    up(&rig.get(&target.http_url()));
}
