//! The scriptable server: each behaviour as a peer sees it, on real sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use watcher::target::{DEFAULT_BODY, Target};

use crate::support::target::target;

fn connect(target: &Target) -> TcpStream {
    let stream = TcpStream::connect(target.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

/// All that comes back for a request after which the client sends no more, and how the connection ended.
fn exchange(target: &Target, request: &str) -> (Vec<u8>, Option<std::io::ErrorKind>) {
    let mut stream = connect(target);
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    (answer, ended.err().map(|error| error.kind()))
}

fn get(target: &Target, path: &str) -> String {
    let (answer, ended) = exchange(target, &format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n"));
    assert_eq!(ended, None, "{path}");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_plain_request_gets_a_small_known_body() {
    let target = target();
    let answer = get(&target, "/any/path");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.ends_with(&format!("\r\n\r\n{DEFAULT_BODY}")),
        "{answer}"
    );
    assert_eq!(target.count("/any"), 1);
}

#[test]
fn keys_combine() {
    let target = target();
    let started = Instant::now();
    let answer = get(&target, "/e/1?latency=50ms&status=503&body=a+b&size=5");
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\na bab"), "{answer}");
}
