//! HTTP/2, with prior knowledge in the clear and by ALPN.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use watcher::target::Target;

use super::tls;
use crate::support::target::target;

type Sender = http2::SendRequest<Empty<Bytes>>;

async fn in_the_clear(target: &Target) -> Sender {
    let stream = TcpStream::connect(target.addr()).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    sender
}

async fn get(sender: &mut Sender, path: &str) -> hyper::Result<Response<Incoming>> {
    let request = Request::get(format!("http://t{path}"));
    sender
        .send_request(request.body(Empty::new()).unwrap())
        .await
}

async fn text(response: Response<Incoming>) -> hyper::Result<String> {
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn prior_knowledge_is_understood() {
    let target = target();
    let mut sender = in_the_clear(&target).await;
    let started = Instant::now();
    let response = get(
        &mut sender,
        "/a?status=503&latency=30ms&size=200000&header=x-a:b",
    )
    .await
    .unwrap();
    assert!(started.elapsed() >= Duration::from_millis(30));
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["x-a"], "b");
    assert!(response.headers().contains_key("server-timing"));
    assert_eq!(text(response).await.unwrap().len(), 200_000);
    // The connection goes on.
    let echo = text(get(&mut sender, "/?echo=1").await.unwrap())
        .await
        .unwrap();
    assert!(echo.contains("HTTP/2.0"), "{echo}");
    assert_eq!(target.requests()[0].version, http::Version::HTTP_2);
    assert_eq!(target.count("/a?"), 1);
}

#[tokio::test]
async fn alpn_chooses_it() {
    let target = target();
    let stream = tls::connect_async(&target, "good.test", &[b"h2"])
        .await
        .unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let response = get(&mut sender, "/?body=x").await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(text(response).await.unwrap(), "x");
    assert_eq!(target.requests()[0].sni.as_deref(), Some("good.test"));
}

#[tokio::test]
async fn a_reset_ends_one_stream_a_goaway_all() {
    let target = target();
    let mut sender = in_the_clear(&target).await;
    let error = get(&mut sender, "/?h2=reset").await.unwrap_err();
    assert!(format!("{error:?}").contains("Reset(StreamId"), "{error:?}");
    assert_eq!(get(&mut sender, "/").await.unwrap().status(), 200);
    let error = get(&mut sender, "/?h2=goaway").await.unwrap_err();
    assert!(format!("{error:?}").contains("GoAway("), "{error:?}");
    assert!(get(&mut sender, "/").await.is_err());
}

#[tokio::test]
async fn connections_end_as_the_script_says() {
    let target = target();
    for path in ["/?reset=accept", "/?close=head", "/?garbage=1"] {
        let error = get(&mut in_the_clear(&target).await, path).await;
        assert!(error.is_err(), "{path}");
    }
    for path in ["/?reset=body&size=10k", "/?close=body", "/?lie=length"] {
        let response = get(&mut in_the_clear(&target).await, path).await.unwrap();
        assert!(text(response).await.is_err(), "{path}");
    }
    let mut sender = in_the_clear(&target).await;
    let hanging = get(&mut sender, "/?hang=accept");
    assert!(
        tokio::time::timeout(Duration::from_millis(100), hanging)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn bodies_may_be_slow_and_endless() {
    let target = target();
    let mut sender = in_the_clear(&target).await;
    let started = Instant::now();
    let slow = get(&mut sender, "/?size=6&drip=1b/20ms").await.unwrap();
    assert_eq!(text(slow).await.unwrap().len(), 6);
    assert!(started.elapsed() >= Duration::from_millis(100));

    let mut endless = get(&mut sender, "/?endless=1").await.unwrap().into_body();
    let mut read = 0;
    while read < 4 << 20 {
        let frame = endless.frame().await.unwrap().unwrap();
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

#[tokio::test]
async fn keys_of_the_other_version_are_refused() {
    let target = target();
    let response = get(&mut in_the_clear(&target).await, "/?slow_head=1ms")
        .await
        .unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(
        text(response).await.unwrap(),
        "`slow_head` works over HTTP/1 only\n"
    );
    assert!(super::get(&target, "/?h2=goaway").contains("works over HTTP/2 only"));
}
