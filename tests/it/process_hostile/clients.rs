//! Clients of the health address that dawdle, shout or come in crowds.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::process::{Running, free_address, get};

/// `up` that waits for a database which never comes: the address is served from the first moment.
async fn waiting() -> Running {
    let nowhere = format!("postgres://u:p@{}/watcher", free_address());
    let up = Running::start(&["up", "--processes", "1"], &[("DATABASE_URL", &nowhere)]);
    live(&up).await;
    up
}

async fn live(up: &Running) {
    crate::support::process::eventually("/live answers", async || {
        matches!(get(up.listen, "/live").await, Some((200, _))).then_some(())
    })
    .await;
}

/// What is said until the connection ends, which must be within 30 s.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end, too.
    let _ = timeout(Duration::from_secs(30), stream.read_to_end(&mut text))
        .await
        .expect("the connection is ended by the server");
    String::from_utf8_lossy(&text).into_owned()
}

fn descriptors(up: &Running) -> usize {
    let path = format!("/proc/{}/fd", up.pid().as_raw_nonzero());
    std::fs::read_dir(path).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_bodies_are_capped_and_slow_clients_are_cut() {
    let up = waiting().await;
    // A head of a megabyte: refused, or cut while it is being sent.
    let mut large = TcpStream::connect(up.listen).await.unwrap();
    let head = format!(
        "GET /live HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(1 << 20)
    );
    let _ = large.write_all(head.as_bytes()).await;
    let said = rest(&mut large).await;
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 431"),
        "{said}"
    );
    let mut many = TcpStream::connect(up.listen).await.unwrap();
    let _ = many
        .write_all(format!("GET /live HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1_000)).as_bytes())
        .await;
    let said = rest(&mut many).await;
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 431"),
        "{said}"
    );
    // A body without end is not read.
    let mut body = TcpStream::connect(up.listen).await.unwrap();
    let head = b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n";
    body.write_all(head).await.unwrap();
    let said = rest(&mut body).await;
    assert!(said.starts_with("HTTP/1.1 405"), "{said}");
    // One byte, and no more: ended by the server. So is one that says nothing at all.
    let mut slow = TcpStream::connect(up.listen).await.unwrap();
    slow.write_all(b"G").await.unwrap();
    let mut silent = TcpStream::connect(up.listen).await.unwrap();
    let (slow, silent) = tokio::join!(rest(&mut slow), rest(&mut silent));
    assert!(
        !slow.contains(" 200 ") && !silent.contains(" 200 "),
        "{slow}{silent}"
    );
    // One request a connection: what is piped behind it is not answered.
    let mut piped = TcpStream::connect(up.listen).await.unwrap();
    let request = "GET /live HTTP/1.1\r\nhost: x\r\n\r\n".repeat(3);
    piped.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(rest(&mut piped).await.matches("HTTP/1.1 200").count(), 1);
    for path in [
        "/",
        "/../etc/passwd",
        "/live/",
        "/%00",
        "/metrics?x=%3Cscript%3E",
    ] {
        let (status, _) = get(up.listen, path).await.expect(path);
        assert_eq!(
            status,
            if path.starts_with("/metrics") {
                200
            } else {
                404
            },
            "{path}"
        );
    }
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_idle_connections_keeps_nobody_out() {
    let up = waiting().await;
    let before = descriptors(&up);
    let mut crowd = Vec::new();
    for _ in 0..2_000 {
        let mut stream = TcpStream::connect(up.listen).await.unwrap();
        // Not all that connect are still there.
        let _ = stream.write_all(b"GET /live HT").await;
        crowd.push(stream);
        if crowd.len() % 200 == 0 {
            live(&up).await;
            let held = descriptors(&up);
            assert!(held <= before + 160, "{held} descriptors, {before} before");
        }
    }
    live(&up).await;
    drop(crowd);
    up.stop().await;
}
