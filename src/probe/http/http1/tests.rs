use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream as Blocking};
use std::thread;

use ::http::Request as HttpRequest;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::domain::{Failure, Reason};
use crate::net::meter::MeteredIo;

/// What came of a request.
#[derive(PartialEq, Debug)]
enum Outcome {
    NoAnswer(Reason),
    Answer {
        status: u16,
        /// What there was of it, where it was cut off.
        body: Result<Vec<u8>, ()>,
    },
}

fn here<T>(future: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(future))
}

/// A server for one connection.
fn server(serve: impl FnOnce(Blocking) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || serve(listener.accept().unwrap().0));
    address
}

/// One that answers with these bytes, closes, and waits for the client to do so.
fn answering(bytes: Vec<u8>) -> SocketAddr {
    server(move |mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

/// Reads the head of a request; whether there was one.
fn read_request(stream: &mut Blocking) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

async fn connect(address: SocketAddr) -> Http1 {
    let stream = TcpStream::connect(address).await.unwrap();
    Http1::new(Transport::plain(MeteredIo::new(stream, Meter::new())))
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

async fn ask(http1: &mut Http1, room: &Room) -> Result<Head, Reason> {
    let asked = http1.ask(REQUEST.to_vec(), false, room).await;
    asked.map_err(|stop| stop.reason)
}

async fn body(http1: &mut Http1, room: &Room) -> Result<(Vec<u8>, bool), Reason> {
    let mut body = Vec::new();
    let read = http1.read_body(room, |piece| {
        body.extend_from_slice(piece);
        Ok(Appetite::More)
    });
    let to_the_end = read.await.map_err(|stop| stop.reason)?;
    Ok((body, to_the_end))
}

async fn by_us(address: SocketAddr) -> Outcome {
    let (mut http1, room) = (connect(address).await, Room::default());
    match ask(&mut http1, &room).await {
        Err(reason) => Outcome::NoAnswer(reason),
        Ok(head) => Outcome::Answer {
            status: head.status.as_u16(),
            body: body(&mut http1, &room)
                .await
                .map(|(body, _)| body)
                .map_err(|_| ()),
        },
    }
}

async fn by_hyper(address: SocketAddr) -> Outcome {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let handshake = hyper::client::conn::http1::Builder::new()
        .max_header_size(HEAD_BYTES_MAX)
        .handshake(stream);
    let (mut sender, connection) = handshake.await.unwrap();
    let driver = spawn_local(connection);
    let request = HttpRequest::get("/").header("host", "x");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let outcome = match sender.send_request(request).await {
        Err(error) => Outcome::NoAnswer(Reason::Failed(if error.is_incomplete_message() {
            Failure::ProcessingClosed
        } else {
            Failure::ProcessingProtocol
        })),
        Ok(response) => Outcome::Answer {
            status: response.status().as_u16(),
            body: match response.into_body().collect().await {
                Ok(body) => Ok(body.to_bytes().to_vec()),
                Err(_) => Err(()),
            },
        },
    };
    driver.abort();
    outcome
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        (0_usize..12).prop_map(|n| format!("Content-Length: {n}")),
        Just("content-length: 4, 4".to_owned()),
        Just("content-length: 4x".to_owned()),
        Just("Transfer-Encoding: chunked".to_owned()),
        Just("transfer-encoding: gzip, chunked".to_owned()),
        Just("transfer-encoding: chunked, gzip".to_owned()),
        Just("connection: close".to_owned()),
        Just("connection: keep-alive".to_owned()),
        Just("x-filler:".to_owned()),
        Just("bad name: x".to_owned()),
        Just(" folded: x".to_owned()),
    ]
}

fn answer() -> impl Strategy<Value = Vec<u8>> {
    let one_of = |often: &'static str, others: &'static [&'static str]| {
        let others = proptest::sample::select(others);
        prop_oneof![6 => Just(often), 4 => others]
    };
    let status = one_of(
        "200 OK",
        &[
            "204 No Content",
            "304 Not Modified",
            "404",
            "301 ",
            "500 Oh no",
            "99 Low",
            "1000 High",
        ],
    );
    let version = one_of("HTTP/1.1", &["HTTP/1.0", "HTTP/2.0", "ICY"]);
    let interim = one_of(
        "",
        &[
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 103 Hints\r\nlink: </x>\r\n\r\n",
        ],
    );
    let ends = one_of("\r\n", &["\n"]);
    let body = prop_oneof![
        "[a-z]{0,12}",
        Just("4\r\nbody\r\n0\r\n\r\n".to_owned()),
        Just("2;x=y\r\nbo\r\n2 \r\ndy\r\n0\r\nt: x\r\n\r\nmore".to_owned()),
        Just("4\r\nbody\r\nx\r\n\r\n".to_owned()),
    ];
    let fields = proptest::collection::vec(field(), 0..4);
    let whole = (interim, version, status, fields, ends, body).prop_map(
        |(interim, version, status, fields, end, body)| {
            let head: String = fields.iter().map(|field| format!("{field}{end}")).collect();
            format!("{interim}{version} {status}{end}{head}{end}{body}").into_bytes()
        },
    );
    let spoilt = (
        whole,
        0_usize..8,
        any::<proptest::sample::Index>(),
        // Above ASCII hyper gives up reading a field's value, and goes on.
        0_u8..128,
    );
    spoilt.prop_map(|(mut bytes, how, at, byte)| {
        let at = at.index(bytes.len());
        match how {
            0 => bytes.truncate(at),
            1 => bytes[at] = byte,
            _ => {}
        }
        bytes
    })
}

proptest! {
    // The same answers each time. Of 40 000 others one meant something else: hyper refuses a trailer that is no list of
    // fields, which is ignored here, as curl does.
    #![proptest_config(ProptestConfig {
        cases: 1_500,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// A parser of HTTP is easily wrong; that both are wrong in the same way is less likely.
    #[test]
    fn answers_mean_what_hyper_takes_them_for(bytes in answer()) {
        let ours = here(by_us(answering(bytes.clone())));
        let hypers = here(by_hyper(answering(bytes.clone())));
        prop_assert_eq!(ours, hypers, "{:?}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn a_connection_is_idle_until_the_server_says_otherwise() {
    here(async {
        let room = Room::default();
        let (go, gone) = std::sync::mpsc::channel();
        let address = server(move |mut stream| {
            for answer in [
                &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..],
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            ] {
                read_request(&mut stream);
                stream.write_all(answer).unwrap();
            }
            gone.recv().unwrap();
        });
        let mut http1 = connect(address).await;
        for _ in 0..2 {
            assert!(http1.is_idle());
            ask(&mut http1, &room).await.unwrap();
            assert_eq!(body(&mut http1, &room).await, Ok((b"ok".to_vec(), true)));
        }
        assert!(http1.is_idle());
        // The server closes: that is noticed as soon as the runtime has been told.
        go.send(()).unwrap();
        while http1.is_idle() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_connection_is_not_used_again_after_what_cannot_be_trusted() {
    for (answer, why) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokay"[..], "more than the body"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", "announced"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", "not promised"),
        (b"HTTP/1.1 200 OK\r\n\r\nok", "ends with the connection"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "two lengths"),
    ] {
        here(async {
            let (mut http1, room) = (connect(answering(answer.to_vec())).await, Room::default());
            ask(&mut http1, &room).await.unwrap();
            assert_eq!(body(&mut http1, &room).await.unwrap().0, b"ok", "{why}");
            assert!(!http1.is_idle(), "{why}");
        });
    }
}

#[test]
fn who_has_enough_leaves_the_rest() {
    here(async {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
        let mut answer = answer.to_vec();
        answer.resize(answer.len() + 100_000, b'x');
        let (mut http1, room) = (connect(answering(answer)).await, Room::default());
        ask(&mut http1, &room).await.unwrap();
        let mut seen = 0;
        let read = http1.read_body(&room, |piece| {
            seen += piece.len();
            Ok(if seen < 10_000 {
                Appetite::More
            } else {
                Appetite::Enough
            })
        });
        assert!(!read.await.unwrap());
        assert!((10_000..100_000).contains(&seen), "{seen}");
        assert!(!http1.is_idle());
    });
}

#[test]
fn an_answer_may_come_before_the_request_was_taken() {
    here(async {
        // More than the buffers of both sides hold, of which the server reads nothing.
        let mut request =
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 64000000\r\n\r\n".to_vec();
        request.resize(64_000_000, b'x');
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let address = server(move |mut stream| {
            stream
                .write_all(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno")
                .unwrap();
            let _ = gone.recv();
        });
        let (mut http1, room) = (connect(address).await, Room::default());
        let head = http1.ask(request, false, &room).await.unwrap();
        assert_eq!(head.status.as_u16(), 413);
        assert_eq!(body(&mut http1, &room).await, Ok((b"no".to_vec(), true)));
        assert!(!http1.is_idle(), "the rest of the request was not sent");
        drop(go);
    });
}

#[test]
fn a_head_may_come_byte_by_byte_but_must_end() {
    here(async {
        let address = server(|mut stream| {
            read_request(&mut stream);
            stream.set_nodelay(true).unwrap();
            for byte in b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" {
                stream.write_all(&[*byte]).unwrap();
            }
        });
        assert_eq!(
            by_us(address).await,
            Outcome::Answer {
                status: 200,
                body: Ok(b"ok".to_vec())
            }
        );
        for (begin, piece) in [
            (&b"HTTP/1.1 200 OK\r\nx: "[..], &b"aaaaaaaa"[..]),
            (b"HTTP/1.1 ", b"\n"),
            (b"", b"\r\n"),
        ] {
            let address = server(move |mut stream| {
                read_request(&mut stream);
                let _ = stream.write_all(begin);
                let pieces = piece.repeat(10_000);
                while stream.write_all(&pieces).is_ok() {}
            });
            let refused = Outcome::NoAnswer(Reason::Failed(Failure::ProcessingProtocol));
            assert_eq!(by_us(address).await, refused, "{begin:?} {piece:?}");
        }
    });
}
