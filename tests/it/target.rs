//! The scriptable server: each behaviour as a peer sees it, on real sockets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use watcher::target::{DEFAULT_BODY, Target};

use crate::support::target::target;

mod body;
mod http2;
mod oracle;
mod tls;

fn connect(target: &Target) -> TcpStream {
    let stream = TcpStream::connect(target.addr()).unwrap();
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).unwrap();
    stream
}

/// All that comes back for a request after which the client sends no more, and how the connection ended.
fn exchange(target: &Target, request: &str) -> (Vec<u8>, Option<ErrorKind>) {
    let mut stream = connect(target);
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    (answer, ended.err().map(|error| error.kind()))
}

fn get(target: &Target, path: &str) -> String {
    let (answer, ended) = request(target, path);
    assert_eq!(ended, None, "{path}");
    answer
}

fn request(target: &Target, path: &str) -> (String, Option<ErrorKind>) {
    let (answer, ended) = exchange(target, &format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n"));
    (String::from_utf8_lossy(&answer).into_owned(), ended)
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// Whether nothing comes for 200 ms, and the connection stays.
fn is_silent(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let error = stream.read(&mut [0; 1]).map_err(|error| error.kind());
    error == Err(ErrorKind::WouldBlock)
}

#[test]
fn a_plain_request_gets_a_small_known_body() {
    let target = target();
    let answer = get(&target, "/any/path");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(body(&answer), DEFAULT_BODY);
}

#[test]
fn keys_combine() {
    let target = target();
    let started = Instant::now();
    let answer = get(
        &target,
        "/e/1?latency=50ms&status=503&body=a+b&size=5&header=x-a:b",
    );
    let waited = started.elapsed();
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{answer}"
    );
    assert_eq!(body(&answer), "a bab");
    assert_eq!(header(&answer, "x-a"), Some("b"));
    let timing = header(&answer, "server-timing").unwrap();
    let told = timing.strip_prefix("target;dur=").unwrap().parse().unwrap();
    let told = Duration::from_secs_f64(told).div_f64(1e3);
    assert!(
        Duration::from_millis(50) <= told && told <= waited,
        "{told:?} {waited:?}"
    );
}

#[test]
fn an_unknown_key_is_answered_with_the_list() {
    let target = target();
    let answer = get(&target, "/?latncy=5ms");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(body(&answer).contains("unknown key `latncy`"), "{answer}");
    assert!(body(&answer).contains("latency=20ms"), "{answer}");
}

#[test]
fn a_connection_is_kept_also_for_requests_sent_together() {
    let target = target();
    let one = "GET /?body=x HTTP/1.1\r\nhost: t\r\n\r\n";
    let post = "POST /?echo=1 HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nabc";
    let (answer, ended) = exchange(&target, &format!("{one}{post}{one}"));
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!(
        (answer.matches("HTTP/1.1 200").count(), ended),
        (3, None),
        "{answer}"
    );
    let ports: Vec<_> = target.requests().iter().map(|record| record.port).collect();
    assert!(ports.windows(2).all(|pair| pair[0] == pair[1]), "{ports:?}");

    let closing = get(&target, "/?connection=close");
    assert_eq!(header(&closing, "connection"), Some("close"));
    let asked = "GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
    let (answer, _) = exchange(&target, &format!("{asked}{one}"));
    assert_eq!(
        String::from_utf8(answer)
            .unwrap()
            .matches("HTTP/1.1")
            .count(),
        1
    );
}

#[test]
fn a_reset_comes_at_its_point() {
    let target = target();
    let seen = |point: &str| request(&target, &format!("/?reset={point}&body=0123456789"));
    assert_eq!(
        seen("accept"),
        (String::new(), Some(ErrorKind::ConnectionReset))
    );
    for (point, whole_head, length) in [("head", false, 0), ("body", true, 5), ("end", true, 10)] {
        let (answer, ended) = seen(point);
        assert_eq!(ended, Some(ErrorKind::ConnectionReset), "{point}");
        assert!(answer.starts_with("HTTP/1.1 200"), "{point}: {answer}");
        assert_eq!(answer.contains("\r\n\r\n"), whole_head, "{point}: {answer}");
        assert_eq!(body(&answer).len(), length, "{point}: {answer}");
    }
}

#[test]
fn a_close_comes_at_its_point() {
    let target = target();
    let seen = |point: &str| get(&target, &format!("/?close={point}&body=0123456789"));
    assert_eq!(seen("accept"), "");
    assert!(!seen("head").contains("\r\n\r\n"));
    assert_eq!(body(&seen("body")), "01234");
    let whole = seen("end");
    assert_eq!(
        (body(&whole), header(&whole, "connection")),
        ("0123456789", None)
    );
}

#[test]
fn a_hang_comes_at_its_point_and_ends_with_the_peer() {
    let target = target();
    for (point, length) in [("accept", 0), ("body", 5), ("end", 10)] {
        let mut stream = connect(&target);
        let path = format!("/?hang={point}&body=0123456789");
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes())
            .unwrap();
        if length > 0 {
            let mut answer = Vec::new();
            while body(&String::from_utf8_lossy(&answer)).len() < length {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                answer.extend(byte);
            }
        }
        assert!(is_silent(&mut stream), "{point}");
        stream.shutdown(Shutdown::Write).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "{point}");
    }
}

#[test]
fn heads_may_be_slow_wide_and_long() {
    let target = target();
    let started = Instant::now();
    let slow = get(&target, "/?slow_head=1ms&body=x");
    assert!(
        started.elapsed() >= Duration::from_millis(80),
        "one byte at a time"
    );
    assert_eq!(body(&slow), "x");

    let started = Instant::now();
    get(&target, "/?head_latency=60ms&body_latency=60ms");
    assert!(started.elapsed() >= Duration::from_millis(120));

    let wide = get(&target, "/?headers=1000");
    assert_eq!(wide.matches("\r\nx-filler-").count(), 1_000);
    let long = get(&target, "/?header_bytes=64k");
    assert_eq!(header(&long, "x-filler-0").map(str::len), Some(65_536));
}

#[test]
fn what_comes_need_not_be_http() {
    let target = target();
    let (garbage, _) = exchange(&target, "GET /?garbage=1 HTTP/1.1\r\n\r\n");
    assert_eq!(garbage.len(), 1_024);
    assert!(!garbage.starts_with(b"HTTP"));
    assert_eq!(get(&target, "/?http09=1&body=bare"), "bare");
    let continued = get(&target, "/?continue=1500&body=x");
    assert_eq!(
        continued.matches("HTTP/1.1 100 Continue\r\n\r\n").count(),
        1_500
    );
    assert!(continued.ends_with("\r\n\r\nx"), "the answer follows");
}

#[test]
fn a_request_that_is_none_is_refused() {
    let target = target();
    let refused = |request: &str| {
        let (answer, _) = exchange(&target, request);
        String::from_utf8(answer[..12].to_vec()).unwrap()
    };
    assert_eq!(refused("nonsense\r\n\r\n"), "HTTP/1.1 400");
    assert_eq!(
        refused(&format!("GET / HTTP/1.1\r\na: {}", "b".repeat(70_000))),
        "HTTP/1.1 431"
    );
    // An end before the head's end is no request, and no answer either.
    assert_eq!(exchange(&target, "GET / HT"), (Vec::new(), None));
    assert_eq!(target.total(), 0);
}

#[test]
fn redirects_lead_where_they_say() {
    let target = target();
    let to = get(
        &target,
        "/?redirect=http://127.0.0.1:1/x%3Fa%3Db%26c&code=308",
    );
    assert!(to.starts_with("HTTP/1.1 308 Permanent Redirect"), "{to}");
    assert_eq!(header(&to, "location"), Some("http://127.0.0.1:1/x?a=b&c"));

    let mut path = "/r?hops=3&body=there".to_owned();
    for _ in 0..3 {
        let hop = get(&target, &path);
        assert!(hop.starts_with("HTTP/1.1 302 Found"), "{hop}");
        path = header(&hop, "location").unwrap().to_owned();
    }
    assert_eq!(body(&get(&target, &path)), "there");

    let looping = get(&target, "/r?loop=1");
    assert_eq!(header(&looping, "location"), Some("/r?loop=1"));
}

#[test]
fn authorization_is_asked_for() {
    let target = target();
    let status = |path: &str, credentials: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nauthorization: {credentials}\r\n\r\n");
        let (answer, _) = exchange(&target, &head);
        String::from_utf8_lossy(&answer)[9..12].to_owned()
    };
    assert!(get(&target, "/?auth=basic:user:pass").starts_with("HTTP/1.1 401"));
    assert_eq!(
        status("/?auth=basic:user:pass", "Basic dXNlcjpwYXNz"),
        "200"
    );
    assert_eq!(
        status("/?auth=basic:user:pass", "Basic dXNlcjpwYXNT"),
        "401"
    );
    assert_eq!(status("/?auth=bearer:t0ken", "Bearer t0ken"), "200");
    assert_eq!(status("/?auth=bearer:t0ken", "Bearer token"), "401");
}

#[test]
fn an_echo_tells_what_the_client_sent() -> io::Result<()> {
    let target = target();
    let request = "PUT /p?echo=1 HTTP/1.1\r\nHost: h\r\nX-Odd:  two words \r\n\
                   Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (answer, _) = exchange(&target, request);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let echo: serde_json::Value = serde_json::from_str(body(&answer))?;
    assert_eq!(echo["method"], "PUT");
    assert_eq!(echo["target"], "/p?echo=1");
    assert_eq!(
        echo["headers"][1],
        serde_json::json!(["X-Odd", "two words"])
    );
    assert_eq!(echo["body"], "abc");
    Ok(())
}

#[test]
fn outcomes_take_turns() {
    let target = target();
    let statuses = |path: &str, count: usize| -> Vec<String> {
        (0..count)
            .map(|_| get(&target, path)[9..12].to_owned())
            .collect()
    };
    assert_eq!(statuses("/a?flap=1", 4), ["200", "503", "200", "503"]);
    let schedule = statuses("/b?schedule=up:2,down:1&status=500&body=x", 4);
    assert_eq!(schedule, ["200", "200", "500", "200"]);
    // The connection fails on a down turn only.
    assert_eq!(request(&target, "/c?flap=1&reset=accept").1, None);
    assert_eq!(
        request(&target, "/c?flap=1&reset=accept").1,
        Some(ErrorKind::ConnectionReset)
    );
}

#[test]
fn a_dropped_target_is_gone() {
    let target = target();
    let mut stream = connect(&target);
    let address = target.addr();
    drop(target);
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    let refused = TcpStream::connect(address).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
}
