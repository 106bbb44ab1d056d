//! Kept connections.

use std::io::Write;

use watcher::domain::{Connection, EndpointId, HttpVersion};

use crate::support::prober::{Rig, endpoint_with, read_head, serving, up};
use crate::support::target::target;

#[test]
fn a_kept_connection_is_used_again_and_its_phases_are_not_repeated() {
    let (rig, target) = (Rig::new(), target());
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let url = format!("{}/k?size=5000", target.http_url());
        let kept = endpoint_with(&url, |check| {
            check.connection = Connection::Reuse;
            check.http_version = version;
        });
        target.clear();
        let first = rig.probe(&kept);
        up(&first);
        assert!(first.phases.connect_us.is_some());
        for _ in 0..3 {
            let again = rig.probe(&kept);
            up(&again);
            assert_eq!(again.phases.connect_us, None);
            assert!(again.phases.processing_us.is_some() && again.phases.transfer_us.is_some());
            assert_eq!(again.remote_ip, first.remote_ip);
            assert_eq!(again.http_version, first.http_version);
            assert!((5_000..6_000).contains(&again.bytes_received), "{again:?}");
            assert!(again.bytes_sent < 600, "{again:?}");
        }
        let ports: Vec<_> = target.requests().iter().map(|r| r.port).collect();
        assert_eq!(ports.len(), 4);
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        rig.prober.forget(EndpointId(1));
        assert!(rig.probe(&kept).phases.connect_us.is_some());
        rig.prober.forget(EndpointId(1));
    }
}

#[test]
fn other_settings_have_another_connection() {
    let (rig, target) = (Rig::new(), target());
    let kept = |path: &str| {
        endpoint_with(&format!("{}{path}", target.http_url()), |check| {
            check.connection = Connection::Reuse;
        })
    };
    up(&rig.probe(&kept("/a")));
    assert!(rig.probe(&kept("/b")).phases.connect_us.is_some());
}

#[test]
fn a_connection_that_the_server_closed_is_replaced_without_a_failure() {
    // Answers one request for each connection, promises more, and closes.
    let address = serving(|mut stream| {
        if read_head(&mut stream) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let rig = Rig::new();
    let kept = endpoint_with(&format!("http://{address}/"), |check| {
        check.connection = Connection::Reuse;
    });
    for _ in 0..5 {
        let sample = rig.probe(&kept);
        up(&sample);
        assert!(sample.phases.connect_us.is_some());
    }
}

#[test]
fn a_connection_that_dies_on_the_second_request_is_tried_once_more() {
    // Closes when the second request has come: the client cannot know before it has sent it.
    let address = serving(|mut stream| {
        if read_head(&mut stream) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            std::thread::spawn(move || read_head(&mut stream));
        }
    });
    let rig = Rig::new();
    let kept = endpoint_with(&format!("http://{address}/"), |check| {
        check.connection = Connection::Reuse;
    });
    for _ in 0..5 {
        up(&rig.probe(&kept));
    }
}

#[test]
fn redirects_on_one_origin_share_the_kept_connection() {
    let (rig, target) = (Rig::new(), target());
    let kept = endpoint_with(&format!("{}/k?hops=2&body=x", target.http_url()), |check| {
        check.connection = Connection::Reuse;
    });
    for _ in 0..2 {
        let sample = rig.probe(&kept);
        up(&sample);
        assert_eq!(sample.hops, 2);
    }
    let ports: std::collections::HashSet<_> = target.requests().iter().map(|r| r.port).collect();
    assert_eq!((ports.len(), target.total()), (1, 6));
}
